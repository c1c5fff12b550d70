"""How far the fit can be believed: responsibilities, residuals and the probability integral transform as figures."""

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from gatewise.exceptions import InputError
from gatewise.report.evidence import DRAWN_ROWS, Evidence
from gatewise.report.figures import grouped_means
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

__all__ = [
    "pit_band",
    "pit_histogram",
    "pit_uniformity",
    "residuals",
    "responsibility_curves",
    "responsibility_histogram",
    "spread_of_residuals",
]

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


def residuals(
    evidence: Evidence, *, output: int = 0, limit: int = DRAWN_ROWS, legend: bool = False, height: int = 300
) -> go.Figure:
    """Pearson residuals, from the mixture's mean over its standard deviation, against the mean.

    Least squares has one standard deviation for all rows, the root mean square of the residuals. Where a family has no
    standard deviation (Student's t with two degrees of freedom or less) these are normal quantiles of the probability
    integral transform, Φ⁻¹(P(Y ≤ y | x)) (Dunn and Smyth 1996).

    Args:
        evidence: a fitted mixture and its rows.
        output: which of the numbers of the target.
        limit: the largest number of points drawn.
        legend: whether the figure carries a legend.
        height: in pixels.
    """
    rows = evidence.drawn(limit)
    fitted, observed = (evidence.output(values, output)[rows] for values in (evidence.fitted, evidence.observed))
    unit, unit_name = "sd", "residual / sd"
    if evidence.deviation is not None:
        standardised = _over(observed - fitted, evidence.output(evidence.deviation, output)[rows])
    elif evidence.transform is not None:
        # A row beyond all digits of the distribution is drawn at eight, not at infinity.
        standardised = np.clip(stats.norm.ppf(evidence.transform[rows]), -8.0, 8.0)
        unit, unit_name = "", "normal quantile of P(Y ≤ y | x)"
    else:
        standardised, unit, unit_name = observed - fitted, "", "residual"
    figure = blank_figure(height=height, legend=legend)
    lines = ((0.0, "solid"), (-2.0, "dot"), (2.0, "dot")) if unit_name != "residual" else ((0.0, "solid"),)
    for level, dash in lines:
        figure.add_hline(y=level, line={"color": MUTED, "width": 1, "dash": dash})
    target = label(evidence.output_names[output])
    centre = evidence.reader.centre_name
    figure.add_scatter(
        x=fitted,
        y=standardised,
        mode="markers",
        name="rows",
        marker={
            "color": blend(evidence.responsibilities[rows]),
            "size": 6 if len(rows) <= 500 else 4,
            "opacity": 0.8 if len(rows) <= 500 else 0.5,
        },
        customdata=observed,
        hovertemplate=(
            f"{target} %{{customdata:.5g}}<br>{centre} %{{x:.5g}}<br>residual %{{y:.2f}} {unit}<extra></extra>"
        ),
    )
    name_axes(figure, f"mixture {centre} of {target}" if evidence.is_likelihood else f"fitted {target}", unit_name)
    return figure


def spread_of_residuals(evidence: Evidence, *, output: int = 0, height: int = 300) -> go.Figure:
    """The root mean square residual in groups of rows of neighbouring fitted values, beside that of all rows."""
    fitted = evidence.output(evidence.fitted, output)
    square = (evidence.output(evidence.observed, output) - fitted) ** 2
    centres, means = grouped_means(evidence, fitted, square[:, None])
    figure = blank_figure(height=height, legend=False)
    whole = float(np.sqrt(np.average(square, weights=evidence.weight)))
    figure.add_hline(y=whole, line={"color": INK, "width": 1.4, "dash": "dot"})
    figure.add_scatter(
        x=centres,
        y=np.sqrt(means[:, 0]),
        mode="lines+markers",
        name="groups",
        line={"color": "#8fa3b3", "width": 2},
        marker={"color": INK, "size": 7},
        hovertemplate="around %{x:.4g}: root mean square %{y:.4g}<extra></extra>",
    )
    figure.update_yaxes(rangemode="tozero")
    name_axes(figure, f"fitted {label(evidence.output_names[output])}", "root mean square residual")
    return figure


def _over(residual: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Residuals over standard deviations; a residual of 0 is 0 also where there is no deviation, any other NaN."""
    positive = deviation > 0.0
    divided = np.divide(residual, deviation, out=np.full_like(residual, np.nan), where=positive)
    return np.where(~positive & (residual == 0.0), 0.0, divided)


def pit_histogram(evidence: Evidence, *, height: int = 300) -> go.Figure:
    """The probability integral transform P(Y ≤ y | x) as a density, beside the uniform one that a true model gives.

    The band holds 95% of the heights that single bars of a uniform sample of Σw rows would have (binomial).

    Raises:
        InputError: the targets are not continuous.
    """
    if evidence.transform is None:
        raise InputError("the targets of this fit are not continuous: they have no probability integral transform")
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


def pit_uniformity(evidence: Evidence) -> tuple[float, float]:
    """The Kolmogorov–Smirnov test of the probability integral transform: D and its p-value, exact for Σw rows.

    D = max |F(u) − u| with F the share of the weights at or below u. The p-value is that of values that are uniform
    without anything fitted to them (Kolmogorov 1933); after a fit to the same rows it is too large (Lilliefors 1967).

    Raises:
        InputError: the targets are not continuous.
    """
    if evidence.transform is None:
        raise InputError("the targets of this fit are not continuous: they have no probability integral transform")
    order = np.argsort(evidence.transform, kind="stable")
    value, weight = evidence.transform[order], evidence.weight[order]
    share = np.cumsum(weight) / weight.sum()
    below = np.concatenate([[0.0], share[:-1]])
    distance = float(max((share - value).max(), (value - below).max()))
    return distance, float(stats.kstwo.sf(distance, max(1, round(float(weight.sum())))))


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
