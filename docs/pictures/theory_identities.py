"""Draws the pictures of the pages on identities: `python docs/pictures/theory_identities.py` writes them here."""

import sys

import matplotlib.pyplot as plt
import numpy as np
from draw import save
from matplotlib.axes import Axes

from gatewise.report.palette import INK, MUTED, expert_colour
from gatewise.theory import identify


def headed(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)


def normal(y: np.ndarray, mean: float, variance: float) -> np.ndarray:
    return np.exp(-((y - mean) ** 2) / (2.0 * variance)) / np.sqrt(2.0 * np.pi * variance)


def identities() -> None:
    """Location and scale, by differences; and singular values of three experts."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.3))
    y, step = np.linspace(-4.0, 4.0, 401), 1e-3
    by_location = (normal(y, step, 1.0) - 2.0 * normal(y, 0.0, 1.0) + normal(y, -step, 1.0)) / step**2
    by_variance = (normal(y, 0.0, 1.0 + step) - normal(y, 0.0, 1.0 - step)) / (2.0 * step)
    left.plot(y, by_location, color=expert_colour(0), lw=4.5, alpha=0.45, label="∂²f/∂b²")
    left.plot(y, 2.0 * by_variance, color=INK, lw=1.4, ls=(0, (4, 2)), label="2 ∂f/∂s")
    left.plot(y, normal(y, 0.0, 1.0), color=MUTED, lw=1.0, ls=":", label="f")
    left.set_xlabel("y")
    left.legend(loc="upper right", fontsize=8, handlelength=1.6)
    headed(left, "one function twice")
    for i, (name, label) in enumerate((("linear", "linear"), ("ridge", "tanh unit"), ("constant", "constant"))):
        values = identify("softmax", name, n_features=2).rank.singular_values
        numbers = np.arange(1, len(values) + 1) + 0.12 * (i - 1)
        right.plot(numbers, np.log10(values), "o", color=expert_colour(i), ms=4.0, label=label)
    right.set_xlabel("number")
    right.set_ylabel("log₁₀ of the singular value")
    right.legend(loc="center right", fontsize=8, handletextpad=0.2)
    headed(right, "derivatives of order 0, 1, 2; d = 2")
    save(figure, "identities")


def response(x: np.ndarray, top: float) -> np.ndarray:
    return top / (1.0 + np.exp(-x))


def design() -> None:
    """Two tops that are one mean, and how far a split is from one expert."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.3))
    x = np.linspace(-4.0, 4.0, 200)
    for i, top in enumerate((2.0, 1.0)):
        left.plot(x, response(x, top), color=expert_colour(i), lw=1.8, label=f"top {top:g}, weight ½")
    mean = 0.5 * (response(x, 2.0) + response(x, 1.0))
    left.plot(x, mean, color=INK, lw=3.5, alpha=0.35, label="their mean")
    left.plot(x, response(x, 1.5), color=INK, lw=1.2, ls=(0, (4, 2)), label="top 1.5, weight 1")
    left.set_xlabel("log-dose")
    left.set_ylabel("response")
    left.legend(loc="upper left", fontsize=8, handlelength=1.6)
    headed(left, "a split of the top")
    steps = np.logspace(-2.0, -0.3, 12)
    y = np.linspace(-2.0, 4.0, 2001)
    halves = [0.5 * (normal(y, 1.0 + t, 0.09) + normal(y, 1.0 - t, 0.09)) for t in steps]
    square = np.array([np.abs(half - normal(y, 1.0, 0.09)).max() for half in halves])
    means = [abs(0.5 * (response(x, 1.5 + t) + response(x, 1.5 - t)) - response(x, 1.5)).max() for t in steps]
    right.loglog(steps, square, "o-", color=expert_colour(0), ms=3.5, label="densities")
    right.loglog(steps, square[0] * (steps / steps[0]) ** 2, color=MUTED, lw=1.0, ls=":", label="a multiple of δ²")
    right.loglog(steps, np.maximum(means, 1e-17), "s", color=expert_colour(1), ms=3.5, label="means: 0 up to rounding")
    right.set_xlabel("split δ")
    right.set_ylabel("largest difference")
    right.legend(loc="center right", fontsize=8)
    headed(right, "what the data can see")
    save(figure, "design-an-expert")


if __name__ == "__main__":
    drawn = {"identities": identities, "design": design}
    for name in sys.argv[1:] or drawn:
        drawn[name]()
