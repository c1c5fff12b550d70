"""Draws the weights of each gate in one and in two dimensions: `python docs/pictures/gates.py` writes `gates/*.svg`.

Left, π(x) of three experts along one input. Right, the three colours mixed by the weights of two inputs, with white
lines where the largest weight changes hands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from draw import save
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from scipy.ndimage import distance_transform_edt

from gatewise.gates import Gate, build_gate
from gatewise.report.palette import INK, MUTED, expert_colour

K = 3
SIDE = 3.0
# Colours of the two-dimensional panel are this share of the palette's, the rest is white.
STRENGTH = 0.62
COLOURS = np.array([mpl.colors.to_rgb(expert_colour(i)) for i in range(K)])


@dataclass
class Picture:
    """The parameters of one gate in one and in two dimensions, and what is drawn thinly beside its weights.

    Attributes:
        gate: its registered name.
        line: its parameters for one input.
        plane: its parameters for two inputs.
        options: of the gate.
        plane_options: of the gate of two inputs, where they differ.
        thin: name, options and parameters of a gate of one input to compare with.
        thin_label: what that is.
    """

    gate: str
    line: Mapping[str, Any]
    plane: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    plane_options: Mapping[str, Any] | None = None
    thin: tuple[str, Mapping[str, Any], Mapping[str, Any]] | None = None
    thin_label: str = ""


def build(name: str, n_features: int, parameters: Mapping[str, Any], options: Mapping[str, Any]) -> Gate:
    gate = build_gate(name, n_features, K, **options).double()
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in parameters.items()}
    gate.assign_parameters({**gate.own_parameters(), **given})
    return gate


@torch.no_grad()
def weights(gate: Gate, x: np.ndarray) -> np.ndarray:
    return gate(torch.from_numpy(x)).exp().numpy()


def broken(values: np.ndarray) -> np.ndarray:
    """The values with NaN where they jump, so that no line is drawn across."""
    values = values.copy()
    values[1:][np.abs(np.diff(values, axis=0)) > 0.04] = np.nan
    return values


def draw_line(axes: Axes, picture: Picture) -> None:
    x = np.linspace(-SIDE, SIDE, 1201)
    # A sharp gate changes by much from one point to the next without jumping: only these two jump.
    jumps = picture.gate in ("top_k", "cosine")
    for i, curve in enumerate(weights(build(picture.gate, 1, picture.line, picture.options), x[:, None]).T):
        axes.plot(x, broken(curve) if jumps else curve, color=expert_colour(i), lw=2.0, label=f"expert {i + 1}")
    if picture.thin is not None:
        name, options, parameters = picture.thin
        for i, curve in enumerate(weights(build(name, 1, parameters, options), x[:, None]).T):
            axes.plot(x, curve, color=expert_colour(i), lw=1.1, ls=(0, (3, 2)))
        axes.plot([], [], color=MUTED, lw=1.1, ls=(0, (3, 2)), label=picture.thin_label)
    axes.set_xlim(-SIDE, SIDE)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axes.set_xlabel("x")
    axes.set_ylabel("weight π(x)")
    columns = K + (picture.thin is not None)
    legend = axes.legend(loc="lower left", ncols=columns, handlelength=1.4, bbox_to_anchor=(-0.01, 1.0))
    # A wide legend must not make the panel narrow: all pictures have panels of one size.
    legend.set_in_layout(False)


def draw_plane(axes: Axes, picture: Picture) -> None:
    side = np.linspace(-SIDE, SIDE, 181)
    first, second = np.meshgrid(side, side)
    options = picture.options if picture.plane_options is None else picture.plane_options
    gate = build(picture.gate, 2, picture.plane, options)
    share = weights(gate, np.column_stack([first.ravel(), second.ravel()]))
    share = share / share.sum(axis=1, keepdims=True)
    colours = 1.0 - STRENGTH * (1.0 - share @ COLOURS)
    extent = (-SIDE, SIDE, -SIDE, SIDE)
    image = np.rint(255.0 * colours).astype(np.uint8).reshape(*first.shape, 3)
    axes.imshow(image, origin="lower", extent=extent, interpolation="none", zorder=0)
    for i in range(K):
        lead = share[:, i] - np.delete(share, i, axis=1).max(axis=1)
        axes.contour(first, second, lead.reshape(first.shape), [0.0], colors="white", linewidths=1.1)
        x, y = label_place(side, lead.reshape(first.shape) > 0.0)
        if "centre" in picture.plane:
            (x, y), nudge = picture.plane["centre"][i], 0.32
            axes.plot(x, y, "+", color=INK, ms=6, mew=1.0)
            x, y = x + nudge, y + nudge
        axes.text(x, y, str(i + 1), color=INK, ha="center", va="center", fontsize=11)
    if "log_diagonal" in picture.plane:
        draw_ellipses(axes, gate)
    axes.set_xlabel("x₁")
    axes.set_ylabel("x₂", labelpad=0.0)
    axes.set_xticks([-2, 0, 2])
    axes.set_yticks([-2, 0, 2])
    axes.grid(visible=False)


def label_place(side: np.ndarray, region: np.ndarray) -> tuple[float, float]:
    """The point of a region that is farthest from its boundary and the panel's."""
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return side[column], side[row]


