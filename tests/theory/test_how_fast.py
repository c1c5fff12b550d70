"""The page on how fast each parameter can be learned says what the tables say."""

import pytest

from gatewise.theory.modulus.case import read_case
from gatewise.theory.rate_table import rate_table
from tests.theory.how_fast import PAGE, measured, proved, rows, with_table


def test_the_page_holds_the_table():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m tests.theory.how_fast"


def test_each_row_names_cases_of_the_library():
    for row in rows():
        assert len(row["measured"]) <= len(row["parameters"])
        for name, setting, parameter in row["measured"]:
            groups = [group for group in read_case(name).groups if group.title == setting]
            assert parameter in [expected.parameter for group in groups for expected in group.rows]


def test_measured_figures_come_before_the_prototypes():
    row = {"measured": [["c", "s", "p"], ["c", "s", "q"]], "prototype": "4"}
    assert measured(row, {("c", "s", "p"): "3.99 [3.97, 4.01]", ("c", "s", "q"): "flat"}) == "3.99 [3.97, 4.01]; flat"
    assert measured(row, {("c", "s", "p"): "flat"}) == "4 (prototype)"
    assert measured({"measured": [["c", "s", "p"]]}, {}) == "–"


def test_rows_that_mix_rates_are_refused():
    theorem = next(t for t in rate_table().theorems if t.id == "softmax-gaussian-over")
    assert proved(theorem, ["b", "β₁"], 2) == "n^(-1/8) (read, 2305.03288)"
    assert proved(theorem, ["b", "a"], 1) == "n^(-1/2) (read, 2305.03288)"
    with pytest.raises(ValueError, match="no one rate"):
        proved(theorem, ["a", "b"], 2)
    with pytest.raises(ValueError, match="no one rate"):
        proved(theorem, ["W"], 2)
