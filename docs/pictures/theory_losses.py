"""Draws the picture of the page on losses: `python docs/pictures/theory_losses.py` writes it beside this file."""

import matplotlib.pyplot as plt
import numpy as np
from draw import save
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from gatewise.report.palette import MUTED, blend_with_white, expert_colour
from gatewise.theory import MixingMeasure, voronoi_loss

ERRORS = np.logspace(-4.0, -0.5, 36)


def cells(axes: Axes) -> None:
    """Five fitted atoms in the cells of three true ones, in the plane of the experts' lines."""
    true = np.array([[-1.0, 0.6], [0.9, 1.0], [0.4, -1.0]])
    fitted = np.array([[-0.9, 0.75], [-1.2, 0.35], [1.05, 0.85], [0.25, -0.75], [0.65, -1.15]])
    grid = np.stack(np.meshgrid(np.linspace(-2.0, 2.0, 600), np.linspace(-2.0, 2.0, 600)), axis=-1)
    owner = ((grid[..., None, :] - true) ** 2).sum(-1).argmin(-1)
    colours = ListedColormap([blend_with_white(expert_colour(j), 0.13) for j in range(3)])
    axes.imshow(owner, origin="lower", extent=(-2.0, 2.0, -2.0, 2.0), cmap=colours, interpolation="nearest")
    for one in fitted:
        j = int(((one - true) ** 2).sum(-1).argmin())
        axes.plot(*np.stack([one, true[j]]).T, color=expert_colour(j), lw=1.4)
        axes.plot(*one, "o", color=expert_colour(j), ms=6.0)
    for j, one in enumerate(true):
        axes.plot(*one, "+", color=expert_colour(j), ms=13.0, mew=2.4)
    axes.set_xlabel("slope a")
    axes.set_ylabel("intercept b")
    axes.grid(visible=False)
    axes.set_title("cells: + true, ● fitted", loc="left", fontsize=10)


def anchored(error: float) -> MixingMeasure:
    """Three atoms, anchored at the last, of which the second is a duplicate in the last one's cell."""
    signs = np.array([1.0, 1.0, -1.0])
    return MixingMeasure(
        [2.0 * np.exp(-8.0), 1.0, 1.0],
        {
            "gate_slope": np.array([25.0 + error, -error, 0.0]),
            "expert_slope": np.array([-20.0, 20.0, 20.0]) + error * signs,
            "expert_intercept": np.array([15.0, -5.0, -5.0]) + error * signs,
            "variance": [0.09, 0.16 + 0.1 * error, 0.16],
        },
    )


def trap(axes: Axes) -> None:
    """The loss of fits that converge, with and without the infimum."""
    truth = MixingMeasure(
        np.exp([-8.0, 0.0]),
        {
            "gate_slope": [25.0, 0.0],
            "expert_slope": [-20.0, 20.0],
            "expert_intercept": [15.0, -5.0],
            "variance": [0.09, 0.16],
        },
    )
    for i, (symmetry, label) in enumerate((("none", "as anchored"), ("infimum", "infimum over copies"))):
        values = [voronoi_loss(anchored(error), truth, "D2", symmetry=symmetry).value for error in ERRORS]
        axes.loglog(ERRORS, values, color=expert_colour(i), lw=2.2, label=label)
    axes.loglog(ERRORS, ERRORS**2, color=MUTED, lw=1.2, ls=(0, (4, 2)), label="error²")
    axes.set_xlabel("error of every parameter")
    axes.set_title("D2 of a fit with three atoms", loc="left", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)


def main() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.3), width_ratios=(1.0, 1.15))
    cells(left)
    trap(right)
    save(figure, "losses")


if __name__ == "__main__":
    main()
