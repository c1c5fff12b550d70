import math

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from gatewise.exceptions import InputError
from gatewise.gates import ActivationDenseToSparseGate, DenseToSparseGate
from gatewise.parts import activations
from tests.gates.helpers import (
    check_all,
    check_finite,
    check_null_space,
    check_symmetries,
    features,
    inputs,
    log_weights_at,
    randomise,
)

FUNCTIONS = {
    "identity": lambda z: z,
    "sigmoid": expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "gelu": lambda z: z * (1.0 + erf(z / math.sqrt(2.0))) / 2.0,
    "silu": lambda z: z * expit(z),
    "cos": np.cos,
    "cube": lambda z: z**3,
}


def dimensions(name, d, free):
    """Null directions besides the bias translation, for two and three experts and signs of the slopes that differ."""
    extra = {"identity": d + free, "relu": free, "cube": free + (d == 1)}
    return 1 + int(extra.get(name, 0))


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_null_directions(name, k, d, free):
    gate = randomise(ActivationDenseToSparseGate(d, k, name, 0.7, free), scale=0.5)
    with torch.no_grad():
        gate.weight[-1, 0] = -gate.weight[0, 0].sign() * 0.9
    x = inputs(gate, scale=1.0)
    check_symmetries(gate, x)
    check_null_space(gate, x)
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == dimensions(name, d, free)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_contract(name):
    gate = randomise(ActivationDenseToSparseGate(3, 3, name, 0.7))
    x = inputs(gate, scale=0.8)
    check_all(gate, x)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    tau = math.exp(gate.log_temperature.item())
    score = FUNCTIONS[name](x.numpy() @ weight.T)
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), (score + bias) / tau, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gate.slope_score(x).detach().numpy(), score / tau, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_contract_with_one_feature_and_with_one_expert(name, free):
    for d, k in ((1, 2), (1, 3), (3, 1), (1, 1)):
        gate = randomise(ActivationDenseToSparseGate(d, k, name, 0.7, free))
        check_all(gate, inputs(gate))


@pytest.mark.parametrize(
    ("name", "two", "three"),
    [
        ("tanh", ["exchange"], []),
        ("sigmoid", ["exchange"], []),
        ("cube", ["exchange"], []),
        ("cos", ["sign"] * 2, ["sign"] * 3),
        ("identity", [], []),
        ("relu", [], []),
        ("gelu", [], []),
        ("silu", [], []),
    ],
)
def test_discrete_symmetries(name, two, three):
    for k, expected in ((2, two), (3, three)):
        gate = randomise(ActivationDenseToSparseGate(2, k, name), seed=k)
        found = [symmetry for symmetry in gate.symmetries() if not symmetry.dimension]
        assert [symmetry.name for symmetry in found] == expected
        check_symmetries(gate, inputs(gate, scale=0.8))


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "cos"])
def test_the_exchange_is_no_symmetry_of_other_activations(name):
    gate = randomise(ActivationDenseToSparseGate(2, 2, name))
    own, x = gate.own_parameters(), inputs(gate)
    exchanged = {**own, "weight": -own["weight"].flip(0)}
    assert (log_weights_at(gate, exchanged, x) - gate(x)).abs().max() > 0.01


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("k", [2, 3])
def test_rectified_slopes_of_one_sign_can_be_translated_with_one_feature(k, sign):
    gate = randomise(ActivationDenseToSparseGate(1, k, "relu"))
    with torch.no_grad():
        gate.weight.copy_(sign * gate.weight.abs())
    x = inputs(gate)
    check_null_space(gate, x)
    check_symmetries(gate, x)
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 3
    translation = next(s for s in gate.symmetries() if s.name == "translation" and "half-line" in s.sentence)
    beyond = translation.act(gate.own_parameters(), torch.tensor([-100.0 * sign], dtype=torch.float64))
    assert torch.isnan(beyond["weight"]).all()


