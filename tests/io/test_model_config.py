"""Any gate, bank and family can be saved and comes back; what a configuration must not say is refused."""

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.experts import EXPERTS, CallableExperts, function_names, register_function
from gatewise.families import FAMILIES
from gatewise.gates import GATES, DenseToSparseGate, HierarchicalGate, SoftmaxGate
from gatewise.io.model_folder import CONFIG_NAME, WEIGHTS_NAME, ModelMetadata, load_model, model_files, save_model
from gatewise.model import MixtureOfExperts
from gatewise.parts.standardiser import Standardiser
from gatewise.spec.parts import build_parts, describe_parts
from tests.mixture_reference import FAMILY_CASES, inputs, random_mixture, targets

METADATA = ModelMetadata(feature_names=("a", "b"), gate_feature_names=("a", "b"), target_name="y")

GATE_OPTIONS = {
    "activation_dense_to_sparse": [{"temperature": 0.5, "free_temperature": False, "activation": "gelu"}],
    "cosine": [{}],
    "dense_to_sparse": [{"temperature": 0.1}, {"temperature": 0.1, "free_temperature": False}],
    "gaussian": [{}, {"joint": False, "covariance": "diagonal"}],
    "hierarchical": [
        {"groups": [1, 2]},
        {
            "outer": "laplace",
            "inner": [
                {"name": "softmax", "n_experts": 1},
                {"name": "dense_to_sparse", "n_experts": 2, "options": {"temperature": 3.0, "free_temperature": False}},
            ],
        },
        {
            "inner": [
                {"name": "hierarchical", "n_experts": 2, "options": {"groups": [1, 1], "inner": "quadratic"}},
                {"name": "laplace", "n_experts": 1},
            ]
        },
    ],
    "laplace": [{}],
    "modified_softmax": [{"transform": "cube"}],
    "perturbed_cosine": [{}],
    "quadratic": [{}],
    "sigmoid": [{"normalised": True}],
    "softmax": [{}],
    "top_k": [
        {"n_active": 2},
        {"n_active": 2, "inner": "hierarchical", "select_on": "logit", "inner_options": {"groups": [2, 1]}},
    ],
}
EXPERT_OPTIONS = {
    "callable": [{"function": "tests.line"}],
    "constant": [{}],
    "feed_forward": [{"hidden": 4, "activation": "relu"}],
    "linear": [{}],
    "polynomial": [{"power": 3}],
    "polynomial_basis": [{"degree": 3}],
}
if "tests.line" not in function_names():
    register_function(
        "tests.line", lambda x, eta: (x * eta["slope"]).sum(-1) + eta["level"], {"slope": (2,), "level": ()}
    )

EVERY_GATE = [(name, options) for name, entries in GATE_OPTIONS.items() for options in entries]
EVERY_BANK = [(name, options) for name, entries in EXPERT_OPTIONS.items() for options in entries]


def identifiers(cases):
    return [f"{name}-{number}" for number, (name, _) in enumerate(cases)]


def check_comes_back(folder, model, case="gaussian", dtype=torch.float64):
    save_model(folder, model, metadata=METADATA)
    loaded = load_model(folder).model
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    for name, array in before.items():
        assert array.dtype == after[name].dtype, name
        assert array.numpy().tobytes() == after[name].numpy().tobytes(), name
    assert [type(module) for module in model.modules()] == [type(module) for module in loaded.modules()]
    for part in ("gate", "experts", "family"):
        assert getattr(loaded, part).options() == getattr(model, part).options()
    assert loaded.family == model.family
    assert not any(array.is_meta for module in loaded.modules() for array in [*module.parameters(), *module.buffers()])
    x, y = inputs(model, dtype=dtype), targets(case, dtype=dtype)
    assert torch.equal(model.log_prob(x, y), loaded.log_prob(x, y))
    assert torch.equal(model.mean(x), loaded.mean(x))
    return loaded


def test_every_registered_class_is_among_the_cases():
    assert set(GATE_OPTIONS) == set(GATES)
    assert set(EXPERT_OPTIONS) == set(EXPERTS)
    assert {family for family, _, _, _ in FAMILY_CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("gate", "options"), EVERY_GATE, ids=identifiers(EVERY_GATE))
