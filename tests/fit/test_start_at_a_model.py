"""Starts at a model's parameters: exactly there, in any units, for the compiled and the general path."""

import copy

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.build import build_problem
from gatewise.fit.rows import checked_rows
from gatewise.model import MixtureOfExperts

PARTS = [
    ("softmax", "linear", "gaussian", {}),
    ("softmax", "constant", "gaussian", {}),
    ("softmax", "linear", "laplace", {}),
    ("softmax", "linear", "poisson", {}),
    ("gaussian", "linear", "gaussian", {}),
    ("quadratic", "feed_forward", "gaussian", {"activation": "tanh", "hidden": 2}),
    ("laplace", "linear", "student_t", {}),
    ("cosine", "polynomial", "gaussian", {}),
    ("hierarchical", "linear", "gaussian", {}),
    ("top_k", "linear", "gaussian", {}),
]


def random_model(gate, experts, family, expert_options, k=4):
    gate_options = {"hierarchical": {"groups": [2, 2]}, "top_k": {"n_active": 2}}.get(gate, {})
    model = MixtureOfExperts.build(
        gate, experts, family, n_features=2, n_experts=k, gate_options=gate_options, expert_options=expert_options
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return model.requires_grad_(False)


def table(model, n=80):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(n, 2)) * [3.0, 0.2] + [5.0, -1.0])
    return x.numpy(), model.sample(x, generator=torch.Generator().manual_seed(2)).numpy()


@pytest.mark.parametrize(("gate", "experts", "family", "options"), PARTS)
@pytest.mark.parametrize("standardise", ["auto", "off"])
def test_a_model_is_found_again_at_its_theta(gate, experts, family, options, standardise):
    model = random_model(gate, experts, family, options)
    x, y = table(model)
    fit_options = FitOptions(standardise=standardise)
    problem = build_problem(model, checked_rows(model, x, y, None, None), fit_options)
    stores = standardise == "auto" and not (model.gate.affine_equivariant and model.experts.affine_equivariant)
    if stores:
        with pytest.raises(InputError, match='set standardise="off"'):
            problem.locate(model)
        return
    theta = problem.locate(model)
    rebuilt = problem.build_model(theta)
    inputs, target = torch.from_numpy(x), torch.from_numpy(y)
    # Shifts by means of 25 standard deviations cost a few digits of the 16.
    torch.testing.assert_close(rebuilt.log_prob(inputs, target), model.log_prob(inputs, target), rtol=1e-11, atol=1e-11)
    expected = float((model.log_joint_density if model.gate.is_joint else model.log_prob)(inputs, target).sum())
    assert problem.log_likelihood(theta) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_the_first_start_is_exactly_there(family):
    model = random_model("softmax", "linear", family, {}, k=2)
    x, y = table(model)
    options = FitOptions(n_starts=1, init=model, em_steps=0, max_iter=0)
    result = fit(model, x, y, options=options)
    there = model.log_prob(torch.from_numpy(x), torch.from_numpy(y)).sum()
    assert result.log_likelihood == pytest.approx(float(there), rel=1e-12)
    assert [record.strategy for record in result.starts] == ["given"]


def test_several_models_come_first_and_strategies_after_them():
    model = random_model("softmax", "linear", "gaussian", {}, k=2)
    x, y = table(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.experts.bias.add_(0.3)
    result = fit(model, x, y, options=FitOptions(n_starts=4, init=[model, other]))
    assert [record.strategy for record in result.starts] == ["given", "given", "half_spaces", "kmeans"]
    assert result.starts[0].objective == pytest.approx(result.starts[1].objective, abs=1e-6)


def test_a_fit_goes_on_from_where_another_one_stopped():
    model = random_model("softmax", "linear", "gaussian", {}, k=2)
    x, y = table(model, 400)
    whole = fit(model, x, y, options=FitOptions(n_starts=1, init=model))
    again = fit(model, x, y, options=FitOptions(n_starts=1, init=whole.model, em_steps=0))
    assert whole.status is again.status is FitStatus.CONVERGED
    assert again.starts[0].n_iterations <= 1
    assert again.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-9)


def test_least_squares_starts_at_a_model():
    model = random_model("softmax", "feed_forward", "gaussian", {"activation": "tanh", "hidden": 1}, k=2)
    x, y = table(model)
    options = FitOptions(n_starts=1, init=model, max_iter=0, objective="least_squares", standardise="off")
    result = fit(model, x, y, options=options)
    residual = torch.from_numpy(y) - model.mean(torch.from_numpy(x))
    assert result.objective == pytest.approx(-0.5 * float((residual**2).sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: random_model("softmax", "linear", "gaussian", {}, k=3), "the same sizes and options"),
        (lambda: random_model("laplace", "linear", "gaussian", {}, k=2), "whose gate is"),
        (lambda: random_model("softmax", "constant", "gaussian", {}, k=2), "whose experts is"),
        (lambda: random_model("softmax", "linear", "laplace", {}, k=2), "whose family is"),
        (list, r"init has shape \(0,\)"),
        (lambda: object(), "a model or several"),
        (lambda: "nowhere", "unknown init 'nowhere'"),
    ],
)
def test_other_starts_are_refused(change, message):
    model = random_model("softmax", "linear", "gaussian", {}, k=2)
    x, y = table(model)
    with pytest.raises(InputError, match=message):
        fit(model, x, y, options=FitOptions(n_starts=1, init=change()))
