"""The page on measured moduli: every number and witness of a result, the verdict, the figures, escaping."""

import dataclasses
import math

import pytest

from gatewise.model import MixtureOfExperts
from gatewise.report.theory import render_theory
from gatewise.report.theory_modulus import MeasuredGroup, case_page, modulus_page
from gatewise.theory.modulus import CoordinateModulus, ModulusDesign, ModulusResult, Search, Witness
from gatewise.theory.modulus.case import Case, Expected
from tests.report.pages import Page

NASTY = '<script>alert("1")</script> & {{ 7 * 7 }}'
DELTAS = (0.1, 0.01, 0.001, 0.0001)
FLOOR = 1e-19


def measured(name="experts.bias[0]", alpha=2.0, **changes) -> CoordinateModulus:
    """A row as it is if the distance is 3 δ^α."""
    row = CoordinateModulus(
        name=name,
        cells=(0, 0, 1),
        exponent=alpha,
        low=alpha - 0.02,
        high=alpha + 0.03,
        is_flat=False,
        flags=(),
        deltas=DELTAS,
        distances=tuple(3 * delta**alpha for delta in DELTAS),
        slopes=(alpha,) * 3,
        scaled=(3.0,) * 4,
        above_floor=tuple(3 * delta**alpha / FLOOR for delta in DELTAS),
        signs=(1, -1, 1, 1),
        held=("gate.weight[2,0]",),
        minimisers=(),
        coordinates=(),
        quadrature=2e-7,
    )
    return dataclasses.replace(row, **changes)


def flat(name="gate.weight[0,0]", symmetries=("scale",), sentences=("all slopes and τ times c",), **changes):
    return measured(
        name,
        exponent=math.nan,
        low=math.nan,
        high=math.nan,
        is_flat=True,
        distances=(4e-20, 0.0, 2e-20, 2e-20),
        slopes=(),
        scaled=(),
        above_floor=(0.4, 0.0, 0.2, 0.2),
        witness=Witness(0.1, 4.2e-20, 5.5e-20, {name: 0.1, "gate.bias[1]": -0.25}, symmetries, sentences),
        **changes,
    )


def truth() -> MixtureOfExperts:
    return MixtureOfExperts.build("softmax", "linear", "gaussian", n_features=1, n_experts=2).double()


def page_of(*rows, expected=(), directions=(), title="a group"):
    group = MeasuredGroup(title, ModulusResult(rows, directions), ModulusDesign(), expected)
    return modulus_page("A page", truth(), [group], "the call")


def said(proved, name="experts.bias[0]", **changes) -> Expected:
    return Expected(parameter=name, proved=proved, source="a theorem", **changes)


def test_all_that_a_number_rests_on_is_there():
    flags = ("slopes jump by 0.88 at δ = 0.096", "only 4 distances above the rounding floor")
    text = Page(render_theory(page_of(measured(flags=flags), expected=[said(2.0)]))).text
    for words in ("2.000 [1.980, 2.030]", "n^(-1/4)", "agrees", "a theorem", "within 2e-07", "; ".join(flags)):
        assert words in text
    assert "gate.weight[2,0]" in text
    # Each distance with its δ and sign, the slope before it, w/δ^α and its height above rounding.
    assert "+0.1 0.03 – 3 3.0e+17" in text
    assert "−0.01 0.0003 2.000 3 3.0e+15" in text
    assert "+0.0001 3e-08 2.000 3 3.0e+11" in text
    assert "0, 0, 1, counted from 0" in text
    assert "largest = 0.3, smallest = 0.0001" in text
    assert "the call" in text


def test_the_figures_show_distances_the_power_and_the_floor():
    figures = Page(render_theory(page_of(measured(alpha=3.0), flat()))).figures()
    assert list(figures) == ["distances-1", "scaled-1"]
    traces = {trace.get("name"): trace for trace in figures["distances-1"]["data"]}
    row = measured(alpha=3.0)
    assert traces[row.name]["x"] == list(DELTAS)
    assert traces[row.name]["y"] == pytest.approx(list(row.distances))
    assert set(traces[row.name]["marker"]["symbol"]) == {"circle"}
    # A logarithmic axis has no place for a distance that is 0.
    assert traces["gate.weight[0,0]"]["y"] == [4e-20, None, 2e-20, 2e-20]
    assert set(traces["gate.weight[0,0]"]["marker"]["symbol"]) == {"circle-open"}
    assert traces["rounding floor"]["y"] == pytest.approx([FLOOR] * 2)
    assert traces["300 floors"]["y"] == pytest.approx([300 * FLOOR] * 2)
    power = traces[None]
    (ahead, behind), (first, last) = power["x"], power["y"]
    assert math.log(first / last) / math.log(ahead / behind) == pytest.approx(3.0)
    assert [trace["name"] for trace in figures["scaled-1"]["data"]] == [row.name]
    assert figures["scaled-1"]["data"][0]["y"] == pytest.approx([1.0] * 4)


def test_distances_near_rounding_are_hollow_and_have_no_scaled_value():
    above = (1e6, 1e4, 299.0, 1.0)
    page = Page(render_theory(page_of(measured(above_floor=above))))
    (trace,) = [trace for trace in page.figures()["distances-1"]["data"] if trace.get("name") == "experts.bias[0]"]
    assert trace["marker"]["symbol"] == ["circle", "circle", "circle-open", "circle-open"]
    assert len(page.figures()["scaled-1"]["data"][0]["y"]) == 2
    assert "3e-06 2.000 – 3.0e+02" in page.text
    # The evidence is that at the last distance that counts.
    assert "1e+04 within" in page.text


