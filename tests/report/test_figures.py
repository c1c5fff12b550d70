import copy
import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import FitWarning
from gatewise.report import Evidence, figures, gates
from gatewise.report.palette import expert_colour


def _named(figure, name):
    found = [trace for trace in figure.data if trace.name == name]
    assert len(found) == 1, f"{len(found)} traces are named {name!r}"
    return found[0]


def test_expert_lines_are_the_fitted_lines(tone):
    figure = figures.expert_lines(tone.evidence)
    for expert in range(2):
        line = _named(figure, f"Expert {expert + 1}")
        fitted = tone.estimator.expert_intercept_[expert] + tone.estimator.expert_coef_[expert, 0] * line.x
        np.testing.assert_allclose(line.y, fitted, rtol=1e-10)
        assert line.line.color == expert_colour(expert)


def test_mixture_mean_and_interval_are_the_estimators(tone):
    figure = figures.expert_lines(tone.evidence)
    mean, area = _named(figure, "mixture mean"), _named(figure, "95% interval of the mixture")
    grid = tone.X.iloc[:0].reindex(range(len(mean.x)))
    grid["stretchratio"] = mean.x
    np.testing.assert_allclose(mean.y, tone.estimator.predict(grid), rtol=1e-10)
    low, high = tone.estimator.predict_interval(grid, level=0.95).T
    np.testing.assert_allclose(area.y, np.concatenate([low, high[::-1]]), rtol=1e-10)


def test_every_row_is_drawn_in_the_colour_of_its_responsibility(tone):
    rows = _named(figures.expert_lines(tone.evidence), "rows")
    np.testing.assert_array_equal(rows.x, tone.X["stretchratio"])
    np.testing.assert_array_equal(rows.y, tone.y)
    sure = tone.evidence.responsibilities[:, 1] > 0.9999
    assert sure.sum() >= 5
    assert {rows.marker.color[row] for row in np.flatnonzero(sure)} == {expert_colour(1).lower()}


def test_rows_are_thinned_to_the_limit(tone):
    assert len(_named(figures.expert_lines(tone.evidence, limit=30), "rows").x) == 30


def test_lines_are_faint_where_the_gate_gives_their_expert_little(temperature):
    figure = figures.expert_lines(temperature.evidence)
    strong, faint = _named(figure, "Expert 1"), _named(figure, "Expert 1, weight below 5%")
    late = strong.x > 1990
    assert np.isnan(strong.y[late]).all()
    assert np.isfinite(faint.y).all()
    assert np.isfinite(strong.y[strong.x < 1950]).all()
    band = _named(figure, "Expert 1, 95% band")
    assert np.nanmax(band.x) < 1990


def test_a_separated_gate_does_not_spoil_the_interval(temperature):
    area = _named(figures.expert_lines(temperature.evidence), "95% interval of the mixture")
    # Expert 2 has no weight in 1880, although its line passes far below the data there.
    assert area.y[0] > temperature.y.min() - 0.2


def test_constant_experts_are_level(constant_experts):
    figure = figures.expert_lines(constant_experts.evidence)
    for expert in range(3):
        level = _named(figure, f"Expert {expert + 1}").y
        assert (
            np.nanmax(level) == np.nanmin(level) == pytest.approx(constant_experts.estimator.expert_intercept_[expert])
        )


def test_one_expert_has_no_mixture_beside_it(one_expert):
    names = [trace.name for trace in figures.expert_lines(one_expert.evidence).data]
    assert names == ["Expert 1, 95% band", "rows", "Expert 1"]


def test_axes_of_partial_plots_say_what_is_held(npreg, tone):
    assert figures.expert_lines(npreg.evidence, 1).layout.yaxis.title.text == "yn, others at their means"
    assert figures.expert_lines(npreg.evidence, 1).layout.xaxis.title.text == "x squared"
    assert figures.expert_lines(tone.evidence).layout.yaxis.title.text == "tuned"


