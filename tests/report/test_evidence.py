import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError
from gatewise.report import Evidence


def test_arrays_are_the_estimators(tone):
    evidence, estimator = tone.evidence, tone.estimator
    np.testing.assert_allclose(evidence.responsibilities, estimator.responsibilities(tone.X, tone.y), rtol=1e-12)
    np.testing.assert_allclose(evidence.gate_weights, estimator.gate_weights(tone.X), rtol=1e-12)
    np.testing.assert_allclose(evidence.expert_means, estimator.expert_means(tone.X), rtol=1e-12)
    np.testing.assert_allclose(evidence.fitted, estimator.predict(tone.X), rtol=1e-12)


def test_deviation_and_transform_follow_their_formulas(tone):
    evidence, scale = tone.evidence, tone.estimator.scale_
    weights, means = evidence.gate_weights, evidence.expert_means
    centre = (weights * means).sum(1, keepdims=True)
    variance = (weights * (scale**2 + (means - centre) ** 2)).sum(1)
    np.testing.assert_allclose(evidence.deviation, np.sqrt(variance), rtol=1e-12)
    below = (weights * stats.norm.cdf((evidence.target[:, None] - means) / scale)).sum(1)
    np.testing.assert_allclose(evidence.transform, below, rtol=1e-10, atol=1e-15)


def test_rows_of_weight_zero_are_not_there_even_where_they_are_missing(tone):
    X = pd.concat([tone.X, pd.DataFrame({"stretchratio": [np.nan, 2.0]})], ignore_index=True)
    y = np.append(tone.y.to_numpy(), [1.0, np.nan])
    weight = np.append(np.ones(len(tone.y)), [0.0, 0.0])
    evidence = Evidence.collect(tone.estimator, X, y, weight)
    assert evidence.n_rows == len(tone.y)
    np.testing.assert_array_equal(evidence.responsibilities, tone.evidence.responsibilities)


def test_polars_tables_are_read(tone):
    evidence = Evidence.collect(tone.estimator, pl.from_pandas(tone.X), pl.from_pandas(tone.y))
    np.testing.assert_array_equal(evidence.fitted, tone.evidence.fitted)


def test_profile_holds_the_other_features_at_their_means(npreg):
    evidence, estimator = npreg.evidence, npreg.estimator
    profile = evidence.profile(1)
    assert profile.grid[0] == npreg.X["x squared"].min()
    assert profile.grid[-1] == npreg.X["x squared"].max()
    points = pd.DataFrame({"x": npreg.X["x"].mean(), "x squared": profile.grid})
    np.testing.assert_allclose(profile.expert_means, estimator.expert_means(points), rtol=1e-10)
    np.testing.assert_allclose(profile.gate_weights, estimator.gate_weights(points), rtol=1e-10)
    interval = estimator.predict_interval(points, level=0.95)
    np.testing.assert_allclose(np.column_stack([profile.low, profile.high]), interval, rtol=1e-10)
    half_width = stats.norm.ppf(0.975) * estimator.scale_
    np.testing.assert_allclose(
        profile.expert_high - profile.expert_means, np.tile(half_width, (len(profile.grid), 1)), rtol=1e-9
    )


def test_profile_means_are_weighted(npreg):
    weight = np.linspace(0.5, 2.0, len(npreg.y))
    evidence = Evidence.collect(npreg.estimator, npreg.X, npreg.y, weight)
    np.testing.assert_allclose(evidence.centre(), np.average(npreg.X.to_numpy(), axis=0, weights=weight), rtol=1e-14)


def test_adjusted_target_takes_out_what_the_experts_owe_to_the_other_features(npreg):
    evidence, estimator = npreg.evidence, npreg.estimator
    departure = npreg.X["x squared"].to_numpy() - npreg.X["x squared"].mean()
    owed = (evidence.responsibilities * departure[:, None] * estimator.expert_coef_[:, 1]).sum(1)
    rows = np.array([3, 0, 150])
    expected = (npreg.y.to_numpy() - owed)[rows]
    np.testing.assert_allclose(evidence.adjusted_target(0, rows), expected, rtol=1e-9, atol=1e-9)


def test_adjusted_target_of_one_feature_is_the_target(tone):
    rows = np.array([5, 149])
    np.testing.assert_array_equal(tone.evidence.adjusted_target(0, rows), tone.y[rows])


def test_thinning_is_the_same_every_time_and_all_rows_where_they_are_few(tone):
    evidence = tone.evidence
    np.testing.assert_array_equal(evidence.drawn(1_000), np.arange(150))
    few = evidence.drawn(40)
    assert len(np.unique(few)) == 40
    assert (np.diff(few) > 0).all()
    np.testing.assert_array_equal(few, evidence.drawn(40))


def test_gate_features_are_columns_of_the_inputs(hostile, co2):
    assert hostile.evidence.gate_features == [0, 1]
    assert co2.evidence.gate_features == []


def test_refusals(tone):
    with pytest.raises(InputError, match="X has 150 rows and y 149"):
        Evidence.collect(tone.estimator, tone.X, tone.y[:-1])
    with pytest.raises(InputError, match="sample_weight has shape"):
        Evidence.collect(tone.estimator, tone.X, tone.y, np.ones(3))
    with pytest.raises(InputError, match="every sample_weight is zero"):
        Evidence.collect(tone.estimator, tone.X, tone.y, np.zeros(150))
    with pytest.raises(InputError, match="column 'tuned' has the value nan in row 0"):
        Evidence.collect(tone.estimator, tone.X, np.append(np.nan, tone.y[1:]))
    with pytest.raises(InputError, match="feature names"):
        Evidence.collect(tone.estimator, tone.X.rename(columns={"stretchratio": "other"}), tone.y)
    with pytest.raises(NotFittedError):
        Evidence.collect(GatedRegressor(), tone.X, tone.y)
