"""An upcycled model comes back from the disk with the same bits, and a folder that does not fit is refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch

pytest.importorskip("transformers")

from gatewise.exceptions import InputError, ModelFolderError, OutputError
from gatewise.gates import SoftmaxGate
from gatewise.nn import Router, Selection, TopKSchedule
from gatewise.nn.hf import load_model, load_upcycled, save_upcycled, upcycle
from gatewise.nn.hf.upcycled import UpcycledMLP
from tests.nn.hf.dense_models import dense_model, dense_tokens, logits_of

WEIGHTS = "model.upcycled.safetensors"


def learned(model_type, gate="laplace", **options):
    """An upcycled model whose experts differ."""
    model = dense_model(model_type)
    generator = torch.Generator().manual_seed(0)
    upcycle(model, 4, gate, noise=0.3, generator=generator, correction_bias=True, **options)
    for module in model.modules():
        if isinstance(module, UpcycledMLP):
            module.router.correction_bias.copy_(torch.randn(4, generator=generator))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a llama whose second layer is sparse, and the model."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    model = learned("llama", layers=[1], selection=Selection(top_k=2, score="sigmoid"))
    assert save_upcycled(model, folder) == folder
    return folder, model


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of that folder, to be damaged."""
    shutil.copytree(saved[0], tmp_path / "model")
    return tmp_path / "model"


_FRESH = """
import sys, torch
from safetensors.torch import load_file, save_file
from gatewise.nn.hf import load_upcycled
torch.set_num_threads(1)
found = {}
for folder in sys.argv[2:]:
    with torch.no_grad():
        found[folder] = load_upcycled(folder)(load_file(sys.argv[1])["ids"]).logits.clone()
save_file(found, sys.argv[1] + ".found")
"""


def test_the_same_bits_in_a_fresh_process(saved, tmp_path):
    models = {"llama": saved[1], "gpt2": learned("gpt2"), "opt": learned("opt"), "bert": learned("bert", "cosine")}
    folders = {}
    for name, model in models.items():
        folders[name] = saved[0] if name == "llama" else save_upcycled(model, tmp_path / name, max_shard_size="20KB")
    assert len(list(folders["gpt2"].glob("*.safetensors"))) > 2
    safetensors.torch.save_file({"ids": dense_tokens()}, tmp_path / "ids")
    command = [sys.executable, "-c", _FRESH, tmp_path / "ids", *folders.values()]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    found = safetensors.torch.load_file(tmp_path / "ids.found")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, model in models.items():
        assert torch.equal(found[str(folders[name])], logits_of(model)), name
    torch.set_num_threads(threads)


def test_what_comes_back(saved):
    folder, model = saved
    loaded = load_upcycled(folder)
    assert type(loaded) is type(model)
    assert not loaded.training
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    layer = loaded.model.layers[1].mlp
    assert layer.router.selection == Selection(top_k=2, score="sigmoid")
    assert layer.router.gate.name == "laplace"
    half = load_upcycled(folder, dtype=torch.bfloat16).model.layers[1].mlp
    assert (half.experts.down.dtype, half.router.gate.centre.dtype) == (torch.bfloat16, torch.float32)
    # It can be changed further and saved again.
    upcycle(loaded, 2, layers=[0])
    assert len(loaded.config.gatewise_upcycled["layers"]) == 2


def test_a_model_in_bfloat16_and_a_schedule(tmp_path):
    # Without a table of angles, which a cast of a model rounds and loading does not.
    model = dense_model("gpt2").to(torch.bfloat16)
    upcycle(model, 4, lambda d, n: Router(SoftmaxGate(d, n), Selection(top_k=n)))
    for block in model.transformer.h:
        TopKSchedule(block.mlp.router, end=1, steps=1).step()
    save_upcycled(model, tmp_path / "model")
    loaded = load_upcycled(tmp_path / "model")
    assert loaded.dtype == torch.bfloat16
    assert loaded.transformer.h[0].mlp.router.selection.top_k == 1
    assert torch.equal(logits_of(loaded), logits_of(model))


def test_a_checkpoint_of_save_pretrained_loads_too_and_transformers_alone_finds_no_weights(saved, tmp_path):
    folder, model = saved
    model.save_pretrained(tmp_path / "checkpoint")
    assert torch.equal(logits_of(load_upcycled(tmp_path / "checkpoint")), logits_of(model))
    with pytest.raises(OSError, match="no file named"):
        type(model).from_pretrained(folder)
    with pytest.raises(ModelFolderError, match="load_upcycled"):
        load_model(folder)
    dense_model("llama").save_pretrained(tmp_path / "dense")
    with pytest.raises(ModelFolderError, match="was not upcycled"):
        load_upcycled(tmp_path / "dense")


