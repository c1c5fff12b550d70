"""Draws what the studies of routers found: `python docs/pictures/network_routers.py` writes two pictures here.

network-routers.svg has the differences to a softmax router with their intervals, in-training.svg how the errors of
students of a known mixture fall. Both come from the numbers in docs/.
"""

import json
import sys
from pathlib import Path

import numpy as np
from draw import MUTED, plt, save

from gatewise.report.palette import expert_colour

DOCS = Path(__file__).parents[1]
sys.path.insert(0, str(DOCS.parent / "benchmarks"))


def differences(axes, kept, what, label):
    """One line a model: mean and 95 % interval of its difference to the softmax router."""
    from network_study import difference

    cells = kept["cells"]
    base = [cell[what] for cell in cells["softmax"]]
    found = {name: difference([cell[what] for cell in rows], base) for name, rows in cells.items() if name != "softmax"}
    names = list(found)
    for height, name in enumerate(names):
        one = found[name]
        colour = expert_colour(0) if one.is_clear else MUTED
        axes.plot([one.low, one.high], [height, height], color=colour, lw=2.0)
        axes.plot(one.mean, height, "o", color=colour, ms=5)
    axes.axvline(0.0, color=MUTED, lw=0.8, ls=":", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)


def routers():
    """Text and pictures side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    text, pictures = (json.loads((DOCS / f"network-{name}.json").read_text()) for name in ("text", "pictures"))
    differences(left, text, "bits", "bits per character less softmax's (less is better)")
    differences(right, pictures, "held", "points of accuracy less softmax's (more is better)")
    right.tick_params(labelleft=False)
    left.invert_yaxis()
    save(figure, "network-routers")


def students():
    """Errors of functions and of experts against the number of rows."""
    kept = json.loads((DOCS / "theory" / "network-theory.json").read_text())
    sizes = kept["plan"]["experts"]["sizes"]
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.6), sharex=True)
    names = [name for name in kept["cells"] if name.startswith("teacher: ") and "active" not in name]
    labels = {"excess": "error of the function", "experts": "error of experts"}
    for axes, (what, label) in zip(panels, labels.items(), strict=True):
        for place, name in enumerate(names):
            errors = np.array([cell[what] for cell in kept["cells"][name]])
            mean = np.exp(np.log(errors).mean(0))
            style = "--" if "two-layer" in name else "-"
            short = name.removeprefix("teacher: ")
            axes.plot(sizes, mean, style, marker="o", ms=3, color=expert_colour(place), label=short)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("rows")
        axes.set_ylabel(label)
    panels[0].plot(sizes, [0.08 * sizes[0] / n for n in sizes], color=MUTED, lw=0.8, ls=":")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    save(figure, "in-training")


if __name__ == "__main__":
    routers()
    students()
