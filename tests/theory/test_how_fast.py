"""The page on how fast each parameter can be learned says what the tables say."""

import pytest

from gatewise.theory.rate_table import rate_table
from tests.theory.how_fast import PAGE, proved, rows, with_table


def test_the_page_holds_the_table():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m tests.theory.how_fast"


def test_a_measured_exponent_says_by_what():
    for row in rows():
        assert bool(row["modulus"]) == bool(row["modulus_from"])


def test_rows_that_mix_rates_are_refused():
    theorem = next(t for t in rate_table().theorems if t.id == "softmax-gaussian-over")
    assert proved(theorem, ["b", "β₁"], 2) == "n^(-1/8) (read, 2305.03288)"
    assert proved(theorem, ["b", "a"], 1) == "n^(-1/2) (read, 2305.03288)"
    with pytest.raises(ValueError, match="no one rate"):
        proved(theorem, ["a", "b"], 2)
    with pytest.raises(ValueError, match="no one rate"):
        proved(theorem, ["W"], 2)