def test_areas_of_counts_have_steps_halfway_between_the_points(case):
    evidence = case("poisson").evidence
    profile = evidence.profile(0)
    area = _named(figures.expert_lines(evidence), "95% interval of the mixture")
    half = len(area.x) // 2
    x, low = np.asarray(area.x)[:half], np.asarray(area.y)[:half]
    steps = np.flatnonzero(np.diff(low))
    # The curve only ever moves up or along, never aslant.
    assert (x[steps] == x[steps + 1]).all()
    assert set(x[1:-1]) == set((profile.grid[1:] + profile.grid[:-1]) / 2.0)
    np.testing.assert_array_equal(low[::2], profile.low)


def test_lines_of_unnormalised_weights_add_up_to_the_regression_function(case):
    fitted = case("least squares, unnormalised")
    figure = figures.expert_lines(fitted.evidence)
    curve = _named(figure, "regression function")
    total = sum(_named(figure, f"Expert {expert + 1}").y for expert in range(2))
    np.testing.assert_allclose(total, curve.y, rtol=1e-10)
    grid = fitted.X.iloc[:0].reindex(range(len(curve.x)))
    grid["height"] = curve.x
    np.testing.assert_allclose(curve.y, fitted.estimator.predict(grid), rtol=1e-10)


def test_classes_have_ticks_and_shares(case):
    fitted = case("categorical of two")
    figure = figures.expert_lines(fitted.evidence)
    ticks = _named(figure, "rows")
    np.testing.assert_array_equal(np.asarray(ticks.y) > 0.5, fitted.y == "yes")
    dots = _named(figure, "share among neighbouring rows")
    order = np.argsort(fitted.X["height"].to_numpy(), kind="stable")
    size = len(order) // len(dots.x)
    assert dots.y[0] == pytest.approx((fitted.y.iloc[order[: size + 1]] == "yes").mean(), abs=0.1)
    assert figure.layout.yaxis.title.text == "P(answer = yes)"
    assert not any("band" in trace.name or "interval" in trace.name for trace in figure.data)


def test_each_class_has_its_own_lines(case):
    evidence = case("categorical").evidence
    for code in range(3):
        figure = figures.expert_lines(evidence, 1, output=code)
        np.testing.assert_allclose(
            _named(figure, "mixture probability").y, evidence.profile(1).mean[:, code], rtol=1e-12
        )


def test_networks_are_curves_of_their_predictions(case):
    fitted = case("least squares, network")
    profile = fitted.evidence.profile(0)
    grid = fitted.X.iloc[:0].reindex(range(len(profile.grid)))
    grid["height"] = profile.grid
    for expert in range(2):
        figure = figures.expert_lines(fitted.evidence)
        shown = [trace for trace in figure.data if trace.name.startswith(f"Expert {expert + 1}")]
        line = np.nanmax([np.nan_to_num(np.asarray(trace.y, dtype=float), nan=-np.inf) for trace in shown], axis=0)
        np.testing.assert_allclose(line, fitted.estimator.expert_means(grid)[:, expert], rtol=1e-9)


def test_extrapolating_lines_do_not_stretch_the_figure(tone):
    evidence = tone.evidence
    model = copy.deepcopy(evidence.model)
    with torch.no_grad():
        model.experts.weight[1] *= 1e4
    steep = dataclasses.replace(evidence, reader=dataclasses.replace(evidence.reader, model=model))
    # Even where it has some weight, the figure grows by the height of the rows at most.
    low, high = figures.expert_lines(steep).layout.yaxis.range
    height = np.ptp(tone.y)
    assert tone.y.min() - 1.2 * height < low < tone.y.min() < tone.y.max() < high < tone.y.max() + 1.2 * height
    # Where the gate leaves expert 2 no weight its line is an extrapolation.
    with torch.no_grad():
        model.gate.bias[1] -= 50.0
    figure = figures.expert_lines(steep)
    low, high = figure.layout.yaxis.range
    assert low < tone.y.min() < tone.y.max() < high < 2.0 * tone.y.max()
    assert [trace.name for trace in figure.data if trace.name.startswith("Expert 2")] == ["Expert 2, weight below 5%"]
    assert figure.data[-2].showlegend


