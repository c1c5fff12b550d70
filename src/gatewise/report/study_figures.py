"""Figures of a study: a measure against the sample size, both logarithmic, and what fits cost."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gatewise.report.layout import Panel
from gatewise.report.palette import (
    blank_figure,
    expert_colour,
    expert_dash,
    label,
    name_axes,
    translucent,
)
from gatewise.study.slope_fit import STATISTICS, FittedLine
from gatewise.study.slopes import Points, Slope, StudySlopes
from gatewise.study.totals import chosen, numbers

__all__ = ["measure_panel", "seconds_panel"]

_REFERENCES = (("proved", "dash"), ("published", "dot"), ("modulus", "longdashdot"))
_MENU = {"x": 0.0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "showactive": True, "pad": {"b": 2}}


def measure_panel(found: StudySlopes, measure: str, identifier: str) -> Panel:
    """A measure of all methods: points, interquartile band, lines with their bands, and what others say.

    A menu chooses between mean, median and trimmed mean. Reference lines have the slope that is proved, published or
    given by the modulus, and go through our line at the centre of the sizes.

    Args:
        found: the study's slopes.
        measure: its name.
        identifier: the panel's place in its page.
    """
    figure = blank_figure(height=470)
    shown: list[str | None] = []
    here = [each for each in found.points if each.measure == measure]
    names = list(dict.fromkeys(each.method for each in found.points))
    for points in here:
        place = names.index(points.method)
        traces = _traces(points, [_row(found, points, name) for name in STATISTICS], place, found.rule.level)
        for statistic, trace in traces:
            trace.visible = statistic in (None, STATISTICS[0])
            figure.add_trace(trace)
            shown.append(statistic)
    buttons = [
        {"label": name, "method": "restyle", "args": [{"visible": [each in (None, name) for each in shown]}]}
        for name in STATISTICS
    ]
    figure.update_layout(updatemenus=[{**_MENU, "buttons": buttons}], legend={"y": -0.2, "yanchor": "top"})
    name_axes(figure, "sample size n", label(measure))
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    caption = (
        f"{measure}. Points: the statistic chosen in the menu; shaded: the interquartile range of the replicates (left "
        f"out where it reaches 0), and around a line its {100 * found.rule.level:g}% interval."
    )
    return Panel(identifier, figure, caption)


def _row(found: StudySlopes, points: Points, statistic: str) -> Slope:
    return found.slope(points.method, points.measure, statistic)


def _traces(points: Points, rows: Sequence[Slope], place: int, level: float) -> list[tuple[str | None, go.Scatter]]:
    """Traces of a method, each with the statistic that it belongs to, or None if to all."""
    colour, dash, method = expert_colour(place), expert_dash(place), label(points.method)
    sizes = np.array(points.sizes)
    low, high = points.quartiles[:, 0], points.quartiles[:, 1]
    drawn: list[tuple[str | None, go.Scatter]] = []
    positive = low > 0.0
    if positive.any():
        band = _area(sizes[positive], low[positive], high[positive], translucent(colour, 0.13), method)
        drawn.append((None, band.update(name=f"{method}: interquartile range")))
    told = np.column_stack([low, high, points.counts])
    for place_of, row in enumerate(rows):
        heights = points.statistics[:, place_of]
        points_trace = go.Scatter(
            x=sizes.tolist(),
            y=[float(value) if value > 0.0 else None for value in heights],
            mode="markers",
            name=f"{method}: {row.statistic}",
            legendgroup=method,
            marker={"color": colour, "size": 5 if len(sizes) > 40 else 8},
            customdata=told,
            hovertemplate=(
                f"{method}<br>n %{{x}}<br>{row.statistic} %{{y:.4g}}<br>quartiles %{{customdata[0]:.4g}} to "
                "%{customdata[1]:.4g}<br>%{customdata[2]} replicates<extra></extra>"
            ),
        )
        drawn.append((row.statistic, points_trace))
        if row.line is not None:
            drawn += [(row.statistic, trace) for trace in _lines(row, row.line, colour, dash, method, level)]
    return drawn


def _lines(row: Slope, line: FittedLine, colour: str, dash: str, method: str, level: float) -> list[go.Scatter]:
    """A fitted line with its band, and reference lines through it at the centre."""
    sizes, low, high = line.band.T
    name = f"{method}: slope {line.slope.to_text()}" + (", inconclusive" if row.is_inconclusive else "")
    found = [
        _area(sizes, low, high, translucent(colour, 0.28), method).update(
            name=f"{method}: {100 * level:g}% of the line"
        ),
        go.Scatter(
            x=sizes.tolist(),
            y=line.at(sizes).tolist(),
            mode="lines",
            name=name,
            legendgroup=method,
            line={"color": colour, "width": 2.2, "dash": dash},
            hoverinfo="skip",
        ),
    ]
    ends = np.array([line.sizes[0], line.sizes[-1]], dtype=float)
    for kind, dashes in _REFERENCES:
        slope = None if row.expected is None else getattr(row.expected, kind)
        if slope is not None:
            heights = np.exp(line.height.value + slope * (np.log(ends) - line.centre))
            found.append(
                go.Scatter(
                    x=ends.tolist(),
                    y=heights.tolist(),
                    mode="lines",
                    name=f"{method}: {kind} {slope:.3f}",
                    legendgroup=method,
                    line={"color": colour, "width": 1.4, "dash": dashes},
                    hoverinfo="skip",
                )
            )
    return found


def _area(x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, group: str) -> go.Scatter:
    return go.Scatter(
        x=[*x.tolist(), *x[::-1].tolist()],
        y=[*low.tolist(), *high[::-1].tolist()],
        mode="lines",
        fill="toself",
        fillcolor=colour,
        line={"width": 0},
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )


def seconds_panel(rows: pd.DataFrame, methods: Sequence[str], identifier: str) -> Panel:
    """What a fit takes against the sample size: the median of the replicates with their quartiles.

    Args:
        rows: of the study.
        methods: their names, in the order of their colours.
        identifier: the panel's place in its page.
    """
    figure = blank_figure(height=360)
    for place, method in enumerate(methods):
        own = chosen(rows, np.array(rows["method"] == method))
        sizes, seconds = numbers(own, "n"), numbers(own, "seconds")
        each = np.unique(sizes)
        if not len(each):
            continue
        quartiles = np.array([np.quantile(seconds[sizes == n], [0.25, 0.5, 0.75]) for n in each])
        positive = quartiles[:, 0] > 0.0
        each, quartiles = each[positive], quartiles[positive]
        colour = expert_colour(place)
        if len(each) > 1:
            figure.add_trace(_area(each, quartiles[:, 0], quartiles[:, 2], translucent(colour, 0.15), label(method)))
        figure.add_scatter(
            x=each.tolist(),
            y=quartiles[:, 1].tolist(),
            mode="lines+markers",
            name=label(method),
            legendgroup=label(method),
            line={"color": colour, "width": 1.8, "dash": expert_dash(place)},
            marker={"color": colour, "size": 5},
            hovertemplate=f"{label(method)}<br>n %{{x}}<br>median %{{y:.3g}} s<extra></extra>",
        )
    name_axes(figure, "sample size n", "processor seconds")
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    return Panel(
        identifier,
        figure,
        "Processor seconds of one task, in one thread: median and interquartile range of the replicates.",
    )
