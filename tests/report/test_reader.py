import numpy as np
import pytest
from scipy import special, stats

from gatewise.exceptions import InputError
from gatewise.report import Evidence
from gatewise.report.targets import TargetKind, observed_numbers, target_kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gamma", TargetKind.NUMBER),
        ("poisson", TargetKind.COUNT),
        ("binomial", TargetKind.COUNT),
        ("binomial, trials by row", TargetKind.SHARE),
        ("bernoulli", TargetKind.CLASS),
        ("categorical", TargetKind.CLASS),
        ("multivariate_gaussian", TargetKind.VECTOR),
        ("least squares, counts", TargetKind.NUMBER),
        ("least squares, two columns", TargetKind.VECTOR),
    ],
)
def test_kinds(case, name, kind):
    assert target_kind(case(name).estimator.result_) is kind


def test_what_was_observed():
    np.testing.assert_array_equal(
        observed_numbers(TargetKind.CLASS, np.array([2.0, 0.0]), 3), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    )
    np.testing.assert_array_equal(observed_numbers(TargetKind.SHARE, np.array([[1.0, 4.0]]), 0), [0.25])


def test_probabilities_of_two_classes_are_the_bernoulli_means(case):
    fitted = case("bernoulli")
    evidence = fitted.evidence
    ones = fitted.estimator.predict(fitted.X)
    np.testing.assert_allclose(evidence.fitted, np.column_stack([1.0 - ones, ones]), rtol=1e-12)
    assert evidence.expert_means.shape == (len(fitted.y), 2, 2)
    assert evidence.drawn_outputs == [1]
    assert evidence.output_names == ("0", "1")


def test_probabilities_of_classes_are_the_classifiers(case):
    fitted = case("categorical")
    np.testing.assert_allclose(fitted.evidence.fitted, fitted.estimator.predict_proba(fitted.X), rtol=1e-10)
    np.testing.assert_array_equal(fitted.evidence.observed.argmax(axis=1), np.unique(fitted.y, return_inverse=True)[1])
    assert fitted.evidence.output_names == ("adelie", "chinstrap", "gentoo")


def test_unknown_classes_are_refused(case):
    fitted = case("categorical")
    other = fitted.y.copy()
    other.iloc[3] = "emperor"
    with pytest.raises(InputError, match=r"'emperor' in row 3 .* none of the classes"):
        Evidence.collect(fitted.estimator, fitted.X, other)


def test_an_offset_is_asked_for_and_used(case):
    fitted = case("poisson with an offset")
    with pytest.raises(InputError, match="fitted with an offset"):
        Evidence.collect(fitted.estimator, fitted.X, fitted.y)
    np.testing.assert_allclose(fitted.evidence.fitted, fitted.estimator.predict(fitted.X, fitted.offset), rtol=1e-12)
    with pytest.raises(InputError, match="offset has shape"):
        Evidence.collect(fitted.estimator, fitted.X, fitted.y, offset=fitted.offset[:-1])


def test_another_number_of_columns_is_refused(case):
    fitted = case("multivariate_gaussian")
    with pytest.raises(InputError, match="y has 3 columns, and the fit was to 2"):
        Evidence.collect(fitted.estimator, fitted.X, fitted.y.assign(more=1.0))


def test_targets_that_the_family_does_not_have_are_refused(case):
    fitted = case("poisson")
    with pytest.raises(InputError, match="counts 0, 1, 2"):
        Evidence.collect(fitted.estimator, fitted.X, fitted.y + 0.5)


def test_deviation_of_a_share_has_the_trials_of_its_row(case):
    fitted = case("binomial, trials by row")
    evidence, trials = fitted.evidence, fitted.y["seeds"].to_numpy()
    # All trials of a row are made by one expert: the variance of the share by the law of total variance.
    p, weight = evidence.expert_means, evidence.gate_weights
    centre = (weight * p).sum(axis=1)
    variance = np.zeros(len(trials))
    for i in range(2):
        variance += weight[:, i] * (p[:, i] * (1.0 - p[:, i]) / trials + p[:, i] ** 2)
    np.testing.assert_allclose(evidence.deviation**2, variance - centre**2, rtol=1e-8)


