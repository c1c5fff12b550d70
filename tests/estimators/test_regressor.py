"""What a fitted GatedRegressor answers, against sums written out and against ordinary least squares."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import DegenerateExpertWarning, FitWarning, InputError, SeparationWarning
from gatewise.fit import FitResult, FitStatus


def regressor(n_experts=2, **options):
    return GatedRegressor(n_experts, **{"n_starts": 3, "random_state": 0, **options})


@pytest.fixture(scope="module")
def fitted(sample):
    return regressor().fit(sample.X, sample.y)


def channels(fitted, X, gate=slice(None)):
    """Weights and locations (n, k), written out from the fitted attributes."""
    weights = softmax(X[:, gate] @ fitted.gate_coef_.T + fitted.gate_intercept_, axis=1)
    return weights, X @ fitted.expert_coef_.T + fitted.expert_intercept_


def test_the_fit_recovers_what_the_data_were_drawn_from(fitted):
    # Standard errors here are below 0.06 for the experts; four of them is a wide enough margin.
    assert fitted.status_ in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert "maximum" in fitted.status_.sentence
    order = np.argsort(fitted.expert_intercept_)
    np.testing.assert_allclose(fitted.expert_intercept_[order], [-1.0, 1.0], atol=0.2)
    np.testing.assert_allclose(fitted.expert_coef_[order], [[-1.0, -1.0], [2.0, 0.0]], atol=0.2)
    np.testing.assert_allclose(fitted.scale_, 0.3, atol=0.1)


def test_fitted_attributes_have_their_shapes_and_agree_with_the_result(fitted, sample):
    assert isinstance(fitted.result_, FitResult)
    assert fitted.gate_coef_.shape == fitted.expert_coef_.shape == (2, 2)
    assert fitted.gate_intercept_.shape == fitted.expert_intercept_.shape == fitted.scale_.shape == (2,)
    np.testing.assert_array_equal(fitted.gate_coef_[-1], 0.0)
    assert fitted.gate_intercept_[-1] == 0.0
    assert fitted.n_parameters_ == 3 + 2 * 3 + 2 == len(fitted.parameters_) == len(fitted.covariance_)
    assert fitted.log_likelihood_ == fitted.result_.log_likelihood
    assert fitted.aic_ == pytest.approx(-2.0 * fitted.log_likelihood_ + 2.0 * 11)
    assert fitted.bic_ == pytest.approx(-2.0 * fitted.log_likelihood_ + 11 * np.log(200))
    assert fitted.icl_ > fitted.bic_
    assert fitted.n_features_in_ == 2
    assert fitted.n_iter_ >= 1
    assert fitted.result_.seed == 0
    shares = fitted.responsibilities(sample.X, sample.y).mean(axis=0)
    assert shares[0] > shares[1]


def test_parameters_covariance_and_intervals_are_one_story(fitted):
    table = fitted.parameters_
    errors = np.sqrt(np.diag(fitted.covariance_))
    np.testing.assert_allclose(table.standard_error, errors, rtol=1e-12)
    first = table.iloc[:3].estimate
    np.testing.assert_allclose(first, [fitted.gate_intercept_[0], *fitted.gate_coef_[0]], rtol=1e-12)
    slopes = table.loc[(table.component == "expert 2") & table.term.isin(["x0", "x1"]), "estimate"]
    np.testing.assert_allclose(slopes, fitted.expert_coef_[1], rtol=1e-12)
    np.testing.assert_allclose(table.loc[table.term == "scale", "estimate"], fitted.scale_, rtol=1e-12)
    wide, narrow = fitted.conf_int(0.99), fitted.conf_int(0.5)
    assert (wide.lower < narrow.lower).all()
    assert (wide.upper > narrow.upper).all()
    np.testing.assert_allclose(fitted.conf_int().lower, table.lower, rtol=1e-12)
    with pytest.raises(InputError, match="the level of an interval must lie strictly between 0 and 1, not 95"):
        fitted.conf_int(95)


def test_the_summary_is_that_of_this_fit(fitted):
    summary = fitted.summary(level=0.9)
    assert summary.statistics["log_likelihood"] == fitted.log_likelihood_
    assert summary.level == 0.9
    assert "expert 1" in summary.to_text()
    pd.testing.assert_frame_equal(fitted.summary().parameters, fitted.parameters_)


def test_means_weights_and_densities_are_the_sums_written_out(fitted, sample):
    weights, location = channels(fitted, sample.X)
    np.testing.assert_allclose(fitted.gate_weights(sample.X), weights, atol=1e-12)
    np.testing.assert_allclose(fitted.expert_means(sample.X), location, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fitted.predict(sample.X), (weights * location).sum(axis=1), rtol=1e-11, atol=1e-12)
    joint = np.log(weights) + norm.logpdf(sample.y[:, None], location, fitted.scale_)
    log_density = logsumexp(joint, axis=1)
    np.testing.assert_allclose(fitted.predict_log_density(sample.X, sample.y), log_density, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(fitted.responsibilities(sample.X, sample.y), softmax(joint, axis=1), atol=1e-10)
    # The sum of 200 terms of order 1, each good to about 1e-14.
    assert fitted.log_likelihood_ == pytest.approx(log_density.sum(), rel=1e-11)


@pytest.mark.parametrize(
    ("gate_features", "columns"), [(None, [0, 1]), ([], []), ([1], [1]), (["x1", "x0"], [1, 0]), ([0], [0])]
)
def test_the_gate_sees_its_own_columns(sample, gate_features, columns):
    fitted = regressor(gate_features=gate_features).fit(sample.X, sample.y)
    assert fitted.gate_coef_.shape == (2, len(columns))
    assert fitted.gate_feature_names_ == [f"x{column}" for column in columns]
    weights, location = channels(fitted, sample.X, gate=columns)
    np.testing.assert_allclose(fitted.gate_weights(sample.X), weights, atol=1e-12)
    np.testing.assert_allclose(fitted.predict(sample.X), (weights * location).sum(axis=1), rtol=1e-11, atol=1e-12)
    assert fitted.n_parameters_ == 1 + len(columns) + 2 * 3 + 2
    if not columns:
        assert np.ptp(fitted.gate_weights(sample.X), axis=0).max() == 0.0


def test_the_order_of_the_gates_columns_does_not_matter(sample, fitted):
    turned = regressor(gate_features=[1, 0]).fit(sample.X, sample.y)
    # Both stop where no gradient component exceeds 1e-8 per row; second order in that for the likelihood.
    assert turned.log_likelihood_ == pytest.approx(fitted.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(turned.gate_coef_[:, ::-1], fitted.gate_coef_, atol=1e-5)


def test_constant_experts_have_slopes_of_zero(sample):
    fitted = regressor(expert="constant").fit(sample.X, sample.y)
    np.testing.assert_array_equal(fitted.expert_coef_, np.zeros((2, 2)))
    weights, location = channels(fitted, sample.X)
    np.testing.assert_allclose(fitted.predict(sample.X), (weights * location).sum(axis=1), rtol=1e-11, atol=1e-12)


def test_a_shared_scale_is_one_number_for_all(sample):
    fitted = regressor(shared_scale=True).fit(sample.X, sample.y)
    assert fitted.scale_.shape == (2,)
    assert fitted.scale_[0] == fitted.scale_[1]
    assert fitted.n_parameters_ == 10


@pytest.mark.parametrize("weighted", [False, True])
def test_one_expert_is_ordinary_least_squares(sample, weighted):
    weight = np.random.default_rng(1).integers(1, 5, size=len(sample.y)) if weighted else np.ones(len(sample.y))
    fitted = GatedRegressor(1).fit(sample.X, sample.y, sample_weight=weight)
    reference = LinearRegression().fit(sample.X, sample.y, sample_weight=weight)
    # Two direct solutions of a well-conditioned least-squares problem.
    np.testing.assert_allclose(fitted.expert_coef_[0], reference.coef_, rtol=1e-10)
    np.testing.assert_allclose(fitted.expert_intercept_[0], reference.intercept_, rtol=1e-10)
    np.testing.assert_allclose(fitted.predict(sample.X), reference.predict(sample.X), rtol=1e-10, atol=1e-12)
    residual = sample.y - reference.predict(sample.X)
    assert fitted.scale_[0] == pytest.approx(np.sqrt(np.average(residual**2, weights=weight)), rel=1e-10)
    np.testing.assert_array_equal(fitted.gate_coef_, np.zeros((1, 2)))
    np.testing.assert_array_equal(fitted.gate_weights(sample.X), 1.0)
    assert fitted.status_ is FitStatus.CONVERGED
    assert fitted.n_parameters_ == 4


def test_quantiles_invert_the_distribution_function(fitted, sample):
    X = sample.X[:15]
    probabilities = [0.001, 0.05, 0.3, 0.5, 0.8, 0.999]
    quantiles = fitted.predict_quantile(X, probabilities)
    assert quantiles.shape == (15, 6)
    weights, location = channels(fitted, X)
    for row in range(15):
        for column, probability in enumerate(probabilities):

            def excess(y, row=row, probability=probability):
                return weights[row] @ norm.cdf((y - location[row]) / fitted.scale_) - probability

            # Where the density is small a probability of 1e-16 is a long way on the axis: compare probabilities there.
            expected = brentq(excess, -50.0, 50.0, xtol=1e-13)
            assert quantiles[row, column] == pytest.approx(expected, abs=1e-9) or abs(
                excess(quantiles[row, column])
            ) == pytest.approx(0.0, abs=1e-14)
    np.testing.assert_array_equal(fitted.predict_quantile(X, 0.3), quantiles[:, 2])
    np.testing.assert_array_equal(fitted.predict_quantile(X, np.array([0.3])), quantiles[:, [2]])
    assert fitted.predict_quantile(X, []).shape == (15, 0)


def test_quantiles_where_one_expert_has_all_the_weight(fitted):
    # A softmax of ±700 leaves the other expert no weight that float64 can see.
    X = np.array([[500.0, 0.0], [-500.0, 0.0]])
    weights, location = channels(fitted, X)
    assert weights.max(axis=1) == pytest.approx(1.0, abs=1e-15)
    chosen = weights.argmax(axis=1)
    for probability in (0.05, 0.5, 0.95):
        expected = location[[0, 1], chosen] + fitted.scale_[chosen] * norm.ppf(probability)
        np.testing.assert_allclose(fitted.predict_quantile(X, probability), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (0.0, r"a quantile's probability must lie strictly between 0 and 1, not 0.0"),
        ([0.5, 1.0], r"a quantile's probability must lie strictly between 0 and 1, not 1.0"),
        (np.nan, r"a quantile's probability must lie strictly between 0 and 1, not nan"),
        ("half", r"q must be a probability or a sequence of them, not 'half'"),
        ([[0.5]], r"q must be a probability or a sequence of them, not an array of 2 axes"),
    ],
)
def test_probabilities_that_are_none(fitted, sample, q, message):
    with pytest.raises(InputError, match=message):
        fitted.predict_quantile(sample.X, q)


@pytest.mark.parametrize("level", [0.0, 1.0, 90, np.nan, "0.9", None])
def test_levels_that_are_none(fitted, sample, level):
    message = f"the level of an interval must lie strictly between 0 and 1, not {level!r}"
    for call in (lambda: fitted.predict_interval(sample.X, level), lambda: fitted.conf_int(level)):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(InputError, match=message):
        fitted.summary(level)


def test_intervals_are_the_mixtures_own_quantiles():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(400, 1))
    upper = rng.uniform(size=400) < 0.7
    y = np.where(upper, 10.0, 0.0) + 0.1 * X[:, 0] + 0.5 * rng.normal(size=400)
    fitted = regressor(gate_features=[]).fit(X, y)
    interval = fitted.predict_interval(X, 0.9)
    np.testing.assert_allclose(interval, fitted.predict_quantile(X, [0.05, 0.95]), rtol=1e-12)
    # Bimodal: 5 % of all is the lowest sixth of the lower mode, and 95 % the highest fourteenth of the upper one.
    middle = interval[np.abs(X[:, 0]).argmin()]
    np.testing.assert_allclose(middle, [norm.ppf(0.05 / 0.3) * 0.5, 10.0 + norm.ppf(1.0 - 0.05 / 0.7) * 0.5], atol=0.3)
    # The mean ± 1.64 standard deviations would end two units beyond the upper mode.
    mean, sd = fitted.predict(X), np.sqrt(0.7 * 0.3 * 100.0)
    assert (mean + norm.ppf(0.95) * sd > interval[:, 1] + 2.0).all()


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_cover_new_targets(draw_sample, level):
    train, new = draw_sample(1, n=2000), draw_sample(2, n=5000)
    fitted = regressor().fit(train.X, train.y)
    interval = fitted.predict_interval(new.X, level)
    below, above = (new.y < interval[:, 0]).mean(), (new.y > interval[:, 1]).mean()
    # Binomial standard error of 5,000 draws is at most 0.006; another 0.006 for the estimated parameters.
    assert below == pytest.approx(0.5 - 0.5 * level, abs=0.025)
    assert above == pytest.approx(0.5 - 0.5 * level, abs=0.025)


def test_samples_have_the_mixtures_moments(fitted):
    X = np.repeat([[0.4, -0.2]], 40_000, axis=0)
    draws = fitted.sample(X, random_state=1)
    weights, location = channels(fitted, X[:1])
    mean = weights[0] @ location[0]
    variance = weights[0] @ (fitted.scale_**2 + (location[0] - mean) ** 2)
    # Four standard errors of 40,000 draws; a variance's is at most √2 σ²/√n for kurtosis up to 3.
    assert draws.mean() == pytest.approx(mean, abs=4.0 * np.sqrt(variance / 40_000))
    assert draws.var() == pytest.approx(variance, abs=4.0 * variance * np.sqrt(2.0 / 40_000))
    below = (draws[:, None] <= fitted.predict_quantile(X[:1], [0.1, 0.5, 0.9])).mean(axis=0)
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=4.0 * 0.5 / np.sqrt(40_000))


def test_samples_are_keyed_by_random_state(fitted, sample):
    first = fitted.sample(sample.X, random_state=3)
    assert first.shape == (200,)
    np.testing.assert_array_equal(first, fitted.sample(sample.X, random_state=3))
    assert (first != fitted.sample(sample.X, random_state=4)).all()
    generator = np.random.default_rng(0)
    assert (fitted.sample(sample.X, generator) != fitted.sample(sample.X, generator)).all()
    assert np.isfinite(fitted.sample(sample.X, random_state=2**80)).all()
    with pytest.raises(InputError, match="random_state must be a whole number"):
        fitted.sample(sample.X, random_state="3")


def test_scores(fitted, sample):
    weight = np.random.default_rng(0).uniform(size=200)
    prediction = fitted.predict(sample.X)
    assert fitted.score(sample.X, sample.y) == r2_score(sample.y, prediction)
    assert fitted.score(sample.X, sample.y, weight) == r2_score(sample.y, prediction, sample_weight=weight)
    log_density = fitted.predict_log_density(sample.X, sample.y)
    assert fitted.score_log_density(sample.X, sample.y) == pytest.approx(log_density.mean(), rel=1e-14)
    assert fitted.score_log_density(sample.X, sample.y, weight) == pytest.approx(
        weight @ log_density / weight.sum(), rel=1e-14
    )
    with pytest.raises(InputError, match=r"sample_weight is -1.0 in row 2: weights must be finite and not negative"):
        fitted.score_log_density(sample.X[:3], sample.y[:3], [1.0, 1.0, -1.0])
    with pytest.raises(InputError, match="every sample_weight is zero"):
        fitted.score_log_density(sample.X[:3], sample.y[:3], np.zeros(3))


@pytest.mark.parametrize(
    "call",
    [
        lambda r, X, y: r.predict(X),
        lambda r, X, y: r.predict_quantile(X, 0.5),
        lambda r, X, y: r.predict_interval(X),
        lambda r, X, y: r.predict_log_density(X, y),
        lambda r, X, y: r.responsibilities(X, y),
        lambda r, X, y: r.gate_weights(X),
        lambda r, X, y: r.expert_means(X),
        lambda r, X, y: r.sample(X),
        lambda r, X, y: r.score(X, y),
        lambda r, X, y: r.score_log_density(X, y),
        lambda r, X, y: r.summary(),
        lambda r, X, y: r.conf_int(),
    ],
)
def test_nothing_works_before_fit_nor_after_a_fit_that_failed(sample, call):
    with pytest.raises(NotFittedError):
        call(regressor(), sample.X, sample.y)
    failed = regressor(tol=-1.0)
    with pytest.raises(InputError, match="tol must be a positive number"):
        failed.fit(sample.X, sample.y)
    with pytest.raises(NotFittedError):
        call(failed, sample.X, sample.y)
    once = regressor(1).fit(sample.X, sample.y).set_params(tol=-1.0)
    with pytest.raises(InputError, match="tol must be a positive number"):
        once.fit(sample.X[:, :1], sample.y)
    with pytest.raises(NotFittedError):
        call(once, sample.X[:, :1], sample.y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_experts": 0}, "n_experts must be a whole number of at least 1, not 0"),
        ({"n_experts": 2.0}, "n_experts must be a whole number of at least 1, not 2.0"),
        ({"n_experts": True}, "n_experts must be a whole number of at least 1, not True"),
        ({"n_experts": 201}, "201 experts need at least 201 rows with a positive weight; there are 200"),
        ({"gate": "hard"}, "unknown gate 'hard': choose one of .*softmax"),
        ({"expert": "cubic"}, "unknown expert 'cubic': choose one of .*constant, .*linear"),
        ({"family": ["gaussian"]}, r"unknown family \['gaussian'\]: choose one of .*gaussian"),
        ({"gate_features": ["z"]}, "gate_features has 'z', which is not a column of X"),
        ({"shared_scale": "no"}, "shared_scale must be True or False, not 'no'"),
        ({"n_starts": 0}, 'n_starts must be a whole number of at least 1, or "auto", not 0'),
        ({"init": "magic"}, "unknown init 'magic': choose one of auto, split, lines, half_spaces, kmeans"),
        (
            {"init": [["a", "b"]] * 200},
            r"init must be the name of a strategy, responsibilities \(n, k\), a table of num",
        ),
        ({"init": np.ones((3, 2))}, r"init has shape \(3, 2\); responsibilities need .* \(200, 2\)"),
        ({"init": -np.ones((200, 2))}, "init has no valid responsibilities in row 0"),
        ({"max_iter": -1}, "max_iter must be a whole number of at least 0, not -1"),
        ({"tol": 0.0}, "tol must be a positive number, not 0.0"),
        ({"tol": "small"}, "tol must be a positive number, not 'small'"),
        ({"time_limit": -1.0}, "time_limit must be a positive number of seconds or None, not -1.0"),
        ({"scale_floor": 1.0}, "scale_floor must lie strictly between 0 and 1, not 1.0"),
        ({"scale_floor": None}, "scale_floor must lie strictly between 0 and 1, not None"),
        ({"gate_ridge": -0.5}, "gate_ridge must be a non-negative number, not -0.5"),
        ({"variance_prior": (1.0, 0.0)}, r"variance_prior must be two positive numbers \(a, b\), not \(1.0, 0.0\)"),
        ({"variance_prior": 1.0}, r"variance_prior must be two positive numbers \(a, b\), not 1.0"),
        ({"n_jobs": 0}, "n_jobs must be a whole number other than 0, or None, not 0"),
        ({"n_jobs": "all"}, "n_jobs must be a whole number other than 0, or None, not 'all'"),
        ({"n_threads": 0}, "n_threads must be a whole number of at least 1, not 0"),
        ({"device": "abacus"}, "unknown device 'abacus': use cpu, or a device that torch has on this machine"),
        ({"dtype": "int8"}, "unknown dtype 'int8': choose one of float64, float32"),
        ({"random_state": -1}, "random_state must be a whole number of at least 0"),
    ],
)
def test_options_that_cannot_be_used(sample, options, message):
    with pytest.raises(InputError, match=message):
        regressor(**{"n_experts": 2, **options}).fit(sample.X, sample.y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([-1.0], "sample_weight is -1.0 in row 5: weights must be finite and not negative"),
        ([np.nan], "sample_weight is nan in row 5: weights must be finite and not negative"),
    ],
)
def test_weights_that_cannot_be_used(sample, weight, message):
    weights = np.ones(200)
    weights[5] = weight[0]
    with pytest.raises(InputError, match=message):
        regressor().fit(sample.X, sample.y, sample_weight=weights)
    with pytest.raises(InputError, match="every sample_weight is zero: at least one row must count"):
        regressor().fit(sample.X, sample.y, sample_weight=np.zeros(200))


def test_columns_and_targets_without_information_are_named(sample):
    named = pd.DataFrame({"a": sample.X[:, 0], "b": 3.0, "c": 2.0 * sample.X[:, 0] - 1.0})
    with pytest.raises(InputError, match="column 'b' is constant at 3: remove it"):
        regressor().fit(named[["a", "b"]], sample.y)
    with pytest.raises(InputError, match="column 'c' is a linear combination of the columns before it, 'c' = "):
        regressor().fit(named[["a", "c"]], sample.y)
    with pytest.raises(InputError, match="the target 'level' is constant at 7: there is nothing to explain"):
        regressor().fit(sample.X, pd.Series(np.full(200, 7.0), name="level"))
    with pytest.raises(InputError, match="1 expert needs at least 2 rows with a positive weight; there are 1"):
        regressor(1).fit(sample.X[:1], sample.y[:1])


def test_a_gate_that_separates_warns_so():
    x = np.linspace(-1.0, 1.0, 60)
    wiggle = 0.1 * np.cos(np.arange(60.0) ** 2)
    with pytest.warns(SeparationWarning, match="The gate separates") as caught:
        fitted = regressor().fit(x[:, None], np.where(x < 0.0, -1.0 - x, 3.0 + 2.0 * x) + wiggle)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert fitted.status_ is FitStatus.SEPARATED
    gate = fitted.parameters_.component == "gate 1 vs 2"
    assert fitted.parameters_.standard_error[gate].isna().all()
    assert fitted.parameters_.standard_error[~gate].notna().all()
    calm = regressor(gate_ridge=1.0).fit(x[:, None], np.where(x < 0.0, -1.0 - x, 3.0 + 2.0 * x) + wiggle)
    assert calm.status_ in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert calm.parameters_.standard_error.notna().all()


def test_an_exactly_linear_target_ends_on_the_floor(sample):
    with pytest.warns(DegenerateExpertWarning, match="a feature that copies the target") as caught:
        fitted = regressor().fit(sample.X, 3.0 * sample.X[:, 0] - 1.0)
    assert len(caught) == 1
    assert fitted.status_ is FitStatus.ON_FLOOR
    assert fitted.parameters_.standard_error.isna().all()
    # σ on the floor is 1e-3 of the target's deviation; the mean is far closer than that.
    np.testing.assert_allclose(fitted.predict(sample.X), 3.0 * sample.X[:, 0] - 1.0, atol=1e-2)


def test_a_tight_expert_warns_so():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(60, 1)), rng.normal(size=60)
    y[:20] = 1.0 + 2.0 * X[:20, 0] + 1e-2 * rng.normal(size=20)
    with pytest.warns(DegenerateExpertWarning, match="one expert is tight") as caught:
        fitted = regressor(gate_features=[], n_starts=8).fit(X, y)
    assert len(caught) == 1
    assert fitted.status_ is FitStatus.TIGHT


def test_fewer_rows_than_parameters_is_a_fit_without_standard_errors(sample):
    with pytest.warns(FitWarning, match="fewer rows than parameters") as caught:
        fitted = regressor().fit(sample.X[:10], sample.y[:10])
    assert len(caught) == 1
    assert type(caught[0].message) is FitWarning
    assert fitted.status_ is FitStatus.SATURATED
    assert fitted.parameters_.standard_error.isna().all()
    assert fitted.covariance_.isna().all(axis=None)
    assert np.isfinite(fitted.predict(sample.X)).all()


def test_an_early_end_warns_so(sample):
    with pytest.warns(FitWarning, match="raise max_iter"):
        fitted = regressor(max_iter=1, n_starts=1).fit(sample.X, sample.y)
    assert fitted.status_ is FitStatus.MAX_ITER


# Torch's own forward-mode derivatives still script themselves with what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_float32_is_a_coarser_way_to_the_same_maximum(sample, fitted):
    coarse = regressor(dtype="float32", tol=1e-4, n_starts=1).fit(sample.X, sample.y)
    assert coarse.status_ in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    # float32 sums of 200 terms are good to about 1e-5; the likelihood is flat at its maximum.
    assert coarse.log_likelihood_ == pytest.approx(fitted.log_likelihood_, rel=1e-4)
    assert coarse.predict(sample.X).dtype == np.float64