def test_identified_functions_by_hand():
    def of(name, d=2, free=True):
        gate = randomise(ActivationDenseToSparseGate(d, 2, name, 0.7, free))
        quantities = [(q.component, q.term, q.positive) for q in gate.quantities(features(gate))]
        tau = gate.temperature().item()
        return (
            gate.weight.tolist(),
            gate.bias.tolist(),
            tau,
            gate.identified(gate.own_parameters()).tolist(),
            quantities,
        )

    contrast = ("gate 1 vs 2", "(intercept)", False)
    four = [(f"gate {i}", f"x{j}", False) for i in (1, 2) for j in (0, 1)]
    weight, bias, tau, values, quantities = of("tanh")
    assert values == pytest.approx([bias[0] - bias[1], *weight[0], *weight[1], tau])
    assert quantities == [contrast, *four, ("gate", "temperature", True)]
    weight, bias, tau, values, quantities = of("tanh", free=False)
    assert values == pytest.approx([bias[0] - bias[1], *weight[0], *weight[1]])
    assert quantities == [contrast, *four]
    weight, bias, tau, values, quantities = of("cube")
    assert values == pytest.approx([(bias[0] - bias[1]) / tau, *(w / tau ** (1 / 3) for row in weight for w in row)])
    assert quantities == [contrast, *four]
    weight, bias, tau, values, quantities = of("identity")
    assert values == pytest.approx(
        [(a - b) / tau for a, b in zip([bias[0], *weight[0]], [bias[1], *weight[1]], strict=True)]
    )
    assert quantities == [contrast, ("gate 1 vs 2", "x0", False), ("gate 1 vs 2", "x1", False)]
    (first, second), bias, tau, values, quantities = of("relu", d=1)
    above, below = (max(s * first[0], 0.0) - max(s * second[0], 0.0) for s in (1.0, -1.0))
    assert values == pytest.approx([(bias[0] - bias[1]) / tau, above / tau, below / tau])
    assert quantities == [contrast, ("gate 1 vs 2", "x0 > 0", False), ("gate 1 vs 2", "x0 < 0", False)]
    (first, second), bias, tau, values, quantities = of("cube", d=1)
    assert values == pytest.approx([(bias[0] - bias[1]) / tau, (first[0] ** 3 - second[0] ** 3) / tau])
    assert quantities == [contrast, ("gate 1 vs 2", "x0³", False)]


def test_the_identity_is_the_dense_to_sparse_gate():
    gate, plain = randomise(ActivationDenseToSparseGate(2, 3, "identity")), randomise(DenseToSparseGate(2, 3))
    x = inputs(gate)
    torch.testing.assert_close(gate(x), plain(x))
    torch.testing.assert_close(gate.identified(gate.own_parameters()), plain.identified(plain.own_parameters()))
    assert gate.quantities(features(gate)) == plain.quantities(features(plain))


def test_of_a_users_activation_only_the_bias_translation_is_known(monkeypatch):
    monkeypatch.setitem(activations._ACTIVATIONS, "square", lambda z: z * z)
    gate = randomise(ActivationDenseToSparseGate(3, 3, "square"))
    x = inputs(gate)
    check_symmetries(gate, x)
    assert [symmetry.name for symmetry in gate.symmetries()] == ["translation"]
    # The square is homogeneous: its common scale is a null direction that no name tells of.
    check_null_space(gate, x, further=1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_at_zero_are_finite(name):
    gate = ActivationDenseToSparseGate(2, 3, name)
    check_finite(gate, torch.zeros(4, 2))
    check_finite(gate, inputs(gate))


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="unknown activation 'step'"):
        ActivationDenseToSparseGate(1, 2, "step")
    with pytest.raises(InputError, match="needs a feature"):
        ActivationDenseToSparseGate(0, 2)
    with pytest.raises(InputError, match="positive and finite"):
        ActivationDenseToSparseGate(1, 2, temperature=-1.0)
