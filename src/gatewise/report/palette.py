"""Colours, text and layout that every figure of a report shares."""

import html
import re
from typing import Any

import numpy as np
import plotly.graph_objects as go

from gatewise.ops.printable import printable

__all__ = [
    "BAND",
    "FONT_FAMILY",
    "GRID",
    "INK",
    "MUTED",
    "blank_figure",
    "blend",
    "blend_with_white",
    "class_colour",
    "class_symbol",
    "expert_colour",
    "expert_dash",
    "label",
    "name_axes",
    "translucent",
]

# Okabe and Ito (2008), without black (the mixture's mean) and with yellow last: it is faint on white.
_EXPERT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A400")
# Tol (2021), "muted", without its lightest: classes are not experts, and must not be taken for them.
_CLASS_COLOURS = ("#332288", "#882255", "#117733", "#AA4499", "#44AA99", "#999933", "#CC6677")
_CLASS_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")
_DASHES = ("solid", "dash", "dashdot", "longdash")
FONT_FAMILY = "'Source Sans 3', 'Source Sans Pro', 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
INK = "#1d2730"
MUTED = "#5c6a75"
GRID = "#e9edf0"
BAND = "rgba(93, 107, 120, 0.13)"
_LONGEST_LABEL = 40


def expert_colour(expert: int) -> str:
    """The colour of an expert, the same in every figure and table; the seven colours repeat beyond seven experts."""
    return _EXPERT_COLOURS[expert % len(_EXPERT_COLOURS)]


def expert_dash(expert: int) -> str:
    """The dash of an expert's line: solid for the first seven, then another for each turn through the colours."""
    return _DASHES[(expert // len(_EXPERT_COLOURS)) % len(_DASHES)]


def blend_with_white(colour: str, share: float) -> str:
    """A colour `#rrggbb` as the opaque mixture of that share of it with white.

    Example:
        >>> blend_with_white("#0072B2", 0.5)
        '#80b8d8'
    """
    red, green, blue = (round(255.0 - share * (255.0 - channel)) for channel in _channels(colour))
    return f"#{red:02x}{green:02x}{blue:02x}"


def class_colour(label: int) -> str:
    """The colour of a class of the target; the seven colours repeat beyond seven classes."""
    return _CLASS_COLOURS[label % len(_CLASS_COLOURS)]


def class_symbol(label: int) -> str:
    """The mark of a class of the target: with its colour it tells 56 classes apart."""
    return _CLASS_SYMBOLS[label % len(_CLASS_SYMBOLS)]


def translucent(colour: str, opacity: float) -> str:
    """A colour `#rrggbb` as `rgba(…)` with that opacity.

    Example:
        >>> translucent("#0072B2", 0.25)
        'rgba(0, 114, 178, 0.25)'
    """
    red, green, blue = _channels(colour)
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def blend(responsibilities: np.ndarray) -> list[str]:
    """One colour per row: the experts' colours mixed in proportion to the responsibilities (n, k).

    Example:
        >>> import numpy as np
        >>> blend(np.array([[1.0, 0.0], [0.5, 0.5]]))
        ['#0072b2', '#6a6859']
    """
    palette = np.array([_channels(expert_colour(expert)) for expert in range(responsibilities.shape[1])], dtype=float)
    mixed = np.rint(np.clip(responsibilities @ palette, 0.0, 255.0)).astype(int)
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in mixed]


def label(text: object) -> str:
    """Text that plotly shows literally: its labels know a pseudo-HTML, and its hover templates `%{…}`.

    White space is collapsed and very long names are cut, so that one name cannot displace a figure.

    Example:
        >>> label("<b>a</b> & %{x}")
        '&lt;b&gt;a&lt;/b&gt; &amp; %&#123;x}'
    """
    plain = printable(re.sub(r"[\s\x00-\x1f\x7f]+", " ", str(text)).strip())
    if len(plain) > _LONGEST_LABEL:
        plain = plain[: _LONGEST_LABEL - 1] + "…"
    return html.escape(plain, quote=False).replace("%{", "%&#123;")


def blank_figure(*, height: int = 320, legend: bool = True) -> go.Figure:
    """An empty figure in the report's style: white, thin axes, a horizontal legend above the plot."""
    axis: dict[str, Any] = {
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "linecolor": "#9aa5ae",
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#9aa5ae",
        "automargin": True,
    }
    return go.Figure(
        layout={
            "template": go.layout.Template(),
            "height": height,
            "autosize": True,
            "margin": {"l": 62, "r": 14, "t": 34, "b": 52},
            "font": {"family": FONT_FAMILY, "size": 13, "color": INK},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#9aa5ae", "font": {"color": INK, "size": 13}},
            "showlegend": legend,
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"},
            "bargap": 0.06,
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def name_axes(figure: go.Figure, x: str, y: str) -> None:
    """Give both axes their titles; names that come from the data must have gone through `label`."""
    figure.update_xaxes(title={"text": x, "standoff": 8, "font": {"size": 13}})
    figure.update_yaxes(title={"text": y, "standoff": 8, "font": {"size": 13}})


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
