import json
import shutil

import pytest
import safetensors.torch
import torch
from torch import nn

pytest.importorskip("transformers")

from gatewise.exceptions import InputError, ModelFolderError, OutputError
from gatewise.gates import SoftmaxGate
from gatewise.nn import Selection
from gatewise.nn.hf import load_model, load_routers, load_with_routers, restore_routers, save_routers, swap_routers
from gatewise.nn.hf.sites import swapped_in
from tests.nn.hf.tiny_models import routers_of, tiny_model, tiny_tokens


def logits_of(model):
    with torch.no_grad():
        return model(tiny_tokens()).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a plain deepseek_v3 and, beside it, Laplace routers with moved biases; and their model."""
    folder = tmp_path_factory.mktemp("models") / "deepseek_v3"
    model = tiny_model("deepseek_v3")
    model.save_pretrained(folder)
    swap_routers(model, "laplace", init="orthonormal", selection=Selection(top_k=2, score="sigmoid"), layers=[2])
    for router in routers_of(model).values():
        router.correction_bias.add_(0.5)
    assert save_routers(model, folder) == folder / "gatewise_routers"
    return folder, model


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of that folder, to be damaged."""
    shutil.copytree(saved[0], tmp_path / "model")
    return tmp_path / "model"


def test_a_model_with_its_routers_in_one_call(saved):
    folder, model = saved
    loaded = load_with_routers(folder)
    assert not loaded.training
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=0, atol=1e-6)
    assert list(swapped_in(loaded)) == ["model.layers.2.mlp.gate"]
    (router,) = routers_of(loaded).values()
    assert router.gate.name == "laplace"
    assert router.selection == Selection(top_k=2, score="sigmoid")
    # The base model's own bias comes back.
    restore_routers(loaded)
    torch.testing.assert_close(logits_of(loaded), logits_of(tiny_model("deepseek_v3")), rtol=0, atol=1e-6)


def test_routers_of_other_dtypes_and_with_options(tmp_path):
    model = tiny_model("mixtral").to(torch.bfloat16)
    swap_routers(model, "hierarchical", init="normal", gate_options={"groups": [4, 4]}, correction_bias=True)
    model.save_pretrained(tmp_path)
    save_routers(model, tmp_path)
    loaded = load_with_routers(tmp_path, dtype=torch.bfloat16)
    # A cast rounds the model's own table of angles too, which loading makes in float32.
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=0, atol=0.02)
    for ours, theirs in zip(routers_of(loaded).values(), routers_of(model).values(), strict=True):
        assert ours.gate.options() == theirs.gate.options()
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


def test_a_swapped_model_that_is_saved_opens_as_the_old_one_without_gatewise(tmp_path):
    model = tiny_model("mixtral")
    before = logits_of(model)
    swap_routers(model, "cosine", init="orthonormal")
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(type(model).from_pretrained(tmp_path).eval()), before, rtol=0, atol=1e-6)


def test_saving_is_whole_and_does_not_replace(saved, tmp_path):
    _, model = saved
    with pytest.raises(OutputError, match=r"folder .* does not exist"):
        save_routers(model, tmp_path / "nowhere")
    save_routers(model, tmp_path)
    with pytest.raises(OutputError, match="exists"):
        save_routers(model, tmp_path)
    save_routers(model, tmp_path, overwrite=True)
    with pytest.raises(InputError, match="nothing to save"):
        save_routers(tiny_model("mixtral"), tmp_path)
    other = tiny_model("mixtral")
    swap_routers(other)
    router = next(iter(routers_of(other).values()))
    with torch.no_grad():
        router.gate.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"gate.weight of the router 'model\.layers\.0\.mlp\.gate' is not finite"):
        save_routers(other, tmp_path, overwrite=True)


class OwnGate(SoftmaxGate):
    pass


def test_a_gate_of_an_unregistered_class_is_not_saved(tmp_path):
    model = tiny_model("mixtral")
    swap_routers(model, OwnGate(64, 8), init="given")
    with pytest.raises(InputError, match="is a OwnGate, which is not registered"):
        save_routers(model, tmp_path)


def _rewrite(folder, change):
    path = folder / "gatewise_routers" / "routers.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def _first(description):
    return next(iter(description["routers"].values()))


