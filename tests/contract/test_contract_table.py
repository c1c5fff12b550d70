"""What every valid combination of gate, experts, family and objective must do, checked by the same code for all."""

import copy
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch.func import functional_call

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, fit
from gatewise.fit.build import build_problem
from gatewise.fit.rows import checked_rows
from gatewise.fit.start import run_start
from gatewise.io import ModelMetadata, load_model, save_model
from tests.contract.combinations import (
    EXCLUSIONS,
    N_FEATURES,
    all_combinations,
    build,
    inputs,
    pairwise_combinations,
    targets,
)

PAIRWISE = pairwise_combinations()
# A fit costs three times as much as all else: the ordinary run fits until every part has been in three fits.
FITS_OF_A_PART = 2


def chosen_for_fits():
    """The first rows of the table in which a part has not been in so many before."""
    seen, found = Counter(), set()
    for row in PAIRWISE:
        if any(seen[place, part] < FITS_OF_A_PART for place, part in enumerate(row)):
            found.add(row)
            seen.update(enumerate(row))
    return found


def table(chosen):
    """All combinations, those that are not chosen as slow ones."""
    return [
        pytest.param(row, id=" / ".join(row), marks=[] if row in chosen else pytest.mark.slow)
        for row in all_combinations()
    ]


def test_the_table_is_as_large_as_asked():
    rows = all_combinations()
    assert len({row[0].split(",")[0] for row in rows}) >= 12
    assert len({row[1] for row in rows}) >= 6
    assert len({row[2] for row in rows}) >= 9
    for i, j in itertools.combinations(range(4), 2):
        assert {(row[i], row[j]) for row in PAIRWISE} == {(row[i], row[j]) for row in rows}


@pytest.mark.parametrize("row", table(set(PAIRWISE)))
def test_combination(row, tmp_path):
    gate, experts, family, objective = row
    model = build(gate, experts, family)
    x = inputs(24)
    y = targets(model, x)
    check_shapes(model, x, y, objective)
    check_value(model, x, y, objective)
    check_gradients(model, x, y, objective)
    check_symmetries(model, x)
    check_permutations(model, x)
    check_save_and_load(model, x, tmp_path)
    check_precision(model, x)
    check_route(model, x)


@pytest.mark.parametrize("row", table(chosen_for_fits()))
def test_combination_is_fitted(row):
    gate, experts, family, objective = row
    check_fit(build(gate, experts, family), objective)


def evaluate(model, x, y, objective):
    """What is maximised, row by row: (n,)."""
    if objective == "likelihood":
        return model.log_joint_density(x, y) if model.gate.is_joint else model.log_prob(x, y)
    residual = (y - model.mean(x)).reshape(len(x), -1)
    return -0.5 * residual.square().sum(-1)


def check_shapes(model, x, y, objective):
    weights = model.log_weights(x)
    assert weights.shape == (len(x), model.n_experts)
    if model.gate.normaliser == "softmax":
        torch.testing.assert_close(weights.exp().sum(-1), torch.ones(len(x), dtype=x.dtype), rtol=0.0, atol=1e-12)
    rows = evaluate(model, x, y, objective)
    assert rows.shape == (len(x),)
    # A batch of one row and two axes of batch give the same numbers.
    torch.testing.assert_close(evaluate(model, x[:1], y[:1], objective), rows[:1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        model.mean(x.reshape(4, 6, N_FEATURES)).reshape(model.mean(x).shape), model.mean(x), rtol=1e-12, atol=1e-12
    )


def check_value(model, x, y, objective):
    """The sum over experts, one by one, in plain arithmetic."""
    logits = model.gate.logits(x).detach().numpy()
    location, log_scale = model.experts(x)
    density = np.exp(model.family.log_density(y, location, log_scale).detach().numpy())
    means = model.family.mean(location, log_scale).detach().numpy()
    value = evaluate(model, x, y, objective).detach().numpy()
    for r in range(len(x)):
        weights = np.exp(logits[r])
        if model.gate.normaliser == "softmax" and not (model.gate.is_joint and objective == "likelihood"):
            weights = weights / weights.sum()
        if objective == "likelihood":
            expected = np.log(sum(weights[i] * density[r, i] for i in range(model.n_experts)))
        else:
            mean = sum(weights[i] * means[r, i] for i in range(model.n_experts))
            expected = -0.5 * np.sum((y[r].numpy() - mean) ** 2)
        np.testing.assert_allclose(value[r], expected, rtol=1e-10, atol=1e-12)


def check_gradients(model, x, y, objective):
    """Every parameter that the objective may depend on is reached, and agrees with finite differences."""
    named = {name: value.detach() for name, value in model.named_parameters()}

    def total(parameters):
        class Row(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self):
                return evaluate(self.model, x, y, objective).sum()

        return functional_call(Row(), {f"model.{name}": value for name, value in parameters.items()}, ())

    leaves = {name: value.clone().requires_grad_() for name, value in named.items()}
    gradients = torch.autograd.grad(total(leaves), list(leaves.values()), allow_unused=True)
    for (name, value), gradient in zip(named.items(), gradients, strict=True):
        if name == "experts.log_scale" and objective == "least_squares":
            continue
        if not value.numel():
            continue
        assert gradient is not None, name
        assert bool(torch.isfinite(gradient).all()), name
        assert bool((gradient != 0.0).any()), f"no gradient reaches {name}"
        direction = torch.sign(torch.linspace(-1.0, 1.3, value.numel(), dtype=value.dtype)).reshape(value.shape)
        step = 1e-6
        ahead, behind = (total({**named, name: value + sign * step * direction}) for sign in (1.0, -1.0))
        slope = float((ahead - behind) / (2.0 * step))
        exact = float((gradient * direction).sum())
        # Rounding of the sum over the step, beside the truncation.
        assert abs(slope - exact) <= 1e-6 * max(1.0, abs(exact), float(total(named).abs())), name


def check_symmetries(model, x):
    before = model.log_weights(x)
    location = model.experts.location(x)
    for part, output in ((model.gate, lambda m: m.log_weights(x)), (model.experts, lambda m: m.experts.location(x))):
        for symmetry in part.symmetries():
            own = part.own_parameters()
            # Small, because some groups act near the identity only.
            amount = 0.02 * torch.sin(1.0 + torch.arange(symmetry.dimension, dtype=torch.float64))
            moved = copy.deepcopy(model)
            (moved.gate if part is model.gate else moved.experts).assign_parameters(symmetry.act(own, amount))
            reference = before if part is model.gate else location
            torch.testing.assert_close(output(moved), reference, rtol=1e-10, atol=1e-10)


def check_permutations(model, x):
    y = targets(model, x)
    for order in itertools.permutations(range(model.n_experts)):
        moved = copy.deepcopy(model)
        if not model.gate.allows(order):
            with pytest.raises(InputError, match=r"does not allow|breaks the tree"):
                model.gate.permute(model.gate.own_parameters(), order)
            continue
        moved.gate.assign_parameters(model.gate.permute(model.gate.own_parameters(), order))
        moved.experts.assign_parameters(model.experts.permute(model.experts.own_parameters(), order))
        torch.testing.assert_close(moved.mean(x), model.mean(x), rtol=1e-10, atol=1e-10)
        if model.gate.normaliser == "softmax":
            torch.testing.assert_close(moved.log_prob(x, y), model.log_prob(x, y), rtol=1e-10, atol=1e-10)


def check_save_and_load(model, x, folder):
    names = tuple(f"x{j}" for j in range(N_FEATURES))
    metadata = ModelMetadata(feature_names=names, gate_feature_names=names, target_name="y")
    save_model(folder / "model", model, metadata=metadata)
    loaded = load_model(folder / "model").model
    for (name, mine), (other, theirs) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)
    assert torch.equal(loaded.mean(x), model.mean(x))
    assert loaded.family == model.family