@pytest.mark.parametrize("name", ["tone", "temperature", "npreg"])
def test_the_range_is_that_of_rows_and_bands(request, name):
    """A line that only extrapolates takes no room, however little it would need."""
    figure = figures.expert_lines(request.getfixturevalue(name).evidence)
    shown = [np.asarray(trace.y, dtype=float) for trace in figure.data if "below 5%" not in trace.name]
    lowest, highest = np.nanmin(np.concatenate(shown)), np.nanmax(np.concatenate(shown))
    rows = np.asarray(_named(figure, "rows").y)
    lowest, highest = max(lowest, rows.min() - np.ptp(rows)), min(highest, rows.max() + np.ptp(rows))
    room = 0.06 * (highest - lowest)
    np.testing.assert_allclose(figure.layout.yaxis.range, [lowest - room, highest + room], rtol=1e-9)


@pytest.fixture(scope="module")
def treated():
    """A feature of two values, 1 and 3, beside a continuous one."""
    rng = np.random.default_rng(6)
    X = pd.DataFrame({"dose": rng.choice([1.0, 3.0], size=140), "age": rng.normal(size=140)})
    first = rng.uniform(size=140) < 1.0 / (1.0 + np.exp(-X["age"]))
    y = pd.Series(np.where(first, X["dose"], 5.0 - X["age"]) + 0.3 * rng.normal(size=140), name="y")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return GatedRegressor(n_starts=2, random_state=0).fit(X, y), X, y


def test_a_feature_of_two_values_has_two_categories(treated):
    estimator, X, y = treated
    evidence = Evidence.collect(estimator, X, y)
    figure = figures.expert_lines(evidence, 0)
    axis = figure.layout.xaxis
    assert (axis.tickvals, axis.ticktext, axis.range) == ((1.0, 3.0), ("1", "3"), (0.0, 4.0))
    held = pd.DataFrame({"dose": [1.0, 3.0], "age": X["age"].mean()})
    mean = _named(figure, "mixture mean")
    # A level piece over each category, nothing between them.
    np.testing.assert_allclose(mean.y, np.insert(np.repeat(estimator.predict(held), 2), 2, np.nan), rtol=1e-10)
    assert (mean.x[1], mean.x[3]) == (1.6, 2.4)
    assert np.isnan(mean.x[2])
    low, high = estimator.predict_interval(held).T
    area = _named(figure, "95% interval of the mixture")
    np.testing.assert_allclose(np.asarray(area.y)[:4], [low[0], low[0], high[0], high[0]], rtol=1e-10)
    rows = _named(figure, "rows")
    np.testing.assert_array_equal(np.where(np.asarray(rows.x) < 2.0, 1.0, 3.0), X["dose"])
    assert 0.3 < np.ptp(np.asarray(rows.x)[X["dose"] == 1.0]) < 1.0
    assert set(rows.text) == {"1", "3"}
    # The other feature is as it was.
    assert figures.expert_lines(evidence, 1).layout.xaxis.tickvals is None


def test_gates_of_a_feature_of_two_values_have_two_categories(treated):
    estimator, X, y = treated
    evidence = Evidence.collect(estimator, X, y)
    along = gates.gate_along(evidence, 0)
    held = pd.DataFrame({"dose": [1.0, 3.0], "age": X["age"].mean()})
    line = _named(along, "Expert 1")
    np.testing.assert_allclose(np.asarray(line.y)[[0, 3]], estimator.gate_weights(held)[:, 0], rtol=1e-10)
    assert along.layout.xaxis.tickvals == (1.0, 3.0)
    plane = gates.leading_expert(evidence)
    assert list(plane.data[0].x) == [1.0, 3.0]
    assert np.shape(plane.data[0].z) == (len(plane.data[0].y), 2)
    assert plane.layout.xaxis.tickvals == (1.0, 3.0)
    assert plane.layout.yaxis.tickvals is None


def test_groups_of_a_feature_of_two_values_are_those_values(treated):
    estimator, X, y = treated
    evidence = Evidence.collect(estimator, X, y)
    centres, means = figures.grouped_means(evidence, evidence.inputs[:, 0], evidence.target[:, None])
    np.testing.assert_array_equal(centres, [1.0, 3.0])
    np.testing.assert_allclose(means[:, 0], y.groupby(X["dose"]).mean(), rtol=1e-12)
