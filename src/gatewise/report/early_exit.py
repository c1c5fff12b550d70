"""The HTML page on an evaluation of early exits."""

import math
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

from gatewise._version import __version__
from gatewise.early_exit.evaluation import Evaluation
from gatewise.early_exit.evaluation.evaluate import PolicyPoint
from gatewise.report.layout import Cell, Grid, Panel, Section
from gatewise.report.palette import MUTED, blank_figure, expert_colour, expert_dash, label, name_axes
from gatewise.report.theory import TheoryPage, render_theory
from gatewise.report.write import render_report

__all__ = ["exits_page"]


@render_report.register
def _(subject: Evaluation, *arguments: Any, **options: Any) -> str:
    return render_theory(exits_page(subject, *arguments, **options))


def exits_page(evaluation: Evaluation) -> TheoryPage:
    """The page on what `gatewise.early_exit.evaluation.evaluate` found.

    Args:
        evaluation: of any policies.
    """
    names = list(evaluation.policies)
    best, saved, lost = _saving(evaluation)
    near = max(point.scores.near for result in evaluation.policies.values() for point in result.points)
    remarks = [
        "Costs are shares of the network without exits, in "
        + ("multiply-adds." if evaluation.unit == "multiply-adds" else "milliseconds as measured."),
        f"Calibration: {'one temperature for each exit, shared by all policies' if evaluation.calibrate else 'none'}; "
        f"{evaluation.ece_estimator}.",
        f"Under a policy at most {near} of {evaluation.n} samples have a decision within 1e-6 of its threshold, which "
        "rounding may turn.",
        *dict.fromkeys(
            f"{name}: {remark}."
            for name, result in evaluation.policies.items()
            for remark in result.points[evaluation.shown[name]].remarks
        ),
    ]
    return TheoryPage(
        "early exits",
        "Where a network may answer early",
        f"{len(evaluation.names)} exits, {len(names)} policies, {evaluation.n:,} test samples",
        "Saves" if saved > 0.05 else "Saves little",
        "good" if saved > 0.05 else "caution",
        f"Within half a point of the whole network, {best} saves {saved:.0%} of its cost and loses {lost:.1f} points."
        if saved > 0.0
        else "No policy is within half a point of the whole network for less than its cost.",
        remarks,
        list(_sections(evaluation)),
        [("Gatewise", __version__), ("test samples", f"{evaluation.n:,}"), ("policies", ", ".join(names))],
        "gatewise.early_exit.evaluation.evaluate(model, x, y)",
    )


def _saving(evaluation: Evaluation) -> tuple[str, float, float]:
    """The policy that costs least within half a point of the last exit, what it saves, and what it loses in points."""
    fixed = evaluation.policies.get("fixed")
    points = [
        (point.scores.cost, name, point.scores.accuracy)
        for name, result in evaluation.policies.items()
        if name != "oracle"
        for point in result.points
    ]
    if not points:
        return "", 0.0, 0.0
    whole = fixed.points[-1].scores.accuracy if fixed else max(accuracy for _, _, accuracy in points)
    cost, name, accuracy = min((entry for entry in points if entry[2] >= whole - 0.005), default=(1.0, "", whole))
    return name, 1.0 - cost, 100.0 * (whole - accuracy)


def _sections(evaluation: Evaluation) -> Iterator[Section]:
    note = "Straight lines between settings are what drawing between two of them at random gives."
    yield Section(
        "frontier",
        "Frontier",
        "Accuracy against cost",
        [_frontier(evaluation)],
        note,
        grids=[_scores("At the setting nearest to the shown cost.", evaluation, shown_only=True)],
    )
    note = (
        "Above the diagonal answers are right more often than they say, below it less often. Each policy at its "
        "setting nearest to the shown cost."
    )
    yield Section("reliability", "Reliability", "Are probabilities right?", [_reliability(evaluation)], note)
    yield Section(
        "exits",
        "Exits",
        "Who leaves where",
        [_histogram(evaluation)],
        "Intervals of 95 %, normal; a positive bias is too much confidence.",
        grids=[_by_exit(name, evaluation) for name in evaluation.policies if name != "oracle"],
    )
    if evaluation.conformal:
        yield Section("conformal", "Conformal sets", "Sets of classes", [], grids=[_conformal(evaluation)])
    yield Section(
        "samples",
        "Samples",
        "Samples that leave early and late",
        [],
        f"Under {evaluation.early[0]['policy']}, at the shown setting." if evaluation.early else "",
        grids=[_samples("Earliest.", evaluation.early), _samples("Last.", evaluation.late)],
    )
    yield Section(
        "settings",
        "All settings",
        "Every policy at all its settings",
        [],
        grids=[_scores("The numbers behind the frontier.", evaluation)],
    )


def _frontier(evaluation: Evaluation) -> Panel:
    figure = blank_figure(height=420)
    for place, (name, result) in enumerate(evaluation.policies.items()):
        single = name in ("fixed", "oracle")
        figure.add_trace(
            go.Scatter(
                x=[point.scores.cost for point in result.points],
                y=[100.0 * point.scores.accuracy for point in result.points],
                mode="markers" if single else "lines+markers",
                name=label(name),
                marker={"color": MUTED if single else expert_colour(place), "size": 8 if single else 6},
                line={"color": expert_colour(place), "dash": expert_dash(place)},
            )
        )
    name_axes(figure, "mean cost", "accuracy, %")
    return Panel("frontier-figure", figure, "Every policy at all its settings; fixed exits and the oracle as points.")


