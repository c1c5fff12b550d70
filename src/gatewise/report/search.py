"""How the maximum was found: every start's end point and the ascent of the kept start, as figures."""

import math

import numpy as np
import plotly.graph_objects as go

from gatewise.fit.result import FitResult, StartRecord
from gatewise.report.palette import INK, blank_figure, name_axes

__all__ = ["height_of_start", "optimum_colour", "starts", "trace"]

# Optima are ranks, not experts: one hue from dark to light, so that no expert's colour is taken for an optimum.
_OPTIMUM_COLOURS = ("#3f2a6b", "#6b51a3", "#9285c2", "#b8b0d8", "#d6d1e8")
_NO_OPTIMUM = "#9aa5ae"
_MAX_NAMED = len(_OPTIMUM_COLOURS) - 1
_LEAST_ROOM = 0.5
_ON_FLOOR = _MAX_NAMED + 1
_NOT_REACHED = _MAX_NAMED + 2
_GROUP_NAMES = [
    *(f"optimum {rank + 1}" for rank in range(_MAX_NAMED)),
    "lower optima",
    "on the floor",
    "no optimum reached",
]


def optimum_colour(optimum: int | None) -> str:
    """The colour of a distinct optimum by rank: dark is best; grey for a start that reached none."""
    if optimum is None:
        return _NO_OPTIMUM
    return _OPTIMUM_COLOURS[min(optimum, len(_OPTIMUM_COLOURS) - 1)]


def starts(result: FitResult, *, height: int = 300) -> go.Figure:
    """The log-likelihood at every start's end point, coloured by optimum, hollow on the variance floor.

    For least squares it is the residual sum of squares there, −2 times the objective.
    """
    squares = result.kind == "least_squares"
    name = "residual sum of squares" if squares else "log-likelihood"
    kept = -2.0 * result.objective if squares else result.log_likelihood
    heights = {start.index: height_of_start(result, start) for start in result.starts}
    figure = blank_figure(height=height)
    figure.add_hline(y=kept, line={"color": INK, "width": 1, "dash": "dot"})
    groups: dict[int, list[StartRecord]] = {}
    for start in result.starts:
        groups.setdefault(_group(start), []).append(start)
    for group, members in sorted(groups.items()):
        colours = [optimum_colour(start.optimum) for start in members]
        figure.add_scatter(
            x=[start.index + 1 for start in members],
            y=[heights[start.index] for start in members],
            mode="markers",
            name="higher optima" if squares and group == _MAX_NAMED else _GROUP_NAMES[group],
            marker={
                "color": ["#ffffff"] * len(members) if group == _ON_FLOOR else colours,
                "size": 10,
                "symbol": "x-thin-open" if group == _NOT_REACHED else "circle",
                "line": {"color": colours, "width": 2},
            },
            customdata=[[start.strategy, start.status.name, start.n_iterations] for start in members],
            hovertemplate=(
                f"start %{{x}} (%{{customdata[0]}})<br>{name} %{{y:{'.8~g' if squares else '.6f'}}}"
                "<br>%{customdata[1]} after %{customdata[2]} iterations<extra></extra>"
            ),
        )
    count = len(result.starts)
    reached = [*(value for value in heights.values() if math.isfinite(value)), kept]
    low, high = min(reached), max(reached)
    # Differences of millionths between starts at one optimum must not fill the plot.
    room = max(0.08 * (high - low), 0.02 * abs(kept) if squares else _LEAST_ROOM)
    figure.update_yaxes(range=[low - room, high + room] if room > 0.0 else None)
    figure.update_xaxes(range=[0.3, count + 0.7], showgrid=False, tickvals=_integer_ticks(count))
    name_axes(figure, "start", f"{name} at its end")
    return figure


def height_of_start(result: FitResult, start: StartRecord) -> float:
    """Where a start ended: its log-likelihood, or its residual sum of squares."""
    return -2.0 * start.objective if result.kind == "least_squares" else start.log_likelihood


def trace(result: FitResult, *, height: int = 300) -> go.Figure:
    """How far the kept start still was from its end, iteration by iteration, on a log scale.

    In units of the log-likelihood; for least squares as a share of the sum of squares at the end.
    """
    squares = result.kind == "least_squares"
    gap = result.trace[-1] - result.trace if len(result.trace) else np.empty(0)
    if squares and len(gap):
        gap = gap / abs(result.trace[-1]) if result.trace[-1] else np.zeros(len(gap))
    else:
        gap = gap * result.total_weight
    shown = gap > 0.0
    figure = blank_figure(height=height, legend=False)
    figure.add_scatter(
        x=np.flatnonzero(shown),
        y=gap[shown],
        mode="lines+markers",
        name="kept start",
        line={"color": optimum_colour(0), "width": 2},
        marker={"color": optimum_colour(0), "size": 5},
        hovertemplate=(
            "iteration %{x}: %{y:.3g} of the sum of squares above the end<extra></extra>"
            if squares
            else "iteration %{x}: %{y:.3g} below the end<extra></extra>"
        ),
    )
    figure.update_yaxes(type="log", exponentformat="power", tickfont_size=11)
    name_axes(figure, "iteration", "sum of squares / its end − 1" if squares else "log-likelihood still to gain")
    return figure


def _group(start: StartRecord) -> int:
    if start.on_floor:
        return _ON_FLOOR
    return _NOT_REACHED if start.optimum is None else min(start.optimum, _MAX_NAMED)


def _integer_ticks(count: int) -> list[int]:
    step = max(1, math.ceil(count / 12))
    return list(range(step, count + 1, step))
