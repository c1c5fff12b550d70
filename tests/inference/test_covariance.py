"""Covariances of information matrices that are almost singular, or not positive definite at all."""

import dataclasses

import numpy as np
import pytest

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


@pytest.mark.parametrize("seed", range(3))
def test_networks_on_few_rows_have_standard_errors_or_a_finding(seed):
    result = least_squares("feed_forward", seed, 25, 40, hidden=1, activation="tanh")
    table = parameter_table(result, NAMES)
    error = table["standard_error"]
    assert (error.dropna() > 0.0).all()
    if error.isna().any():
        assert result.findings[0].code is not FitStatus.CONVERGED
