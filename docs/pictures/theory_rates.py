"""Draws the pictures of the pages on rates and on r̄(m): `python docs/pictures/theory_rates.py` writes them here."""

import math
import sys

import matplotlib.pyplot as plt
import numpy as np
from draw import save
from matplotlib.axes import Axes

from gatewise.report.palette import INK, MUTED, expert_colour
from gatewise.theory import explicit_solution, proved_rates

N = np.logspace(2.0, 7.0, 200)


def how_fast() -> None:
    """The rates of one parameter, b, and what an error of 0.1 costs with three gates."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.5), width_ratios=(1.0, 1.15))
    for i, (atoms, label) in enumerate(((1, "exact"), (2, "two atoms"), (3, "three atoms"))):
        rates = proved_rates(gate="softmax", experts="linear", family="gaussian", true_k=2, fit_k=1 + atoms)
        row = next(r for r in reversed(rates.rows) if r.rate.parameter == "b")
        assert row.exponent is not None
        left.loglog(N, N ** (-0.5 / row.exponent), color=expert_colour(i), lw=2.2, label=f"{label}: {row.text}")
    left.loglog(N, 1.0 / np.log(N), color=MUTED, lw=1.6, ls=(0, (4, 2)), label="1/log n")
    left.set_xlabel("samples n")
    left.set_ylabel("order of the error of b")
    left.set_ylim(2e-4, 1.1)
    left.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), fontsize=7.5, ncols=2, handlelength=1.2)
    headed(left, "softmax gate, Gaussian linear experts")

    kinds = ("gate", "slope", "intercept", "scale")
    gates = (("softmax", "softmax-gaussian-over"), ("laplace", "laplace-over"))
    for i, (gate, identifier) in enumerate(gates):
        rates = proved_rates(gate=gate, experts="linear", family="gaussian", true_k=2, fit_k=4)
        theorem = next(t for t in rates.theorems if t.id == identifier)
        worst = rates.worst(theorem)
        at = np.arange(len(kinds)) + 0.19 * (2 * i - 1)
        right.barh(at, [0.1 ** (-2.0 * worst[kind]) for kind in kinds], 0.36, color=expert_colour(i), label=gate)
    # In every real solution of the polynomial system the gate's displacements are second order.
    right.plot([0.1**-4.0] * 2, [-0.19, 1.0 - 0.19], "D", color=INK, ms=5, label="softmax, by algebra")
    right.set_yticks(range(len(kinds)), kinds)
    right.invert_yaxis()
    right.set_xscale("log")
    right.set_xlim(1.0, 10.0**13)
    right.set_xlabel("samples for an error of 0.1")
    right.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), fontsize=7.5, ncols=3, handlelength=1.2)
    headed(right, "two more experts than there are")
    save(figure, "how-fast")


def r_bar() -> None:
    """What cannot be told from one normal density, and where least squares goes astray."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    z = np.linspace(-5.5, 5.5, 1200)
    for i, m in enumerate((2, 3, 4)):
        solution = explicit_solution(m)
        difference = -normal(z, 0.0, 2.0)
        for weight, node in zip(solution.weights, solution.intercepts, strict=True):
            difference += float(weight) * normal(z, float(node), 1.0)
        changes = int(np.count_nonzero(np.diff(np.sign(difference[np.abs(difference) > 1e-12]))))
        scaled = difference / np.abs(difference).max()
        left.plot(z, scaled, color=expert_colour(i), lw=1.8, label=f"m = {m}: {changes} sign changes")
    left.axhline(0.0, color=MUTED, lw=0.8)
    left.set_ylim(-1.9, 1.1)
    left.set_xlabel("y")
    left.legend(loc="lower center", fontsize=8, handlelength=1.4)
    headed(left, "m atoms minus one, scaled")

    w = np.logspace(-5.0, 0.0, 200)
    right.loglog(w, w * (w**2 + w + 1.0) / 36.0, color=expert_colour(3), lw=2.2)
    right.set_xlabel("weight of one atom for one of the other")
    right.set_ylabel("what is left of order 4")
    headed(right, "two atoms, orders 1 to 3 solved")
    save(figure, "r-bar")


def normal(z: np.ndarray, mean: float, variance: float) -> np.ndarray:
    return np.exp(-((z - mean) ** 2) / (2.0 * variance)) / math.sqrt(2.0 * math.pi * variance)


def headed(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)


DRAWN = {"how-fast": how_fast, "r-bar": r_bar}

if __name__ == "__main__":
    for name in sys.argv[1:] or DRAWN:
        DRAWN[name]()
