"""Figures of routing: heat maps of loads by layer, by domain and over time."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from gatewise.report.layout import Panel
from gatewise.report.palette import blank_figure, label, name_axes

__all__ = ["heat_map", "lines_panel"]

# From white by the accent of the pages; an even share is pale, twice as much plain.
_SCALE = [[0.0, "#ffffff"], [0.25, "#cfe1ee"], [0.5, "#6aa3c8"], [1.0, "#123a5a"]]


def heat_map(
    identifier: str,
    caption: str,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str],
    *,
    largest: float,
    meaning: str,
) -> Panel:
    """A heat map, the first row on top, with a value for each cell.

    Args:
        identifier: its place in the page.
        caption: under it.
        values: one list a row; NaN where there is nothing.
        rows: names of the rows; any text.
        columns: names of the columns.
        axes: what columns and rows are.
        largest: the value with the darkest colour.
        meaning: what a value is, beside the scale and under the pointer.
    """
    figure = blank_figure(height=max(260, min(1600, 130 + 20 * len(rows))), legend=False)
    shown = [[None if math.isnan(value) else value for value in row] for row in values]
    places = list(range(len(rows)))
    figure.add_trace(
        go.Heatmap(
            z=shown,
            y=places,
            x=list(range(len(columns))),
            zmin=0.0,
            zmax=largest,
            colorscale=_SCALE,
            xgap=1,
            ygap=1,
            text=[[f"{label(row)}<br>{label(column)}" for column in columns] for row in rows],
            hovertemplate=f"%{{text}}<br>{meaning} %{{z:.3g}}<extra></extra>",
            colorbar={"title": {"text": meaning, "side": "right"}, "thickness": 12, "len": 0.9},
        )
    )
    name_axes(figure, *axes)
    step = max(1, len(columns) // 32)
    figure.update_xaxes(
        tickvals=list(range(0, len(columns), step)), ticktext=[label(name) for name in columns[::step]], showgrid=False
    )
    figure.update_yaxes(tickvals=places, ticktext=[label(name) for name in rows], autorange="reversed", showgrid=False)
    return Panel(identifier, figure, caption)


def lines_panel(
    identifier: str,
    caption: str,
    lines: Sequence[tuple[str, str, str, Sequence[float], Sequence[float]]],
    axes: tuple[str, str],
) -> Panel:
    """Lines over time.

    Args:
        identifier: its place in the page.
        caption: under it.
        lines: name, colour, dash, and coordinates of each.
        axes: what they are.
    """
    figure = blank_figure(height=340)
    for name, colour, dash, x, y in lines:
        figure.add_scatter(
            x=list(x),
            y=list(y),
            mode="lines+markers",
            name=label(name),
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={"color": colour, "size": 5},
            hovertemplate=f"{label(name)}<br>%{{x}}: %{{y:.3g}}<extra></extra>",
        )
    figure.update_layout(legend={"y": -0.25, "yanchor": "top"})
    name_axes(figure, *axes)
    figure.update_yaxes(rangemode="tozero")
    return Panel(identifier, figure, caption)
