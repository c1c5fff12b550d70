"""The weights that the gate gives its experts: along features, over a plane, and down a tree."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from gatewise.gates import Gate
from gatewise.report.evidence import Evidence
from gatewise.report.figures import grouped_means
from gatewise.report.palette import (
    INK,
    MUTED,
    blank_figure,
    blend,
    blend_with_white,
    expert_colour,
    expert_dash,
    label,
    name_axes,
    translucent,
)

__all__ = ["Branch", "gate_along", "gate_constant", "leading_expert", "tree_of"]

_MAP_POINTS = 71
_MAP_ROWS = 400


def gate_along(evidence: Evidence, feature: int, *, legend: bool = True, height: int = 300) -> go.Figure:
    """The experts' weights along one gate feature, the others at their weighted means.

    Where the gate has one feature, dots show the mean responsibility in groups of neighbouring rows: at a maximum of
    the likelihood they scatter around the lines. Weights that are not normalised have their sum beside them. Ticks at
    the foot mark where the rows lie.

    Args:
        evidence: a fitted mixture and its rows.
        feature: column of `evidence.inputs` along the horizontal axis.
        legend: whether the figure carries its own legend.
        height: in pixels.
    """
    profile = evidence.profile(feature, bands=False)
    normalised = evidence.model.is_normalised
    figure, axis = blank_figure(height=height, legend=legend), evidence.axis(feature)
    rows = evidence.drawn(400)
    total = profile.gate_weights.sum(axis=1)
    top = 1.0 if normalised else max(1.0, float(total.max()))
    figure.add_scatter(
        x=axis.rows(evidence.inputs[:, feature])[rows],
        y=np.full(len(rows), -0.045 * top),
        mode="markers",
        name="rows",
        marker={"symbol": "line-ns-open", "size": 7, "color": translucent(MUTED, 0.45)},
        hoverinfo="skip",
        showlegend=False,
    )
    for expert in range(evidence.n_experts):
        shown = "%{y:.1%}" if normalised else "%{y:.4g}"
        x, y = axis.line(profile.grid, profile.gate_weights[:, expert])
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=f"Expert {expert + 1}",
            line={"color": expert_colour(expert), "width": 2.6, "dash": expert_dash(expert)},
            hovertemplate=f"Expert {expert + 1}: {shown}<extra></extra>",
        )
    if not normalised:
        x, y = axis.line(profile.grid, total)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name="sum of the weights",
            line={"color": INK, "width": 1.4, "dash": "dot"},
            hovertemplate="sum %{y:.4g}<extra></extra>",
        )
    if len(evidence.gate_features) == 1 and evidence.is_likelihood:
        _add_mean_responsibilities(figure, evidence, feature)
    figure.update_layout(hovermode="x")
    figure.update_yaxes(range=[-0.08 * top, 1.03 * top])
    if normalised:
        figure.update_yaxes(tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    axis.mark(figure)
    name_axes(figure, label(evidence.feature_names[feature]), "gate probability" if normalised else "gate weight")
    return figure


def _add_mean_responsibilities(figure: go.Figure, evidence: Evidence, feature: int) -> None:
    centres, means = grouped_means(evidence, evidence.inputs[:, feature], evidence.responsibilities)
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


def gate_constant(evidence: Evidence) -> go.Figure:
    """The weights of a gate without features, one bar per expert."""
    weights = evidence.gate_weights[0]
    normalised = evidence.model.is_normalised
    names = [f"Expert {expert + 1}" for expert in range(evidence.n_experts)]
    figure = blank_figure(height=96 + 34 * len(names), legend=False)
    figure.add_bar(
        x=weights,
        y=names,
        orientation="h",
        marker={"color": [expert_colour(expert) for expert in range(len(names))]},
        text=[f"{weight:.1%}" if normalised else f"{weight:.4g}" for weight in weights],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.2%}<extra></extra>" if normalised else "%{y}: %{x:.4g}<extra></extra>",
    )
    if normalised:
        figure.update_xaxes(range=[0, 1.06], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    else:
        figure.update_xaxes(range=[0, 1.12 * max(1.0, float(weights.max()))])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    name_axes(figure, "weight, the same for every row", "")
    return figure


def leading_expert(evidence: Evidence, *, height: int = 420) -> go.Figure:
    """Which expert has the largest weight over the plane of two gate features, and how large its share is.

    The colour is the leading expert's, pale where its share of the weights is near 1/k and full where it is near 1. All
    features that the gate does not see are irrelevant here. Dots are rows, in the colours of their responsibilities.

    Args:
        evidence: a fitted mixture whose gate has two features, and its rows.
        height: in pixels.
    """
    across, up = evidence.gate_features
    columns = [evidence.inputs[:, feature] for feature in (across, up)]
    axes = [evidence.axis(feature) for feature in (across, up)]
    grids = [
        np.linspace(column.min(), column.max(), _MAP_POINTS) if axis.categories is None else axis.categories
        for column, axis in zip(columns, axes, strict=True)
    ]
    plane = np.meshgrid(*grids)
    points = np.tile(evidence.centre(), (plane[0].size, 1))
    points[:, across], points[:, up] = plane[0].ravel(), plane[1].ravel()
    weights = evidence.reader.weights(points)
    total = weights.sum(axis=1, keepdims=True)
    share = weights / np.where(total > 0.0, total, 1.0)
    k = evidence.n_experts
    leader, largest = share.argmax(axis=1), share.max(axis=1)
    strength = np.clip((largest - 1.0 / k) / (1.0 - 1.0 / k), 0.0, 0.999)
    scale: list[list[object]] = []
    for expert in range(k):
        colour = expert_colour(expert)
        pale = blend_with_white(colour, 0.12)
        scale += [[expert / k, pale], [(expert + 1) / k, blend_with_white(colour, 0.75)]]
    figure = blank_figure(height=height, legend=False)
    shape = plane[0].shape
    names = [label(evidence.feature_names[feature]) for feature in (across, up)]
    figure.add_heatmap(
        x=grids[0],
        y=grids[1],
        z=np.round(leader + strength, 3).reshape(shape),
        zmin=0,
        zmax=k,
        colorscale=scale,
        showscale=False,
        customdata=np.dstack([leader.reshape(shape) + 1, np.round(largest, 4).reshape(shape)]),
        hovertemplate=(
            f"{names[0]} %{{x:.4g}}<br>{names[1]} %{{y:.4g}}<br>expert %{{customdata[0]:.0f}}: %{{customdata[1]:.1%}}"
            "<extra></extra>"
        ),
        name="leading expert",
    )
    rows = evidence.drawn(_MAP_ROWS)
    figure.add_scatter(
        x=axes[0].rows(columns[0])[rows],
        y=axes[1].rows(columns[1])[rows],
        mode="markers",
        name="rows",
        marker={
            "color": blend(evidence.responsibilities[rows]),
            "size": 5,
            "line": {"color": "#ffffff", "width": 0.8},
        },
        hoverinfo="skip",
    )
    for axis, place in zip(axes, ("xaxis", "yaxis"), strict=True):
        axis.mark(figure, place)
    name_axes(figure, *names)
    return figure


@dataclass(frozen=True)
class Branch:
    """A node of a tree of gates.

    Attributes:
        depth: 0 for the groups of the outermost gate.
        name: of the group or the expert.
        expert: the expert's number from 0 on, or None for a group.
        chosen_by: the kind of the gate that weighs it against its siblings.
        weight: the mean over the rows of the weights of all its experts.
    """

    depth: int
    name: str
    expert: int | None
    chosen_by: str
    weight: float


def tree_of(evidence: Evidence) -> list[Branch]:
    """The nodes of a hierarchical gate, each before its children; none for other gates."""
    weight = np.average(evidence.gate_weights, axis=0, weights=evidence.weight)
    return _branches(evidence.model.gate.dense, "", 0, 0, weight)


def _branches(gate: Gate, above: str, depth: int, first: int, weight: np.ndarray) -> list[Branch]:
    """The nodes below a gate whose first expert has the number `first`; `above` is its own number in the tree."""
    found = []
    for number, inner in enumerate(gate.branches, 1):
        own = f"{above}{number}"
        chosen_by = gate.root.name.replace("_", " ")
        experts = range(first, first + inner.n_experts)
        mass = float(weight[experts.start : experts.stop].sum())
        if inner.n_experts == 1:
            found.append(Branch(depth, f"Expert {first + 1}", first, chosen_by, mass))
        else:
            found.append(Branch(depth, f"Group {own}", None, chosen_by, mass))
            if inner.branches:
                found += _branches(inner, f"{own}.", depth + 1, first, weight)
            else:
                kind = inner.name.replace("_", " ")
                found += [Branch(depth + 1, f"Expert {i + 1}", i, kind, float(weight[i])) for i in experts]
        first = experts.stop
    return found
