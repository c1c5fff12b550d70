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
from gatewise.nn.hf.upcycled import UpcycledMLP, upcycled_in
from tests.nn.hf.dense_models import dense_model, dense_tokens, logits_of

WEIGHTS = "model.upcycled.safetensors"
STATE = "model.layers.1.mlp._extra_state"


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
    assert list(upcycled_in(loaded)) == ["model.layers.0.mlp", "model.layers.1.mlp"]


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
    upcycle(own, 4, OwnGate(32, 4), selection=Selection(top_k=4))
    with pytest.raises(InputError, match="is a OwnGate, which is not registered"):
        save_upcycled(own, tmp_path / "own")


DAMAGES = {
    "format": (lambda r: r.update(gatewise_upcycled=2), "has the format 2"),
    "no form": (lambda r: r.pop("mlp"), "is damaged"),
    "no dictionary": (lambda r: r.update(mlp=3), "is damaged"),
    "own gate": (lambda r: r.update(router=None), "is of a class that is not registered, and cannot be built"),
    "matrix": (lambda r: r["mlp"].update(second="act_fn"), "is no matrix"),
    "shapes": (lambda r: r["mlp"].update(first=["gate_proj"]), "do not fit"),
    "number": (lambda r: r["mlp"].update(first=[3, 4]), "is damaged"),
    "one matrix": (lambda r: r["mlp"].update(first=[]), "is damaged"),
    "other module": (lambda r: r["mlp"].update(second="lm_head"), "is damaged or of another model"),
    "method": (lambda r: r["mlp"].update(activation="forward"), "is no activation"),
    "attribute": (lambda r: r["mlp"].update(activation="__class__"), "is no activation"),
    "idle": (lambda r: r["mlp"].update(idle=["act_fn"]), r"with \['act_fn'\] beside it is not known"),
    "place": (lambda r: r["mlp"].update(place="mlp"), "an MLP at 'mlp'"),
    "experts": (lambda r: r.update(n_experts=5), "4 experts, and the model's router d = 32 and 5"),
    "many experts": (
        lambda r: (r.update(n_experts=10**6), r["router"]["gate"].update(n_experts=10**6)),
        r"of the layer 'model.layers.1.mlp' has the shape \(4,\), not \(1000000,\)",
    ),
    "gate": (lambda r: r["router"]["gate"].update(name="os.system"), "unknown gate 'os.system'"),
    "other gate": (lambda r: r["router"]["gate"].update(name="softmax"), "is missing|has the shape"),
    "selection": (lambda r: r["router"]["selection"].update(top_k=9), "top_k is 9"),
    "weights": (lambda r: r["router"]["selection"].update(factor=2.0), "do not sum to 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_recipe_that_does_not_fit_is_refused(copied, damage):
    change, message = DAMAGES[damage]
    arrays = safetensors.torch.load((copied / WEIGHTS).read_bytes())
    recipe = json.loads(bytes(arrays[STATE].tolist()))
    change(recipe)
    arrays[STATE] = torch.tensor(list(json.dumps(recipe).encode()), dtype=torch.uint8)
    written(copied, safetensors.torch.save(arrays, metadata={"format": "pt"}))
    with pytest.raises(ModelFolderError, match=message):
        load_upcycled(copied)


def written(folder, weights):
    """Weights in the place of those that are there, with their checksum."""
    (folder / WEIGHTS).write_bytes(weights)
    description = json.loads((folder / "upcycled.json").read_bytes())
    description["sha256"][WEIGHTS] = hashlib.sha256(weights).hexdigest()
    (folder / "upcycled.json").write_text(json.dumps(description))


def test_a_configuration_that_was_changed_is_refused(copied):
    path = copied / "config.json"
    path.write_text(path.read_text().replace('"silu"', '"gelu"'))
    with pytest.raises(ModelFolderError, match=r"config\.json is damaged or not the file that"):
        load_upcycled(copied)


def test_names_are_those_of_the_model_that_is_saved(tmp_path):
    """Whatever part or wrapper was given to `upcycle`, and whatever part is saved."""
    model = dense_model("llama")
    upcycle(model.model, 4, noise=0.3, generator=torch.Generator().manual_seed(0))
    save_upcycled(model, tmp_path / "whole")
    model.save_pretrained(tmp_path / "checkpoint")
    for name in ("whole", "checkpoint"):
        assert torch.equal(logits_of(load_upcycled(tmp_path / name)), logits_of(model))
    model.model.save_pretrained(tmp_path / "part")
    ids = dense_tokens()
    with torch.no_grad():
        ours, theirs = load_upcycled(tmp_path / "part")(ids), model.model(ids)
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)


def test_a_model_that_had_adapters(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(dense_model("llama"), peft.LoraConfig(target_modules=["q_proj"]))
    upcycle(model, 4, noise=0.3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="holds adapters of PEFT: merge them first"):
        save_upcycled(model.base_model.model, tmp_path / "model")
    merged = model.merge_and_unload()
    save_upcycled(merged, tmp_path / "model")
    assert torch.equal(logits_of(load_upcycled(tmp_path / "model")), logits_of(merged))


def test_a_checkpoint_holds_the_selection_of_its_moment(tmp_path):
    model = dense_model("llama")
    upcycle(model, 4)
    router = model.model.layers[0].mlp.router
    state = model.state_dict()
    TopKSchedule(router, end=1, start=1, steps=1)
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = load_upcycled(tmp_path / "checkpoint")
    assert [layer.router.selection.top_k for layer in upcycled_in(loaded).values()] == [1, 2]
    model.load_state_dict(state)
    assert router.selection.top_k == 2
    state["model.layers.0.mlp._extra_state"] = torch.zeros(3, dtype=torch.uint8)
    with pytest.raises(InputError, match="is damaged: it is no text"):
        model.load_state_dict(state)


def test_models_that_share_a_configuration_are_apart(tmp_path):
    one = dense_model("llama")
    other = type(one)(one.config).eval()
    assert other.config is one.config
    upcycle(one, 4)
    upcycle(other, 4).undo()
    one.save_pretrained(tmp_path / "one")
    other.save_pretrained(tmp_path / "other")
    assert torch.equal(logits_of(load_upcycled(tmp_path / "one")), logits_of(one))
    assert torch.equal(logits_of(load_model(tmp_path / "other")), logits_of(other))


OPTIONS = {
    "is_main_process": (False, "is_main_process cannot be chosen"),
    "max_shard_size": ("junk", "transformers cannot save this LlamaForCausalLM"),
    "tokenizer": ("x", "tokenizer must be one of transformers, not 'x'"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_cannot_be(saved, tmp_path, option):
    value, message = OPTIONS[option]
    with pytest.raises(InputError, match=message):
        save_upcycled(saved[1], tmp_path / "model", **{option: value})
    assert not (tmp_path / "model").exists()


def test_damaged_weights_are_refused(copied):
    weights, sums = copied / WEIGHTS, copied / "upcycled.json"
    whole, description = weights.read_bytes(), sums.read_text()
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelFolderError, match=r"is damaged or not the file that upcycled\.json describes"):
        load_upcycled(copied)

    written(copied, whole[:-4])
    with pytest.raises(ModelFolderError, match="whose weights cannot be read"):
        load_upcycled(copied)
    arrays = safetensors.torch.load(whole)
    del arrays["model.layers.1.mlp.router.gate.centre"]
    written(copied, safetensors.torch.save(arrays, metadata={"format": "pt"}))
    with pytest.raises(ModelFolderError, match=r"router\.gate\.centre of the layer 'model\.layers\.1\.mlp' is missing"):
        load_upcycled(copied)
    weights.write_bytes(whole)
    for text, sentence in (
        ("[]", "holds no checksums"),
        ('{"format": 7, "sha256": {}}', "has the format 7"),
        ('{"format": 1, "sha256": {"../other.safetensors": "x"}}', "'../other.safetensors', which upcycled.json names"),
    ):
        sums.write_text(text)
        with pytest.raises(ModelFolderError, match=sentence):
            load_upcycled(copied)
    sums.write_text(description)
    weights.unlink()
    with pytest.raises(
        ModelFolderError, match=r"'model\.upcycled\.safetensors', which upcycled\.json names, is missing"
    ):
        load_upcycled(copied)
    weights.write_bytes(whole)
    sums.unlink()
    with pytest.raises(ModelFolderError, match="which says what the weights beside it must be"):
        load_upcycled(copied)
    with pytest.raises(InputError, match="variant cannot be chosen"):
        load_upcycled(copied, variant="x")
    save_upcycled(learned("llama"), copied.parent / "whole")
    with pytest.raises(InputError, match="trust_remote_code cannot be chosen"):
        load_upcycled(copied.parent / "whole", trust_remote_code=True)
