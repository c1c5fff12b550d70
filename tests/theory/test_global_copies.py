"""Mixtures that are the truth with parameters far from it, on the library's own modules: each witness at rounding.

Weights σ(z) of a sigmoid gate that is not normalised add nothing up, so σ(z) + σ(−z) = 1 moves experts about.
"""

import math

import numpy as np
import pytest
import torch

from gatewise.model import MixtureOfExperts

X = torch.from_numpy(np.random.default_rng(0).uniform(-2.0, 2.0, size=(400, 1)))
ROUNDING = 1e-14


def sigmoid(z):
    return 1.0 / (1.0 + math.exp(-z))


def logit(p):
    return math.log(p / (1.0 - p))


def regression(experts, atoms, **options):
    """Σ σ(β₁x + β₀) h(x, η) at X, atoms as (β₁, β₀, η …)."""
    k = len(atoms)
    model = MixtureOfExperts.build(
        "sigmoid", experts, "gaussian", 1, k, gate_options={"normalised": False}, expert_options=options
    ).double()
    given = torch.tensor(atoms, dtype=torch.float64)
    model.gate.assign_parameters({"weight": given[:, :1], "bias": given[:, 1]})
    own = model.experts.own_parameters()
    names = [name for name in own if name != "log_scale"]
    values = {name: given[:, 2 + place].reshape(own[name].shape) for place, name in enumerate(names)}
    model.experts.assign_parameters({**own, **values})
    with torch.no_grad():
        return model.mean(X)


def assert_same(first, second):
    assert (first - second).abs().max() < ROUNDING * max(1.0, float(first.abs().max()))


RELU = {"hidden": 1, "activation": "relu"}
TANH = {"hidden": 1, "activation": "tanh"}
OTHER = (0.9, -0.2, 1.0, -1.0)


@pytest.mark.parametrize("slope", [3.0, -3.0, 0.1])
def test_regime_1_linear_experts_have_no_rate_at_all(slope):
    """A true gate vector is 0: σ(z) h′ + σ(−z) h′ = h′ = σ(c) h for any z, so β₁, a and b are not identified."""
    c, a, b = 0.3, -1.5, 1.0
    truth = regression("linear", [(0.0, c, a, b), OTHER])
    share = sigmoid(c)
    copy = [(slope, 0.4, share * a, share * b), (-slope, -0.4, share * a, share * b), OTHER]
    assert_same(regression("linear", copy), truth)
    moved = [copy[0], (-slope, -0.3, share * a, share * b), OTHER]
    assert (regression("linear", moved) - truth).abs().max() > 1e-3


@pytest.mark.parametrize("slope", [3.0, -3.0])
def test_regime_1_relu_experts_without_output_weight_neither(slope):
    c, a, b = 0.3, 1.2, 0.4
    other = (0.9, -0.2, -0.8, 0.2, 1.0)
    truth = regression("feed_forward", [(0.0, c, a, b, 1.0), other], **RELU)
    share = sigmoid(c)
    copy = [(slope, 0.4, share * a, share * b, 1.0), (-slope, -0.4, share * a, share * b, 1.0), other]
    assert_same(regression("feed_forward", copy, **RELU), truth)


def test_regime_1_linear_experts_exactly_specified():
    """σ(z₂)h₂ + σ(c)h₁ = σ(z₂)(h₂ + σ(c)h₁) + σ(−z₂)·σ(c)h₁: two atoms for two, and all of η and one β₁ are others."""
    c, a, b = 0.3, -1.5, 1.0
    slope, bias, a_2, b_2 = OTHER
    share = sigmoid(c)
    truth = regression("linear", [(0.0, c, a, b), OTHER])
    copy = [(slope, bias, a_2 + share * a, b_2 + share * b), (-slope, -bias, share * a, share * b)]
    assert_same(regression("linear", copy), truth)


@pytest.mark.parametrize("first", [0.5, 0.6, 0.7])
@pytest.mark.parametrize("delta", [0.01, 0.3, -2.0])
def test_a_constant_tanh_expert_is_copied_exactly_at_any_displacement(first, delta):
    """½T₂ tanh(z) + σ(−2z) T₂ = σ(β₀*) T with T₂ = 2σ(β₀*)T, whatever σ(β₀*): β₁ and a are not identified."""
    b = 0.4
    other = (0.9, -0.2, -0.8, -0.3, 1.0)
    truth = regression("feed_forward", [(0.0, logit(first), 0.0, b, 1.0), other], **TANH)
    second = 2.0 * first * math.tanh(b)
    assert abs(second) < 1.0
    copy = [
        (0.0, logit(0.5 * second), delta, 0.1, 1.0),
        (-2.0 * delta, -0.2, 0.0, math.atanh(second), 1.0),
        other,
    ]
    assert_same(regression("feed_forward", copy, **TANH), truth)
    # The intercept of the second atom is not that of the truth; b is not identified either way.
    if first != 0.5:
        assert 0.05 < abs(math.atanh(second) - b) < 0.35


@pytest.mark.parametrize(
    ("experts", "zero", "options"),
    [("linear", (0.0, 0.0), {}), ("feed_forward", (0.0, 0.0, 1.0), RELU), ("feed_forward", (0.0, 0.0, 1.0), TANH)],
)
@pytest.mark.parametrize("gate", [(0.7, 0.3), (-3.0, 2.0)])
def test_regime_2_the_truth_and_a_null_expert_are_the_truth(experts, zero, options, gate):
    """An expert that is 0, behind any gate: a fit with one expert too many is not misspecified."""
    rest = (1.0,) * (len(zero) - 2)
    atoms = [(0.7, 0.3, -1.5, 1.0, *rest), (-0.9, -0.2, 1.0, -1.0, *rest)]
    assert_same(regression(experts, [*atoms, (*gate, *zero)], **options), regression(experts, atoms, **options))


@pytest.mark.parametrize("c", [-1.0, 0.0, 2.0])
def test_regime_2_three_linear_experts_are_two_without_a_null_expert(c):
    """σ(z)h = σ(−z)(−h) + σ(c)·h/σ(c), any c."""
    slope, bias, a, b = 0.7, 0.3, -1.5, 1.0
    other = (-0.9, -0.2, 1.0, -1.0)
    share = sigmoid(c)
    copy = [(-slope, -bias, -a, -b), (0.0, c, a / share, b / share), other]
    assert_same(regression("linear", copy), regression("linear", [(slope, bias, a, b), other]))


def test_a_softmax_gate_leaves_a_null_output_weight_its_slope_and_intercept():
    """v₁ = 0 and v₂ w₂ = v (w₁ + w₂): an atom with an output weight of 0 may have any a and b, in least squares."""
    means = []
    for first in ((1.3, 0.4, 1.5), (-5.0, 2.0, 0.0)):
        model = MixtureOfExperts.build("softmax", "feed_forward", "gaussian", 1, 3, expert_options=TANH).double()
        model.gate.assign_parameters(
            {
                "weight": torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64),
                "bias": torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64),
            }
        )
        rest = [(1.3, 0.4, 3.0 - first[2]), (-0.8, -0.3, 1.0)]
        given = torch.tensor([first, *rest], dtype=torch.float64)
        own = model.experts.own_parameters()
        model.experts.assign_parameters(
            {
                **own,
                "inner_weight": given[:, 0].reshape(3, 1, 1),
                "inner_bias": given[:, 1:2],
                "outer_weight": given[:, 2:],
            }
        )
        with torch.no_grad():
            means.append(model.mean(X))
    assert_same(*means)
