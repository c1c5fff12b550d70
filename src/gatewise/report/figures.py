"""The fitted experts beside the data: lines, bands and rows, as plotly figures."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from gatewise.report.evidence import DRAWN_ROWS, Evidence, Profile
from gatewise.report.palette import (
    BAND,
    INK,
    blank_figure,
    blend,
    expert_colour,
    expert_dash,
    label,
    name_axes,
    translucent,
)
from gatewise.report.targets import TargetKind

__all__ = ["expert_lines", "grouped_means"]

# Below this weight an expert is hardly ever chosen and its line is drawn faintly: it extrapolates there.
_FAINT_BELOW = 0.05
_GROUPS = 12
# Responsibilities named when the pointer rests on a row.
_SHOWN_SHARES = 6


def expert_lines(
    evidence: Evidence,
    feature: int = 0,
    *,
    output: int | None = None,
    limit: int = DRAWN_ROWS,
    legend: bool = True,
    height: int = 440,
) -> go.Figure:
    """Rows coloured by responsibility, the experts' lines, the mixture's, and 90% bands where there are quantiles.

    With several features the others are held at their weighted means, and the points are partial residuals
    (`Evidence.adjusted_target`), so that they lie around the lines. Of a class the lines are its probabilities, the
    rows are ticks at the foot (other classes) and the top (this class), and with one feature dots are its share in
    groups of neighbouring rows. Of a gate without normaliser the experts' lines are weight times mean, whose sum is
    the regression function.

    Args:
        evidence: a fitted mixture and its rows.
        feature: column of `evidence.inputs` along the horizontal axis.
        output: which of the numbers of the target, or which class; None for the first that is drawn.
        limit: the largest number of points drawn.
        legend: whether the figure carries its own legend.
        height: in pixels.
    """
    output = evidence.drawn_outputs[0] if output is None else output
    profile = evidence.profile(feature)
    figure, axis = blank_figure(height=height, legend=legend), evidence.axis(feature)
    several = evidence.n_experts > 1
    if several and profile.low is not None and profile.high is not None:
        pieces = _pieces(evidence, feature, profile.grid, profile.low, profile.high)
        _add_area(figure, pieces, BAND, "90% interval of the mixture", legendrank=2000)
    for expert in range(evidence.n_experts):
        _add_band(figure, evidence, feature, profile, expert)
    _add_rows(figure, evidence, feature, output, limit)
    for expert in range(evidence.n_experts):
        _add_line(figure, evidence, feature, profile, expert, output)
    if several:
        name = f"mixture {evidence.reader.centre_name}" if evidence.model.is_normalised else "regression function"
        x, y = axis.line(profile.grid, evidence.output(profile.mean, output))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            line={"color": INK, "width": 1.6, "dash": "dot"},
            hovertemplate=f"{name} %{{y:.4g}}<extra></extra>",
        )
    if evidence.kind in (TargetKind.CLASS, TargetKind.SHARE):
        figure.update_yaxes(range=[-0.08, 1.08], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    else:
        _hold_range(figure, evidence)
    axis.mark(figure)
    name_axes(figure, label(evidence.feature_names[feature]), _vertical_name(evidence, output))
    return figure


def grouped_means(evidence: Evidence, column: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of a column (g,) and of values (g, m) in groups of neighbouring rows of about equal weight.

    Args:
        evidence: whose weights are taken.
        column: what the rows are sorted by (n,).
        values: (n, m).
    """
    values_there, group = np.unique(column, return_inverse=True)
    n_groups = len(values_there)
    # Rows of two values have no neighbours but those of the same value.
    if n_groups != 2:
        order = np.argsort(column, kind="stable")
        share = np.cumsum(evidence.weight[order]) / evidence.weight.sum()
        n_groups = min(_GROUPS, max(1, evidence.n_rows // 5))
        group[order] = np.minimum((share * n_groups * (1.0 - 1e-12)).astype(int), n_groups - 1)
    mass = np.bincount(group, evidence.weight, n_groups)
    used = mass > 0.0

    def mean(numbers: np.ndarray) -> np.ndarray:
        return np.bincount(group, evidence.weight * numbers, n_groups)[used] / mass[used]

    return mean(column), np.column_stack([mean(numbers) for numbers in values.T])


def _vertical_name(evidence: Evidence, output: int) -> str:
    if evidence.kind is TargetKind.CLASS:
        return f"P({label(evidence.target_name)} = {label(evidence.output_names[output])})"
    name = label(evidence.output_names[output])
    held = evidence.inputs.shape[1] > 1 and evidence.kind is not TargetKind.SHARE
    return f"{name}, others at their means" if held else name


def _as_steps(evidence: Evidence, grid: np.ndarray, *curves: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Curves along a grid; those of counts as stairs, which jump halfway between the points."""
    if evidence.kind is not TargetKind.COUNT:
        return grid, list(curves)
    middle = (grid[1:] + grid[:-1]) / 2.0
    x = np.concatenate([grid[:1], np.repeat(middle, 2), grid[-1:]])
    return x, [np.repeat(curve, 2) for curve in curves]


def _pieces(
    evidence: Evidence, feature: int, grid: np.ndarray, low: np.ndarray, high: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """An area along a feature in pieces (x, low, high)."""
    axis = evidence.axis(feature)
    if axis.categories is not None:
        return axis.areas(grid, low, high)
    x, (low, high) = _as_steps(evidence, grid, low, high)
    return [(x, low, high)]


def _add_area(
    figure: go.Figure, pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]], colour: str, name: str, **more: object
) -> None:
    """One filled area of pieces (x, low, high), with a gap between two."""
    gap = np.array([np.nan])
    figure.add_scatter(
        x=np.concatenate([part for x, _, _ in pieces for part in (gap, x, x[::-1])][1:]),
        y=np.concatenate([part for _, low, high in pieces for part in (gap, low, high[::-1])][1:]),
        mode="lines",
        fill="toself",
        fillcolor=colour,
        line={"width": 0},
        name=name,
        hoverinfo="skip",
        **more,
    )


def _likely(evidence: Evidence, profile: Profile, expert: int) -> np.ndarray:
    """Where an expert's line is more than an extrapolation, (m,)."""
    weight = profile.gate_weights[:, expert]
    return weight >= _FAINT_BELOW if evidence.model.is_normalised else np.ones(len(weight), dtype=bool)


def _add_band(figure: go.Figure, evidence: Evidence, feature: int, profile: Profile, expert: int) -> None:
    if profile.expert_low is None or profile.expert_high is None:
        return
    pieces = []
    for start, stop in _runs(_likely(evidence, profile, expert)):
        low, high = profile.expert_low[start:stop, expert], profile.expert_high[start:stop, expert]
        pieces += _pieces(evidence, feature, profile.grid[start:stop], low, high)
    if pieces:
        _add_area(
            figure,
            pieces,
            translucent(expert_colour(expert), 0.16),
            f"Expert {expert + 1}, 90% band",
            legendgroup=f"expert {expert + 1}",
            showlegend=False,
        )


def _add_rows(figure: go.Figure, evidence: Evidence, feature: int, output: int, limit: int) -> None:
    rows = evidence.drawn(limit)
    column, axis = evidence.inputs[:, feature], evidence.axis(feature)
    if evidence.kind is TargetKind.CLASS:
        _add_ticks(figure, evidence, axis.rows(column), output, rows)
        if evidence.inputs.shape[1] == 1:
            _add_observed_shares(figure, evidence, column, output)
        return
    heights = evidence.adjusted_target(feature, rows, output)
    if heights is None:
        return
    target, name = label(evidence.output_names[output]), label(evidence.feature_names[feature])
    shares = "".join(
        f"<br>expert {expert + 1}: %{{customdata[{expert}]:.1%}}"
        for expert in range(min(evidence.n_experts, _SHOWN_SHARES))
    )
    figure.add_scatter(
        x=axis.rows(column)[rows],
        y=heights,
        text=None if axis.categories is None else [f"{value:.5g}" for value in column[rows]],
        mode="markers",
        name="rows",
        marker={
            "color": blend(evidence.responsibilities[rows]),
            "size": 7 if len(rows) <= 500 else 5,
            "opacity": 0.85 if len(rows) <= 500 else 0.55,
            "line": {"color": "#ffffff", "width": 0.6 if len(rows) <= 500 else 0},
        },
        customdata=evidence.responsibilities[rows, :_SHOWN_SHARES].astype(np.float32),
        hovertemplate=(
            f"{name} {'%{x:.5g}' if axis.categories is None else '%{text}'}<br>{target} %{{y:.5g}}{shares}"
            "<extra></extra>"
        ),
        showlegend=False,
    )


def _add_ticks(figure: go.Figure, evidence: Evidence, column: np.ndarray, output: int, rows: np.ndarray) -> None:
    """A tick for every row, at the top if it is of the class, otherwise at the foot."""
    figure.add_scatter(
        x=column[rows],
        y=np.where(evidence.observed[rows, output] > 0.5, 1.045, -0.045),
        mode="markers",
        name="rows",
        marker={
            "symbol": "line-ns",
            "size": 7,
            "line": {"color": blend(evidence.responsibilities[rows]), "width": 1},
            "opacity": 0.6,
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _add_observed_shares(figure: go.Figure, evidence: Evidence, column: np.ndarray, output: int) -> None:
    centres, shares = grouped_means(evidence, column, evidence.observed[:, [output]])
    figure.add_scatter(
        x=centres,
        y=shares[:, 0],
        mode="markers",
        name="share among neighbouring rows",
        marker={"color": "#ffffff", "size": 8, "line": {"color": INK, "width": 1.8}},
        hovertemplate="share among neighbouring rows %{y:.1%}<extra></extra>",
    )


def _add_line(figure: go.Figure, evidence: Evidence, feature: int, profile: Profile, expert: int, output: int) -> None:
    colour, dash = expert_colour(expert), expert_dash(expert)
    line = evidence.output(profile.expert_means, output)[:, expert]
    if not evidence.model.is_normalised:
        weight = profile.gate_weights[:, expert]
        line = np.where(weight > 0.0, weight * line, 0.0)
    likely, axis = _likely(evidence, profile, expert), evidence.axis(feature)
    name, group = f"Expert {expert + 1}", f"expert {expert + 1}"
    hover = f"{name} %{{y:.4g}}<extra></extra>"
    if not likely.all():
        x, y = axis.line(profile.grid, np.where(np.isfinite(line), line, np.nan))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=f"{name}, weight below 5%",
            legendgroup=group,
            showlegend=not likely.any(),
            line={"color": translucent(colour, 0.4), "width": 1.2, "dash": dash},
            hovertemplate=hover,
        )
    if likely.any():
        x, y = axis.line(profile.grid, np.where(likely & np.isfinite(line), line, np.nan))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            legendgroup=group,
            line={"color": colour, "width": 2.6, "dash": dash},
            hovertemplate=hover,
        )


def _hold_range(figure: go.Figure, evidence: Evidence) -> None:
    """Let the vertical range follow the rows and the bands, so that no line that extrapolates flattens them."""
    traces: Any = figure.data
    heights = {trace.name: np.asarray(trace.y, dtype=float) for trace in traces if "below 5%" not in trace.name}
    heights = {name: values[np.isfinite(values)] for name, values in heights.items()}
    rows = heights.get("rows", np.empty(0))
    if rows.size and np.ptp(rows) > 0.0 and evidence.model.is_normalised:
        # Also with some weight a line may lead far away where there are no rows.
        low, high = rows.min() - np.ptp(rows), rows.max() + np.ptp(rows)
        heights = {name: np.clip(values, low, high) for name, values in heights.items()}
    shown = np.concatenate(list(heights.values()))
    if shown.size and np.ptp(shown) > 0.0:
        room = 0.06 * float(np.ptp(shown))
        figure.update_yaxes(range=[float(shown.min()) - room, float(shown.max()) + room])


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open index ranges over which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