def test_witnesses_and_null_directions():
    found = flat("experts.bias[0]", symmetries=(), sentences=())
    directions = ({"gate.weight[0,0]": 0.5, "experts.weight[1,0]": -0.25},)
    text = Page(render_theory(page_of(flat(), found, directions=directions))).text
    assert "4.2e-20 5.5e-20 scale: all slopes and τ times c +0.1 gate.weight[0,0] -0.25 gate.bias[1]" in text
    assert "found by the search, declared by nobody" in text
    assert "+0.5 gate.weight[0,0] -0.25 experts.weight[1,0]" in text
    assert "none: not identified" in text
    assert "Witnesses" not in Page(render_theory(page_of(measured()))).text
    assert "Null directions" not in Page(render_theory(page_of(measured()))).text


def test_what_is_left_of_a_flat_coordinate_stands_under_it():
    settled = measured("gate.weight[0,0]", alpha=1.0)
    row = flat(modulo=settled)
    name = "gate.weight[0,0]"
    about_rest = page_of(row, expected=[said(1.0, name, modulo=True)])
    assert (about_rest.badge, about_rest.severity) == ("Agrees", "good")
    assert "gate.weight[0,0] modulo symmetries 1.000 [0.980, 1.030] n^(-1/2) 1 agrees" in words(about_rest)
    about_itself = page_of(row, expected=[said("flat", name)])
    assert "gate.weight[0,0] flat none: not identified no power agrees" in words(about_itself)
    assert "modulo symmetries 1.000 [0.980, 1.030] n^(-1/2) – no statement" in words(about_itself)


def words(page) -> str:
    return Page(render_theory(page)).text


@pytest.mark.parametrize(
    ("row", "proved", "badge", "severity", "outcome"),
    [
        (measured(), 2.0, "Agrees", "good", "agrees 1"),
        (measured(), 4.0, "Differs", "caution", "faster than the bound 1"),
        (measured(), 1.0, "Differs", "severe", "slower than proved 1"),
        (measured(), "flat", "Differs", "caution", "not flat 1"),
        (flat("experts.bias[0]"), 2.0, "Differs", "severe", "flat where a rate is proved 1"),
        (flat("experts.bias[0]"), "flat", "Agrees", "good", "agrees 1"),
        (measured(low=1.0), 2.0, "Not settled", "caution", "not settled 1"),
        (measured(low=1.0), None, "Not settled", "caution", "Not settled: experts.bias[0]."),
        (measured(exponent=math.nan), None, "Not settled", "caution", "Not settled: experts.bias[0]."),
        (measured(), None, "Measured", "good", "Slowest exponent: 2.000 of experts.bias[0]"),
        (flat("experts.bias[0]"), None, "Flat", "caution", "Flat: experts.bias[0]."),
    ],
)
def test_verdicts(row, proved, badge, severity, outcome):
    page = page_of(row, expected=[said(proved)])
    assert (page.badge, page.severity) == (badge, severity)
    assert outcome in page.verdict


def test_an_unsettled_exponent_is_no_rate():
    page = page_of(measured("gate.weight[0,0]", alpha=4.0, low=1.0), measured())
    assert "Slowest exponent: 2.000 of experts.bias[0]" in page.verdict
    assert "4.000 [1.000, 4.030] not settled" in words(page)
    assert "n^(-1/8)" not in words(page)


def test_what_differs_is_said_first_with_our_note():
    page = page_of(measured(), expected=[said(4.0, note="A remark of ours.")])
    remark = (
        "a group, experts.bias[0]: faster than the bound; proved 4, measured 2.000 [1.980, 2.030]. A remark of ours."
    )
    assert remark in page.remarks
    assert all("experts.bias" not in text for text in page_of(measured(), expected=[said(2.0)]).remarks)
    assert any("80-bit" in text for text in page_of(measured(is_exact=False)).remarks)


def test_strings_of_a_case_are_escaped():
    text = f"""
        title = {toml(NASTY)}
        n_features = 1
        n_experts = 2
        gate = {{ name = "softmax" }}
        experts = {{ name = "linear" }}
        [[groups]]
        title = {toml(NASTY)}
        rows = [{{ parameter = {toml(NASTY)}, proved = 4, source = {toml(NASTY)}, note = {toml(NASTY)} }}]
    """
    case = Case.parse(text, "case")
    result = ModulusResult((measured(NASTY, flags=(NASTY,)), flat(NASTY)), ({NASTY: 1.0},))
    # One row more than the case has: both kinds of rows must be escaped.
    group = case.groups[0].model_copy(update={"rows": [*case.groups[0].rows] * 2})
    page = Page(render_theory(case_page(case.model_copy(update={"groups": [group]}), [result], NASTY)))
    assert all("src" not in attributes for attributes in page.attributes("script"))
    assert not any(script.startswith("alert") for script in page.raw["script"])
    assert "49" not in page.text.replace("0.049", "")
    assert page.text.count("<script>alert(") > 10
    assert "read_case(" in page.text
    for figure in page.figures().values():
        for trace in figure["data"]:
            assert "<script>" not in trace.get("name", "")


def toml(text: str) -> str:
    return "'" + text + "'"


def test_groups_that_differ_in_their_design_say_so():
    one = MeasuredGroup("one", ModulusResult((measured(),)), ModulusDesign())
    two = MeasuredGroup("two", ModulusResult((measured(),)), ModulusDesign(search=Search(starts=17)))
    page = modulus_page("A page", truth(), [one, two])
    facts = dict(page.reproducibility)
    assert "starts = 6" in facts["search"]
    assert "starts = 17" in facts["search (two)"]
    assert "window (two)" not in facts
    assert [section.short for section in page.sections] == ["one", "two", "Truth"]
    assert list(Page(render_theory(page)).figures()) == ["distances-1", "scaled-1", "distances-2", "scaled-2"]
