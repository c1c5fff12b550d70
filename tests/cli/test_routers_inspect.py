"""`gatewise routers inspect` and `bench`: what they write, and how they refuse."""

import json
import os
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")

from examples import tiny_mixture

from tests.nn.hf.planted import plant_collapse
from tests.nn.hf.tiny_models import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_mixture.write(str(folder))
    return folder


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """A model without a tokenizer, one of whose routers has collapsed."""
    folder = tmp_path_factory.mktemp("models") / "sick"
    model = tiny_model("deepseek_v3", bias=0.0)
    plant_collapse(model, "model.layers.2.mlp.gate", (2, 5))
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path):
    for name, line in (("code.txt", "def f(x): return x + 1\n"), ("prose.txt", "It was a bright cold day in April.\n")):
        (tmp_path / name).write_text("".join(f"{place} {line}" for place in range(60)), encoding="utf-8")
    return tmp_path / "code.txt", tmp_path / "prose.txt"


def test_texts_by_domain(run, folder, texts, tmp_path):
    code, prose = texts
    out = tmp_path / "out"
    done = run("routers", "inspect", folder, "--text", code, "--text", prose, "--by-domain", "--out", out)
    assert done.code == 0, done.err
    assert "load entropy" in done.out
    assert sorted(path.name for path in out.iterdir()) == [
        "gatewise-manifest.json",
        "metrics.json",
        "routing.html",
        "summary.csv",
    ]
    summary = pd.read_csv(out / "summary.csv", index_col="layer")
    n_bytes = [len(path.read_bytes()) for path in texts]
    assert summary["tokens"].tolist() == [sum(n_bytes)] * 2
    facts = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    table = facts["domains"]["model.layers.0.mlp.gate"]
    assert {name: sum(row) for name, row in table.items()} == {"code": 2 * n_bytes[0], "prose": 2 * n_bytes[1]}
    assert facts["loads"]["model.layers.0.mlp.gate"] == [sum(pair) for pair in zip(*table.values(), strict=True)]
    page = (out / "routing.html").read_text(encoding="utf-8")
    assert "Routing of tiny" in page


def test_tokens_of_a_model_without_tokenizer(run, sick, tmp_path):
    ids = torch.randint(3, 128, (6, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :10] = 0
    save_file({"input_ids": ids, "attention_mask": mask}, tmp_path / "ids.safetensors")
    (tmp_path / "ids.json").write_text(json.dumps([row.tolist() for row in ids[1:]]), encoding="utf-8")
    done = run(
        "routers", "inspect", sick, "--tokens", tmp_path / "ids.safetensors", "--tokens", tmp_path / "ids.json",
        "--out", tmp_path / "out", "--length", 16, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert sum(facts["loads"]["model.layers.1.mlp.gate"]) == 2 * (6 * 40 - 10 + 5 * 40)
    (finding,) = facts["findings"]
    assert (finding["kind"], finding["layer"], finding["experts"]) == ("collapse", "model.layers.2.mlp.gate", [2, 5])


def test_what_to_do_is_said_once(run, folder, tmp_path):
    (tmp_path / "few.json").write_text("[5, 6, 7, 8]", encoding="utf-8")
    done = run("routers", "inspect", folder, "--tokens", tmp_path / "few.json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.out.count("saw 4 tokens") == 2
    assert done.out.count("what to do: watch 100 tokens or more") == 1


def changed(folder, target, **changes):
    """A copy of a model's folder with another configuration."""
    shutil.copytree(folder, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}), encoding="utf-8")
    return target


def test_models_that_are_refused(refused, folder, texts, tmp_path):
    code, _ = texts
    out = tmp_path / "out"

    def inspect(model):
        sentence = refused("routers", "inspect", model, "--text", code, "--out", out)
        assert not out.exists()
        return sentence

    assert "there is no model folder" in inspect(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in inspect(tmp_path / "empty")
    remote = changed(folder, tmp_path / "remote", auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    (remote / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    assert "code of its own (auto_map), which is never run" in inspect(remote)
    path = changed(folder, tmp_path / "tokenizer") / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "auto_map": {"AutoTokenizer": ["t.E", None]}}))
    assert "tokenizer_config.json asks for code of its own" in inspect(tmp_path / "tokenizer")
    assert not (tmp_path / "ran").exists()
    cut = changed(folder, tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    assert "cannot load the model" in inspect(tmp_path / "cut")
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 256, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path / "dense")
    assert "there is no router in this LlamaForCausalLM" in inspect(tmp_path / "dense")
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2}
    config = Llama4TextConfig(**sizes, **heads, intermediate_size_mlp=16)
    Llama4ForCausalLM(config).save_pretrained(tmp_path / "llama4")
    assert "a Llama4Router, cannot be read: it gives a pair of dense scores" in inspect(tmp_path / "llama4")