def _reliability(evaluation: Evaluation) -> Panel:
    figure = blank_figure(height=420)
    figure.add_trace(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="right", line={"color": MUTED, "dash": "dot", "width": 1})
    )
    for place, (name, curve) in enumerate(evaluation.reliability.items()):
        figure.add_trace(
            go.Scatter(
                x=[confidence for confidence, _, _ in curve],
                y=[accuracy for _, accuracy, _ in curve],
                mode="lines+markers",
                name=label(name),
                marker={"size": 5},
                line={"color": expert_colour(place), "dash": expert_dash(place)},
            )
        )
    name_axes(figure, "confidence", "accuracy")
    return Panel("reliability-figure", figure, "Accuracy against the largest probability, in bins of equal numbers.")


def _histogram(evaluation: Evaluation) -> Panel:
    figure = blank_figure(height=340)
    for place, name in enumerate(evaluation.policies):
        figure.add_trace(
            go.Bar(
                x=[exit + 1 for exit in range(len(evaluation.names))],
                y=[100.0 * share for share in _shown(evaluation, name).histogram],
                name=label(name),
                marker={"color": expert_colour(place)},
            )
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(dtick=1)
    name_axes(figure, "exit", "share of samples, %")
    return Panel("exits-figure", figure, "Shares of samples that leave at each exit.")


def _shown(evaluation: Evaluation, name: str) -> PolicyPoint:
    return evaluation.policies[name].points[evaluation.shown[name]]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _scores(caption: str, evaluation: Evaluation, shown_only: bool = False) -> Grid:
    columns = [("Policy", False), ("Setting", True), ("Cost", True), ("Accuracy, %", True), ("ECE, points", True)]
    columns += [("Confidence − accuracy, points", True), ("Brier", True), ("Log-loss", True), ("Near", True)]
    return Grid(caption, columns, list(_score_rows(evaluation, shown_only)))


def _score_rows(evaluation: Evaluation, shown_only: bool) -> Iterator[list[Cell]]:
    for name, result in evaluation.policies.items():
        for point in [_shown(evaluation, name)] if shown_only else result.points:
            scores = point.scores
            bias = f"{100 * scores.bias:+.1f} ± {196 * scores.bias_error:.1f}"
            texts = [
                "–" if point.setting is None else f"{point.setting:.4g}",
                _number(scores.cost, 3),
                _number(100 * scores.accuracy, 1),
                _number(100 * scores.ece, 1),
                bias,
                _number(scores.brier, 3),
                _number(scores.log_loss, 3),
                str(scores.near),
            ]
            yield [Cell(name), *map(Cell, texts)]


def _by_exit(name: str, evaluation: Evaluation) -> Grid:
    point = _shown(evaluation, name)
    columns = [("Exit", True), ("Block", False), ("Cost", True), ("Samples", True), ("Accuracy, %", True)]
    columns += [("Confidence, %", True), ("Confidence − accuracy, points", True)]
    rows = []
    for row in point.exits:
        interval = f"{100 * row.low:+.1f} to {100 * row.high:+.1f}" if row.n else "–"
        texts = [
            evaluation.names[row.exit - 1] or "the network's own end",
            _number(evaluation.exit_costs[row.exit - 1], 3),
            f"{row.n:,}",
            _number(100 * row.accuracy, 1),
            _number(100 * row.confidence, 1),
            interval,
        ]
        rows.append([Cell(str(row.exit)), *map(Cell, texts)])
    return Grid(f"{name}, at cost {point.scores.cost:.3f}.", columns, rows)


def _conformal(evaluation: Evaluation) -> Grid:
    columns = [("Policy", False), ("Cost", True), ("Strategy", False), ("Promised", True), ("Coverage, %", True)]
    columns += [("Band of 99.9 %", True), ("Classes in a set", True)]
    rows = []
    for row in evaluation.conformal:
        band = f"{100 * row.low:.1f} to {100 * row.high:.1f}" if row.promised else "none"
        outside = row.promised and not row.low <= row.coverage <= row.high
        rows.append(
            [
                Cell(row.policy),
                Cell(_number(row.cost, 3)),
                Cell(row.strategy),
                Cell(_number(100 * (1 - row.alpha), 1) if row.promised else "nothing"),
                Cell(_number(100 * row.coverage, 1), strong=outside),
                Cell(band),
                Cell(_number(row.size, 2)),
            ]
        )
    return Grid("The band is beta-binomial: the threshold depends on the calibration samples too.", columns, rows)


def _samples(caption: str, samples: list[dict[str, Any]]) -> Grid:
    columns = [("Sample", True), ("Exit", True), ("Answer", True), ("Class", True), ("Confidence, %", True)]
    rows = [
        [
            Cell(str(row["sample"])),
            Cell(str(row["exit"])),
            Cell(str(row["answer"]), strong=row["answer"] != row["class"]),
            Cell(str(row["class"])),
            Cell(_number(100 * row["confidence"], 1)),
        ]
        for row in samples
    ]
    return Grid(f"{caption} Wrong answers are bold.", columns, rows)