DAMAGES = {
    "other type": (
        lambda d: d.update(model_type="mixtral"),
        "are of a 'mixtral' model, and this is a deepseek_v3|'mixtral'",
    ),
    "newer format": (lambda d: d.update(format=2), "has the format 2"),
    "no routers": (lambda d: d.pop("routers"), "is no description of routers"),
    "list": (lambda d: d.update(routers=[1]), "is no description of routers"),
    "other layer": (
        lambda d: d.update(routers={"model.layers.9.mlp.gate": _first(d)}),
        "'model.layers.9.mlp.gate', which this model has not",
    ),
    "two layers": (
        lambda d: d["routers"].update({"model.layers.1.mlp.gate": _first(d)}),
        "of the router 'model.layers.1.mlp.gate' is missing",
    ),
    "no layer": (lambda d: d.update(routers={}), "which routers.json does not name"),
    "entry is text": (lambda d: d.update(routers=dict.fromkeys(d["routers"], "x")), "is damaged"),
    "no gate": (lambda d: _first(d).pop("gate"), "is damaged"),
    "unknown gate": (lambda d: _first(d)["gate"].update(name="os.system"), "unknown gate 'os.system'"),
    "other gate": (lambda d: _first(d)["gate"].update(name="softmax"), "is missing"),
    "large gate": (lambda d: _first(d)["gate"].update(n_experts=10**9), "and 1000000000 experts"),
    "option": (lambda d: _first(d)["gate"].update(options={"temperature": 1}), "does not fit"),
    "option's kind": (
        lambda d: _first(d)["gate"].update(name="cosine", options={"temperature": {"x": []}, "projection": "y"}),
        "does not fit|is damaged",
    ),
    "large option": (
        lambda d: _first(d)["gate"].update(name="cosine", options={"projection": 10**12}),
        "does not fit|is damaged",
    ),
    "tree": (
        lambda d: _first(d)["gate"].update(name="hierarchical", options={"groups": [10**9, -1]}),
        "does not fit|is damaged",
    ),
    "selection": (lambda d: _first(d)["selection"].update(top_k=99), "does not fit: top_k is 99"),
    "selection's names": (lambda d: _first(d)["selection"].update(other=1), "is damaged"),
    "class": (lambda d: _first(d).update({"class": "MixtralTopKRouter"}), "took the place of a 'MixtralTopKRouter'"),
    "no bias": (lambda d: _first(d).update(correction_bias=False), "has a correction bias, and the file none"),
    "jitter": (lambda d: _first(d).update(jitter=7), "jitter must lie between 0 and 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_description_that_does_not_fit_is_refused_and_nothing_is_changed(copied, damage):
    change, message = DAMAGES[damage]
    _rewrite(copied, change)
    model = tiny_model("deepseek_v3")
    before = logits_of(model)
    with pytest.raises(ModelFolderError, match=message):
        load_routers(model, copied)
    assert not swapped_in(model)
    assert torch.equal(logits_of(model), before)


def test_damaged_numbers_are_refused(copied):
    model, path = tiny_model("deepseek_v3"), copied / "gatewise_routers" / "routers.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ModelFolderError, match=r"is damaged or not the file that routers\.json describes"):
        load_routers(model, copied)
    # A truncated file with a checksum to match.
    import hashlib

    _rewrite(copied, lambda d: d.update(sha256=hashlib.sha256(whole[:-8]).hexdigest()))
    with pytest.raises(ModelFolderError, match="is not a safetensors file"):
        load_routers(model, copied)
    arrays = safetensors.torch.load(whole)
    for change, message in (
        (lambda value: value[1:].contiguous(), "has the shape"),
        (lambda value: torch.full_like(value, torch.inf), "is not finite"),
    ):
        name = next(name for name in arrays if name.endswith("gate.centre"))
        path.write_bytes(safetensors.torch.save({**arrays, name: change(arrays[name])}))
        _rewrite(copied, lambda d: d.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
        with pytest.raises(ModelFolderError, match=message):
            load_routers(model, copied)
    path.unlink()
    with pytest.raises(ModelFolderError, match=r"cannot read the routers in .*: no such file"):
        load_routers(model, copied)
    shutil.rmtree(copied / "gatewise_routers")
    with pytest.raises(ModelFolderError, match="there is no folder"):
        load_with_routers(copied)
    assert not swapped_in(model)


def test_routers_of_another_model_and_swapped_models_are_refused(saved):
    folder, model = saved
    with pytest.raises(ModelFolderError, match="are of a model of type 'deepseek_v3', and this is a mixtral"):
        load_routers(tiny_model("mixtral"), folder)
    with pytest.raises(InputError, match="swapped already"):
        load_routers(model, folder)
    with pytest.raises(ModelFolderError, match="d = 64 and 8 experts, and the model's router d = 64 and 16"):
        load_routers(tiny_model("deepseek_v3", num_local_experts=16), folder)
    recorded = tiny_model("deepseek_v3")
    recorded(tiny_tokens(), output_router_logits=True)
    with pytest.raises(InputError, match="begun to record"):
        load_routers(recorded, folder)
    with pytest.raises(InputError, match="pass a model"):
        load_routers(str(folder), folder)


def _configuration(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_folders_that_are_no_models(copied, tmp_path):
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFolderError, match=r"it has no config\.json"):
        load_model(tmp_path / "empty")
    with pytest.raises(InputError, match="trust_remote_code cannot be chosen here"):
        load_model(copied, trust_remote_code=True)
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFolderError, match="cannot load the model in"):
        load_model(copied)
    arrays = safetensors.torch.load(whole)
    name = "model.layers.1.mlp.gate.weight"
    safetensors.torch.save_file({k: v for k, v in arrays.items() if k != name}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match=f"lack '{name}', which would be drawn at random"):
        load_model(copied)
    weights.unlink()
    torch.save(arrays, copied / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match="cannot load the model in"):
        load_model(copied)
    for architectures in (["os"], ["AutoModel"], [], None, "x", [3]):
        _configuration(copied, architectures=architectures)
        with pytest.raises(ModelFolderError, match="which is none of this transformers"):
            load_model(copied)
    _configuration(copied, auto_map={"AutoModelForCausalLM": "modeling.Own"})
    (copied / "modeling.py").write_text("raise SystemExit(1)")
    with pytest.raises(ModelFolderError, match="asks for code of its own"):
        load_model(copied)
    for text in ("[]", "{", "\xff"):
        (copied / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ModelFolderError, match=r"config\.json"):
            load_model(copied)


def test_a_plain_module_has_no_routers_to_load(saved):
    with pytest.raises(ModelFolderError, match="and this is a Linear"):
        load_routers(nn.Linear(2, 2), saved[0])
