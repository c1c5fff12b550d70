"""Mixing measures of models and of plain arrays."""

import pickle

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import CosineGate, HierarchicalGate, LaplaceGate, SoftmaxGate, TopKGate, build_gate
from gatewise.model import MixtureOfExperts
from gatewise.parts.standardiser import Standardiser
from gatewise.theory import MixingMeasure, voronoi_loss
from tests.theory.measures import gaussian_linear


def random_model(gate, n_experts=3, n_features=2, experts="linear", family="gaussian", seed=0, **options):
    model = MixtureOfExperts.build(gate, experts, family, n_features, n_experts, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def test_of_a_softmax_model():
    model = random_model("softmax")
    measure = MixingMeasure.of(model)
    assert measure.n_atoms == 3
    assert set(measure.parameters) == {"gate_slope", "expert_slope", "expert_intercept", "variance"}
    np.testing.assert_allclose(measure.weights, model.gate.bias.detach().exp(), rtol=1e-15)
    np.testing.assert_allclose(
        measure.parameters["variance"], (2.0 * model.experts.log_scale.detach()).exp(), rtol=1e-14
    )
    np.testing.assert_array_equal(measure.parameters["gate_slope"], model.gate.weight.detach())


def test_weights_of_other_gates():
    tempered = random_model("dense_to_sparse")
    tau = tempered.gate.temperature().item()
    np.testing.assert_allclose(
        MixingMeasure.of(tempered).weights, np.exp(tempered.gate.bias.detach().numpy() / tau), rtol=1e-14
    )
    sigmoid = random_model("sigmoid", gate_options={"normalised": False})
    bias = sigmoid.gate.bias.detach().numpy()
    np.testing.assert_allclose(MixingMeasure.of(sigmoid).weights, 1.0 / (1.0 + np.exp(-bias)), rtol=1e-14)
    np.testing.assert_array_equal(MixingMeasure.of(sigmoid).bias, bias)
    gaussian = random_model("gaussian")
    assert MixingMeasure.of(gaussian).weights.sum() == pytest.approx(1.0)


def test_conditional_gaussian_gate_is_the_quadratic_gate():
    model = random_model("gaussian", gate_options={"joint": False})
    measure = MixingMeasure.of(model)
    assert measure.gate == "quadratic"
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points, matrix = x.numpy(), measure.parameters["gate_quadratic"]
    logits = np.log(measure.weights) + points @ measure.parameters["gate_slope"].T
    logits += np.einsum("na,kab,nb->nk", points, matrix, points)
    expected = model.log_weights(x).detach().numpy()
    found = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_users_units():
    scaler = Standardiser(torch.tensor([1.0, -2.0]).double(), torch.tensor([2.0, 0.5]).double())
    plain = random_model("softmax")
    stored = MixtureOfExperts(plain.gate, plain.experts, Gaussian(), gate_scaler=scaler, expert_scaler=scaler)
    measure = MixingMeasure.of(stored)
    assert measure.units == (None, None)
    x = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logits = np.log(measure.weights) + x.numpy() @ measure.parameters["gate_slope"].T
    np.testing.assert_allclose(
        logits - np.log(np.exp(logits).sum(1, keepdims=True)), stored.log_weights(x).detach(), atol=1e-13
    )
    locations = x.numpy() @ measure.parameters["expert_slope"].T + measure.parameters["expert_intercept"]
    np.testing.assert_allclose(locations, stored.expert_parameters(x)[0].detach(), atol=1e-13)


def test_units_that_cannot_be_undone_are_kept_and_compared():
    scaler = Standardiser(torch.tensor([1.0, -2.0]).double(), torch.tensor([2.0, 0.5]).double())
    gate, experts = CosineGate(2, 2).double(), LinearExperts(2, 2).double()
    stored = MixingMeasure.of(MixtureOfExperts(gate, experts, Gaussian(), gate_scaler=scaler))
    assert stored.units == (((1.0, -2.0), (2.0, 0.5)), None)
    with pytest.raises(InputError, match="different units"):
        voronoi_loss(stored, MixingMeasure.of(MixtureOfExperts(gate, experts, Gaussian())), "D1")


def test_nested():
    gate = HierarchicalGate(SoftmaxGate(2, 2), [LaplaceGate(2, 2), LaplaceGate(2, 1)]).double()
    measure = MixingMeasure.of(MixtureOfExperts(gate, LinearExperts(2, 3).double(), Gaussian()))
    assert (measure.n_atoms, [group.n_atoms for group in measure.groups]) == (2, [2, 1])
    assert measure.groups[0].gate == "laplace"
    assert set(measure.groups[1].parameters) == {"gate_centre", "expert_slope", "expert_intercept", "variance"}
    assert list(measure.parameters) == ["gate_slope"]
    inner = HierarchicalGate(SoftmaxGate(2, 1), [gate])
    with pytest.raises(InputError, match="two levels"):
        MixingMeasure.of(MixtureOfExperts(inner, LinearExperts(2, 3).double(), Gaussian()))


def test_top_k_is_kept():
    gate = TopKGate(SoftmaxGate(1, 3), n_active=2, select_on="logit")
    measure = MixingMeasure.of(MixtureOfExperts(gate, LinearExperts(1, 3), Gaussian()))
    assert (measure.gate, measure.n_active, measure.options["select_on"]) == ("softmax", 2, "logit")


@pytest.mark.parametrize(
    ("family", "options", "entries"),
    [
        ("poisson", {}, set()),
        ("gamma", {}, {"dispersion_shape"}),
        ("student_t", {}, {"variance", "dispersion_degrees of freedom"}),
        ("multivariate_gaussian", {"n_targets": 2}, {f"dispersion_scale[{j}]" for j in range(2)}),
    ],
)
def test_dispersions(family, options, entries):
    model = random_model("softmax", family=family, family_options=options)
    names = {n for n in MixingMeasure.of(model).parameters if not n.startswith(("gate_", "expert_"))}
    assert entries <= names
    assert all(name == "variance" or name.startswith("dispersion_") for name in names)


def test_a_users_gate_declares_its_translations():
    class Own(SoftmaxGate):
        name = "own_softmax"

    model = MixtureOfExperts(Own(2, 2).double(), LinearExperts(2, 2).double(), Gaussian())
    with torch.no_grad():
        model.gate.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    measure = MixingMeasure.of(model)
    assert measure.translations == ("bias", "gate_slope")
    assert voronoi_loss(measure.translated(bias=1.0, gate_slope=[5.0, -5.0]), measure, "D1").value < 1e-13

    class Scaled(SoftmaxGate):
        name = "own_scaled"

        def symmetries(self):
            return build_gate("dense_to_sparse", 2, 2).symmetries()

    with pytest.raises(InputError, match="declares the symmetry 'scale'"):
        MixingMeasure.of(MixtureOfExperts(Scaled(2, 2), LinearExperts(2, 2), Gaussian()))


def test_immutable_and_picklable():
    measure = gaussian_linear(2, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="read-only"):
        measure.parameters["gate_slope"][0] = 1.0
    with pytest.raises(TypeError):
        measure.parameters["gate_slope"] = np.zeros(2)
    again = pickle.loads(pickle.dumps(measure))
    np.testing.assert_array_equal(again.parameters["variance"], measure.parameters["variance"])
    assert voronoi_loss(again, measure, "D1").value == 0.0


@pytest.mark.parametrize(
    ("weights", "parameters", "message"),
    [
        ([], {}, "not all 0"),
        ([-1.0, 1.0], {}, "not all 0"),
        ([1.0, np.inf], {}, "not finite"),
        ([1.0, 1.0], {"gate_slope": [1.0]}, "one row for each"),
        ([1.0], {"slope": [1.0]}, "names begin with"),
        ([1.0], {"variance": [-1.0]}, "square of the scale"),
    ],
)
def test_bad_arrays(weights, parameters, message):
    with pytest.raises(InputError, match=message):
        MixingMeasure(weights, parameters)


def test_what_a_gate_does_not_allow():
    measure = MixingMeasure([1.0], {"gate_centre": [[0.0]]}, gate="laplace")
    with pytest.raises(InputError, match="no translation of gate_centre"):
        measure.translated(gate_centre=1.0)
    with pytest.raises(InputError, match="no order"):
        measure.permuted([1])
    with pytest.raises(InputError, match="one for each"):
        MixingMeasure([1.0, 1.0], {}, groups=(measure,))
    large = random_model("softmax")
    with torch.no_grad():
        large.gate.bias.fill_(1000.0)
    with pytest.raises(InputError, match="subtract one number from all"):
        MixingMeasure.of(large)
