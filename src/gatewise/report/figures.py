"""The fitted model beside the data: experts, bands and gate, as plotly figures."""

import numpy as np
import plotly.graph_objects as go

from gatewise.report.evidence import DRAWN_ROWS, Evidence, Profile
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
    translucent,
)

__all__ = ["expert_lines", "gate_along", "gate_constant"]

# Below this weight an expert is hardly ever chosen and its line is drawn faintly: it extrapolates there.
_FAINT_BELOW = 0.05
_GATE_GROUPS = 12
# Responsibilities named when the pointer rests on a row.
_SHOWN_SHARES = 6


def expert_lines(
    evidence: Evidence, feature: int = 0, *, limit: int = DRAWN_ROWS, legend: bool = True, height: int = 440
) -> go.Figure:
    """Rows coloured by responsibility, the experts' lines with 90% bands, the mixture's mean and 90% interval.

    With several features the others are held at their weighted means, and the points are partial residuals
    (`Evidence.adjusted_target`), so that they lie around the lines.

    Args:
        evidence: a fitted mixture and its rows.
        feature: column of `evidence.inputs` along the horizontal axis.
        limit: the largest number of points drawn.
        legend: whether the figure carries its own legend.
        height: in pixels.
    """
    profile = evidence.profile(feature)
    figure = blank_figure(height=height, legend=legend)
    if evidence.n_experts > 1:
        _add_interval(figure, profile)
    for expert in range(evidence.n_experts):
        _add_band(figure, profile, expert)
    _add_rows(figure, evidence, feature, limit)
    for expert in range(evidence.n_experts):
        _add_line(figure, profile, expert)
    if evidence.n_experts > 1:
        figure.add_scatter(
            x=profile.grid,
            y=profile.mean,
            mode="lines",
            name="mixture mean",
            line={"color": INK, "width": 1.6, "dash": "dot"},
            hovertemplate="mixture mean %{y:.4g}<extra></extra>",
        )
    target = label(evidence.estimator.target_name_)
    partial = evidence.inputs.shape[1] > 1
    name_axes(figure, label(evidence.feature_names[feature]), f"{target}, others at their means" if partial else target)
    return figure