def draw_ellipses(axes: Axes, gate: Gate) -> None:
    """The ellipses of one standard deviation around the centres."""
    atoms = gate.atoms()
    for centre, covariance in zip(atoms["gate_centre"].numpy(), atoms["gate_covariance"].numpy(), strict=True):
        lengths, directions = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
        width, height = 2.0 * np.sqrt(lengths[::-1])
        axes.add_patch(Ellipse(centre, width, height, angle=angle, fill=False, ec=INK, lw=0.7, ls=(0, (2, 2))))


def star(length: float) -> list[list[float]]:
    """Three vectors of this length, 120 degrees apart."""
    return [[length * np.cos(a), length * np.sin(a)] for a in np.radians([90.0, 210.0, 330.0])]


SLOPES = {"weight": [[-2.0], [0.0], [2.0]], "bias": [-1.0, 0.5, -1.5]}
PLANE = {"weight": star(1.5), "bias": [0.0, 0.4, -0.4]}

PICTURES = [
    Picture("softmax", SLOPES, PLANE),
    Picture(
        "modified_softmax",
        {"weight": [[-4.0], [0.0], [4.0]], "bias": [-1.0, 0.5, -1.5]},
        {"weight": star(4.0), "bias": [0.0, 0.4, -0.4]},
        thin=("softmax", {}, {"weight": [[-4.0], [0.0], [4.0]], "bias": [-1.0, 0.5, -1.5]}),
        thin_label="without tanh",
    ),
    Picture(
        "dense_to_sparse",
        SLOPES,
        PLANE,
        {"temperature": 0.2},
        thin=("dense_to_sparse", {}, SLOPES),
        thin_label="τ = 1",
    ),
    Picture(
        "activation_dense_to_sparse",
        {"weight": [[-1.5], [0.3], [2.5]], "bias": [-0.2, 0.3, -0.1]},
        {"weight": star(1.5), "bias": [0.0, 0.1, -0.1]},
        {"temperature": 0.3},
    ),
    Picture(
        "hierarchical",
        {
            "outer.weight": [[-1.5], [1.5]],
            "outer.bias": [0.5, 0.0],
            "inner.0.weight": [[-3.0], [3.0]],
            "inner.0.bias": [-4.0, 4.0],
        },
        {
            "outer.weight": [[0.0, 1.5], [0.0, -1.5]],
            "outer.bias": [0.3, 0.0],
            "inner.0.weight": [[-2.0, 0.5], [2.0, -0.5]],
            "inner.0.bias": [0.0, 0.0],
        },
        {"groups": [2, 1]},
    ),
    Picture(
        "cosine",
        {"weight": [[-1.0], [1.0], [1.0]], "bias": [0.0, 1.0, -1.0]},
        {"weight": star(1.0), "bias": [0.0, 0.5, -0.5]},
        {"temperature": 0.5},
    ),
    Picture(
        "perturbed_cosine",
        {"weight": [[-2.0], [0.1], [2.0]], "bias": [-0.3, 0.4, -0.5]},
        {"weight": star(2.0), "bias": [0.0, 0.2, -0.2]},
        {"tau1": 0.1, "tau2": 1.0},
    ),
    Picture(
        "sigmoid",
        {"weight": [[-3.0], [2.0], [4.0]], "bias": [-1.0, 2.0, -4.0]},
        {"weight": star(2.5), "bias": [0.0, 0.5, -0.5]},
        thin=("sigmoid", {"normalised": False}, {"weight": [[-3.0], [2.0], [4.0]], "bias": [-1.0, 2.0, -4.0]}),
        thin_label="σᵢ itself",
    ),
    Picture(
        "laplace",
        {"centre": [[-1.5], [0.3], [1.8]], "bias": [0.0, 0.2, 0.6]},
        {"centre": [[0.0, 1.6], [-1.6, -1.0], [1.4, -1.0]], "bias": [0.0, 0.4, -0.2]},
    ),
    Picture(
        "gaussian",
        {"centre": [[-1.5], [0.3], [1.8]], "log_diagonal": [[0.2], [-0.8], [-0.2]], "log_weight": [0.0, 0.0, 0.0]},
        {
            "centre": [[0.0, 1.4], [-1.4, -1.0], [1.4, -0.8]],
            "log_diagonal": [[0.2, -0.6], [-0.4, -0.2], [-0.7, -0.1]],
            "lower": [[0.3], [0.4], [-0.4]],
            "log_weight": [0.0, 0.0, 0.0],
        },
    ),
    Picture(
        "quadratic",
        {"weight": [[-1.0], [0.0], [1.5]], "bias": [-1.0, 1.2, 0.0], "quadratic": [[0.4], [-0.8], [0.0]]},
        {
            "weight": [[0.0, 1.0], [-0.5, 0.0], [0.5, 0.0]],
            "bias": [-2.0, 0.8, 0.0],
            "quadratic": [[0.2, 0.0, 0.6], [-0.7, 0.0, -0.7], [0.2, 0.8, -0.2]],
        },
    ),
    Picture(
        "top_k",
        {f"inner.{name}": value for name, value in SLOPES.items()},
        {f"inner.{name}": value for name, value in PLANE.items()},
        {"n_active": 2},
        thin=("softmax", {}, SLOPES),
        thin_label="without selection",
    ),
]


def draw(picture: Picture) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4), width_ratios=[1.75, 1.0])
    # Room for the legend, which the layout does not see.
    figure.get_layout_engine().set(rect=(0.0, 0.0, 1.0, 0.915))
    draw_line(left, picture)
    draw_plane(right, picture)
    save(figure, f"gates/{picture.gate.replace('_', '-')}")


if __name__ == "__main__":
    for picture in PICTURES:
        draw(picture)
