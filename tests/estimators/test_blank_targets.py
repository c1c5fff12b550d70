"""Rows whose target is blank: what needs no target is there, what needs it is NaN, and scores refuse them."""

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.exceptions import InputError

BLANK = [1, 4]


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    return random.normal(size=(60, 2)), random.normal(size=60)


def check(estimator, X, y, holes):
    density, shares = estimator.predict_log_density(X, y), estimator.responsibilities(X, y)
    blank = np.isin(np.arange(len(X)), BLANK)
    for with_holes, whole in (
        (estimator.predict_log_density(X, holes), density),
        (estimator.responsibilities(X, holes), shares),
    ):
        assert np.isnan(with_holes[blank]).all()
        np.testing.assert_array_equal(with_holes[~blank], whole[~blank])


@pytest.mark.parametrize("family", ["gaussian", "multivariate_gaussian"])
def test_of_numbers(rows, family):
    X, y = rows
    y = y if family == "gaussian" else np.column_stack([y, X[:, 0] - y**2])
    estimator = GatedRegressor(1, family=family).fit(X, y)
    holes = y.copy()
    holes.reshape(60, -1)[BLANK, -1] = np.nan
    check(estimator, X, y, holes)
    assert np.isnan(estimator.predict_log_density(X, np.full_like(y, np.nan))).all()
    for score in (estimator.score, estimator.score_log_density):
        with pytest.raises(InputError, match="column 'y' has the value nan in row 1"):
            score(X, holes)
    with pytest.raises(InputError, match="has the value inf in row 0"):
        estimator.predict_log_density(X, np.where(np.arange(60).reshape(60, *[1] * (y.ndim - 1)) == 0, np.inf, holes))


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_of_classes(rows, kind):
    X, y = rows
    labels = np.where(y > 0.0, "high", "low").astype(object) if kind == "text" else (y > 0.0).astype(float)
    estimator = GatedClassifier(1).fit(X, labels)
    holes = labels.copy()
    holes[BLANK] = None if kind == "text" else np.nan
    check(estimator, X, labels, holes)
    check(estimator, X, labels, pd.Series(holes))
    with pytest.raises(InputError, match="column 'y' has the value nan in row 1"):
        estimator.score_log_density(X, holes)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_blank_among_texts_is_no_class_of_its_own(rows, missing):
    X, _ = rows
    labels = ["a", "b", missing] * 20
    for y in (labels, pd.Series(labels), np.array(labels, dtype=object)):
        with pytest.raises(InputError, match=r"is missing \(None or NaN\) in row 2 \(20 such rows in all\)"):
            GatedClassifier(1).fit(X, y)