def test_medians_stand_for_means_that_do_not_exist(case):
    fitted = case("student_t without a mean")
    evidence = fitted.evidence
    assert evidence.reader.uses_median
    assert evidence.deviation is None
    np.testing.assert_allclose(evidence.fitted, fitted.estimator.predict_quantile(fitted.X, 0.5), rtol=1e-10)
    # The median of Student's t is its location.
    location = fitted.estimator.expert_intercept_ + fitted.X.to_numpy() @ fitted.estimator.expert_coef_.T
    np.testing.assert_allclose(evidence.expert_means, location, rtol=1e-9, atol=1e-12)
    assert not case("student_t").evidence.reader.uses_median


def test_least_squares_has_shares_of_weights_and_one_deviation(case):
    fitted = case("least squares, unnormalised")
    evidence = fitted.evidence
    weights = fitted.estimator.gate_weights(fitted.X)
    # Far from the data the weights themselves may underflow; their shares, from logarithms, do not.
    total = weights.sum(axis=1, keepdims=True)
    rows = total[:, 0] > 1e-200
    assert rows.mean() > 0.5
    np.testing.assert_allclose(evidence.responsibilities[rows], weights[rows] / total[rows], rtol=1e-10)
    np.testing.assert_allclose(evidence.responsibilities.sum(axis=1), 1.0, rtol=1e-12)
    residual = fitted.y.to_numpy() - fitted.estimator.predict(fitted.X)
    np.testing.assert_allclose(evidence.deviation, np.sqrt(np.mean(residual**2)), rtol=1e-12)
    assert evidence.transform is None
    assert evidence.profile(0).low is None


def test_partial_targets_of_a_log_link_are_ratios(case):
    fitted = case("poisson with an offset")
    evidence = fitted.evidence
    rows = np.array([0, 5, 77])
    estimator, x = fitted.estimator, fitted.X.to_numpy()
    log_ratio = (x[rows, [1]][:, None] - x[:, 1].mean()) * estimator.expert_coef_[:, 1]
    log_ratio = log_ratio + (fitted.offset[rows] - fitted.offset.mean())[:, None]
    total = (evidence.responsibilities[rows] * log_ratio).sum(axis=1)
    expected = fitted.y.to_numpy()[rows] * np.exp(-total)
    np.testing.assert_allclose(evidence.adjusted_target(0, rows), expected, rtol=1e-8)
    assert (evidence.adjusted_target(0, np.arange(evidence.n_rows)) >= 0.0).all()


def test_partial_targets_of_least_squares_are_residuals_on_the_curve(case):
    fitted = case("least squares")
    rows = np.array([3, 11])
    held = fitted.X.iloc[rows].copy()
    held["weight"] = fitted.X["weight"].mean()
    residual = fitted.y.iloc[rows] - fitted.estimator.predict(fitted.X.iloc[rows])
    expected = residual + fitted.estimator.predict(held)
    np.testing.assert_allclose(fitted.evidence.adjusted_target(0, rows), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_classes_have_no_partial_targets(case, name):
    evidence = case(name).evidence
    held = evidence.adjusted_target(0, np.arange(3))
    assert (held is None) == (evidence.inputs.shape[1] > 1)


def test_bands_of_counts_are_quantiles_of_counts(case):
    fitted = case("poisson")
    profile = fitted.evidence.profile(0)
    rate = np.exp(fitted.estimator.expert_intercept_ + profile.grid[:, None] * fitted.estimator.expert_coef_[:, 0])
    np.testing.assert_array_equal(profile.expert_low, stats.poisson.ppf(0.025, rate))
    np.testing.assert_array_equal(profile.expert_high, stats.poisson.ppf(0.975, rate))
    assert (profile.high == np.floor(profile.high)).all()


def test_profile_of_a_class_is_the_mixture_of_logistic_curves(case):
    fitted = case("categorical of two")
    evidence, estimator = fitted.evidence, fitted.estimator
    profile = evidence.profile(0)
    logit = estimator.expert_intercept_ + profile.grid[:, None] * estimator.expert_coef_[:, 0]
    np.testing.assert_allclose(profile.expert_means[:, :, 0], special.expit(logit), rtol=1e-9, atol=1e-300)
    mixed = (profile.gate_weights * profile.expert_means[:, :, 1]).sum(axis=1)
    np.testing.assert_allclose(evidence.output(profile.mean, 1), mixed, rtol=1e-9)
