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
    # In standardised columns that direction also moves an intercept, which the table, in the user's, knows exactly.
    assert "(intercept)" not in message
    experts = table[table["component"].str.startswith("expert") & (table["term"] != "shop=shop 10")]
    assert experts["standard_error"].notna().all()


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
    # In internal units the slope alone moves; in the user's the intercept does too, by the mean over the deviation.
    assert along[0][1] == "expert 1: answer=middle dose"
    assert along[0][0] == pytest.approx(1.0 / np.hypot(1.0, along[1][0] / along[0][0]))
    assert along[1][1] == "expert 1: answer=middle (intercept)"
    assert [speed for speed, _ in along[2:]] == [0.0] * (len(along) - 2)


@pytest.mark.parametrize(
    ("offset", "weights", "title", "footnote", "recorded"),
    [
        (None, None, "poisson family", "total weight 40, ", (None, None)),
        ([0.5] * 40, [1.0] * 40, "poisson family, with an offset", "total weight 40, ", ("offset", "sample_weight")),
        (
            pd.Series([0.5] * 40, name="log(holders)"),
            pd.Series([1.0] * 40, name="policies"),
            "poisson family, with the offset log(holders)",
            "total weight 40 (weights policies), ",
            ("log(holders)", "policies"),
        ),
    ],
)
def test_the_summary_says_what_the_offset_and_the_weights_were(offset, weights, title, footnote, recorded):
    x = np.linspace(0.0, 1.0, 40)[:, None]
    estimator = GatedRegressor(1, family="poisson").fit(x, np.arange(40) % 5, sample_weight=weights, offset=offset)
    summary = estimator.summary()
    assert summary.title.endswith(title)
    assert footnote in summary.to_text()
    assert (summary.statistics["offset"], summary.statistics["weights"]) == recorded
