"""What a page says of a gate that selects experts, and of parameters that a fit holds."""

import dataclasses
import html
import re

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.experts import LinearExperts
from gatewise.fit import Constraints
from gatewise.gates import SoftmaxGate
from gatewise.report import Evidence, render_report, tables, wording

_CAPTION = "How far each coefficient can move, all others held, until a row changes its experts."


def page(case):
    return render_report(case.estimator, case.X, case.y)


def plain(text):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))


def test_a_gate_of_one_expert_has_widths_in_place_of_standard_errors(case):
    fitted = case("top_k of one")
    found = fitted.estimator.result_.boundary
    rows = tables.boundary(fitted.evidence)
    assert [(row.component, row.term) for row in rows] == [("gate 1 vs 2", "(intercept)"), ("gate 1 vs 2", "height")]
    assert rows[0].colour == tables.parameters(fitted.evidence)[0].colour
    for row, interval in zip(rows, found, strict=True):
        width = float(row.width.replace("−", "-"))
        assert width == pytest.approx(interval.upper - interval.lower, rel=1e-2)
        assert float(row.lower.replace("−", "-")) == pytest.approx(interval.lower, abs=1e-2 * interval.width)
        assert float(row.upper.replace("−", "-")) == pytest.approx(interval.upper, abs=1e-2 * interval.width)
    gate = tables.parameters(fitted.evidence)[0]
    assert {row.standard_error for row in gate.rows} == {tables.MISSING}
    text = plain(page(fitted))
    assert _CAPTION in text
    assert "Standard errors are conditional on the partition of the rows by their experts, and the gate" in text
    assert "brought to length 1" in text
    for row in rows:
        assert f"{row.component} {row.term} {row.estimate} {row.lower} {row.upper} {row.width}" in text


def test_a_gate_of_several_experts_has_both(case):
    fitted = case("top_k")
    rows = tables.boundary(fitted.evidence)
    assert len(rows) == len(fitted.estimator.result_.boundary) > 0
    note = wording.boundary_note(fitted.evidence)
    assert note.startswith(_CAPTION)
    assert "has none" not in note
    assert "brought to length 1" not in note
    # Scores without the bias are those of standardised inputs, which the model stores.
    assert "those of z(…) in the units of the standardised features" in note
    assert all(row.term.startswith("z(") for row in rows)


def test_ends_that_no_row_sets_are_infinite(case):
    fitted = case("top_k of one")
    result = fitted.estimator.result_
    endless = dataclasses.replace(result.boundary[0], upper=np.inf)
    evidence = fitted.evidence
    changed = _with_result(evidence, dataclasses.replace(result, boundary=(endless, result.boundary[1])))
    row = tables.boundary(changed)[0]
    assert (row.upper, row.width) == ("∞", "∞")


def test_long_lists_are_cut(case, monkeypatch):
    evidence = case("top_k of one").evidence
    monkeypatch.setattr(tables, "LISTED_PARAMETERS", 1)
    assert len(tables.boundary(evidence)) == 1
    assert wording.boundary_note(evidence).endswith("The first 1 of 2 are listed.")


def test_other_gates_have_no_such_table(tone):
    assert tables.boundary(tone.evidence) == []
    assert "How far each coefficient" not in page(tone)


def test_what_a_fit_holds_is_marked():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 1))
    first = generator.uniform(size=120) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))
    y = pd.Series(np.where(first, 2.0, -1.0 - x[:, 0]) + 0.3 * generator.normal(size=120), name="y")
    X = pd.DataFrame({"height": x[:, 0]})
    # One slope stays at the 0 that a new model has.
    constraints = Constraints(frozen={"experts.weight": [[True], [False]]})
    parts = {"gate": SoftmaxGate(1, 2), "expert": LinearExperts(1, 2)}
    estimator = GatedRegressor(2, constraints=constraints, n_starts=4, random_state=0, **parts).fit(X, y)
    evidence = Evidence.collect(estimator, X, y)
    groups = tables.parameters(evidence)
    held = [row for group in groups for row in group.rows if row.standard_error == tables.HELD]
    (row,) = held
    assert (row.term, row.estimate, row.z, row.lower, row.upper) == ("height", "0", *[tables.MISSING] * 3)
    note = wording.parameter_note(evidence, groups)
    assert "marked “held”" in note
    assert "A dash stands" not in note
    assert estimator.parameters_["held"].sum() == 1


def _with_result(evidence, result):
    estimator = GatedRegressor(**evidence.estimator.get_params(deep=False))
    estimator.__dict__.update(evidence.estimator.__dict__)
    estimator.result_ = result
    return dataclasses.replace(evidence, estimator=estimator)
