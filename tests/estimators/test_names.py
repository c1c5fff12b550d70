"""Findings call columns and levels what the parameter table calls them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.exceptions import FitWarning

# Sales of 15 shops that follow two lines; in shop 10 one of them has no rows, so its shop effect is not identified.
SHOPS = Path(__file__).parents[1] / "data" / "sing.csv"


def singular(estimator):
    return next(finding.message for finding in estimator.result_.findings if finding.code.name == "SINGULAR")


def test_a_direction_that_is_not_identified_names_column_and_level():
    frame = pd.read_csv(SHOPS)
    design = pd.get_dummies(frame[["x", "shop"]], prefix_sep="=", drop_first=True).astype(float)
    with pytest.warns(FitWarning):
        estimator = GatedRegressor(n_starts=2, random_state=0).fit(design, frame["y"])
    message = singular(estimator)
    assert "Not identified, and not explained by a symmetry" in message
    assert "shop=shop 10" in message
    assert " x10" not in message
    named = message.split("symmetry: ")[1].rstrip(".").split()
    table = estimator.parameters_
    known = set(table["component"] + ": " + table["term"])
    assert " ".join(named[1:5]) in known


def test_arrays_are_numbered():
    frame = pd.read_csv(SHOPS)
    design = pd.get_dummies(frame[["x", "shop"]], drop_first=True).to_numpy(float)
    with pytest.warns(FitWarning):
        estimator = GatedRegressor(n_starts=2, random_state=0).fit(design, frame["y"].to_numpy())
    assert ": x10" in singular(estimator)


def test_what_a_class_depends_on_is_named_by_the_class():
    random = np.random.default_rng(0)
    X = pd.DataFrame({"dose": random.normal(size=150), "age": random.normal(size=150)})
    y = pd.Series(random.choice(["low", "middle", "top"], 150), name="answer")
    estimator = GatedClassifier(n_starts=1, random_state=0, n_experts=1).fit(X, y)
    result, names = estimator.result_, estimator.names_
    labels = result.coordinates.labels()
    direction = np.eye(len(labels))[labels.index("experts.weight[0, 1, 0]")]
    along = names.along(result.coordinates, result.model.family, result.theta, direction)
    assert along[0] == (1.0, "expert 1: answer=middle dose")
