"""The page on how fast each parameter can be learned says what the tables say."""

import re

import pytest

from gatewise.theory.modulus.case import case_names, read_case
from gatewise.theory.rate_table import Finding, rate_table
from tests.theory.how_fast import PAGE, measured, measurements, proved, rows, with_figures, with_table


def test_the_page_holds_the_table():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m tests.theory.how_fast"


def test_each_row_names_cases_of_the_library():
    for row in rows():
        assert len(row["measured"]) <= len(row["parameters"])
        for name, setting, parameter in row["measured"]:
            groups = [group for group in read_case(name).groups if group.title == setting]
            assert parameter in [expected.parameter for group in groups for expected in group.rows]


def test_what_did_not_settle_is_no_figure():
    known = {
        ("c", "s", "p"): {"agree": "agrees", "measured": {"verdict": "3.99 [3.97, 4.01]"}},
        ("c", "s", "q"): {"agree": "not settled", "measured": {"verdict": "1.09 [-0.06, 2.24]"}},
    }
    row = {"measured": [["c", "s", "p"], ["c", "s", "q"]]}
    assert measured(row, known) == "3.99 [3.97, 4.01]; not settled"
    with pytest.raises(KeyError):
        measured({"measured": [["c", "s", "r"]]}, known)


def test_findings_of_moduli_say_what_was_measured():
    """Each figure with its band stands in the table, and differs or agrees as the table says."""
    known, count = measurements(), 0
    for theorem in rate_table().theorems:
        for finding in theorem.findings:
            assert bool(finding.measured) == (finding.kind == "modulus"), (theorem.id, finding.parameter)
            if finding.measured:
                assert finding.text == with_figures(finding, known), "run python -m tests.theory.how_fast"
            for place in finding.measured:
                outcome = known[place]["agree"]
                assert outcome not in ("not settled", "not measured"), (theorem.id, place)
                if outcome != "no statement":
                    assert (outcome == "agrees") == finding.agrees, (theorem.id, place)
                count += 1
    assert count > 50


def test_figures_are_put_in_their_places():
    known = {
        ("c", "s", "p"): {"measured": {"verdict": "3.990 [3.970, 4.010]"}},
        ("c", "s", "q"): {"measured": {"verdict": "flat"}},
    }
    rows = [("c", "s", "q"), ("c", "s", "p")]
    text = "2.000 [1.980, 2.020] for b, and flat for a"
    finding = Finding(kind="modulus", parameter="a, b", agrees=True, text=text, measured=rows)
    assert with_figures(finding, known) == "flat for b, and 3.990 [3.970, 4.010] for a"
    with pytest.raises(ValueError, match="must have 1 figures"):
        with_figures(finding.model_copy(update={"measured": rows[:1]}), known)


def test_rows_that_mix_rates_are_refused():
    theorem = next(t for t in rate_table().theorems if t.id == "softmax-gaussian-over")
    assert proved(theorem, ["b", "β₁"], 2) == "n^(-1/8) (read, first version, 2305.03288)"
    assert proved(theorem, ["b", "a"], 1) == "n^(-1/2) (read, first version, 2305.03288)"
    with pytest.raises(ValueError, match="no one rate"):
        proved(theorem, ["a", "b"], 2)
    with pytest.raises(ValueError, match="no one rate"):
        proved(theorem, ["W"], 2)


def test_no_rate_stands_beside_a_flat_coordinate():
    """Where a coordinate is flat, others of the same atoms are measured with it anywhere, or along a declared symmetry.

    An estimate may be anywhere along it: exponents of a neighbourhood of the truth would be no rates.
    """
    known, beside = measurements(), 0
    for name in case_names():
        case = read_case(name)
        for group in case.groups:
            alike = [other for other in case.groups if (other.cells, other.hold) == (group.cells, group.hold)]
            entries = [known.get((name, other.title, row.parameter)) for other in alike for row in other.rows]
            flat = {
                entry["parameter"].partition("[")[0]
                for entry in entries
                if entry is not None and entry["measured"]["flat"] and not entry["witness"]["symmetries"]
            }
            own = [known.get((name, group.title, row.parameter)) for row in group.rows]
            if not flat or all(entry is None or entry["measured"]["flat"] for entry in own):
                continue
            beside += 1
            # Outside the inputs a centre and its bias move along an exact symmetry, which changes nothing else.
            free = {*case.design_of(group).locality.free} | ({"gate.centre"} if name == "laplace-1d" else set())
            assert flat <= free, (name, group.title)
            assert name == "laplace-1d" or "anywhere" in group.title, (name, group.title)
    assert beside >= 5


def test_one_word_for_one_state_of_reading():
    """What a page, a case or a design says of how a paper was read, the table of rates says too."""
    said = {}
    for theorem in rate_table().theorems:
        for paper in [theorem.paper, *theorem.also]:
            if paper != "here":
                said.setdefault(rate_table().papers[paper].arxiv, set()).add(theorem.read)
    root, word = PAGE.parents[2], r"read, first version|first version|read|quoted|recalled|abstract|summary|expected"
    pattern = re.compile(rf"(\d{{4}}\.\d{{5}})[^()|;]{{0,60}}\(({word})\)")
    texts = [PAGE.with_name("findings.md"), *(root / "src/gatewise/theory/modulus/cases").glob("*.toml")]
    seen = 0
    for path in texts:
        for arxiv, state in pattern.findall(path.read_text(encoding="utf-8")):
            assert state in said[arxiv], (path.name, arxiv, state)
            seen += 1
    assert seen > 20
