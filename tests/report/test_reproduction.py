"""The Python of a report makes the fit again."""

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.exceptions import FitWarning
from gatewise.families import StudentT
from gatewise.fit import Constraints
from gatewise.report import render_report
from gatewise.report.reproduction import python_text
from tests.report.pages import Page

QUICK = {"n_experts": 2, "n_starts": 2, "max_iter": 30, "random_state": 4}


@pytest.fixture
def table(tmp_path, monkeypatch) -> pd.DataFrame:
    """A table with everything that a fit can ask for, read back from the file that it was written to."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    x, other = rng.normal(size=(2, 90))
    first = rng.uniform(size=90) < 0.5
    exposure = rng.uniform(0.5, 3.0, size=90)
    frame = pd.DataFrame(
        {
            "x": x,
            'it\'s "odd"': other,
            "y": np.where(first, 2.0 * x, 1.0 - x) + 0.2 * rng.normal(size=90),
            "visits": rng.poisson(exposure * np.exp(np.where(first, 1.5 + 0.5 * x, 0.0))),
            "exposure": exposure,
            "w": rng.uniform(0.5, 2.0, size=90),
            "kind": np.where(first, "left", "right"),
        }
    )
    frame.to_csv("d.csv", index=False)
    return pd.read_csv("d.csv")


def _fit(estimator: Any, *rows: Any, **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return estimator.fit(*rows, **more)


def _run(text: str, **known: Any) -> Any:
    """The estimator that the Python makes, with nothing else known to it."""
    names = dict(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        exec(compile(text, "report", "exec"), names)
    return names["fitted"]


def _rows(frame: pd.DataFrame, name: str) -> tuple[Any, dict[str, Any]]:
    """An estimator and its arguments."""
    X = frame[["x", 'it\'s "odd"']]
    if name == "weighted":
        return GatedRegressor(**QUICK, gate_features=["x"]), {"X": X, "y": frame["y"], "sample_weight": frame["w"]}
    if name == "counts with an offset":
        options = {"family": "poisson", "gate_features": []}
        return GatedRegressor(**QUICK, **options), {
            "X": X,
            "y": frame["visits"],
            "offset": np.log(frame["exposure"]),
        }
    if name == "arrays":
        return GatedRegressor(**QUICK), {"X": X.to_numpy(), "y": frame["y"].to_numpy()}
    if name == "polars":
        wide = pl.from_pandas(frame)
        return GatedRegressor(**QUICK, gate_features=["x"]), {"X": wide.select(X.columns), "y": wide["y"]}
    if name == "classes":
        return GatedClassifier(**QUICK, gate_ridge=0.5), {"X": frame[["x"]], "y": frame["kind"]}
    if name == "least squares":
        return GatedRegressor(**QUICK, objective="least_squares"), {"X": X, "y": frame["y"]}
    options = {
        "family": StudentT(df=4.0),
        "constraints": Constraints(
            frozen={"gate.bias": True}, tied=[[("experts.weight", (0, 0)), ("experts.weight", (1, 0))]]
        ),
        "expert_options": {},
        "tol": np.float64(1e-7),
    }
    return GatedRegressor(**QUICK, **options), {"X": X, "y": frame["y"]}


@pytest.mark.parametrize(
    "name", ["weighted", "counts with an offset", "arrays", "polars", "classes", "least squares", "parts"]
)
def test_the_printed_python_makes_the_same_fit(table, name):
    estimator, rows = _rows(table, name)
    _fit(estimator, *(rows[key] for key in ("X", "y")), **{k: v for k, v in rows.items() if k not in ("X", "y")})
    page = render_report(estimator, **rows, data_name="d.csv")
    text = re.search(r"<pre>(.*?)</pre>", page, flags=re.DOTALL)
    assert text is not None
    printed = "".join(Page(text[0]).words) + "\n"
    again = _run(printed)
    assert again.result_.objective == estimator.result_.objective
    assert again.result_.theta.tobytes() == estimator.result_.theta.tobytes()
    figure = "residual_sum_of_squares" if name == "least squares" else "log_likelihood"
    assert f"# {estimator.summary().statistics[figure]:.10g}\n" in printed


def test_a_shipped_data_set_is_loaded_by_its_name(tone):
    text = python_text(tone.estimator, tone.X, tone.y, data_name="tone")
    assert "table = load('tone').frame\nX = table[['stretchratio']]\ny = table['tuned']\n" in text
    assert _run(text.replace("n_starts='auto'", "n_starts=2")).log_likelihood_ == pytest.approx(
        tone.estimator.log_likelihood_, rel=1e-9
    )


def test_columns_that_are_not_those_of_the_file_are_not_loaded_from_it(table):
    X, y = table[["x"]], np.log1p(table["visits"])
    estimator = _fit(GatedRegressor(**QUICK), X, y)
    text = python_text(estimator, X, y, data_name="d.csv")
    assert "X = table[['x']]" in text
    assert "# y: 90 values of 'visits', as you made it" in text
    assert "y = " not in text.replace("# y", "")
    assert _run(text, y=y).result_.objective == estimator.result_.objective


@pytest.mark.parametrize("data_name", [None, "the survey", "missing.csv", "broken.csv"])
def test_without_a_file_the_rows_are_described(table, data_name):
    with open("broken.csv", "wb") as file:
        file.write(b"\xff\xfe\x00")
    X, y = table[["x"]], table["y"]
    estimator = _fit(GatedRegressor(**QUICK), X, y)
    text = python_text(estimator, X, y, data_name=data_name)
    assert "# X: 90 × 1 numbers, the columns 'x', as you made it" in text
    assert "table" not in text
    assert _run(text, X=X, y=y).result_.objective == estimator.result_.objective


def test_what_cannot_be_written_out_is_named(table):
    X, y = table[["x"]], table["y"]
    start = np.full((90, 2), 0.5) + np.where(np.arange(90) % 2, 0.3, -0.3)[:, None] * [1.0, -1.0]
    estimator = _fit(GatedRegressor(**QUICK | {"init": start, "n_starts": 1}), X, y)
    text = python_text(estimator, X, y, data_name="d.csv")
    assert "# init: ndarray (90, 2), as you made it" in text
    assert "    init=init,\n" in text
    assert _run(text, init=start).result_.objective == estimator.result_.objective


def test_other_rows_than_those_of_the_fit_are_told(table):
    estimator = _fit(GatedRegressor(**QUICK), table[["x"]], table["y"])
    text = python_text(estimator, table[["x"]][:50], table["y"][:50], data_name="d.csv")
    assert "# The fit was made to 90 rows, and these are 50 others." in text


def test_a_command_stands_in_place_of_python(tone):
    page = Page(render_report(tone.estimator, tone.X, tone.y, command="gatewise fit tone --target tuned"))
    assert "gatewise fit tone --target tuned" in page.text
    assert "import GatedRegressor" not in page.text
    assert "Log-likelihood to obtain 142.84801" in page.text
