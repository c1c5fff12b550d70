"""The objective with its priors: derivatives, monotone EM, and the two solvers and two paths against each other."""

import dataclasses

import numpy as np
import pytest

from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.plain_rows import PlainRows
from gatewise.fit.regression_problem import RegressionProblem
from gatewise.fit.starts import STRATEGIES, responsibilities_of_start
from tests.helpers import mixture, problem_of, simulate

GATE = np.array([[0.5, 3.0, -1.0], [-0.5, -2.0, 0.0], [0.0, 0.0, 0.0]])
EXPERTS = np.array([[1.0, 2.0, 0.0], [-1.0, 0.0, 1.0], [0.0, -2.0, -2.0]])
SCALE = np.array([0.2, 0.3, 0.4])

PRIORS = {
    "none": {},
    "ridge": {"gate_ridge": 2.5},
    "variance prior": {"variance_prior": (1.5, 0.2)},
    "both": {"gate_ridge": 0.3, "variance_prior": (2.0, 0.5)},
}


@pytest.fixture(scope="module")
def table():
    return simulate(np.random.default_rng(4), 300, GATE, EXPERTS, SCALE)[:2]


def objective_on(table, shared_scale=False, **options):
    x, y = table
    weight = 0.5 + np.random.default_rng(8).uniform(size=len(y))
    return problem_of(mixture(2, 2, 3, shared_scale), x, y, weight, **options)


@pytest.mark.parametrize("shared_scale", [False, True])
@pytest.mark.parametrize("prior", PRIORS)
def test_derivatives_equal_finite_differences(table, prior, shared_scale):
    objective = objective_on(table, shared_scale, **PRIORS[prior])
    theta = 0.5 * np.random.default_rng(2).normal(size=objective.size)
    value, gradient = objective.value_and_gradient(theta)
    hessian = objective.hessian(theta)
    h = 1e-5
    for j in range(len(theta)):
        step = h * np.eye(len(theta))[j]
        (up, gradient_up), (down, gradient_down) = (objective.value_and_gradient(theta + s * step) for s in (1, -1))
        # Central differences of order h² = 1e-10, and |value| 1e-16 / h = 1e-11 of rounding.
        assert (up - down) / (2 * h) == pytest.approx(gradient[j], rel=1e-6, abs=1e-8 * max(1.0, abs(value)))
        np.testing.assert_allclose((gradient_up - gradient_down) / (2 * h), hessian[j], rtol=1e-6, atol=1e-7)


def test_ridge_does_not_depend_on_the_reference_expert(table):
    objective = objective_on(table, gate_ridge=3.0)
    theta = np.random.default_rng(2).normal(size=objective.size)
    for order in ([1, 2, 0], [2, 1, 0], [0, 2, 1]):
        permuted = objective.regressions.pack(*(each[order] for each in objective.regressions.unpack(theta)))
        assert objective.value_and_gradient(permuted)[0] == pytest.approx(
            objective.value_and_gradient(theta)[0], rel=1e-13
        )


@pytest.mark.parametrize("shared_scale", [False, True])
@pytest.mark.parametrize("prior", PRIORS)
def test_em_never_descends(table, prior, shared_scale):
    objective = objective_on(table, shared_scale, **PRIORS[prior])
    start = responsibilities_of_start(objective.start_rows, "partition", 3, seed=1)
    theta = objective.maximise_expectation(start, np.zeros(objective.size), gate_steps=3)
    state = objective.expectation(theta)
    values = []
    for _ in range(40):
        values.append(objective.value_and_gradient(state.theta)[0])
        assert state.value == pytest.approx(values[-1], rel=1e-12, abs=1e-12)
        state = objective.em_step(state)
    # Strict up to rounding of a mean over 300 rows.
    assert np.diff(values).min() > -1e-14
    assert values[-1] - values[0] > 0.01


