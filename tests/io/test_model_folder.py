"""Model folders come back bit for bit, or are refused with the reason."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from gatewise.exceptions import InputError, ModelFolderError, OutputError
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import SoftmaxGate
from gatewise.io.coding import CategoricalColumn, ColumnCoding, NumericColumn
from gatewise.io.model_folder import CONFIG_NAME, WEIGHTS_NAME, ModelMetadata, load_model, model_files, save_model
from gatewise.model import MixtureOfExperts

METADATA = ModelMetadata(
    feature_names=("age", "sex=male"),
    gate_feature_names=("age",),
    target_name="wage",
    coding=ColumnCoding(columns=(NumericColumn(name="age"), CategoricalColumn(name="sex", levels=("female", "male")))),
)


@pytest.fixture
def folder(tmp_path, make_model) -> Path:
    """A model folder."""
    path = tmp_path / "model"
    save_model(path, make_model(), metadata=METADATA)
    return path


def seal(config: dict) -> bytes:
    """The configuration with a checksum that matches, as one who tampers with care would write it."""
    rest = {key: value for key, value in config.items() if key != "sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return json.dumps({**rest, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}).encode()


def edit(folder: Path, change, reseal: bool = True) -> None:
    """Change the configuration in place."""
    path = folder / CONFIG_NAME
    config = json.loads(path.read_bytes())
    change(config)
    path.write_bytes(seal(config) if reseal else json.dumps(config).encode())


def put_weights(folder: Path, content: bytes) -> None:
    """Replace the weights and let the configuration's checksums match them."""
    (folder / WEIGHTS_NAME).write_bytes(content)
    edit(folder, lambda config: config["weights"].update(sha256=hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("expert", ["linear", "constant"])
@pytest.mark.parametrize("shared_scale", [False, True])
def test_a_model_comes_back_bit_for_bit(tmp_path, make_model, dtype, expert, shared_scale):
    model = make_model(expert=expert, shared_scale=shared_scale, dtype=dtype)
    save_model(tmp_path / "model", model, metadata=METADATA)
    saved = load_model(tmp_path / "model")
    assert saved.metadata == METADATA
    before, after = model.state_dict(), saved.model.state_dict()
    assert list(before) == list(after)
    for name, array in before.items():
        assert array.dtype == after[name].dtype
        assert array.numpy().tobytes() == after[name].numpy().tobytes()
    x, y = torch.randn(7, 2, dtype=dtype), torch.randn(7, dtype=dtype)
    assert torch.equal(model.log_prob(x, y, x[:, :1]), saved.model.log_prob(x, y, x[:, :1]))
    assert all(parameter.requires_grad for parameter in saved.model.parameters())
    assert saved.model.experts.shared_scale == shared_scale


def test_the_same_model_gives_the_same_weights_file(make_model):
    assert model_files(make_model(), METADATA)[WEIGHTS_NAME] == model_files(make_model(), METADATA)[WEIGHTS_NAME]


def test_a_model_without_features(tmp_path, make_model):
    model = make_model(n_features=0, n_gate_features=0)
    save_model(tmp_path / "m", model, metadata=ModelMetadata(feature_names=(), gate_feature_names=(), target_name="y"))
    assert load_model(tmp_path / "m").metadata.column_coding().columns == ()


def test_the_folder_of_a_fit_is_accepted(tmp_path, folder):
    assert load_model(tmp_path).metadata == METADATA


def test_the_configuration_is_readable(folder):
    config = json.loads((folder / CONFIG_NAME).read_bytes())
    assert config["gate"] == {"name": "softmax", "n_features": 1, "n_experts": 3, "options": {}}
    assert config["experts"] == {
        "name": "linear",
        "n_features": 2,
        "n_experts": 3,
        "options": {},
        "shared_scale": False,
        "n_outputs": 1,
        "n_dispersion": 1,
    }
    assert config["family"] == {"name": "gaussian", "options": {}}
    assert config["gate_scaler"] is config["expert_scaler"] is False
    assert config["metadata"]["coding"]["columns"][1]["levels"] == ["female", "male"]


def test_layout_of_the_json_does_not_matter(folder):
    config = json.loads((folder / CONFIG_NAME).read_bytes())
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=7, sort_keys=True))
    assert load_model(folder).metadata == METADATA


def test_overwriting_only_a_model_folder(tmp_path, folder, make_model):
    with pytest.raises(OutputError, match="it exists; choose another name or allow overwriting"):
        save_model(folder, make_model(), metadata=METADATA)
    save_model(folder, make_model(dtype=torch.float32), metadata=METADATA, overwrite=True)
    assert load_model(folder).model.experts.log_scale.dtype == torch.float32
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"it holds 'notes\.txt', which Gatewise did not write"):
        save_model(folder, make_model(), metadata=METADATA, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / CONFIG_NAME).write_text('{"model_type": "bert"}')
    with pytest.raises(OutputError, match="it was not written by Gatewise"):
        save_model(other, make_model(), metadata=METADATA, overwrite=True)


