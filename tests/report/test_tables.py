import dataclasses
import math

import numpy as np
import pytest

from gatewise.fit.status import FitStatus
from gatewise.report import tables, wording


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1234.5678, 2, "1,234.57"),
        (-0.00001, 2, "0.00"),
        (-3.0, 0, "−3"),
        (float("nan"), 2, "–"),
        (float("-inf"), None, "−∞"),
        (1.5e-9, None, "1.5e−09"),
    ],
)
def test_numbers(value, decimals, text):
    assert tables.number(value, decimals) == text


def test_every_status_has_a_severity():
    found = {status.name: tables.severity(status) for status in FitStatus}
    assert found["CONVERGED"] == "good"
    assert found["TIGHT"] == found["SEPARATED"] == found["MAX_ITER"] == "caution"
    assert found["ON_FLOOR"] == found["SATURATED"] == found["NOT_A_MAXIMUM"] == "severe"
    assert list(found.values()).count("good") == 1


def test_criteria_are_set_against_one_expert(tone):
    rows = {row.name: row for row in tables.criteria(tone.evidence)}
    assert rows["Log-likelihood"].mixture == "142.848"
    # Ordinary least squares on the same data, from the closed form.
    scale = np.sqrt(np.mean(np.polyfit(tone.X["stretchratio"], tone.y, 1, full=True)[1] / 150))
    least_squares = -75.0 * (math.log(2.0 * math.pi * scale**2) + 1.0)
    assert rows["Log-likelihood"].baseline == f"{least_squares:.3f}"
    assert rows["AIC"].baseline == f"{-2 * least_squares + 6:.3f}".replace("-", "−")
    assert rows["ICL"].baseline == rows["BIC"].baseline
    assert rows["BIC"].verdict == "better"
    assert rows["Free parameters"].difference == "+5"


def test_criteria_of_one_expert_are_equal_to_the_baselines(one_expert):
    rows = {row.name: row for row in tables.criteria(one_expert.evidence)}
    assert rows["Free parameters"].difference == "0"
    assert rows["AIC"].mixture == rows["AIC"].baseline


def test_experts_table(tone):
    rows = tables.experts(tone.evidence)
    assert [row.name for row in rows] == ["Expert 1", "Expert 2"]
    assert [row.weight for row in rows] == ["71.8%", "28.2%"]
    # To the digits that the table of parameters gives them.
    groups = {group.component: group.rows for group in tables.parameters(tone.evidence)}
    assert [row.scale for row in rows] == [groups[f"expert {expert}"][-1].estimate for expert in (1, 2)]
    assert rows[0].flags == ""


def test_flags_name_tight_and_floored_experts(tone):
    result = dataclasses.replace(tone.estimator.result_, tight=(0, 1), on_floor=(1,))
    changed = dataclasses.replace(tone.evidence, estimator=_with_result(tone.estimator, result))
    assert [row.flags for row in tables.experts(changed)] == ["tight", "on the floor, tight"]


def test_parameters_are_grouped_by_component_with_the_experts_colour(tone):
    groups = tables.parameters(tone.evidence)
    assert [group.component for group in groups] == ["gate 1 vs 2", "expert 1", "expert 2"]
    assert [row.term for row in groups[1].rows] == ["(intercept)", "stretchratio", "scale"]
    assert groups[0].colour == groups[1].colour != groups[2].colour
    assert groups[1].rows[2].z == tables.MISSING


def test_parameters_are_rounded_by_their_standard_errors(tone):
    row = tables.parameters(tone.evidence)[1].rows[0]
    frame = tone.estimator.parameters_
    record = frame[(frame.component == "expert 1") & (frame.term == "(intercept)")].iloc[0]
    assert row.standard_error == f"{record.standard_error:.3f}"
    assert row.estimate == f"{record.estimate:.3f}"
    assert len(row.standard_error.replace("0.", "").lstrip("0")) == 2


def test_withheld_standard_errors_are_dashes(temperature):
    gate, first, _ = tables.parameters(temperature.evidence)
    assert {row.standard_error for row in gate.rows} == {tables.MISSING}
    assert {row.upper for row in gate.rows} == {tables.MISSING}
    assert tables.MISSING not in {row.standard_error for row in first.rows}


