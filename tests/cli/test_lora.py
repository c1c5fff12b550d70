"""`gatewise lora gates`, `evaluate` and `generate`."""

import csv
import json
import sys

import pytest

from gatewise.cli import main
from tests.lora.texts import write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A base, two adapters with trained gates, and documents."""
    folder = write_project(tmp_path_factory.mktemp("project"))
    for name in ("low", "high"):
        options = ["--data", str(folder / f"{name}.jsonl"), "--steps", "20", "--batch", "3", "--rate", "0.3"]
        assert main(["lora", "gates", str(folder / "base"), str(folder / "adapters" / name), *options]) == 0
    return folder


def adapters(project):
    return [part for name in ("low", "high") for part in ("--adapters", str(project / "adapters" / name))]


def test_gates_are_written_beside_the_adapter(project, capsys, refused):
    options = ["--data", project / "low.jsonl", "--steps", "2"]
    command = ["gates", project / "base", project / "adapters" / "low", *options]
    assert "it exists; choose another name or allow overwriting (--overwrite)" in refused("lora", *command)
    before = (project / "adapters" / "low" / "gatewise_gates.safetensors").read_bytes()
    again = [*command[:-1], "20", "--batch", "3", "--rate", "0.3", "--overwrite"]
    assert main(["lora", *map(str, again)]) == 0
    captured = capsys.readouterr()
    assert "4 of 4 gates have moved" in captured.out
    assert captured.out.endswith("gatewise_gates.safetensors\n")
    assert (project / "adapters" / "low" / "gatewise_gates.safetensors").read_bytes() == before


def test_an_evaluation_is_a_table_with_pages(project, tmp_path, capsys):
    out = tmp_path / "evaluation"
    options = ["--data", str(project / "both.jsonl"), "--batch", "4", "--out", str(out)]
    command = ["lora", "evaluate", str(project / "base"), *adapters(project), *options]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "evaluating phatgoose" in captured.err
    with (out / "routers.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["router"] for row in rows]
    assert names[:3] == ["phatgoose", "phatgoose:sequence", "average_activation"]
    assert names[-2:] == ["single:low", "single:high"]
    assert all(float(row["low"]) < float(row["high"]) for row in rows[1:])
    record = json.loads((out / "evaluation.json").read_text())
    assert record["reference"] == "phatgoose"
    assert len(record["tokens"]) == 12
    assert "coloured by adapter" in (out / "text.html").read_text()
    assert "Routers among LoRA adapters" in (out / "evaluation.html").read_text()
    assert (out / "domains.csv").is_file()
    assert main(command) == 2
    assert "it exists" in capsys.readouterr().err
    few = [*command, "--routers", "uniform, merged_product, oracle", "--routers", "phatgoose:shared", "--overwrite"]
    assert main(few) == 0
    capsys.readouterr()
    with (out / "routers.csv").open() as file:
        found = {row["router"]: float(row["perplexity"]) for row in csv.DictReader(file)}
    assert list(found) == ["uniform", "merged_product", "oracle", "phatgoose:shared"]
    assert found["merged_product"] == pytest.approx(found["uniform"], rel=1e-6)


def test_text_is_generated(project, tmp_path, capsys):
    page = tmp_path / "text.html"
    options = ["--prompt", "w1 w2", "--tokens", "4", "--page", str(page)]
    assert main(["lora", "generate", str(project / "base"), *adapters(project), *options]) == 0
    captured = capsys.readouterr()
    text, shown = captured.out.splitlines()
    assert shown == str(page)
    assert "w1" in page.read_text()
    assert (
        main(["lora", "generate", str(project / "base"), *adapters(project), *options[:4], "--router", "single:low"])
        == 0
    )
    assert captured.err == ""
    assert isinstance(text, str)


def test_what_is_refused(project, tmp_path, refused):
    base, low = project / "base", project / "adapters" / "low"
    data = ["--data", project / "both.jsonl"]
    (tmp_path / "bad.jsonl").write_text('{"text": "w1"}\n{"text": \n')
    out = ["--out", tmp_path / "out"]
    for arguments, message in [
        (["gates", base, tmp_path, *data], "there is no adapter in"),
        (["gates", tmp_path, low, *data, "--overwrite"], "cannot be loaded"),
        (["gates", base, low, "--data", tmp_path / "bad.jsonl", "--overwrite"], "line 2 of"),
        (["evaluate", base, "--adapters", low, *data, *out, "--routers", "arow"], "did you mean 'arrow'"),
        (["evaluate", base, "--adapters", low, *data, *out, "--routers", "arrow:row"], "is no router"),
        (["evaluate", base, "--adapters", low, *data, *out, "--routers", "single:x"], "no adapter 'x'"),
        (["evaluate", base, "--adapters", low, "--adapters", low, *data, *out], "would be called 'low'"),
        (["generate", base, "--adapters", low, "--prompt", "w1", "--router", "retrieval"], "pass a gatewise.lora"),
        (["generate", base, "--adapters", low, "--prompt", "w1", "--page", tmp_path / "no" / "x"], "does not exist"),
        (["generate", base, "--adapters", low, "--prompt", "w1", "--top-k", "1", "--temperature", "0"], "temperature"),
    ]:
        assert message in refused("lora", *arguments)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl"]


def test_without_the_extra(project, refused, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gatewise.lora")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    command = ["generate", project / "base", "--adapters", project / "adapters" / "low", "--prompt", "w1"]
    assert "pip install 'gatewise[lora]'" in refused("lora", *command)