def test_every_gate_comes_back(tmp_path, gate, options, dtype):
    model = random_mixture(gate=gate, gate_options=options, dtype=dtype)
    check_comes_back(tmp_path / "m", model, dtype=dtype)


@pytest.mark.parametrize("case", ["gaussian", "three classes", "student t", "poisson"])
@pytest.mark.parametrize(("experts", "options"), EVERY_BANK, ids=identifiers(EVERY_BANK))
def test_every_bank_comes_back(tmp_path, experts, options, case):
    if experts == "callable" and case == "three classes":
        pytest.skip("the function has one output")
    check_comes_back(tmp_path / "m", random_mixture(experts=experts, expert_options=options, case=case), case)


@pytest.mark.parametrize("shared_scale", [False, True])
@pytest.mark.parametrize("case", list(FAMILY_CASES))
def test_every_family_comes_back(tmp_path, case, shared_scale):
    loaded = check_comes_back(tmp_path / "m", random_mixture(case=case, shared_scale=shared_scale), case)
    assert loaded.experts.shared_scale is shared_scale


def test_a_state_that_is_no_parameter_comes_back(tmp_path):
    # The fixed temperature is kept in float64 also where the parameters are float32.
    model = MixtureOfExperts.build(
        DenseToSparseGate(2, 2, temperature=2.0, free_temperature=False),
        "linear",
        "gaussian",
        n_features=2,
        n_experts=2,
    )
    model.gate.set_temperature(0.1)
    loaded = check_comes_back(tmp_path / "m", model, dtype=torch.float32)
    assert loaded.gate.log_temperature.dtype == torch.float64
    assert loaded.gate.temperature().item() == pytest.approx(0.1)
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_stored_standardisations_come_back(tmp_path):
    plain = random_mixture()
    mean, scale = torch.tensor([1.5, -2.0], dtype=torch.float64), torch.tensor([0.5, 4.0], dtype=torch.float64)
    for which in (("gate_scaler",), ("expert_scaler",), ("gate_scaler", "expert_scaler")):
        scalers = {name: Standardiser(mean, scale) for name in which}
        model = MixtureOfExperts(plain.gate, plain.experts, plain.family, **scalers)
        loaded = check_comes_back(tmp_path / "-".join(which), model)
        assert [name for name in ("gate_scaler", "expert_scaler") if getattr(loaded, name) is not None] == list(which)


def test_tied_parameters_come_back_as_two(tmp_path):
    model = random_mixture(gate=HierarchicalGate(SoftmaxGate(2, 2), [SoftmaxGate(2, 2), SoftmaxGate(2, 1)]))
    model.gate.inner[0].weight = model.gate.outer.weight
    loaded = check_comes_back(tmp_path / "m", model)
    assert loaded.gate.inner[0].weight is not loaded.gate.outer.weight


def test_metadata_of_offsets_and_classes_come_back_and_must_fit(tmp_path):
    counts, classes = random_mixture(case="poisson"), random_mixture(case="three classes")
    exposed = METADATA.model_copy(update={"offset_name": "log_years"})
    named = METADATA.model_copy(update={"class_names": ("no", "perhaps", "yes")})
    for model, metadata in ((counts, exposed), (classes, named)):
        save_model(tmp_path / "m", model, metadata=metadata, overwrite=True)
        assert load_model(tmp_path / "m").metadata == metadata
    with pytest.raises(InputError, match="name the offset 'log_years', and the categorical family takes none"):
        model_files(classes, exposed)
    with pytest.raises(InputError, match="name 3 classes, and the poisson family has none"):
        model_files(counts, named)
    with pytest.raises(InputError, match="name 3 classes, and the categorical family has 2"):
        model_files(random_mixture(case="two classes"), named)


