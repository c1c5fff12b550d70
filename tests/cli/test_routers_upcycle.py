"""`gatewise routers upcycle`: what it writes, and how it refuses."""

import json

import pytest
import torch

pytest.importorskip("transformers")

from examples import tiny_mixture
from transformers import LlamaConfig, LlamaForCausalLM

from gatewise.nn.hf import load_model, load_upcycled
from tests.nn.hf.tiny_models import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dense model of three layers with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("models") / "dense"
    sizes = {"vocab_size": 256, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    tiny_mixture.tokenizer().save_pretrained(folder)
    return folder


def logits(model):
    with torch.no_grad():
        return model(torch.arange(20).reshape(2, 10)).logits


def test_a_model_becomes_sparse_and_can_be_inspected(run, folder, tmp_path):
    out = tmp_path / "sparse"
    done = run("routers", "upcycle", folder, "--experts", 4, "--layers", "every second", "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith("model.layers.1.mlp: 4 experts\nthe output is the same\nparameters: ")
    assert {"config.json", "model.upcycled.safetensors", "tokenizer.json", "upcycled.json"} <= {
        path.name for path in out.iterdir()
    }
    torch.testing.assert_close(logits(load_upcycled(out)), logits(load_model(folder)), rtol=0, atol=1e-6)
    (tmp_path / "a.txt").write_text("It was a bright cold day in April. " * 20, encoding="utf-8")
    seen = run("routers", "inspect", out, "--text", tmp_path / "a.txt", "--out", tmp_path / "page", "--json")
    assert seen.code == 0, seen.err
    assert list(json.loads(seen.out)["loads"]) == ["model.layers.1.mlp.router"]


def test_options(run, folder, tmp_path):
    command = ["routers", "upcycle", folder, "--experts", 4, "--router", "cosine", "--router-option", "temperature=0.5"]
    command += ["--layers", "0,model.layers.2.*", "--top-k", 3, "--noise", 0.1, "--correction-bias", "--json", "--out"]
    facts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = run(*command, tmp_path / name, "--seed", seed)
        assert done.code == 0, done.err
        facts.append(json.loads(done.out))
    assert facts[0]["layers"] == ["model.layers.0.mlp", "model.layers.2.mlp"]
    assert facts[0]["exact"] is False
    # Two layers of three more experts of 3 · 16 · 24 numbers, and gates.
    assert facts[0]["parameters"][1] - facts[0]["parameters"][0] >= 2 * 3 * 3 * 16 * 24
    models = [load_upcycled(tmp_path / name) for name in "abc"]
    router = models[0].model.layers[0].mlp.router
    assert (router.gate.name, router.selection.top_k, router.correction_bias is not None) == ("cosine", 3, True)
    assert torch.equal(logits(models[0]), logits(models[1]))
    assert not torch.equal(logits(models[0]), logits(models[2]))
    assert run(*command, tmp_path / "a", "--overwrite").code == 0


def test_one_expert_of_each_token_is_warned_of(run, folder, tmp_path):
    done = run("routers", "upcycle", folder, "--top-k", 1, "--layers", "0", "--out", tmp_path / "sparse")
    assert done.code == 0, done.err
    assert "warning: 'model.layers.0.mlp' has K = 1" in done.err
    kept = run(
        "routers", "upcycle", folder, "--router", "top_k", "--router-option", "n_active=3", "--out", tmp_path / "k"
    )
    assert kept.code == 0, kept.err
    assert load_upcycled(tmp_path / "k").model.layers[0].mlp.router.selection.top_k == 3


def test_what_is_refused(run, refused, folder, tmp_path):
    out = tmp_path / "out"
    seed = run("routers", "upcycle", folder, "--out", out, "--seed", 10**30)
    assert (seed.code, seed.out) == (2, "")
    assert "Invalid value for '--seed': Input should be less than" in seed.err

    def sentence(*options, model=folder):
        found = refused("routers", "upcycle", model, "--out", out, *options)
        assert not out.exists()
        return found

    assert "there is no model folder" in sentence(model=tmp_path / "nowhere")
    assert "1,000,000,000 experts in 3 layers take" in sentence("--experts", 10**9)
    assert "n_experts must be a whole number from 2 on" in sentence("--experts", 1)
    assert "did you mean 'softmax'" in sentence("--router", "sofmax")
    assert "in the layer 7" in sentence("--layers", "7")
    assert "is no slice" in sentence("--layers", "1:a")
    assert "must be written as 4,8,12" in sentence("--layers", "1,,2")
    assert "leaves no layer" in sentence("--layers", "9:")
    assert "top_k is 9" in sentence("--top-k", 9)
    assert "noise must be a number" in sentence("--noise", "nan")
    assert "must be written as NAME=VALUE" in sentence("--router-option", "x")
    tiny_model("mixtral").save_pretrained(tmp_path / "mixtral")
    assert "is a mixture of experts already" in sentence(model=tmp_path / "mixtral")
    out.mkdir()
    (out / "mine.txt").write_text("x", encoding="utf-8")
    assert "it exists" in refused("routers", "upcycle", folder, "--out", out)
    assert "Gatewise" in refused("routers", "upcycle", folder, "--out", out, "--overwrite")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
