"""The table of advice: each row against the theorems and the measured moduli that it names."""

import pytest

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.gates import GATES
from gatewise.theory.advice import advice_table, advise
from gatewise.theory.rate_table import rate_table
from tests.theory.how_fast import measurements

THEOREMS = {theorem.id: theorem for theorem in rate_table().theorems}
KNOWN = measurements()
ROWS = pytest.mark.parametrize("row", advice_table(), ids=lambda row: f"{row.gate_text}, {row.experts_text}")


@ROWS
def test_names_are_registered(row):
    assert row.gate in list(GATES)
    assert row.experts == "any" or row.experts in list(EXPERTS)
    assert (row.family is None) == (row.objective == "least_squares")
    assert row.family is None or row.family in list(FAMILIES)


@ROWS
def test_every_row_says_something(row):
    assert row.over is not None or row.lost


@ROWS
def test_what_is_measured_is_in_the_table_of_moduli(row):
    for known, places in ((row.exact, row.measured_exact), (row.over, row.measured_over)):
        assert ("measured" in (known.known if known else "")) == bool(places)
        if places:
            slowest = max(KNOWN[place]["measured"]["exponent"] for place in places)
            assert slowest == pytest.approx(known.alpha, abs=0.1)
            assert all(KNOWN[place]["agree"] != "not settled" for place in places)
    for place in row.lost_rows:
        assert KNOWN[place]["measured"]["flat"]


@ROWS
def test_what_is_proved_is_in_the_table_of_rates(row):
    """Whatever is called proved was read or derived; else the word is that of a theorem's row."""
    words = {THEOREMS[name].read.split(",")[0] for name in row.theorems}
    for known in (row.exact, row.over):
        word = "" if known is None else known.known.removesuffix("measured").rstrip(", ")
        if word == "proved":
            assert words & {"read", "derived here"}
        elif word:
            assert word in words
    for name in row.theorems:
        assert row.objective == THEOREMS[name].objective or THEOREMS[name].objective == "any"


@ROWS
def test_exponents_are_those_of_the_theorems_or_better(row):
    """With one expert too many no identified parameter of a named theorem is slower than the row says."""
    order = {"1": 1.0, "2": 2.0, "r_bar": 4.0, "r_bar/2": 2.0}
    if row.over is None or "proved" not in row.over.known:
        return
    rates = [
        rate
        for name in row.theorems
        for rate in THEOREMS[name].rates
        if rate.role != "function" and rate.cell in ("many", "every") and "over" in THEOREMS[name].settings
    ]
    known = [order[rate.tight or rate.exponent] for rate in rates if (rate.tight or rate.exponent) in order]
    assert max(known) == row.over.alpha


def test_fewest_samples_first():
    for objective in ("likelihood", "least_squares"):
        rows = advise(objective=objective).rows
        assert {row.objective for row in rows} == {objective}
        clean = [row.over.alpha for row in rows if row.over is not None and not row.lost]
        assert clean == sorted(clean)


def test_samples():
    found = advise(objective="likelihood", gate="softmax", error=0.01).to_dict()
    linear = next(row for row in found["rows"] if row["experts_text"] == "linear")
    assert linear["as_many"]["samples"] == pytest.approx(1e4)
    assert linear["one_too_many"]["samples"] == pytest.approx(1e16)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"objective": "mle"}, "nothing is known about the objective 'mle': choose one of least_squares, likelihood"),
        ({"gate": "quadratic"}, "nothing is known about the gate 'quadratic'"),
        ({"experts": "x"}, "nothing is known about the kind of experts 'x'"),
        ({"error": 1.0}, "the error must lie between 0 and 1"),
        ({"error": float("nan")}, "the error must lie between 0 and 1"),
    ],
)
def test_questions_without_an_answer(query, message):
    with pytest.raises(InputError, match=message):
        advise(**query)