def test_a_folder_of_version_1_is_read(tmp_path):
    model = random_mixture(shared_scale=True)
    files = model_files(model, METADATA)
    config = json.loads(files[CONFIG_NAME])
    # What version 1 wrote: no options, outputs, dispersions, standardisations, offsets or classes.
    old = {
        "schema_version": 1,
        **{name: config[name] for name in ("gatewise_version", "created", "weights")},
        "gate": {"name": "softmax", "n_features": 2, "n_experts": 3},
        "experts": {"name": "linear", "n_features": 2, "n_experts": 3, "shared_scale": True},
        "family": {"name": "gaussian"},
        "metadata": {
            "feature_names": ["a", "b"],
            "gate_feature_names": ["a", "b"],
            "target_name": "y",
            "coding": None,
        },
    }
    write(tmp_path, old, files[WEIGHTS_NAME])
    loaded = load_model(tmp_path)
    assert loaded.metadata == METADATA
    x, y = inputs(model), targets("gaussian")
    assert torch.equal(loaded.model.log_prob(x, y), model.log_prob(x, y))
    save_model(tmp_path, loaded.model, metadata=loaded.metadata, overwrite=True)
    assert json.loads((tmp_path / CONFIG_NAME).read_bytes())["schema_version"] == 2


def write(folder, config, weights):
    """A folder whose checksums match, as one who tampers with care would write it."""
    config["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    rest = {key: value for key, value in config.items() if key != "sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    sealed = json.dumps({**rest, "sha256": hashlib.sha256(canonical.encode()).hexdigest()})
    (folder / CONFIG_NAME).write_bytes(sealed.encode())
    (folder / WEIGHTS_NAME).write_bytes(weights)


def tampered(folder, model, change):
    """The folder of a model with its configuration changed."""
    files = model_files(model, METADATA)
    config = json.loads(files[CONFIG_NAME])
    change(config)
    write(folder, config, files[WEIGHTS_NAME])


class SoftmaxOfOurOwn(SoftmaxGate):
    """Takes the registered name of another class."""


def test_models_that_cannot_be_rebuilt_are_not_saved(tmp_path):
    nested = HierarchicalGate(SoftmaxGate(2, 2), [SoftmaxOfOurOwn(2, 2), SoftmaxGate(2, 1)])
    with pytest.raises(InputError, match="SoftmaxOfOurOwn is not the class registered as 'softmax'"):
        model_files(random_mixture(gate=nested), METADATA)
    own = CallableExperts(2, 3, function=lambda x, eta: eta["a"] + x[..., 0], shapes={"a": ()})
    with pytest.raises(InputError, match="no registered name"):
        model_files(random_mixture(experts=own), METADATA)
    half = random_mixture()
    half.gate_scaler = Standardiser(torch.zeros(2).bfloat16(), torch.ones(2).bfloat16())
    with pytest.raises(InputError, match=r"it has 'gate_scaler\.mean' as bfloat16 \(2,\), and float \(2,\) is needed"):
        model_files(half, METADATA)
    mixed = random_mixture()
    mixed.gate.float()
    with pytest.raises(InputError, match="this one is in float32, float64"):
        model_files(mixed, METADATA)


class OptionsOfObjects(SoftmaxGate):
    """Gives options that are no plain data."""

    def options(self):
        return {"value": self.value}


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (object(), "gate.options.value"),
        ((1, 2), "gate.options.value"),
        (float("nan"), "gate.options: Value error, nan is not finite"),
        (10**7, "gate.options: Value error, 10000000 is more than 1000000"),
        ([[[10**7]]], "10000000 is more than 1000000"),
    ],
)
def test_options_must_be_plain_data_of_some_size(value, pattern):
    gate = OptionsOfObjects(2, 2)
    gate.value = value
    model = MixtureOfExperts.build(gate, "linear", "gaussian", 2, 2)
    with pytest.raises(InputError, match=f"this model cannot be saved: .*{pattern}"):
        describe_parts(model)


def test_an_unknown_function_is_refused(tmp_path):
    model = random_mixture(experts="callable", expert_options={"function": "tests.line"})
    tampered(tmp_path, model, lambda c: c["experts"]["options"].update(function="os.system"))
    with pytest.raises(ModelFolderError, match=r"unknown function 'os\.system': register it"):
        load_model(tmp_path)


def set_option(part, name, value):
    return lambda config: config[part]["options"].update({name: value})


