"""Covariances of information matrices that are almost singular, or not positive definite at all."""

import dataclasses

import numpy as np
import pytest
import torch

from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.inference import Names, parameter_table, quantity_covariance
from gatewise.model import MixtureOfExperts

NAMES = Names(["x"], ["x"], "y")


def least_squares(experts, seed, n, max_iter, **options):
    """Two experts by least squares, on the mean of a mixture of two lines."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-2.0, 2.0, size=(n, 1))
    share = 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))
    y = share * (1.0 + x[:, 0]) - (1.0 - share) * (1.0 + 2.0 * x[:, 0]) + 0.1 * generator.normal(size=n)
    model = MixtureOfExperts.build("softmax", experts, "gaussian", 1, 2, expert_options=options)
    return fit(model, x, y, options=FitOptions(n_starts=1, objective="least_squares", max_iter=max_iter))


@pytest.fixture(scope="module")
def regular():
    result = least_squares("linear", 0, 80, 500)
    assert result.status is FitStatus.WEAK_SEARCH
    return result


@pytest.mark.parametrize("kind", ["observed", "sandwich"])
@pytest.mark.parametrize("seed", range(5))
def test_variances_survive_a_direction_with_almost_no_information(regular, seed, kind):
    """In closed form: with 2·1 for the outer products of the scores, the sandwich is twice the inverse's square."""
    jacobian = regular.coordinates.jacobian(regular.theta)
    size = regular.coordinates.size
    # The weakest direction does not move the first quantity.
    drawn = np.random.default_rng(seed).normal(size=(size, size))
    drawn[:, 0] -= jacobian[0] * (jacobian[0] @ drawn[:, 0]) / (jacobian[0] @ jacobian[0])
    vectors = np.linalg.qr(drawn)[0]
    values = np.concatenate([[3e-10], np.geomspace(1e-3, 1.0, size - 1)])
    information = (vectors * values) @ vectors.T
    changed = dataclasses.replace(
        regular,
        information=information,
        score_gram=2.0 * np.eye(size),
        null_space=dataclasses.replace(regular.null_space, explained=np.empty((0, size))),
    )
    strong = jacobian[0] @ vectors[:, 1:]
    weights = 2.0 / values[1:] ** 2 if kind == "sandwich" else regular.residual_variance / values[1:]
    found = quantity_covariance(changed, kind)
    assert found[0, 0] == pytest.approx(float(strong**2 @ weights), rel=1e-5)
    assert (np.diag(found) > 0.0).all()


def test_an_information_that_is_not_positive_definite_has_no_inverse_to_report(regular):
    size = regular.coordinates.size
    indefinite = np.diag(np.r_[-1e-3, np.ones(size - 1)])
    space = dataclasses.replace(regular.null_space, explained=np.empty((0, size)))
    changed = dataclasses.replace(regular, information=indefinite, null_space=space)
    for kind in ("observed", "sandwich"):
        assert np.isnan(quantity_covariance(changed, kind)).all()
    table = parameter_table(changed, NAMES)
    assert table[["standard_error", "z", "p_value", "lower", "upper"]].isna().to_numpy().all()
    assert np.isfinite(table["estimate"]).all()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_networks_on_few_rows_have_standard_errors_or_a_finding(seed):
    result = least_squares("feed_forward", seed, 25, 40, hidden=1, activation="tanh")
    table = parameter_table(result, NAMES)
    error = table["standard_error"]
    assert (error.dropna() > 0.0).all()
    if error.isna().any():
        assert result.findings[0].code is not FitStatus.CONVERGED


def regimes(k, seed=3, n=120):
    """A table with a model of k experts, and rows that count up to three times."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 2)) * [1.0, 30.0] + [0.0, 100.0]
    chosen = generator.uniform(size=n) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))
    lines = np.where(chosen, 5.0 + x[:, 0], 1.0 - x[:, 0] + 0.02 * x[:, 1])
    y = lines + 0.3 * (1.0 + chosen) * generator.normal(size=n)
    return MixtureOfExperts.build("softmax", "linear", "gaussian", 2, k), x, y, generator.integers(1, 4, size=n)


def test_the_sandwich_of_the_default_model_is_that_of_automatic_differentiation():
    """H⁻¹ S H⁻¹ of the log-likelihood as a function of the identified quantities themselves."""
    model, x, y, weight = regimes(k=2)
    result = fit(model, x, y, sample_weight=weight, options=FitOptions(n_starts=3))
    assert result.status is FitStatus.WEAK_SEARCH
    design = torch.from_numpy(np.column_stack([np.ones(len(y)), x]))
    target, weights = torch.from_numpy(y), torch.from_numpy(weight).double()

    def rows(quantities):
        gate, coefficients, scale = quantities[:3], quantities[3:9].reshape(2, 3), quantities[9:]
        log_weights = torch.log_softmax(torch.stack([design @ gate, torch.zeros(len(y)).double()], -1), -1)
        density = torch.distributions.Normal(design @ coefficients.T, scale).log_prob(target.unsqueeze(-1))
        return torch.logsumexp(log_weights + density, -1)

    point = torch.from_numpy(result.coordinates.estimates(result.theta))
    scores = torch.func.jacrev(rows)(point).numpy()
    inverse = np.linalg.inv(torch.func.hessian(lambda at: (weights * rows(at)).sum())(point).numpy())
    expected = inverse @ (scores.T * weight) @ scores @ inverse
    found = quantity_covariance(result, "sandwich")
    errors, own = np.sqrt(np.diag(expected)), np.sqrt(np.diag(found))
    np.testing.assert_allclose(own, errors, rtol=1e-8)
    np.testing.assert_allclose(found / np.outer(own, own), expected / np.outer(errors, errors), atol=1e-8)


def test_the_sandwich_of_one_linear_regression_is_white_s():
    """(ZᵀWZ)⁻¹ ZᵀW diag(e²) Z (ZᵀWZ)⁻¹, which is HC0 (White 1980) of the rows as often as they count."""
    model, x, y, weight = regimes(k=1)
    result = fit(model, x, y, sample_weight=weight)
    design = np.column_stack([np.ones(len(y)), x])
    bread = np.linalg.inv((design.T * weight) @ design)
    residual = y - design @ (bread @ design.T @ (weight * y))
    expected = bread @ (design.T * (weight * residual**2)) @ design @ bread
    found = quantity_covariance(result, "sandwich")[:3, :3]
    np.testing.assert_allclose(np.sqrt(np.diag(found)), np.sqrt(np.diag(expected)), rtol=1e-8)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())
