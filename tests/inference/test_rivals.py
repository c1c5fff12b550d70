import pytest

from gatewise.inference.rivals import _changed, changes_in_words, refit_of_rival

NAN = float("nan")


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ((2.0, 0.1, 0.0), (3.0, 9.0, 0.7), ["gate: x is no longer significant (3, not 2)"]),
        ((2.0, 0.1, 0.0), (9e3, NAN, NAN), ["gate: x has no standard error there (9e+03, not 2)"]),
        # What the kept fit withholds is no insignificance of it.
        ((9e3, NAN, NAN), (2.0, 0.1, 0.0), ["gate: x has a standard error there, and none here (2, not 9e+03)"]),
        ((9e3, NAN, NAN), (9e3, NAN, NAN), []),
    ],
)
def test_what_is_withheld_is_not_compared(own, other, said):
    columns = ("estimate", "standard_error", "p_value")
    rows = [
        {"component": "gate", "term": "x", "held": False} | dict(zip(columns, row, strict=True)) for row in (own, other)
    ]
    assert _changed(*rows, 0.05) == said


def test_many_changes_are_cut_and_none_is_said():
    assert changes_in_words(list("abcdef")) == "a; b; c; d; e; f"
    assert changes_in_words(list("abcdefgh")) == "a; b; c; d; e; f; and 2 more"
    assert changes_in_words([]) == "no sign, significance or share"


def test_rivals_are_numbered_from_one():
    assert refit_of_rival(3) == "n_starts=1, init=result_.rivals[2].model"