def remove(name):
    return lambda folder: (folder / name).unlink()


def link_out(name):
    def change(folder):
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def link_loop(folder):
    (folder / CONFIG_NAME).unlink()
    (folder / CONFIG_NAME).symlink_to(folder / CONFIG_NAME)


def is_a_folder(folder):
    (folder / WEIGHTS_NAME).unlink()
    (folder / WEIGHTS_NAME).mkdir()


def config_bytes(content):
    return lambda folder: (folder / CONFIG_NAME).write_bytes(content)


def config_change(change, reseal=True):
    return lambda folder: edit(folder, change, reseal)


def flip_a_weight(folder):
    content = bytearray((folder / WEIGHTS_NAME).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(content)


def weights(change):
    def apply(folder):
        arrays = safetensors.torch.load((folder / WEIGHTS_NAME).read_bytes())
        put_weights(folder, safetensors.torch.save(change(arrays)))

    return apply


REFUSED = {
    "no config": (remove(CONFIG_NAME), r"is incomplete: config\.json is missing"),
    "no weights": (remove(WEIGHTS_NAME), r"is incomplete: weights\.safetensors is missing"),
    "config links out": (link_out(CONFIG_NAME), r"is not self-contained: config\.json links out of it"),
    "weights link out": (link_out(WEIGHTS_NAME), r"is not self-contained: weights\.safetensors links out of it"),
    "link loop": (link_loop, r"cannot read config\.json"),
    "weights are a folder": (is_a_folder, r"is damaged: weights\.safetensors is not a file"),
    "not JSON": (config_bytes(b"{"), r"is damaged: config\.json is not JSON"),
    "not UTF-8": (config_bytes(b'{"a": "\xff"}'), r"is damaged: config\.json is not JSON"),
    "empty": (config_bytes(b""), r"is damaged: config\.json is not JSON"),
    "NaN": (config_bytes(b'{"schema_version": NaN}'), r"is damaged: config\.json is not JSON \(NaN is not JSON\)"),
    "deep": (config_bytes(b"[" * 100_000), r"is damaged: config\.json is not JSON"),
    "list": (config_bytes(b"[]"), r"is damaged: config\.json does not state a schema_version"),
    "no version": (config_change(lambda c: c.pop("schema_version")), "does not state a schema_version"),
    "boolean version": (config_change(lambda c: c.update(schema_version=True)), "does not state a schema_version"),
    "version 0": (config_change(lambda c: c.update(schema_version=0)), "does not state a schema_version"),
    "newer version": (
        config_change(lambda c: c.update(schema_version=3)),
        r"has schema version 3, and this Gatewise .* reads up to 2: update Gatewise",
    ),
    "huge number": (
        config_bytes(b'{"schema_version": 1, "gate": 1e999}'),
        "holds a number that is not finite or too long",
    ),
    "tampered": (
        config_change(lambda c: c["metadata"].update(target_name="price"), reseal=False),
        r"config\.json was changed after it was written \(its checksum does not match\)",
    ),
    "no checksum": (config_change(lambda c: c.pop("sha256"), reseal=False), "its checksum does not match"),
    "unknown gate": (
        config_change(lambda c: c["gate"].update(name="os.system")),
        "cannot be rebuilt: unknown gate 'os.system': choose one of activation_dense_to_sparse, ",
    ),
    "unknown expert": (config_change(lambda c: c["experts"].update(name="deep")), "unknown expert 'deep'"),
    "unknown family": (config_change(lambda c: c["family"].update(name="cauchy")), "unknown family 'cauchy'"),
    "other sizes": (
        config_change(lambda c: (c["gate"].update(n_experts=2), c["experts"].update(n_experts=2))),
        r"holds 'experts\.bias' as float64 \(3,\), and float64 \(2,\) is needed",
    ),
    "sizes disagree": (
        config_change(lambda c: c["gate"].update(n_experts=2)),
        "cannot be rebuilt: the gate has 2 experts",
    ),
    "huge sizes": (
        config_change(lambda c: (c["gate"].update(n_experts=10**6), c["experts"].update(n_experts=10**6))),
        r"weights\.safetensors holds 18 numbers, too few for 1000000 experts",
    ),
    "negative size": (
        config_change(lambda c: c["gate"].update(n_features=-1)),
        r"config\.json, at 'gate\.n_features': Input should be greater than or equal to 0",
    ),
    "text for a size": (config_change(lambda c: c["gate"].update(n_features="1")), r"at 'gate\.n_features'"),
    "extra field": (
        config_change(lambda c: c.update(command="rm")),
        r"config\.json, at 'command': Extra inputs are not permitted",
    ),
    "missing field": (config_change(lambda c: c.pop("family")), r"config\.json, at 'family': Field required"),
    "fewer names": (
        config_change(lambda c: c["metadata"].update(gate_feature_names=[])),
        "the model has 2 features and 1 gate features, the metadata name 2 and 0",
    ),
    "names disagree": (
        config_change(lambda c: c["metadata"].update(feature_names=["age", "sex"])),
        r"at 'metadata': Value error, the coding makes \['age', 'sex=male'\], not the features",
    ),
    "a weight changed": (flip_a_weight, r"weights\.safetensors was changed after it was written"),
    "not safetensors": (lambda folder: put_weights(folder, b"junk"), r"weights\.safetensors is not a safetensors file"),
    "shape": (
        weights(lambda a: {**a, "gate.bias": torch.zeros(4, dtype=torch.float64)}),
        r"holds 'gate\.bias' as float64 \(4,\), and float64 \(3,\) is needed",
    ),
    "dtype": (
        weights(lambda a: {**a, "gate.bias": a["gate.bias"].float()}),
        r"holds 'gate\.bias' as float32 \(3,\), and float64 \(3,\) is needed",
    ),
    "missing array": (
        weights(lambda a: {name: array for name, array in a.items() if name != "gate.bias"}),
        r"holds 'gate\.bias' as None, and float64 \(3,\) is needed",
    ),
    "extra array": (
        weights(lambda a: {**a, "more": torch.zeros(1)}),
        r"holds 'more' as float32 \(1,\), and None is needed",
    ),
    "not finite": (
        weights(lambda a: {**a, "gate.bias": a["gate.bias"] * torch.inf}),
        r"the weights 'gate\.bias' are not finite",
    ),
}


@pytest.mark.parametrize(("change", "pattern"), REFUSED.values(), ids=REFUSED.keys())
def test_a_folder_is_refused(folder, change, pattern):
    change(folder)
    with pytest.raises(ModelFolderError, match=pattern):
        load_model(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelFolderError, match=r"there is no model folder .*nowhere: check its name"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match=r"there is no model folder n+: check its name"):
        load_model("n" * 300)


def test_a_huge_configuration_is_not_read(folder):
    os.truncate(folder / CONFIG_NAME, 17 * 2**20)
    with pytest.raises(ModelFolderError, match=r"config\.json is larger than 16777216 bytes"):
        load_model(folder)


class OtherGate(SoftmaxGate):
    """Takes the registered name of another class."""


class WiderExperts(LinearExperts):
    """Has an array that does not follow from the sizes."""


def test_models_that_cannot_be_saved(tmp_path, make_model):
    model = make_model()
    model.gate.bias.data[0] = torch.nan
    with pytest.raises(InputError, match=r"the weights 'gate\.bias' are not finite"):
        save_model(tmp_path / "m", model, metadata=METADATA)
    with pytest.raises(InputError, match="a model is saved in float64 or float32, this one is in bfloat16"):
        save_model(tmp_path / "m", make_model().to(torch.bfloat16), metadata=METADATA)
    with pytest.raises(InputError, match="the model has 3 features and 1 gate features, the metadata name 2 and 1"):
        save_model(tmp_path / "m", make_model(n_features=3), metadata=METADATA)
    foreign = MixtureOfExperts(OtherGate(1, 2), LinearExperts(2, 2), Gaussian()).double()
    with pytest.raises(InputError, match="OtherGate is not the class registered as 'softmax'"):
        save_model(tmp_path / "m", foreign, metadata=METADATA)
    wide = make_model()
    wide.experts.register_parameter("extra", torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    with pytest.raises(InputError, match="the model's arrays do not follow from its classes and sizes"):
        save_model(tmp_path / "m", wide, metadata=METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"feature_names": ("a", "a")}, r"\['a', 'a'\] are not distinct"),
        ({"gate_feature_names": ("b", "y")}, "the target 'y' is among the features"),
        ({"target_name": "a"}, "the target 'a' is among the features"),
        ({"coding": ColumnCoding(columns=())}, r"the coding makes \[\], not the features \['a'\]"),
        ({"offset_name": "a"}, "the offset 'a' is the target or among the features"),
        ({"offset_name": "y"}, "the offset 'y' is the target or among the features"),
        ({"class_names": ("u", "u")}, r"the class names \['u', 'u'\] are not distinct"),
        ({"class_names": ("u",)}, "at least 2 items"),
    ],
)
def test_metadata_that_disagree_are_refused(changes, pattern):
    fields = {"feature_names": ("a",), "gate_feature_names": (), "target_name": "y", **changes}
    with pytest.raises(ValidationError, match=pattern):
        ModelMetadata(**fields)
