"""The summary of models other than a softmax gate with linear Gaussian experts."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from gatewise.experts import CallableExperts
from gatewise.families import Categorical, Gaussian
from gatewise.fit import Constraints, FitOptions, FitStatus, fit
from gatewise.gates import SoftmaxGate
from gatewise.inference import Names, confidence_intervals, covariance, parameter_table, squared_errors, summarise
from gatewise.inference.criteria import baseline_errors
from gatewise.model import MixtureOfExperts

NAMES = Names(["a", "b"], ["a", "b"], "y")
QUICK = {"n_starts": 1, "max_iter": 60}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(150, 2))
    first = rng.uniform(size=150) < 1.0 / (1.0 + np.exp(-3.0 * x[:, 0]))
    y = np.where(first, 1.0 + 2.0 * x[:, 0], -x[:, 1]) + 0.2 * rng.normal(size=150)
    return x, y


def fitted(table, gate="softmax", family="gaussian", **options):
    x, y = table
    return fit(MixtureOfExperts.build(gate, "linear", family, 2, 2), x, y, options=FitOptions(**QUICK, **options))


def test_what_is_not_identified_is_listed_in_every_format(table):
    result = fitted(table, gate="cosine")
    summary = summarise(result, NAMES)
    reasons = {entry["reason"]: entry["dimensions"] for entry in summary.null_directions}
    scale = next(reason for reason in reasons if reason.startswith("cosine scale"))
    assert reasons[scale] == 2
    assert sum(reasons.values()) == result.null_space.dimension
    # One of them is the translation of the biases, which the reference expert settles.
    shift = next(entry for entry in summary.null_directions if entry["by_reference"])
    assert shift["dimensions"] == 1
    heading = f"Not identified: {result.null_space.dimension - 1} directions of the parameters"
    flat = " ".join(summary.to_text().split())
    assert heading in flat
    assert scale in flat
    assert shift["reason"] not in flat
    assert heading in summary.to_markdown()
    assert f"<p>{heading}" in summary.to_html()
    assert "<li>" in summary.to_html()
    assert json.loads(summary.to_json())["null_directions"] == summary.null_directions
    assert max(map(len, summary.to_text().splitlines())) <= 100


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_nothing_is_said_where_the_reference_settles_it(table, family):
    """The softmax gate's translation is settled, on the compiled path and on the general one."""
    result = fitted(table, family=family)
    summary = summarise(result, NAMES)
    assert all(entry["by_reference"] for entry in summary.null_directions)
    assert sum(entry["dimensions"] for entry in summary.null_directions) == len(result.null_space.explained)
    for rendering in (summary.to_text(), summary.to_markdown(), summary.to_html()):
        assert "Not identified" not in rendering


def test_one_expert_has_no_gate_to_identify(table):
    x, y = table
    model = MixtureOfExperts.build("softmax", "linear", "student_t", 2, 1, family_options={"df": 4.0})
    assert summarise(fit(model, x, y, options=FitOptions(**QUICK)), NAMES).null_directions == []


def test_families_without_a_scale_have_no_such_column(table):
    x, y = table
    result = fitted((x, np.round(np.exp(0.3 * y))), family="poisson")
    summary = summarise(result, NAMES)
    assert list(summary.experts) == ["expert", "weight", "effective_rows", "flags"]
    assert summary.optima["smallest_scale"].isna().all()
    assert json.loads(summary.to_json())["statistics"]["baseline_scale"] is None
    assert "AIC" in summary.to_text()


def test_least_squares_shows_squares(table):
    x, y = table
    result = fitted(table, objective="least_squares")
    mean = result.model.mean(torch.tensor(x)).numpy()
    errors = squared_errors(y, mean, np.ones(150), result.n_parameters)
    summary = summarise(result, NAMES, errors=errors)
    text = summary.to_text()
    assert "by least squares" in summary.title
    assert f"{errors.residual_sum:.4f}" in text
    assert f"{errors.r_squared:.4f}" in text
    design = np.column_stack([np.ones(150), x])
    one = np.linalg.lstsq(design, y, rcond=None)[1][0]
    base = baseline_errors(result, errors)
    assert base.residual_sum == pytest.approx(one, rel=1e-9)
    assert base.residual_deviation == pytest.approx(np.sqrt(one / 147.0), rel=1e-9)
    assert base.r_squared == pytest.approx(1.0 - one / ((y - y.mean()) ** 2).sum(), rel=1e-9)
    assert summary.statistics["baseline_r_squared"] == base.r_squared
    without = summarise(result, NAMES)
    assert np.isnan(without.statistics["r_squared"])
    assert "residual sum of squares" in without.to_text()