def check_precision(model, x):
    single = copy.deepcopy(model).float()
    y = targets(model, x)
    assert single.mean(x.float()).dtype is torch.float32
    np.testing.assert_allclose(
        single.mean(x.float()).detach().numpy(), model.mean(x).detach().numpy(), rtol=2e-3, atol=2e-4
    )
    if model.gate.normaliser == "softmax":
        assert single.log_prob(x.float(), y.float()).dtype is torch.float32


def check_route(model, x):
    for top_k in (None, 1, 2):
        weights, indices, log_weights = model.gate.route(x, top_k)
        chosen = top_k or model.gate.own_top_k or model.n_experts
        assert weights.shape == indices.shape == (len(x), chosen)
        torch.testing.assert_close(log_weights, model.gate(x), rtol=0.0, atol=0.0)
        picked = log_weights.gather(-1, indices)
        left = log_weights.scatter(-1, indices, -torch.inf)
        assert bool((picked.amin(-1) >= left.amax(-1)).all())
        if model.gate.normaliser == "softmax":
            torch.testing.assert_close(weights, picked.softmax(-1), rtol=1e-12, atol=1e-14)
        else:
            torch.testing.assert_close(weights, picked.exp(), rtol=1e-12, atol=0.0)


def check_fit(model, objective):
    """Every accepted step of a short fit increases the objective, and the fitted model has the value that it says."""
    x = inputs(60, seed=11)
    y = targets(model, x, seed=13)
    options = FitOptions(n_starts=1, max_iter=4, objective=objective)
    prototype = build_prototype(model)
    problem = build_problem(prototype, checked_rows(prototype, x.numpy(), y.numpy(), None, None), options)
    end = run_start(problem, options, 0)
    assert len(end.trace) >= 2
    assert np.isfinite(end.trace).all()
    steps = np.diff(end.trace)
    assert (steps >= -1e-12 * np.maximum(1.0, np.abs(end.trace[:-1]))).all(), steps.min()
    assert end.trace[-1] > end.trace[0]
    fitted = problem.build_model(problem.canonical_order(end.theta))
    value = float(evaluate(fitted, x, y, objective).sum())
    np.testing.assert_allclose(problem.objective(end.theta), value, rtol=1e-8, atol=1e-8)


def build_prototype(model):
    """The same kind of model with its neutral parameters."""
    return type(model)(
        type(model.gate).of(model.gate.n_features, model.n_experts, **model.gate.options()),
        type(model.experts).of(
            model.experts.n_features, model.n_experts, **model.experts.sizes(), **model.experts.options()
        ),
        model.family,
    )


@pytest.mark.parametrize("exclusion", EXCLUSIONS[:3], ids=lambda exclusion: exclusion.reason)
def test_what_is_left_out_is_refused(exclusion):
    gate, family = exclusion.gate or "softmax", exclusion.family or "gaussian"
    model = build(gate, "linear", family)
    x = inputs(40)
    with pytest.raises(InputError, match=r"least squares|least_squares|normalised"):
        fit(model, x.numpy(), targets(model, x).numpy(), options=FitOptions(objective=exclusion.objective))