def test_saving_is_whole_and_does_not_replace(saved, tmp_path, monkeypatch):
    _, model = saved
    with pytest.raises(OutputError, match="does not exist"):
        save_upcycled(model, tmp_path / "nowhere" / "model")
    save_upcycled(model, tmp_path / "model")
    with pytest.raises(OutputError, match="exists"):
        save_upcycled(model, tmp_path / "model")
    save_upcycled(model, tmp_path / "model", overwrite=True)
    with pytest.raises(InputError, match="nothing to save"):
        save_upcycled(dense_model("llama"), tmp_path / "dense")
    with pytest.raises(InputError, match="pass a model, not 3"):
        save_upcycled(3, tmp_path / "dense")
    with pytest.raises(InputError, match="variant cannot be chosen"):
        save_upcycled(model, tmp_path / "dense", variant="x")

    def fails(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", fails)
    with pytest.raises(OutputError, match=r"(?i)no space left"):
        save_upcycled(model, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    infinite = learned("llama")
    with torch.no_grad():
        infinite.model.layers[0].mlp.experts.down[0, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"experts\.down of the layer 'model\.layers\.0\.mlp' is not finite"):
        save_upcycled(infinite, tmp_path / "infinite")

    class OwnGate(SoftmaxGate):
        pass

    own = dense_model("llama")
    upcycle(own, 4, Router(OwnGate(32, 4)))
    with pytest.raises(InputError, match="is a OwnGate, which is not registered"):
        save_upcycled(own, tmp_path / "own")


def _first(recipe):
    return recipe["layers"][0]


DAMAGES = {
    "format": (lambda r: r.update(format=2), "has the format 2"),
    "no layers": (lambda r: r.pop("layers"), "is damaged or of another model"),
    "no dictionary": (lambda r: r.update(layers=[3]), "is damaged or of another model"),
    "nothing sparse": (lambda r: r.update(layers=[]), "lack 'model.layers.1.mlp"),
    "other layer": (lambda r: _first(r)["mlp"].update(name="model.layers.9.mlp"), "is damaged or of another model"),
    "matrix": (lambda r: _first(r)["mlp"].update(second="model.layers.1.input_layernorm"), "is no matrix"),
    "shapes": (lambda r: _first(r)["mlp"].update(first=["lm_head"] * 2), "do not fit"),
    "number": (lambda r: _first(r)["mlp"].update(first=[3, 4]), "is damaged or of another model"),
    "one matrix": (lambda r: _first(r)["mlp"].update(first=[]), "is damaged or of another model"),
    "method": (lambda r: _first(r)["mlp"].update(activation="save_pretrained"), "is no activation"),
    "attribute": (lambda r: _first(r)["mlp"].update(activation="model.layers.1.mlp.__class__"), "is no activation"),
    "experts": (lambda r: _first(r).update(n_experts=5), "4 experts, and the model's router d = 32 and 5"),
    "many experts": (
        lambda r: (_first(r).update(n_experts=10**6), _first(r)["router"]["gate"].update(n_experts=10**6)),
        r"of the layer 'model.layers.1.mlp' has the shape \(4,\), not \(1000000,\)",
    ),
    "gate": (lambda r: _first(r)["router"]["gate"].update(name="os.system"), "unknown gate 'os.system'"),
    "other gate": (lambda r: _first(r)["router"]["gate"].update(name="softmax"), "is missing|has the shape"),
    "selection": (lambda r: _first(r)["router"]["selection"].update(top_k=9), "top_k is 9"),
    "weights": (lambda r: _first(r)["router"]["selection"].update(factor=2.0), "do not sum to 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_recipe_that_does_not_fit_is_refused(copied, damage):
    change, message = DAMAGES[damage]
    path = copied / "config.json"
    config = json.loads(path.read_bytes())
    change(config["gatewise_upcycled"])
    path.write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=message):
        load_upcycled(copied)


def test_damaged_weights_are_refused(copied):
    weights, sums = copied / WEIGHTS, copied / "upcycled.json"
    whole, description = weights.read_bytes(), json.loads(sums.read_bytes())
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelFolderError, match=r"is damaged or not the file that upcycled\.json describes"):
        load_upcycled(copied)

    def describe():
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        sums.write_text(json.dumps(description | {"sha256": {WEIGHTS: digest}}))

    weights.write_bytes(whole[:-4])
    describe()
    with pytest.raises(ModelFolderError, match="cannot read the weights"):
        load_upcycled(copied)
    arrays = safetensors.torch.load(whole)
    del arrays["model.layers.1.mlp.router.gate.centre"]
    weights.write_bytes(safetensors.torch.save(arrays, metadata={"format": "pt"}))
    describe()
    with pytest.raises(ModelFolderError, match=r"router\.gate\.centre of the layer 'model\.layers\.1\.mlp' is missing"):
        load_upcycled(copied)
    weights.write_bytes(whole)
    for text, sentence in (
        ("[]", "holds no checksums"),
        ('{"format": 7, "sha256": {}}', "has the format 7"),
        ('{"format": 1, "sha256": {"../other.safetensors": "x"}}', "and upcycled.json names"),
    ):
        sums.write_text(text)
        with pytest.raises(ModelFolderError, match=sentence):
            load_upcycled(copied)
    sums.unlink()
    with pytest.raises(ModelFolderError, match="which says what the weights beside it must be"):
        load_upcycled(copied)
    with pytest.raises(InputError, match="variant cannot be chosen"):
        load_upcycled(copied, variant="x")
    save_upcycled(learned("llama"), copied.parent / "whole")
    with pytest.raises(InputError, match="trust_remote_code cannot be chosen"):
        load_upcycled(copied.parent / "whole", trust_remote_code=True)