@pytest.mark.parametrize("prior", PRIORS)
def test_newton_and_quasi_newton_reach_the_same_maximum(table, prior):
    x, y = table
    options = FitOptions(n_starts=2, init="split", **PRIORS[prior])
    newton = fit(mixture(2, 2, 3), x, y, options=options)
    quasi = fit(mixture(2, 2, 3), x, y, options=dataclasses.replace(options, solver="quasi-newton", max_iter=5000))
    assert newton.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert quasi.objective == pytest.approx(newton.objective, rel=1e-10)
    # A gradient of 1e-8 leaves this much of a parameter undetermined by L-BFGS.
    np.testing.assert_allclose(quasi.theta, newton.theta, atol=1e-4)


def test_many_parameters_are_approached_without_a_hessian_and_finished_with_it(table, monkeypatch):
    from gatewise.fit import start

    x, y = table
    options = FitOptions(n_starts=2, init="split")
    newton = fit(mixture(2, 2, 3), x, y, options=options)
    monkeypatch.setattr(RegressionProblem, "cheap_hessian_size", 10)
    approached = fit(mixture(2, 2, 3), x, y, options=options)
    assert approached.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert approached.relative_gradient <= options.tol
    np.testing.assert_allclose(approached.theta, newton.theta, atol=1e-7)
    # The approach may use up its iterations: Newton's method still begins where it stopped.
    short = fit(mixture(2, 2, 3), x, y, options=dataclasses.replace(options, max_iter=12))
    assert short.log_likelihood > newton.baseline.log_likelihood
    monkeypatch.setattr(start, "_HESSIAN_AT_ALL", 10)
    alone = fit(mixture(2, 2, 3), x, y, options=dataclasses.replace(options, max_iter=5000))
    assert alone.log_likelihood == pytest.approx(newton.log_likelihood, rel=1e-9)


def test_torch_path_fits_the_same_and_float32_to_its_precision(table, monkeypatch):
    x, y = table
    options = FitOptions(n_starts=1, init="split")
    compiled = fit(mixture(2, 2, 3), x, y, options=options)
    single = fit(mixture(2, 2, 3), x, y, options=dataclasses.replace(options, dtype="float32", tol=1e-4))
    assert single.log_likelihood == pytest.approx(compiled.log_likelihood, rel=1e-5)
    np.testing.assert_allclose(single.scale, compiled.scale, rtol=1e-2)
    # The same float64 fit by the plain path, which another device would take.
    monkeypatch.setattr(RegressionProblem, "_evaluator", lambda self: PlainRows(self.coordinates, self.internal))
    plain = fit(mixture(2, 2, 3), x, y, options=options)
    assert plain.log_likelihood == pytest.approx(compiled.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(plain.theta, compiled.theta, atol=1e-7)


def test_saddle_is_left_behind():
    """Equal experts are a first-order point with upward curvature; a nearly symmetric start must not end there."""
    x = np.linspace(-1.0, 1.0, 200)[:, None]
    y = np.where(np.arange(200) % 2 == 0, 1.0, -1.0) + 0.1 * np.cos(np.arange(200.0) ** 2)
    start = np.full((200, 2), 0.5)
    start[0] = [0.5 + 1e-9, 0.5 - 1e-9]
    result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=1, init=start))
    assert result.status is FitStatus.CONVERGED
    np.testing.assert_allclose(np.sort(result.model.experts.bias), [-1.0, 1.0], atol=0.05)


@pytest.mark.parametrize("name", STRATEGIES)
def test_starts_depend_on_content_not_on_order_or_repetition(table, name):
    x, y = table
    order = np.random.default_rng(5).permutation(len(y))
    repeated = np.repeat(np.arange(len(y)), 1 + np.arange(len(y)) % 3)
    weight = 1.0 + np.arange(len(y)) % 3
    options = (name, 0, 7)
    original = responsibilities_of_start(problem_of(mixture(2, 2, 3), x, y, weight).start_rows, *options)
    permuted = responsibilities_of_start(
        problem_of(mixture(2, 2, 3), x[order], y[order], weight[order]).start_rows, *options
    )
    duplicated = responsibilities_of_start(problem_of(mixture(2, 2, 3), x[repeated], y[repeated]).start_rows, *options)
    np.testing.assert_array_equal(permuted, original[:, order])
    np.testing.assert_array_equal(duplicated, original[:, repeated])
    assert (original.sum(axis=1) > 0).sum() >= 2
