"""How far the fit can be believed: responsibilities, residuals and the probability integral transform as figures."""

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from gatewise.report.evidence import DRAWN_ROWS, Evidence
from gatewise.report.palette import (
    BAND,
    INK,
    MUTED,
    blank_figure,
    blend,
    expert_colour,
    expert_dash,
    label,
    name_axes,
)

__all__ = ["pit_histogram", "residuals", "responsibility_curves", "responsibility_histogram"]

_CURVE_POINTS = 301


def responsibility_histogram(evidence: Evidence, *, height: int = 300) -> go.Figure:
    """The largest responsibility of every row, stacked by the expert that has it."""
    largest = evidence.responsibilities.max(axis=1)
    winner = evidence.responsibilities.argmax(axis=1)
    edges = np.linspace(1.0 / evidence.n_experts, 1.0, 21)
    centres, width = (edges[1:] + edges[:-1]) / 2.0, edges[1] - edges[0]
    figure = blank_figure(height=height)
    for expert in range(evidence.n_experts):
        mine = winner == expert
        # The smallest possible maximum, 1/k, may round to just below the first edge.
        counts, _ = np.histogram(np.clip(largest[mine], edges[0], 1.0), edges, weights=evidence.weight[mine])
        figure.add_bar(
            x=centres,
            y=counts,
            width=width * 0.94,
            name=f"Expert {expert + 1}",
            marker={"color": expert_colour(expert)},
            customdata=np.column_stack([edges[:-1], edges[1:]]),
            hovertemplate=(
                f"expert {expert + 1}<br>%{{customdata[0]:.1%}} to %{{customdata[1]:.1%}}: %{{y:.4~g}} rows"
                "<extra></extra>"
            ),
        )
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(tickformat=".0%", range=[edges[0] - width / 4, 1.0 + width / 4])
    name_axes(figure, "largest responsibility of the row", "rows")
    return figure


def responsibility_curves(evidence: Evidence, *, height: int = 300) -> go.Figure:
    """Every expert's responsibilities in falling order against the share of rows."""
    figure = blank_figure(height=height)
    for expert in range(evidence.n_experts):
        order = np.argsort(-evidence.responsibilities[:, expert], kind="stable")
        share = np.append(0.0, np.cumsum(evidence.weight[order]) / evidence.weight.sum())
        sorted_from_zero = evidence.responsibilities[np.append(order[0], order), expert]
        picked = np.unique(np.linspace(0, evidence.n_rows, _CURVE_POINTS).round().astype(int))
        figure.add_scatter(
            x=share[picked],
            y=sorted_from_zero[picked],
            mode="lines",
            name=f"Expert {expert + 1}",
            line={"color": expert_colour(expert), "width": 2.4, "dash": expert_dash(expert)},
            hovertemplate=f"expert {expert + 1}: %{{y:.1%}} or more for %{{x:.1%}} of the rows<extra></extra>",
        )
    figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    name_axes(figure, "share of rows, most responsible first", "responsibility")
    return figure


def residuals(evidence: Evidence, *, limit: int = DRAWN_ROWS, height: int = 300) -> go.Figure:
    """Residuals from the mixture's mean over the mixture's standard deviation, against the mean."""
    rows = evidence.drawn(limit)
    standardised = ((evidence.target - evidence.fitted) / evidence.deviation)[rows]
    figure = blank_figure(height=height, legend=False)
    for level, dash in ((0.0, "solid"), (-2.0, "dot"), (2.0, "dot")):
        figure.add_hline(y=level, line={"color": MUTED, "width": 1, "dash": dash})
    target = label(evidence.estimator.target_name_)
    figure.add_scatter(
        x=evidence.fitted[rows],
        y=standardised,
        mode="markers",
        name="rows",
        marker={
            "color": blend(evidence.responsibilities[rows]),
            "size": 6 if len(rows) <= 500 else 4,
            "opacity": 0.8 if len(rows) <= 500 else 0.5,
        },
        customdata=evidence.target[rows],
        hovertemplate=f"{target} %{{customdata:.5g}}<br>mean %{{x:.5g}}<br>residual %{{y:.2f}} sd<extra></extra>",
    )
    name_axes(figure, f"mixture mean of {target}", "residual / sd")
    return figure


def pit_histogram(evidence: Evidence, *, height: int = 300) -> go.Figure:
    """The probability integral transform P(Y ≤ y | x) as a density, beside the uniform one that a true model gives.

    The band holds 95% of the heights that single bars of a uniform sample of Σw rows would have (binomial).
    """
    total = evidence.weight.sum()
    n_bins = int(np.clip(evidence.n_rows // 10, 5, 20))
    counts, edges = np.histogram(np.clip(evidence.transform, 0.0, 1.0), n_bins, (0.0, 1.0), weights=evidence.weight)
    low, high = pit_band(total, n_bins)
    figure = blank_figure(height=height)
    figure.add_bar(
        x=(edges[1:] + edges[:-1]) / 2.0,
        y=counts / total * n_bins,
        width=0.94 / n_bins,
        name="rows",
        marker={"color": "#8fa3b3"},
        customdata=counts,
        hovertemplate="%{customdata:.4~g} rows<extra></extra>",
        showlegend=False,
    )
    figure.add_scatter(
        x=[0, 1, 1, 0],
        y=[low, low, high, high],
        mode="lines",
        fill="toself",
        fillcolor=BAND,
        line={"width": 1, "color": MUTED, "dash": "dot"},
        name="95% of bars if uniform",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[0, 1], y=[1, 1], mode="lines", name="uniform", line={"color": INK, "width": 1.6}, hoverinfo="skip"
    )
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(rangemode="tozero")
    name_axes(figure, "P(Y ≤ y | x) at the data", "density")
    return figure


def pit_band(total_weight: float, n_bins: int, level: float = 0.95) -> tuple[float, float]:
    """Heights between which a bar of a uniform histogram lies with probability `level`, on the density scale.

    Example:
        >>> low, high = pit_band(1000.0, 10)
        >>> round(low, 3), round(high, 3)
        (0.82, 1.19)
    """
    n_rows = max(1, round(total_weight))
    counts = stats.binom.ppf([(1.0 - level) / 2.0, (1.0 + level) / 2.0], n_rows, 1.0 / n_bins)
    return float(counts[0] * n_bins / n_rows), float(counts[1] * n_bins / n_rows)
