"""Mixtures that are the truth with parameters far from it, on the library's own modules: each witness at rounding.

Weights σ(z) of a sigmoid gate that is not normalised add nothing up, so σ(z) + σ(−z) = 1 moves experts about.
"""

import math

import numpy as np
import pytest
import torch

from gatewise.experts import build_experts
from gatewise.gates import build_gate
from gatewise.model import MixtureOfExperts
from gatewise.theory import ModulusDesign, identify, modulus
from gatewise.theory.global_copies import copies_of, global_copies
from gatewise.theory.modulus import BoxInputs, Search, Window

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


# --- the check for such copies


FREE = {"normalised": False}


@pytest.mark.parametrize(
    ("gate", "options", "experts", "expert_options", "known", "wanted"),
    [
        (
            "sigmoid",
            FREE,
            "linear",
            {},
            (),
            [
                ("null expert", "any", 1),
                ("complement", "constant gate", 1),
                ("complement", "any", 1),
                ("exchange", "constant gate", 0),
            ],
        ),
        (
            "sigmoid",
            FREE,
            "polynomial",
            {"power": 2},
            (),
            [("null expert", "any", 1), ("complement", "constant gate", 1)],
        ),
        (
            "sigmoid",
            FREE,
            "feed_forward",
            RELU,
            ("outer_weight",),
            [("null expert", "any", 1), ("complement", "constant gate", 1)],
        ),
        (
            "sigmoid",
            FREE,
            "feed_forward",
            TANH,
            ("outer_weight",),
            [("null expert", "any", 1), ("constant expert", "constant gate and expert", 1)],
        ),
        (
            "sigmoid",
            FREE,
            "feed_forward",
            {"hidden": 1, "activation": "gelu"},
            ("outer_weight",),
            [("null expert", "any", 1)],
        ),
        ("sigmoid", {}, "linear", {}, (), []),
        ("softmax", {}, "linear", {}, (), []),
        ("softmax", {}, "feed_forward", TANH, (), [("null output", "any", 1)]),
        ("softmax", {}, "feed_forward", TANH, ("outer_weight",), []),
        ("laplace", {}, "feed_forward", RELU, (), [("null output", "any", 1)]),
    ],
)
def test_copies_are_found_by_what_parts_do(gate, options, experts, expert_options, known, wanted):
    bank = build_experts(experts, 2, 3, **expert_options)
    if known:
        bank.assign_parameters({**bank.own_parameters(), "outer_weight": torch.ones(3, 1)})
    found = global_copies(build_gate(gate, 2, 3, **options), bank, known)
    assert [(one.name, one.truths, one.extra) for one in found] == wanted


def test_a_truth_has_the_copies_that_it_allows():
    def truth(slopes, weights):
        model = MixtureOfExperts.build("sigmoid", "linear", "gaussian", 1, 2, gate_options=FREE).double()
        model.gate.assign_parameters(
            {
                "weight": torch.tensor(slopes, dtype=torch.float64),
                "bias": torch.tensor([0.3, -0.2], dtype=torch.float64),
            }
        )
        model.experts.assign(torch.tensor(weights), torch.zeros(2))
        return model

    sloped = truth([[0.7], [-0.9]], [[1.0, -1.5], [-1.0, 1.0]])
    assert copies_of(sloped, 2) == ()
    assert {one.name for one in copies_of(sloped, 3)} == {"null expert", "complement"}
    constant = truth([[0.0], [-0.9]], [[1.0, -1.5], [-1.0, 1.0]])
    assert [one.name for one in copies_of(constant, 2)] == ["exchange"]


def test_the_modulus_and_identify_name_them():
    truth = MixtureOfExperts.build("sigmoid", "linear", "gaussian", 1, 2, gate_options=FREE).double()
    truth.gate.assign_parameters(
        {
            "weight": torch.tensor([[0.0], [0.9]], dtype=torch.float64),
            "bias": torch.tensor([0.3, -0.2], dtype=torch.float64),
        }
    )
    truth.experts.assign(torch.tensor([[1.0, -1.5], [-1.0, 1.0]]), torch.zeros(2))
    design = ModulusDesign(
        distance="l2",
        inputs=BoxInputs(nodes=8),
        window=Window(largest=0.1, smallest=0.05, per_decade=3),
        search=Search(starts=1, polish=1),
    )
    found = modulus(truth, 3, ["experts.bias[0]"], cells=[0, 0, 1], design=design)
    assert "complement" in {one.name for one in found.copies}
    assert "w(z) + w(−z) = 1" in " ".join(found.to_text().split())
    assert found.to_dict()["copies"][0]["name"] == "null expert"
    identified = identify("sigmoid", "linear", n_features=1, gate_options=FREE)
    assert [one.name for one in identified.copies][-1] == "exchange"
    assert "Copies of the truth far from it" in identified.text()
    ridge = identify("sigmoid", "ridge", n_features=1, gate_options=FREE, expert_options={"activation": "tanh"})
    assert [one.name for one in ridge.copies] == ["null expert", "constant expert"]
    assert identify("softmax", "linear", "gaussian", n_features=1).copies == ()