def test_squared_errors_written_out():
    y, mean, weight = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.5, 2.0], [2.0, 5.0]]), np.array([2.0, 1.0])
    errors = squared_errors(y, mean, weight, n_parameters=2)
    centre = np.array([5.0, 9.0]) / 3.0
    assert errors.residual_sum == pytest.approx(2.0 * 0.25 + 1.0)
    assert errors.residual_deviation == pytest.approx(np.sqrt(1.5 / 4.0))
    total = 2.0 * ((y[0] - centre) ** 2).sum() + ((y[1] - centre) ** 2).sum()
    assert errors.r_squared == pytest.approx(1.0 - 1.5 / total)
    assert np.isnan(squared_errors(y, mean, weight, n_parameters=6).residual_deviation)
    assert np.isnan(squared_errors(np.ones(2), np.ones(2), np.ones(2), 1).r_squared)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logits_have_the_names_of_their_classes(table, n_classes):
    x, y = table
    codes = np.digitize(y, [0.0, 1.0][: n_classes - 1]).astype(float)
    model = MixtureOfExperts.build("softmax", "linear", Categorical(n_classes), 2, 1)
    result = fit(model, x, codes, options=FitOptions(**QUICK))
    outputs = ("y=low", "y=middle")[: n_classes - 1]
    names = Names(["a", "b"], ["a", "b"], "y", outputs, "y=high")
    terms = parameter_table(result, names)["term"].tolist()
    assert terms == [f"{output} {term}" for output in outputs for term in ("(intercept)", "a", "b")]
    assert "Parameters (the experts' are of logits against y=high)" in summarise(result, names).to_text()


def test_names_of_outputs_do_not_touch_the_gate(table):
    x, y = table
    pair = np.column_stack([y, y**2 + x[:, 0]])
    model = MixtureOfExperts.build("softmax", "linear", "multivariate_gaussian", 2, 2, family_options={"n_targets": 2})
    result = fit(model, x, pair, options=FitOptions(n_starts=1, max_iter=5))
    plain = parameter_table(result, NAMES)
    named = parameter_table(result, Names(["a", "b"], ["a", "b"], "y", ("length", "width")))
    renamed = plain["term"].str.replace("y[0]", "length", regex=False).str.replace("y[1]", "width", regex=False)
    pd.testing.assert_series_equal(named["term"], renamed)
    assert (plain["term"] != named["term"]).sum() == 2 * 2 * 3


def test_options_of_a_users_own_function_are_null(table):
    x, y = table
    experts = CallableExperts(2, 2, function=lambda x, eta: eta["level"] + x[..., 0], shapes={"level": ()})
    model = MixtureOfExperts(SoftmaxGate(2, 2), experts, Gaussian())
    summary = summarise(fit(model, x, y, options=FitOptions(n_starts=1, max_iter=5)), NAMES)
    assert summary.statistics["expert_options"] is None
    assert summary.statistics["gate_options"] == {}


def test_a_joint_gate_says_so(table):
    assert summarise(fitted(table, gate="gaussian"), NAMES).title.endswith(
        "gaussian gate on a, b, fitted jointly with its inputs"
    )


def test_what_acts_through_the_selection_only_is_named(table):
    result = fitted(table, gate="top_k")
    reasons = {entry["reason"]: entry["dimensions"] for entry in summarise(result, NAMES).null_directions}
    selection = next(reason for reason in reasons if "through the selection of the experts only" in reason)
    assert reasons[selection] == len(result.null_space.by_selection) > 0


