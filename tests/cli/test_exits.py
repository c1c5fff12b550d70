"""`gatewise exits`: a small network trained and evaluated, its page opened, and what is refused."""

import json

import pytest

SMALL = """
lam = [0.05, 0.3]

[data]
kind = "digits"
most = 700

[backbone]
widths = [4, 8, 8]
epochs = 4

[training]
joint = false
warmup_epochs = 3

[policy]
name = "max_prob"
budget = 0.7
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "exits.toml"
    path.write_text(SMALL)
    return path


def test_a_network_is_trained_and_evaluated(run, refused, config, tmp_path):
    out = tmp_path / "out"
    trained = run("exits", "train", config, "--out", out)
    assert (trained.code, trained.err) == (0, "")
    assert "policy max_prob: " in trained.out
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        "design.json",
        "backbone.safetensors",
        "exits/config.json",
        "exits/exits.safetensors",
        "gatewise-manifest.json",
    }
    page = tmp_path / "page.html"
    evaluated = run("exits", "evaluate", out, "--report", page)
    assert (evaluated.code, evaluated.err) == (0, "")
    assert "175 test samples" in evaluated.out
    assert "optimal_stopping" in evaluated.out
    assert "decisions within 1e-6 of their threshold" in evaluated.out
    assert "Where a network may answer early" in page.read_text(encoding="utf-8")
    plain = run("exits", "evaluate", out, "--json", "--no-calibrate")
    found = json.loads(plain.out)
    assert (found["n"], found["calibrate"], len(found["exits"])) == (175, False, 3)
    assert {row["strategy"] for row in found["conformal"]} == {"pooled", "strict", "per_exit"}
    assert "it exists" in refused("exits", "evaluate", out, "--report", page)
    assert "it exists" in refused("exits", "train", config, "--out", out)

    weights = out / "backbone.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0\1")
    assert "is of another backbone" in refused("exits", "evaluate", out)
    weights.write_bytes(b"none")
    assert "does not fit" in refused("exits", "evaluate", out)
    (out / "design.json").write_text("{")
    assert "is not JSON" in refused("exits", "evaluate", out)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "digits"', 'kind = "mnist"', "data.kind"),
        ('kind = "digits"', 'kind = "idx"', "idx needs the folder of the files"),
        ('kind = "digits"', 'kind = "digits"\nfolder = "x"', "digits need no folder"),
        ('kind = "digits"\n', 'kind = "idx"\nfolder = "nowhere"\n', "nowhere has no train-images-idx3-ubyte"),
        ("widths = [4, 8, 8]", "widths = [4, 8, 8]\nexits = [9]", "exit 9 is not there"),
        ("joint = false", "jointly = false", "there is no option 'jointly' of training"),
        ('name = "max_prob"', 'name = "maxprob"', "did you mean 'max_prob'"),
        ("budget = 0.7", "budget = 7.0", "a share of the network's cost"),
        ("lam = [0.05, 0.3]", "lam = []", "lam"),
        ("most = 700", "mots = 700", "mots"),
        ("lam = [", "lam = (", "exits.toml"),
    ],
)
def test_designs_that_cannot_be_run(refused, config, tmp_path, old, new, said):
    assert old in SMALL
    text = SMALL.replace(old, new).replace("epochs = 4", "epochs = 1")
    config.write_text(text)
    assert said in refused("exits", "train", config, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_there(refused, tmp_path):
    assert "cannot be read: no such file" in refused("exits", "train", tmp_path / "none.toml", "--out", tmp_path / "o")
    assert "design.json is missing" in refused("exits", "evaluate", tmp_path)
