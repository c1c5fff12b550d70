"""Columns that no row can move alone are found, and no others."""

import numpy as np
import pytest

from gatewise.report import render_report
from gatewise.report.dependence import dependences
from tests.report.pages import Page


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    level = rng.integers(0, 4, size=200)
    return {
        "a": rng.normal(50.0, 5.0, size=200),
        "b": rng.uniform(0.1, 1.0, size=200),
        "group": rng.integers(0, 2, size=200).astype(float),
        "other": rng.integers(0, 2, size=200).astype(float),
        "north": (level == 1).astype(float),
        "south": (level == 2).astype(float),
        "west": (level == 3).astype(float),
        "same": np.full(200, 2.0),
    }


def _found(columns: dict[str, np.ndarray]) -> dict[str, list[str]]:
    names = list(columns)
    return {names[place]: ties for place, ties in dependences(np.column_stack(list(columns.values())), names).items()}


def test_independent_columns_are_left_alone(columns):
    for name in ("north", "south"):
        columns.pop(name)
    assert _found(columns) == {}


@pytest.mark.parametrize(
    "made", [lambda a: a**2, lambda a: a**3, lambda a: (a - a.mean()) ** 2, lambda a: 1.8 * a + 32.0, lambda a: a**4]
)
def test_powers_are_functions_of_their_base(columns, made):
    found = _found({"a": columns["a"], "b": columns["b"], "made": made(columns["a"])})
    assert found == {"a": ["made is a function of a"], "made": ["made is a function of a"]}


def test_products_are_made_of_their_factors(columns):
    found = _found({name: columns[name] for name in ("a", "b", "group")} | {"ab": columns["a"] * columns["b"]})
    assert found == {key: ["ab is made of a and b"] for key in ("a", "b", "ab")}
    found = _found({name: columns[name] for name in ("a", "group")} | {"in group": columns["a"] * columns["group"]})
    assert found["in group"] == ["in group is made of a and group"]


def test_almost_is_not_enough(columns):
    rng = np.random.default_rng(1)
    noisy = columns["a"] ** 2 * (1.0 + 1e-4 * rng.normal(size=200))
    assert _found({"a": columns["a"], "noisy": noisy}) == {}


def test_indicators_of_one_category_are_one_block(columns):
    found = _found({name: columns[name] for name in ("group", "other", "north", "south", "west")})
    assert found == {key: ["no row has two of north, south, west"] for key in ("north", "south", "west")}


def test_rare_events_that_never_meet_are_no_category():
    first, second = np.zeros((2, 100))
    first[:5], second[5:10] = 1.0, 1.0
    assert _found({"first": first, "second": second}) == {}


def test_few_rows_say_nothing():
    x = np.arange(5.0)
    assert dependences(np.column_stack([x, np.sin(x), np.cos(x)]), ["x", "s", "c"]) == {}


def test_panels_that_mislead_say_so(npreg, tone):
    page = Page(render_report(npreg.estimator, npreg.X, npreg.y))
    # Two panels of the data, two of the gate.
    assert page.text.count("Misleading: x squared is a function of x.") == 4
    assert "Misleading" not in Page(render_report(tone.estimator, tone.X, tone.y)).text