@pytest.mark.parametrize("n_active", [1, 2])
def test_how_far_the_coefficients_of_a_selecting_gate_can_move_is_a_table_of_its_own(n_active):
    gate = {"n_active": n_active, "select_on": "logit"}
    model = MixtureOfExperts.build("top_k", "linear", "gaussian", 2, 3, gate_options=gate).double()
    model.gate.inner.assign(torch.tensor([[0.3, 3.0, 1.0], [0.2, -2.0, 2.0], [0.0, 0.0, -3.0]]))
    model.experts.assign(
        torch.tensor([[1.0, 1.0, 2.0], [-1.0, -2.0, 0.5], [3.0, 0.0, -1.0]]), torch.tensor([0.3, 0.4, 0.25]).log()
    )
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1.0, 1.0, size=(75 * n_active, 2)))
    y = model.sample(x, generator=torch.Generator().manual_seed(1)).numpy()
    result = fit(model, x.numpy(), y, options=FitOptions(n_starts=1), names=NAMES)
    summary = summarise(result, NAMES)
    boundary = summary.boundary
    assert list(boundary) == ["component", "term", "estimate", "lower", "upper", "width"]
    # The same numbers of the gate as in the parameter table, there with standard errors for K > 1 only.
    pairs = ["component", "term", "estimate"]
    gate_rows = summary.parameters.head(6)
    assert boundary[pairs[:2]].to_numpy().tolist() == gate_rows[pairs[:2]].to_numpy().tolist()
    np.testing.assert_allclose(boundary["estimate"], gate_rows["estimate"], rtol=1e-9)
    assert gate_rows["standard_error"].isna().all() == (n_active == 1)
    assert gate_rows["standard_error"].notna().all() == (n_active == 2)
    assert not gate_rows["held"].any()
    assert ((boundary["lower"] <= boundary["estimate"]) & (boundary["estimate"] <= boundary["upper"])).all()
    np.testing.assert_array_equal(boundary["width"], boundary["upper"] - boundary["lower"])
    heading = "How far each coefficient can move until a row changes its experts"
    for rendering in (summary.to_text(), summary.to_markdown(), summary.to_html(), summary.to_latex()):
        assert heading in rendering
    for rendering in (summary.to_text(), summary.to_markdown(), summary.to_html()):
        flat = " ".join(rendering.split())
        assert "Standard errors are conditional on which experts each row selects" in flat
        assert ("has no standard errors" in flat) == (n_active == 1)
    stored = json.loads(summary.to_json())["boundary"]
    assert [entry["width"] for entry in stored] == [w if np.isfinite(w) else None for w in boundary["width"]]


def test_a_coefficient_that_no_row_stops_may_move_without_end(table):
    result = fitted(table, gate="top_k")
    first, *others = result.boundary
    endless = dataclasses.replace(first, lower=-np.inf, upper=np.inf)
    summary = summarise(dataclasses.replace(result, boundary=(endless, *others)), NAMES)
    assert summary.boundary["width"][0] == np.inf
    row = next(line for line in summary.to_text().partition("How far")[2].splitlines() if endless.term in line)
    assert row.split()[-3:] == ["-∞", "∞", "∞"]
    assert r"$\infty$" in summary.to_latex()
    assert json.loads(summary.to_json())["boundary"][0]["width"] is None


def test_other_gates_have_no_such_table(table):
    summary = summarise(fitted(table), NAMES)
    assert summary.boundary is None
    assert "How far" not in summary.to_text()
    assert json.loads(summary.to_json())["boundary"] is None


def test_what_is_frozen_is_held_and_has_no_standard_error(table):
    x, y = table
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 2).double()
    model.experts.assign_parameters(
        {**model.experts.own_parameters(), "weight": torch.tensor([[0.0, 0.0], [0.0, -1.0]], dtype=torch.float64)}
    )
    mask = [[False, False], [True, True]]
    # Gate rows 0 to 2, then intercept and slopes of each expert: the second one's slopes are rows 7 and 8.
    result = fit(model, x, y, options=FitOptions(constraints=Constraints(frozen={"experts.weight": mask})))
    assert result.status is FitStatus.CONVERGED
    frame = parameter_table(result, NAMES)
    held = frame[frame["held"]]
    assert len(held) == 2
    assert held["term"].tolist() == ["a", "b"]
    np.testing.assert_allclose(held["estimate"], [0.0, -1.0], atol=1e-12)
    assert held[["standard_error", "z", "p_value", "lower", "upper"]].isna().to_numpy().all()
    assert (frame.loc[~frame["held"], "standard_error"] > 0.0).all()
    matrix = covariance(result, NAMES).to_numpy()
    assert (matrix[frame["held"]] == 0.0).all()
    assert list(confidence_intervals(result, NAMES)) == ["component", "term", "lower", "upper"]
    summary = summarise(result, NAMES)
    lines = [line for line in summary.to_text().splitlines() if line.endswith(" held") and "component" not in line]
    assert len(lines) == 2
    assert all("–" in line for line in lines)
    assert [entry["held"] for entry in json.loads(summary.to_json())["parameters"]] == frame["held"].tolist()


def test_without_constraints_nothing_is_marked(table):
    summary = summarise(fitted(table, objective="least_squares"), NAMES)
    assert not summary.parameters["held"].any()
    assert "held" not in summary.to_text()


def test_a_ridge_on_the_experts_is_stated(table):
    summary = summarise(fitted(table, expert_ridge=2.0, gate_ridge=0.5), NAMES)
    assert summary.to_text().endswith("maximum of the likelihood times its priors: gate ridge 0.5, expert ridge 2")
    assert summary.statistics["expert_ridge"] == 2.0
    squares = summarise(fitted(table, expert_ridge=2.0, objective="least_squares"), NAMES)
    assert squares.to_text().endswith("minimum of the squares with the penalty: expert ridge 2")