HOSTILE = {
    "unknown option": ("softmax", "linear", set_option("gate", "command", "rm"), "cannot take the options"),
    "a size among the options": ("softmax", "linear", set_option("gate", "n_experts", 4), "which is a size"),
    "a scale among the options": ("softmax", "linear", set_option("experts", "shared_scale", True), "which is a size"),
    "family option": ("softmax", "linear", set_option("family", "df", 3.0), "the gaussian family cannot take"),
    "temperature": ("dense_to_sparse", "linear", set_option("gate", "temperature", -1.0), "must be positive"),
    "temperature text": (
        "dense_to_sparse",
        "linear",
        set_option("gate", "temperature", "hot"),
        "a temperature must be positive and finite",
    ),
    "temperature list": (
        "dense_to_sparse",
        "linear",
        set_option("gate", "temperature", [1.0]),
        "a temperature must be positive and finite",
    ),
    "temperature table": (
        "dense_to_sparse",
        "linear",
        set_option("gate", "temperature", {}),
        "a temperature must be positive and finite",
    ),
    "unknown activation": ("modified_softmax", "linear", set_option("gate", "transform", "exec"), "unknown activation"),
    "activation list": ("modified_softmax", "linear", set_option("gate", "transform", ["cos"]), "unknown activation"),
    "unknown inner gate": ("top_k", "linear", set_option("gate", "inner", "os"), "unknown gate 'os'"),
    "inner gate number": ("top_k", "linear", set_option("gate", "inner", 7), "unknown gate 7"),
    "inner options list": (
        "top_k",
        "linear",
        set_option("gate", "inner_options", [1]),
        "options of the inner gate must",
    ),
    "other K": ("top_k", "linear", set_option("gate", "n_active", 9), "n_active must be a whole number"),
    "groups text": ("hierarchical", "linear", set_option("gate", "groups", "abc"), "at least one expert, not 'a'"),
    "groups number": ("hierarchical", "linear", set_option("gate", "groups", 3), "int"),
    "groups sum": ("hierarchical", "linear", set_option("gate", "groups", [5, 5]), "not 3"),
    "inner list": ("hierarchical", "linear", set_option("gate", "inner", [1, 2]), "leave out the others|a table"),
    "hidden": ("softmax", "feed_forward", set_option("experts", "hidden", 10**6), "is needed"),
    "hidden number": ("softmax", "feed_forward", set_option("experts", "hidden", 2.0), "whole number"),
    "hidden beyond sizes": ("softmax", "feed_forward", set_option("experts", "hidden", 10**12), "is more than 1000000"),
    "degree": ("softmax", "polynomial_basis", set_option("experts", "degree", 10**6), "degree"),
    "power": ("softmax", "polynomial", set_option("experts", "power", 10**6), "the power of polynomial experts"),
    "deep": (
        "softmax",
        "linear",
        lambda c: c["gate"].update(options=json.loads('{"a":' * 40 + "1" + "}" * 40)),
        "nested more than 32 deep",
    ),
    "outputs": (
        "softmax",
        "linear",
        lambda c: c["experts"].update(n_outputs=10**6),
        "build the experts with n_outputs=1",
    ),
    "dispersions": ("softmax", "linear", lambda c: c["experts"].update(n_dispersion=9), "n_dispersion=1"),
    "no options": ("softmax", "linear", lambda c: c["gate"].update(options=None), r"at 'gate\.options'"),
    "options list": ("softmax", "linear", lambda c: c["gate"].update(options=[]), r"at 'gate\.options'"),
    "a scaler that is not there": (
        "softmax",
        "linear",
        lambda c: c.update(gate_scaler=True),
        "'gate_scaler.mean' as None",
    ),
    "a scaler as text": ("softmax", "linear", lambda c: c.update(gate_scaler="yes"), "at 'gate_scaler'"),
    "names of classes": (
        "softmax",
        "linear",
        lambda c: c["metadata"].update(class_names=["a", "b"]),
        "name 2 classes, and the gaussian family has none",
    ),
    "an offset": (
        "softmax",
        "linear",
        lambda c: c["metadata"].update(offset_name="z"),
        "the offset 'z', and the gaussian family takes none",
    ),
}