def test_optima_name_the_kept_one_and_those_left_out(npreg):
    rows, left_out = tables.optima(npreg.evidence)
    assert left_out == 0
    assert [row.kept for row in rows] == [True] + [False] * (len(rows) - 1)
    assert rows[0].difference == "kept"
    assert rows[0].value == "−640.320308"
    result = npreg.estimator.result_
    many = dataclasses.replace(result, optima=result.optima[:1] * 20)
    changed = dataclasses.replace(npreg.evidence, estimator=_with_result(npreg.estimator, many))
    assert [len(tables.optima(changed)[0]), tables.optima(changed)[1]] == [12, 8]


def test_a_fit_without_an_optimum_lists_none(tone):
    result = dataclasses.replace(tone.estimator.result_, optima=())
    changed = dataclasses.replace(tone.evidence, estimator=_with_result(tone.estimator, result))
    assert tables.optima(changed) == ([], 0)


def test_reproducibility_has_seed_rows_and_versions(tone):
    entries = dict(tables.reproducibility(tone.evidence, "tone"))
    assert entries["Data"] == "tone"
    assert entries["Seed"] == str(tone.estimator.result_.seed)
    assert entries["Rows, total weight"] == "150 rows, Σw = 150"
    assert "numpy " in entries["Versions"]


def test_least_squares_is_judged_by_its_squares(case):
    fitted = case("least squares")
    rows = {row.name: row for row in tables.criteria(fitted.evidence)}
    residual = fitted.y - fitted.estimator.predict(fitted.X)
    total = ((fitted.y - fitted.y.mean()) ** 2).sum()
    square = float((residual**2).sum())
    assert list(rows) == [
        "Residual sum of squares",
        "Residual standard deviation",
        "R² against the mean",
        "Free parameters",
    ]
    assert rows["Residual sum of squares"].mixture == tables.number(square)
    assert rows["R² against the mean"].mixture == tables.number(1.0 - square / total)
    freedom = len(fitted.y) - int(rows["Free parameters"].mixture)
    assert rows["Residual standard deviation"].mixture == tables.number(math.sqrt(square / freedom))
    # One expert is ordinary least squares.
    design = np.column_stack([np.ones(len(fitted.y)), fitted.X])
    line = float(np.linalg.lstsq(design, fitted.y, rcond=None)[1][0])
    assert rows["Residual sum of squares"].baseline == tables.number(line)
    assert {rows[name].verdict for name in list(rows)[:3]} == {"better"}


def test_optima_of_least_squares_have_sums_of_squares(case):
    fitted = case("least squares")
    rows, _ = tables.optima(fitted.evidence)
    residual = fitted.y - fitted.estimator.predict(fitted.X)
    assert float(rows[0].value) == pytest.approx(float((residual**2).sum()), rel=1e-6)
    assert (rows[0].kept, rows[0].difference, rows[0].scale) == (True, "kept", tables.MISSING)


@pytest.mark.parametrize("name", ["poisson", "least squares"])
def test_families_without_a_scale_have_none(case, name):
    rows = tables.experts(case(name).evidence)
    assert {row.scale for row in rows} == {row.relative_scale for row in rows} == {tables.MISSING}


def test_experts_that_separate_are_flagged(case):
    fitted = case("bernoulli")
    rows = tables.experts(fitted.evidence)
    separated = tables.separated_experts(fitted.estimator.result_)
    assert separated
    assert [row.flags for row in rows] == ["separates" if expert in separated else "" for expert in range(2)]


def test_a_joint_likelihood_says_so(case):
    assert tables.criteria(case("gaussian gate").evidence)[0].name == "Log-likelihood of (x, y)"


def test_long_parameter_tables_are_cut(case, monkeypatch):
    evidence = case("poisson").evidence
    monkeypatch.setattr(tables, "LISTED_PARAMETERS", 4)
    groups = tables.parameters(evidence)
    assert sum(len(group.rows) for group in groups) == 4
    assert "The first 4 of 6 are listed." in wording.parameter_note(evidence, groups)


def _with_result(estimator, result):
    changed = type(estimator)(**estimator.get_params())
    changed.__dict__.update(estimator.__dict__, result_=result)
    return changed
