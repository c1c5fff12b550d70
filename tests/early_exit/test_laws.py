"""What must hold of masses, targets and losses, against loops over their definitions."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gatewise.early_exit.decoding import best_exits, exit_masses, fire_levels, head_loss
from gatewise.early_exit.gates import ExitGates, logistic_regressions


def gates_of(draw_seed, n=40, gates=5):
    generator = torch.Generator().manual_seed(draw_seed)
    g = torch.rand(n, gates, generator=generator, dtype=torch.float64)
    # Ends of the interval, where budgets run out and nothing is left to divide.
    edges = torch.rand(n, gates, generator=generator)
    return torch.where(edges < 0.15, 0.0, torch.where(edges > 0.85, 1.0, g))


def plain_masses(g, decoding):
    """The definitions, exit by exit."""
    masses, total, reached = [], 0.0, 0.0
    for value in g:
        if decoding == "cdf":
            masses.append(max(reached, value) - reached)
            reached = max(reached, value)
        else:
            masses.append(max(0.0, min(value, 1.0 - total)))
            total += value
    return [*masses, 1.0 - sum(masses)]


def plain_levels(g, decoding):
    if decoding == "cdf":
        return list(g)
    levels, left = [], 1.0
    for mass in plain_masses(g, "paper")[:-1]:
        level = min(1.0, max(0.0, mass / left)) if left > 1e-12 else 1.0
        levels.append(level)
        left *= 1.0 - level
    return levels


@pytest.mark.parametrize("decoding", ["cdf", "paper"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_masses_are_a_distribution(decoding, seed):
    g = gates_of(seed)
    masses = exit_masses(g, decoding)
    assert (masses >= 0.0).all()
    # Sums of six numbers in float64.
    torch.testing.assert_close(masses.sum(1), torch.ones(len(g), dtype=torch.float64), rtol=0, atol=1e-14)
    expected = torch.tensor([plain_masses(row, decoding) for row in g.tolist()], dtype=torch.float64)
    torch.testing.assert_close(masses, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("decoding", ["cdf", "paper"])
def test_levels_are_those_of_the_definition(decoding):
    g = gates_of(3, n=200)
    expected = torch.tensor([plain_levels(row, decoding) for row in g.tolist()], dtype=torch.float64)
    # Where nearly nothing is left, a quotient of two small numbers carries their rounding.
    torch.testing.assert_close(fire_levels(g, decoding), expected, rtol=0, atol=1e-6)


def test_the_exit_of_the_cdf_is_the_median():
    """Fire at the first g ≥ ½: the first exit at which the masses reach ½."""
    g = gates_of(5, n=500)
    fires = torch.cat([fire_levels(g) >= 0.5, torch.ones(len(g), 1, dtype=torch.bool)], 1)
    masses = exit_masses(g).cumsum(1)
    assert torch.equal((fires.cumsum(1) == 0).sum(1), (masses < 0.5).sum(1).clamp_max(5))


def test_targets_at_the_ends_of_lambda():
    losses = torch.rand(300, 6, generator=torch.Generator().manual_seed(0))
    costs = torch.linspace(0.1, 1.0, 6)
    assert torch.equal(best_exits(losses, costs, 0.0), losses.argmin(1))
    assert (best_exits(losses, costs, 1e9) == 0).all()
    assert (best_exits(torch.zeros(4, 6), costs, 0.0) == 0).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_mean_cost_of_targets_does_not_rise_with_lambda(seed):
    generator = torch.Generator().manual_seed(seed)
    # Rounded, so that there are ties.
    losses = (torch.rand(200, 5, generator=generator) * 8).round() / 8
    costs = torch.rand(5, generator=generator, dtype=torch.float64).cumsum(0)
    found = [costs[best_exits(losses, costs, lam)].mean().item() for lam in (0, 0.01, 0.1, 0.125, 0.3, 1, 3, 1e9)]
    assert all(after <= before for before, after in itertools.pairwise(found))


def gradient(weighting, head, x, y, masses):
    logits = torch.stack([layer(x) for layer in head], 1)
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), y[:, None].expand(-1, 3), reduction="none")
    return torch.autograd.grad(head_loss(losses, masses, weighting), list(head.parameters()))


def test_the_released_loss_is_the_uniform_one_and_ours_is_not():
    """Their ratio Σ CE / Σ P·CE has a gradient, which undoes the weights; found in the released code, see the docs."""
    torch.manual_seed(0)
    head = nn.ModuleList(nn.Linear(4, 3) for _ in range(3)).double()
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randint(3, (50,))
    masses = exit_masses(torch.rand(50, 2, dtype=torch.float64))
    uniform, released, ours = (gradient(each, head, x, y, masses) for each in ("uniform", "released", "masses"))
    for same, other in zip(released, uniform, strict=True):
        # Rounding of products of numbers near 1 in float64.
        torch.testing.assert_close(same, other, rtol=0, atol=1e-14)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, uniform, strict=True)) > 1e-2


def test_single_weighting_trains_the_exit_that_answers():
    losses = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    masses = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert head_loss(losses, masses, "single").item() == pytest.approx((1.0 + 4.0) / 2)


def test_a_right_sample_does_not_divide_by_zero():
    losses = torch.zeros(2, 3, requires_grad=True)
    loss = head_loss(losses, torch.tensor([[0.5, 0.5, 0.0]] * 2))
    (found,) = torch.autograd.grad(loss, losses)
    assert torch.isfinite(found).all()


def test_logistic_regressions_are_at_their_minima():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 3, 4, generator=generator, dtype=torch.float64)
    t = torch.rand(400, 3, generator=generator) < torch.sigmoid(2.0 * x[..., 0] - 1.0)
    weight = torch.tensor([1.0, 3.0, 0.5])
    w, b = logistic_regressions(x, t, weight)
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    z = (x * w).sum(-1) + b
    loss = nn.functional.binary_cross_entropy_with_logits(z, t.double(), reduction="none")
    weighted = torch.where(t, weight.double(), 1.0) * loss
    value = weighted.mean(0).sum() + 1e-4 * (w * w).sum() + 1e-6 * (b * b).sum()
    for part in torch.autograd.grad(value, (w, b)):
        # Newton stops at a decrement of 1e-14: the gradient is about its root times a curvature of at least 1e-2.
        assert part.abs().max() < 1e-7


def test_separable_targets_stay_finite():
    x = torch.linspace(-1, 1, 50, dtype=torch.float64).reshape(-1, 1, 1)
    for targets in (x[:, :, 0] > 0, torch.ones(50, 1), torch.zeros(50, 1)):
        w, b = logistic_regressions(x, targets)
        assert torch.isfinite(w).all()
        assert torch.isfinite(b).all()


def test_constant_inputs_give_one_value():
    targets = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)) < 0.7
    gates = ExitGates(2, 4).fit(torch.full((100, 2, 4), 0.3), targets)
    values = gates.all(torch.full((7, 2, 4), 0.3))
    assert (values == values[0]).all()
    # The ridge on the bias moves it by about 1e-5.
    torch.testing.assert_close(values[0], targets.float().mean(0), rtol=0, atol=1e-4)
