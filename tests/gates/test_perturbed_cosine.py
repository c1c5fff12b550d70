import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import CosineGate, PerturbedCosineGate
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


@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
def test_contract(d, k):
    gate = randomise(PerturbedCosineGate(d, k))
    check_all(gate, inputs(gate))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + d


@pytest.mark.parametrize("tau2", [0.0, 0.1])
@pytest.mark.parametrize("d", [2, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
def test_without_tau1_null_directions_are_the_cosine_gates(d, k, tau2):
    gate = randomise(PerturbedCosineGate(d, k, tau1=0.0, tau2=tau2))
    check_all(gate, inputs(gate))
    of_cosine = [(symmetry.name, symmetry.dimension) for symmetry in CosineGate(d, k).symmetries()]
    assert [(symmetry.name, symmetry.dimension) for symmetry in gate.symmetries()] == of_cosine


@pytest.mark.parametrize("tau1", [0.0, 0.1])
def test_one_expert(tau1):
    gate = randomise(PerturbedCosineGate(3, 1, tau1=tau1))
    check_all(gate, inputs(gate))


def test_more_experts_than_features():
    for tau1 in (0.0, 0.1):
        gate = randomise(PerturbedCosineGate(2, 5, tau1=tau1))
        check_null_space(gate, inputs(gate))
        check_symmetries(gate, inputs(gate))


def test_logits_by_hand():
    gate = randomise(PerturbedCosineGate(3, 4, tau1=0.3, tau2=0.7))
    x = inputs(gate)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    score = x.numpy() @ weight.T
    score /= (np.linalg.norm(weight, axis=1) + 0.3) * (np.linalg.norm(x.numpy(), axis=1)[:, None] + 0.7)
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), score + bias, rtol=1e-12)
    np.testing.assert_allclose(gate.slope_score(x).detach().numpy(), score, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("d", [1, 3])
def test_without_constants_it_is_the_cosine_gate(d):
    gate, cosine = randomise(PerturbedCosineGate(d, 3, 0.0, 0.0)), randomise(CosineGate(d, 3))
    x = torch.cat([inputs(gate), torch.zeros(1, d, dtype=torch.float64)])
    assert torch.equal(gate.logits(x), cosine.logits(x))
    own, names = cosine.own_parameters(), features(cosine)
    assert torch.equal(gate.identified(own), cosine.identified(own))
    assert gate.quantities(names) == cosine.quantities(names)
    near = PerturbedCosineGate(d, 3, 1e-11, 1e-11).double()
    near.assign_parameters(own)
    torch.testing.assert_close(near.logits(x), cosine.logits(x), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_translation_of_v_adds_one_function_of_x_to_all_logits(size):
    gate = randomise(PerturbedCosineGate(3, 4, tau1=0.5))
    with torch.no_grad():
        gate.weight.mul_(size)
    own, x = gate.own_parameters(), inputs(gate)
    translation = gate.symmetries()[1]
    v = own["weight"] / (own["weight"].norm(dim=1, keepdim=True) + 0.5)
    # Shorter than what any v has left to the unit sphere.
    t = (1.0 - v.norm(dim=1).max()) * torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
    moved = translation.act(own, t)
    shifted = moved["weight"] / (moved["weight"].norm(dim=1, keepdim=True) + 0.5)
    torch.testing.assert_close(shifted, v + t, rtol=1e-12, atol=1e-12)
    change = (log_weights_at(gate, moved, x) - gate(x)).detach()
    assert change.abs().max() < 1e-10
    other = PerturbedCosineGate(3, 4, tau1=0.5).double()
    other.assign_parameters(moved)
    expected = x @ t / (x.norm(dim=1) + 0.1)
    torch.testing.assert_close((other.logits(x) - gate.logits(x)).detach(), expected[:, None].expand(-1, 4))
    # And back again, through the norms of β, which may be much longer than τ₁.
    torch.testing.assert_close(translation.act(moved, -t)["weight"], own["weight"], rtol=1e-9, atol=1e-9)


def test_a_translation_that_leaves_the_ball_is_not_a_number():
    gate = randomise(PerturbedCosineGate(2, 2))
    moved = gate.symmetries()[1].act(gate.own_parameters(), torch.tensor([5.0, 0.0], dtype=torch.float64))
    assert torch.isnan(moved["weight"]).all()


def test_identified_functions_by_hand():
    gate = randomise(PerturbedCosineGate(2, 3, tau1=0.5))
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    v = weight / (np.linalg.norm(weight, axis=1, keepdims=True) + 0.5)
    expected = np.concatenate([[bias[i] - bias[2], *(v[i] - v[2])] for i in (0, 1)])
    np.testing.assert_allclose(gate.identified(gate.own_parameters()).numpy(), expected, rtol=1e-12)
    names = [(q.component, q.term) for q in gate.quantities(features(gate))]
    terms = ("(intercept)", "direction x0", "direction x1")
    assert names == [(f"gate {i} vs 3", term) for i in (1, 2) for term in terms]


@pytest.mark.parametrize(("tau1", "tau2"), [(0.1, 0.1), (0.0, 0.1), (0.1, 0.0), (0.0, 0.0)])
def test_singular_points(tau1, tau2):
    gate = randomise(PerturbedCosineGate(3, 2, tau1, tau2))
    zero = torch.zeros(2, 3, dtype=torch.float64)
    torch.testing.assert_close(gate.logits(zero), gate.bias.expand(2, -1))
    check_finite(gate, zero)
    with torch.no_grad():
        gate.weight[0] = 0.0
    x = inputs(gate)
    check_finite(gate, x)
    torch.testing.assert_close(gate.logits(x)[:, 0], gate.bias[0].expand(len(x)))
    gate.logits(x)[:, 0].sum().backward()
    # The derivative of v at β = 0 is 1/τ₁ times the identity.
    seen = (x / (x.norm(dim=1, keepdim=True) + tau2)).sum(0)
    expected = seen / tau1 if tau1 else torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(gate.weight.grad[0], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "needs a feature"),
        ({"tau1": -0.1}, "tau1 must be at least 0 and finite, not -0.1"),
        ({"tau2": math.inf}, "tau2 must be at least 0 and finite"),
        ({"tau2": math.nan}, "tau2 must be at least 0 and finite"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        PerturbedCosineGate(**{"n_features": 3, "n_experts": 2, **arguments})