def gate_along(evidence: Evidence, feature: int, *, legend: bool = True, height: int = 300) -> go.Figure:
    """Gate probabilities along one gate feature, the others at their weighted means.

    Where the gate has one feature, dots show the mean responsibility in groups of neighbouring rows: at a maximum
    they scatter around the lines. Ticks at the foot mark where the rows lie.

    Args:
        evidence: a fitted mixture and its rows.
        feature: column of `evidence.inputs` along the horizontal axis.
        legend: whether the figure carries its own legend.
        height: in pixels.
    """
    profile = evidence.profile(feature)
    figure = blank_figure(height=height, legend=legend)
    rows = evidence.drawn(400)
    figure.add_scatter(
        x=evidence.inputs[rows, feature],
        y=np.full(len(rows), -0.045),
        mode="markers",
        name="rows",
        marker={"symbol": "line-ns-open", "size": 7, "color": translucent(MUTED, 0.45)},
        hoverinfo="skip",
        showlegend=False,
    )
    for expert in range(evidence.n_experts):
        colour = expert_colour(expert)
        figure.add_scatter(
            x=profile.grid,
            y=profile.gate_weights[:, expert],
            mode="lines",
            name=f"Expert {expert + 1}",
            line={"color": colour, "width": 2.6, "dash": expert_dash(expert)},
            hovertemplate=f"Expert {expert + 1}: %{{y:.1%}}<extra></extra>",
        )
    if len(evidence.gate_features) == 1:
        centres, means = _grouped_responsibilities(evidence, feature)
        for expert in range(evidence.n_experts):
            figure.add_scatter(
                x=centres,
                y=means[:, expert],
                mode="markers",
                name=f"Expert {expert + 1}, mean responsibility",
                marker={"color": "#ffffff", "size": 7, "line": {"color": expert_colour(expert), "width": 1.8}},
                hovertemplate=f"Expert {expert + 1}, mean responsibility %{{y:.1%}}<extra></extra>",
                showlegend=False,
            )
    figure.update_layout(hovermode="x")
    figure.update_yaxes(range=[-0.08, 1.03], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    name_axes(figure, label(evidence.feature_names[feature]), "gate probability")
    return figure


def gate_constant(evidence: Evidence) -> go.Figure:
    """The weights of a gate without features, one bar per expert."""
    weights = evidence.gate_weights[0]
    names = [f"Expert {expert + 1}" for expert in range(evidence.n_experts)]
    figure = blank_figure(height=96 + 34 * len(names), legend=False)
    figure.add_bar(
        x=weights,
        y=names,
        orientation="h",
        marker={"color": [expert_colour(expert) for expert in range(len(names))]},
        text=[f"{weight:.1%}" for weight in weights],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.2%}<extra></extra>",
    )
    figure.update_xaxes(range=[0, 1.06], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    name_axes(figure, "weight, the same for every row", "")
    return figure


def _add_interval(figure: go.Figure, profile: Profile) -> None:
    figure.add_scatter(
        x=np.concatenate([profile.grid, profile.grid[::-1]]),
        y=np.concatenate([profile.low, profile.high[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=BAND,
        line={"width": 0},
        name="90% interval of the mixture",
        legendrank=2000,
        hoverinfo="skip",
    )


def _add_band(figure: go.Figure, profile: Profile, expert: int) -> None:
    x, y, gap = [np.empty(0)], [np.empty(0)], [np.nan]
    for start, stop in _runs(profile.gate_weights[:, expert] >= _FAINT_BELOW):
        grid, low, high = (
            values[start:stop]
            for values in (profile.grid, profile.expert_low[:, expert], profile.expert_high[:, expert])
        )
        x += [grid, grid[::-1], gap]
        y += [low, high[::-1], gap]
    figure.add_scatter(
        x=np.concatenate(x),
        y=np.concatenate(y),
        mode="lines",
        fill="toself",
        fillcolor=translucent(expert_colour(expert), 0.16),
        line={"width": 0},
        name=f"Expert {expert + 1}, 90% band",
        legendgroup=f"expert {expert + 1}",
        showlegend=False,
        hoverinfo="skip",
    )


def _add_rows(figure: go.Figure, evidence: Evidence, feature: int, limit: int) -> None:
    rows = evidence.drawn(limit)
    target, name = label(evidence.estimator.target_name_), label(evidence.feature_names[feature])
    shares = "".join(
        f"<br>expert {expert + 1}: %{{customdata[{expert}]:.1%}}"
        for expert in range(min(evidence.n_experts, _SHOWN_SHARES))
    )
    figure.add_scatter(
        x=evidence.inputs[rows, feature],
        y=evidence.adjusted_target(feature, rows),
        mode="markers",
        name="rows",
        marker={
            "color": blend(evidence.responsibilities[rows]),
            "size": 7 if len(rows) <= 500 else 5,
            "opacity": 0.85 if len(rows) <= 500 else 0.55,
            "line": {"color": "#ffffff", "width": 0.6 if len(rows) <= 500 else 0},
        },
        customdata=evidence.responsibilities[rows, :_SHOWN_SHARES].astype(np.float32),
        hovertemplate=f"{name} %{{x:.5g}}<br>{target} %{{y:.5g}}{shares}<extra></extra>",
        showlegend=False,
    )


def _add_line(figure: go.Figure, profile: Profile, expert: int) -> None:
    colour, dash = expert_colour(expert), expert_dash(expert)
    means = profile.expert_means[:, expert]
    likely = profile.gate_weights[:, expert] >= _FAINT_BELOW
    name, group = f"Expert {expert + 1}", f"expert {expert + 1}"
    hover = f"{name} %{{y:.4g}}<extra></extra>"
    if not likely.all():
        figure.add_scatter(
            x=profile.grid,
            y=means,
            mode="lines",
            name=f"{name}, weight below 5%",
            legendgroup=group,
            showlegend=False,
            line={"color": translucent(colour, 0.4), "width": 1.2, "dash": dash},
            hovertemplate=hover,
        )
    figure.add_scatter(
        x=profile.grid,
        y=np.where(likely, means, np.nan),
        mode="lines",
        name=name,
        legendgroup=group,
        line={"color": colour, "width": 2.6, "dash": dash},
        hovertemplate=hover,
    )


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open index ranges over which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _grouped_responsibilities(evidence: Evidence, feature: int) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of one feature (g,) and of the responsibilities (g, k) in groups of rows of about equal weight."""
    column = evidence.inputs[:, feature]
    order = np.argsort(column, kind="stable")
    share = np.cumsum(evidence.weight[order]) / evidence.weight.sum()
    group = np.empty(len(column), dtype=int)
    n_groups = min(_GATE_GROUPS, max(1, evidence.n_rows // 5))
    group[order] = np.minimum((share * n_groups * (1.0 - 1e-12)).astype(int), n_groups - 1)
    mass = np.bincount(group, evidence.weight, n_groups)
    used = mass > 0.0

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, evidence.weight * values, n_groups)[used] / mass[used]

    responsibilities = [mean(evidence.responsibilities[:, expert]) for expert in range(evidence.n_experts)]
    return mean(column), np.column_stack(responsibilities)