@pytest.mark.parametrize(("gate", "experts", "change", "pattern"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_configurations_are_refused(tmp_path, gate, experts, change, pattern):
    tampered(tmp_path, random_mixture(gate=gate, experts=experts), change)
    with pytest.raises(ModelFolderError, match=pattern):
        load_model(tmp_path)


def test_more_classes_than_the_experts_have_outputs_for(tmp_path):
    for n_classes in (2, 4, 10**9):
        model = random_mixture(case="three classes")
        tampered(tmp_path, model, set_option("family", "n_classes", n_classes))
        with pytest.raises(ModelFolderError, match=f"n_outputs={n_classes - 1}"):
            load_model(tmp_path)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_standardisation_that_divides_by_nothing_is_refused(tmp_path, scale):
    model = random_mixture()
    model.gate_scaler = Standardiser(torch.zeros(2), torch.ones(2)).double()
    model.gate_scaler.scale[1] = scale
    save_model(tmp_path / "m", model, metadata=METADATA)
    with pytest.raises(ModelFolderError, match="column 1 has the mean 0 and the scale"):
        load_model(tmp_path / "m")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**7), 10**7)
    | st.sampled_from([0, 1, 2, 3, 10**6])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from([*GATES, "relu", "logit", "slope", "full"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "n_experts", "options", "inner", "groups", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PARTS = [
    *(("gate", name, options) for name, options in EVERY_GATE),
    *(("experts", name, options) for name, options in EVERY_BANK),
    *(("family", family, options) for family, options, _, _ in FAMILY_CASES.values()),
]


@settings(max_examples=100)
@given(data=st.data())
def test_options_of_wrong_types_are_refused_or_taken_as_they_are(data):
    check_options_of_wrong_types(data)


@pytest.mark.slow
@settings(max_examples=400)
@given(data=st.data())
def test_many_options_of_wrong_types_are_refused_or_taken_as_they_are(data):
    check_options_of_wrong_types(data)


def check_options_of_wrong_types(data):
    """Whatever an option holds: an input error, or a model whose options are those that were asked for."""
    what, name, options = data.draw(st.sampled_from(PARTS))
    cases = {family: case for case, (family, _, _, _) in FAMILY_CASES.items()}
    parts = describe_parts(random_mixture(case=cases[name] if what == "family" else "gaussian"))
    whole = parts.model_dump()
    own = describe_part(what, name, options)
    key = data.draw(st.sampled_from([*own["options"], "unknown"]))
    own["options"][key] = data.draw(PLAIN)
    try:
        config = type(parts).model_validate({**whole, what: {**whole[what], **own}}, strict=True)
    except ValueError:
        return
    try:
        with torch.device("meta"):
            model = build_parts(config)
    except InputError:
        return
    rebuilt = getattr(model, what).options()
    assert rebuilt[key] == own["options"][key] or isinstance(rebuilt[key], list | dict)


def describe_part(what, name, options):
    """A part's name and all its options."""
    if what == "family":
        return {"name": name, "options": FAMILIES[name].of(**options).options()}
    registry = GATES if what == "gate" else EXPERTS
    return {"name": name, "options": registry[name].of(2, 3, **options).options()}


@pytest.mark.parametrize(
    "change",
    [
        set_option("experts", "hidden", 10**6),
        lambda c: (c["gate"].update(n_experts=10**6), c["experts"].update(n_experts=10**6)),
        lambda c: (c["experts"].update(n_outputs=10**6, n_dispersion=0), c.update(family=classes(10**6 + 1))),
    ],
)
def test_hostile_sizes_take_no_memory(tmp_path, monkeypatch, change):
    devices = []

    def recorded(config):
        devices.append(torch.get_default_device().type)
        return build_parts(config)

    monkeypatch.setattr("gatewise.io.model_arrays.build_parts", recorded)
    model = random_mixture(experts="feed_forward")
    save_model(tmp_path / "m", model, metadata=METADATA)
    load_model(tmp_path / "m")
    assert devices == ["meta", "meta", "cpu"]
    devices.clear()
    tampered(tmp_path, model, change)
    with pytest.raises(ModelFolderError, match=r"is needed|too few for 1000000 experts"):
        load_model(tmp_path)
    assert set(devices) <= {"meta"}


def classes(n_classes):
    return {"name": "categorical", "options": {"n_classes": n_classes}}
