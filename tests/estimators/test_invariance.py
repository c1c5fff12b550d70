"""A fit does not depend on the units, on the order of rows or experts, or on how repetitions are written.

Common to all tolerances: a fit stops where no component of the gradient of the mean log-likelihood, in standardised
units, exceeds 1e-10. The information per row of these data has eigenvalues above 1e-3, so that two ways to the same
maximum agree in their standardised parameters to about 1e-7, and in the log-likelihood to second order in that, which
leaves the rounding of its sum: 200 terms of order 1, a relative 1e-12.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.estimators import GatedRegressor

EPSILON = float(np.finfo(float).eps)
LIKELIHOOD = {"rel": 1e-11}
PREDICTION = {"rtol": 0.0, "atol": 1e-7}

# Derandomised: a test of tolerances must not fail once in a thousand runs. No deadline: the first example compiles.
examples = settings(max_examples=25, deadline=None, derandomize=True)

seeds = st.integers(0, 50)
scales = st.floats(-6.0, 6.0).map(lambda exponent: 10.0**exponent)
offsets = st.one_of(
    st.just(0.0), st.builds(lambda sign, exponent: sign * 10.0**exponent, st.sampled_from([-1, 1]), st.floats(0.0, 8.0))
)
units = st.tuples(scales, offsets)


def regressor(n_experts=2, **options):
    return GatedRegressor(n_experts, **{"tol": 1e-10, "n_starts": 4, "random_state": 0, **options})


def three_lines(seed, n=200):
    """Three lines in one covariate, well apart, with a gate on it; and their labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    label = (np.outer(x, [1.0, 0.0, -1.0]) + rng.gumbel(size=(n, 3))).argmax(axis=1)
    y = np.array([4.0, 0.0, -4.0])[label] + np.array([1.0, -1.0, 1.0])[label] * x + 0.4 * rng.normal(size=n)
    return x[:, None], y, label


@examples
@given(seed=seeds, first=units, second=units, target=units)
def test_units_do_not_matter(draw_sample, seed, first, second, target):
    X, y, _ = draw_sample(seed)
    plain = regressor().fit(X, y)
    scale, offset = np.array([first[0], second[0]]), np.array([first[1], second[1]])
    # Offsets count in standard deviations; those of the covariates are about 1.
    X_other, y_scale = scale * (X + offset), target[0]
    deviation = y.std()
    y_other = y_scale * (y + target[1] * deviation)
    other = regressor().fit(X_other, y_other)

    # At an offset of 1e8 standard deviations, 1e8 ε of each value is left to chance: rounding shakes the rows by this
    # share of a standard deviation.
    shake = EPSILON * max(1.0, *np.abs(offset), abs(target[1]))
    # A row's log density has slopes of (|a| + sd(y)) / σ ≈ 4 / 0.3 by a shake, times residuals of order 1; the errors
    # are independent, so that √200 of them add to about 200 shakes. Half as much again.
    jacobian = len(y) * np.log(y_scale)
    expected = pytest.approx(plain.log_likelihood_, rel=1e-11, abs=300.0 * shake)
    assert other.log_likelihood_ + jacobian == expected
    # An expert's mean is b + a₁x₁ + a₂x₂ with terms of offset size: some ten roundings of size shake, and the gate
    # turns as many in its logits into shares (at most a quarter each) of the few units between the experts.
    tolerance = {"rtol": 0.0, "atol": 1e-7 + 50.0 * shake}
    assert other.status_ is plain.status_
    for row_values in (
        lambda fitted, X: fitted.predict(X),
        lambda fitted, X: fitted.predict_quantile(X, 0.8),
        lambda fitted, X: fitted.sample(X, random_state=1),
    ):
        in_plain_units = row_values(other, X_other) / y_scale - target[1] * deviation
        np.testing.assert_allclose(in_plain_units, row_values(plain, X), **tolerance)
    np.testing.assert_allclose(other.gate_weights(X_other), plain.gate_weights(X), **tolerance)
    np.testing.assert_allclose(other.responsibilities(X_other, y_other), plain.responsibilities(X, y), **tolerance)
    np.testing.assert_allclose(other.scale_ / y_scale, plain.scale_, **tolerance)
    slopes = other.expert_coef_ * scale / y_scale
    np.testing.assert_allclose(slopes, plain.expert_coef_, **tolerance)
    errors = other.parameters_.standard_error[other.parameters_.term == "x1"]
    ratio = np.array([1.0, y_scale, y_scale]) / scale[1]
    plain_errors = plain.parameters_.standard_error[plain.parameters_.term == "x1"]
    np.testing.assert_allclose(errors, plain_errors * ratio, rtol=1e-5)


@examples
@given(seed=seeds, order=st.permutations(range(200)))
def test_the_order_of_rows_does_not_matter(seed, order):
    X, y, _ = three_lines(seed)
    plain = regressor(3).fit(X, y)
    other = regressor(3).fit(X[order], y[order])
    assert other.log_likelihood_ == pytest.approx(plain.log_likelihood_, **LIKELIHOOD)
    assert other.status_ is plain.status_
    np.testing.assert_allclose(other.predict(X), plain.predict(X), **PREDICTION)
    np.testing.assert_allclose(other.responsibilities(X, y), plain.responsibilities(X, y), **PREDICTION)
    assert [o.n_starts for o in other.result_.optima] == [o.n_starts for o in plain.result_.optima]


@examples
@given(seed=seeds, order=st.permutations(range(3)), blur=st.floats(0.0, 0.9))
def test_the_order_of_experts_does_not_matter(seed, order, blur):
    X, y, label = three_lines(seed)
    random = np.random.default_rng(seed).dirichlet(np.ones(3), size=len(y))
    init = (1.0 - blur) * np.eye(3)[label] + blur * random
    plain = regressor(3, n_starts=1, init=init).fit(X, y)
    other = regressor(3, n_starts=1, init=init[:, order]).fit(X, y)
    assert other.log_likelihood_ == pytest.approx(plain.log_likelihood_, **LIKELIHOOD)
    # The experts come in canonical order, the gate relative to the last of them.
    for name in ("gate_intercept_", "gate_coef_", "expert_intercept_", "expert_coef_", "scale_"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), err_msg=name, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(other.predict(X), plain.predict(X), **PREDICTION)
    shares = plain.responsibilities(X, y).mean(axis=0)
    assert (np.diff(shares) <= 1e-9).all()


@examples
@given(seed=seeds, weight=st.lists(st.integers(0, 4), min_size=200, max_size=200).filter(lambda w: sum(w) > 150))
def test_repetitions_are_weights(seed, weight):
    X, y, label = three_lines(seed)
    init = 0.6 * np.eye(3)[label] + 0.4 / 3.0
    weighted = regressor(3, init=init).fit(X, y, sample_weight=weight)
    repeated = regressor(3, init=init.repeat(weight, axis=0)).fit(X.repeat(weight, axis=0), y.repeat(weight))
    assert weighted.log_likelihood_ == pytest.approx(repeated.log_likelihood_, **LIKELIHOOD)
    assert weighted.bic_ == pytest.approx(repeated.bic_, **LIKELIHOOD)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), **PREDICTION)
    np.testing.assert_allclose(weighted.responsibilities(X, y), repeated.responsibilities(X, y), **PREDICTION)
