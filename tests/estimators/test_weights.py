"""Weights are frequencies: a row of weight 2 counts as two rows, a row of weight 0 is not there."""

import warnings

import numpy as np
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import FitWarning

# Sums of 200 to 400 terms of order 1 in another order differ by about 1e-13. Both fits stop where no component of the
# gradient per row exceeds 1e-10, and the smallest eigenvalue of the information per row is above 1e-3: estimates
# agree to about 1e-7, log-likelihoods to second order in that.
LIKELIHOOD = {"rel": 1e-11}
ESTIMATES = {"rtol": 1e-6, "atol": 1e-6}


def regressor(**options):
    return GatedRegressor(2, **{"tol": 1e-10, "n_starts": 4, "random_state": 0, **options})


def assert_same_fit(first, second, X):
    assert first.log_likelihood_ == pytest.approx(second.log_likelihood_, **LIKELIHOOD)
    assert first.bic_ == pytest.approx(second.bic_, **LIKELIHOOD)
    np.testing.assert_allclose(first.gate_coef_, second.gate_coef_, **ESTIMATES)
    np.testing.assert_allclose(first.expert_coef_, second.expert_coef_, **ESTIMATES)
    np.testing.assert_allclose(first.scale_, second.scale_, **ESTIMATES)
    np.testing.assert_allclose(first.parameters_.standard_error, second.parameters_.standard_error, **ESTIMATES)
    np.testing.assert_allclose(first.predict(X), second.predict(X), **ESTIMATES)
    assert [o.n_starts for o in first.result_.optima] == [o.n_starts for o in second.result_.optima]


@pytest.fixture(scope="module")
def weight(sample):
    return np.random.default_rng(1).integers(0, 4, size=len(sample.y))


@pytest.mark.parametrize("options", [{}, {"gate_features": []}, {"expert": "constant"}, {"gate_ridge": 1.0}])
def test_weights_are_repetitions(sample, weight, options):
    weighted = regressor(**options).fit(sample.X, sample.y, sample_weight=weight)
    repeated = regressor(**options).fit(sample.X.repeat(weight, axis=0), sample.y.repeat(weight))
    assert_same_fit(weighted, repeated, sample.X)
    assert weighted.result_.total_weight == repeated.result_.total_weight == weight.sum()
    assert weighted.result_.n_rows == np.count_nonzero(weight)


@pytest.mark.parametrize("strategy", ["split", "kmeans", "lines", "partition"])
def test_every_strategy_starts_alike_from_weights_and_repetitions(sample, weight, strategy):
    weighted = regressor(init=strategy).fit(sample.X, sample.y, sample_weight=weight)
    repeated = regressor(init=strategy).fit(sample.X.repeat(weight, axis=0), sample.y.repeat(weight))
    assert_same_fit(weighted, repeated, sample.X)


def test_weights_are_repetitions_from_given_responsibilities(sample, weight):
    init = 0.6 * np.eye(2)[sample.label] + 0.2
    weighted = regressor(n_starts=1, init=init).fit(sample.X, sample.y, sample_weight=weight)
    repeated = regressor(n_starts=1, init=init.repeat(weight, axis=0))
    repeated.fit(sample.X.repeat(weight, axis=0), sample.y.repeat(weight))
    assert_same_fit(weighted, repeated, sample.X)


def test_rows_of_weight_zero_are_not_there(sample):
    present = np.arange(200) % 3 > 0
    X, y = sample.X.copy(), sample.y.copy()
    X[~present], y[~present] = 1e6, -1e6
    init = 0.6 * np.eye(2)[sample.label] + 0.2
    for options in ({}, {"init": init, "n_starts": 1}):
        weighted = regressor(**options).fit(X, y, sample_weight=present.astype(float))
        if "init" in options:
            options["init"] = init[present]
        dropped = regressor(**options).fit(X[present], y[present])
        # The very same arrays reach the solver: the same bits.
        np.testing.assert_array_equal(weighted.result_.theta, dropped.result_.theta)
        assert weighted.log_likelihood_ == dropped.log_likelihood_


def test_one_weight_for_all_scales_the_log_likelihood_and_nothing_else(sample):
    plain = regressor().fit(sample.X, sample.y)
    tripled = regressor().fit(sample.X, sample.y, sample_weight=np.full(200, 3.0))
    assert tripled.log_likelihood_ == pytest.approx(3.0 * plain.log_likelihood_, **LIKELIHOOD)
    np.testing.assert_allclose(tripled.predict(sample.X), plain.predict(sample.X), **ESTIMATES)
    errors = plain.parameters_.standard_error / np.sqrt(3.0)
    np.testing.assert_allclose(tripled.parameters_.standard_error, errors, **ESTIMATES)


def test_more_parameters_than_rows_agree_in_the_likelihood():
    # scikit-learn's own check takes 15 rows and 30 features. On the floor the likelihood is flat in many directions,
    # so that predictions between the rows are anybody's; its height on the floor is not.
    rng = np.random.default_rng(0)
    X, y, weight = rng.uniform(size=(15, 30)), rng.integers(0, 3, size=15), rng.integers(0, 5, size=15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        weighted = regressor().fit(X, y, sample_weight=weight)
        repeated = regressor().fit(X.repeat(weight, axis=0), y.repeat(weight))
    assert weighted.status_.name == repeated.status_.name == "SATURATED"
    # Residuals are zero to within 1e-3 of the floor, their squares to 1e-6 per row.
    assert weighted.log_likelihood_ == pytest.approx(repeated.log_likelihood_, rel=1e-5)