def test_texts_and_tokens_that_are_refused(refused, folder, sick, texts, tmp_path):
    out = tmp_path / "out"

    def inspect(option, name, content, model=folder):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        sentence = refused("routers", "inspect", model, option, path, "--out", out)
        assert not out.exists()
        return sentence

    assert "empty.txt is empty" in inspect("--text", "empty.txt", b"")
    assert "blank.txt is empty" in inspect("--text", "blank.txt", b" \n \n")
    assert "is no text in UTF-8: byte 0 is 0x89" in inspect("--text", "a.png", b"\x89PNG\r\n")
    assert "holds the character NUL" in inspect("--text", "b.bin", b"abc\0def")
    assert "no such file or directory" in inspect("--text", "nowhere.txt", None)
    assert "has no tokenizer, so that a text cannot be read: give token ids (--tokens FILE" in inspect(
        "--text", "c.txt", b"abc", sick
    )
    assert "there is no such file" in inspect("--tokens", "nowhere.safetensors", None)
    assert "cannot read" in inspect("--tokens", "cut.safetensors", b"\x10\0\0\0\0\0\0\0{}")
    save_file({"ids": torch.ones(3)}, tmp_path / "named.safetensors")
    assert "whole numbers named 'input_ids'" in inspect("--tokens", "named.safetensors", None)
    assert "is no JSON" in inspect("--tokens", "a.json", b"[1, 2")
    assert "a list of token ids" in inspect("--tokens", "b.json", b'[[1, "2"]]')
    assert "a list of token ids" in inspect("--tokens", "c.json", b'{"a": 1}')
    assert "is empty" in inspect("--tokens", "d.json", b"[[]]")
    assert "a negative token id" in inspect("--tokens", "e.json", b"[-1]")
    assert "f.json holds the token id 4000, and the model knows 256" in inspect("--tokens", "f.json", b"[1, 4000]")


def test_options_that_are_refused(refused, folder, texts, tmp_path):
    code, _ = texts
    out = tmp_path / "out"
    assert "give --text or --tokens" in refused("routers", "inspect", folder, "--out", out)
    assert "--by-domain compares files" in refused(
        "routers", "inspect", folder, "--text", code, "--by-domain", "--out", out
    )
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "it exists" in refused("routers", "inspect", folder, "--text", code, "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert "does not exist" in refused("routers", "inspect", folder, "--text", code, "--out", tmp_path / "a" / "b")


def test_bench(run, refused):
    sizes = ("--d", 16, "--experts", 8, "--tokens", 64, "--rounds", 1)
    done = run("routers", "bench", *sizes)
    assert done.code == 0, done.err
    assert "laplace" in done.out
    done = run(
        "routers", "bench", *sizes, "--gate", "softmax", "--gate", "quadratic", "--d", 100, "--backward", "--json"
    )
    found = json.loads(done.out)
    assert list(found["rows"]) == ["Linear, softmax, topk", "softmax"]
    assert "d = 64" in found["left_out"]["quadratic"]
    assert "did you mean 'softmax'" in refused("routers", "bench", "--gate", "sofmax")
    assert "--top-k is 9" in refused("routers", "bench", *sizes, "--top-k", 9)
    assert "too large" in refused("routers", "bench", "--tokens", 10**9)


def test_files_of_one_name_are_not_one_domain(run, sick, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ids.json").write_text("[3, 4, 5]", encoding="utf-8")
    asked = ("--tokens", tmp_path / "one" / "ids.json", "--tokens", tmp_path / "two" / "ids.json")
    done = run("routers", "inspect", sick, *asked, "--by-domain", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert "two files are named 'ids', and would be one domain" in done.err
    assert not (tmp_path / "out").exists()
    # Without domains the names say nothing.
    assert run("routers", "inspect", sick, *asked, "--out", tmp_path / "out").code == 0


def test_every_file_is_a_domain_of_its_own_whatever_its_name(run, sick, tmp_path):
    names = [f"{place}" for place in range(70)] + ["<b>&", "a\nb", os.fsdecode(b"gr\xff")]
    asked = []
    for name in names:
        (tmp_path / f"{name}.json").write_text("[3, 4, 5]", encoding="utf-8")
        asked += ["--tokens", tmp_path / f"{name}.json"]
    done = run("routers", "inspect", sick, *asked, "--by-domain", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    table = facts["domains"]["model.layers.1.mlp.gate"]
    assert {name: sum(row) for name, row in table.items()} == dict.fromkeys([*names[:-1], "gr\\xff"], 6)
    assert "<b>&" not in (tmp_path / "out" / "routing.html").read_text(encoding="utf-8")


def test_a_mark_of_byte_order_is_no_token(run, folder, texts, tmp_path):
    code, _ = texts
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + code.read_bytes())
    found = []
    for name, path in (("plain", code), ("marked", tmp_path / "marked.txt")):
        assert run("routers", "inspect", folder, "--text", path, "--out", tmp_path / name).code == 0
        found.append((tmp_path / name / "summary.csv").read_bytes())
    assert found[0] == found[1]
