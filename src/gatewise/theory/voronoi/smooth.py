"""The least loss of fixed cells over a translation of several coordinates: a convex problem with kinks.

Norms are smoothed, ‖u‖ to (‖u‖² + ε²)^½, and ε goes to rounding while Newton's method follows the minimiser.
Inequalities are kept by a logarithmic barrier whose weight goes to 0 with ε.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gatewise.theory.voronoi.kernel import FIXED, MOVE_CELLS, MOVE_ESTIMATE, Problem, parts, total

__all__ = ["Halfspaces", "fixed_cells_minimum"]

_Function = Callable[[np.ndarray, float], tuple[float, np.ndarray, np.ndarray]]

_STEPS = 60
# Where kinks and inequalities meet, Newton's method loses a minimiser that moves too fast.
_FAST, _SLOW = 0.1, 0.3
_MOST_STAGES = 100
_SMALLEST = 1e-15
_BARRIER = 1e-13
_REPEATS = 5
_RATIOS = 60


@dataclass(frozen=True)
class Halfspaces:
    """The set normal · t ≤ level, rows of (n, T) and (n,), with a point in its interior."""

    normal: np.ndarray
    level: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class _Terms:
    """Σ factor (constant + ‖mask (t − centre)‖²)^(power / 2), and the cell of each term."""

    factor: np.ndarray
    power: np.ndarray
    constant: np.ndarray
    centre: np.ndarray
    mask: np.ndarray
    cell: np.ndarray

    def at(self, t: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (n,), gradients (n, T) and Hessians (n, T, T) of the smoothed terms."""
        away = self.mask * (t - self.centre)
        square = self.constant + epsilon**2 + (away**2).sum(1)
        value = self.factor * square ** (0.5 * self.power)
        slope = self.power * value / square
        bend = (self.power - 2.0) * slope / square
        hessian = slope[:, None, None] * (self.mask[:, :, None] * np.eye(len(t)))
        return value, slope[:, None] * away, hessian + bend[:, None, None] * away[:, :, None] * away[:, None, :]


def fixed_cells_minimum(
    problem: Problem, labels: np.ndarray, halfspaces: Halfspaces | None = None
) -> tuple[float, np.ndarray]:
    """The least loss with these cells, over all t or over the halfspaces' intersection, and t."""
    terms, mass, size = _terms(problem, labels)
    if halfspaces is not None:
        t = halfspaces.inside
    elif terms.factor.any():
        t = terms.factor @ terms.centre / terms.factor.sum()
    else:
        t = np.zeros(problem.offset.shape[2])
    if terms.factor.any():
        if 0 < problem.top < len(problem.masses):
            t = _largest_cells(problem, terms, labels, mass, size, t, halfspaces)
        else:
            t = _minimiser(lambda z, e: _sum(terms, z, e), t, _length(terms, t), halfspaces)
    candidates = [t]
    if halfspaces is None:
        # At a kink, where an atom meets its true atom, an estimate without error has the loss 0 exactly.
        candidates += [problem.offset[i, j] for i, j in enumerate(labels)]
    values = [total(problem, *parts(problem, labels, np.ascontiguousarray(one)))[0] for one in candidates]
    best = int(np.argmin(values))
    return values[best], candidates[best]


def _terms(problem: Problem, labels: np.ndarray) -> tuple[_Terms, np.ndarray, np.ndarray]:
    """The terms that t moves, and weights and sizes of the cells."""
    _, mass, size = parts(problem, labels, np.zeros(0))
    atoms = np.arange(len(labels))
    power = problem.exponent[labels, size[labels]]
    atom, group = np.nonzero((power > 0.0) & problem.mask.any(1))
    factor = problem.factors[atom]
    if problem.mode == MOVE_CELLS:
        factor = factor * problem.masses[labels[atom]] / mass[labels[atom]]
    constant = problem.constant[:, atoms, labels].T
    return (
        _Terms(
            factor,
            power[atom, group],
            constant[atom, group],
            problem.offset[atom, labels[atom]],
            problem.mask[group],
            labels[atom],
        ),
        mass,
        size,
    )


def _length(terms: _Terms, t: np.ndarray) -> float:
    """A length of the problem, from which smoothing starts."""
    away = np.linalg.norm(terms.mask * (terms.centre - t), axis=1)
    return max(float(away.max()), 1e-12 * (1.0 + float(np.abs(t).max())))


def _sum(terms: _Terms, t: np.ndarray, epsilon: float) -> tuple[float, np.ndarray, np.ndarray]:
    value, gradient, hessian = terms.at(t, epsilon)
    return float(value.sum()), gradient.sum(0), hessian.sum(0)


def _minimiser(
    function: _Function, z: np.ndarray, length: float, halfspaces: Halfspaces | None, careful: bool = False
) -> np.ndarray:
    """The minimiser; with inequalities, or if asked for, followed slowly, and again from there while that helps."""
    if halfspaces is None and not careful:
        return _follow(function, z, length, halfspaces, _FAST)
    z = _follow(function, z, length, halfspaces, _SLOW)
    best = function(z, _SMALLEST * length)[0]
    for _ in range(_REPEATS):
        trial = _follow(function, z, length, halfspaces, _SLOW)
        value = function(trial, _SMALLEST * length)[0]
        if value >= best:
            break
        gain, z, best = best - value, trial, value
        if gain <= 1e-12 * abs(best):
            break
    return z


def _follow(
    function: _Function, z: np.ndarray, length: float, halfspaces: Halfspaces | None, shrink: float
) -> np.ndarray:
    """The minimiser of a smoothed convex function as the smoothing goes to 0, by the factor `shrink` at a time."""
    epsilon = length
    weight = abs(function(z, length)[0]) if halfspaces is not None else 0.0
    for _ in range(_MOST_STAGES):
        epsilon, weight = shrink * epsilon, shrink * weight
        z = _newton(function, z, epsilon, weight, halfspaces)
        # The barrier costs its weight times the number of inequalities, and it starts from the value at a far point.
        if epsilon <= _SMALLEST * length and weight <= _BARRIER * abs(function(z, epsilon)[0]):
            break
    return z


def _newton(
    function: _Function, z: np.ndarray, epsilon: float, weight: float, halfspaces: Halfspaces | None
) -> np.ndarray:
    def barred(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        # A long trial step may overflow: its value is then too large to be taken.
        with np.errstate(over="ignore", invalid="ignore"):
            value, gradient, hessian = function(point, epsilon)
        if halfspaces is not None:
            n = halfspaces.normal.shape[1]
            slack = halfspaces.level - halfspaces.normal @ point[:n]
            if (slack <= 0.0).any():
                return np.inf, gradient, hessian
            pull = halfspaces.normal / slack[:, None]
            value = value - weight * np.log(slack).sum()
            gradient, hessian = gradient.copy(), hessian.copy()
            gradient[:n] += weight * pull.sum(0)
            hessian[:n, :n] += weight * pull.T @ pull
        return value, gradient, hessian

    value, gradient, hessian = barred(z)
    for _ in range(_STEPS):
        ridge = 1e-14 * max(float(np.trace(hessian)), 1e-300)
        step = np.linalg.lstsq(hessian + ridge * np.eye(len(z)), -gradient, rcond=None)[0]
        decrease = -float(gradient @ step)
        if not decrease > 1e-14 * abs(value):
            break
        length = 1.0
        while length > 1e-6:
            new = barred(z + length * step)
            if new[0] <= value - 0.1 * length * decrease:
                break
            length *= 0.5
        else:
            break
        z = z + length * step
        value, gradient, hessian = new
    return z


def _largest_cells(
    problem: Problem,
    terms: _Terms,
    labels: np.ndarray,
    mass: np.ndarray,
    size: np.ndarray,
    t: np.ndarray,
    halfspaces: Halfspaces | None,
) -> np.ndarray:
    """Where the sum of the K largest cells is least, over t and the scale σ of the truth's weights together.

    The sum of the K largest of cⱼ is the least K λ + Σ max(cⱼ − λ, 0) over λ, which is convex in (t, σ, λ) together.
    Where the estimate's weights are scaled, by τ = 1/σ, the loss is that over σ: a ratio, for which Dinkelbach's method
    minimises the numerator less a multiple of σ until the multiple is the ratio.
    """
    n, true_k = len(t), len(problem.masses)
    still = parts(problem, labels, np.zeros(0))[0] - np.bincount(
        terms.cell, terms.factor * terms.constant ** (0.5 * terms.power), true_k
    )
    on = problem.mass_on[size].astype(float)
    fixed = problem.mode in (FIXED, MOVE_CELLS)
    if problem.mode == MOVE_CELLS:
        still, on = still + np.where(mass > 0.0, 0.0, problem.masses), np.zeros(true_k)
    multiple = 0.0

    def value(z: np.ndarray, epsilon: float) -> tuple[float, np.ndarray, np.ndarray]:
        sigma, level = z[n], z[n + 1]
        each, slopes, bends = terms.at(z[:n], epsilon)
        cells = still + np.bincount(terms.cell, each, true_k)
        gradient, hessian = np.zeros((true_k, n + 2)), np.zeros((true_k, n + 2, n + 2))
        np.add.at(gradient[:, :n], terms.cell, slopes)
        np.add.at(hessian[:, :n, :n], terms.cell, bends)
        miss = mass - sigma * problem.masses
        root = np.sqrt(miss**2 + epsilon**2)
        cells = cells + on * root
        if not fixed:
            gradient[:, n] -= on * miss / root * problem.masses
            hessian[:, n, n] += on * (epsilon**2 / root**3) * problem.masses**2
        gradient[:, n + 1] = -1.0
        above = cells - level
        root = np.sqrt(above**2 + epsilon**2)
        first, second = 0.5 * (1.0 + above / root), 0.5 * epsilon**2 / root**3
        result = problem.top * level + 0.5 * (above + root).sum() - multiple * sigma
        slope = first @ gradient
        slope[n + 1] += problem.top
        slope[n] -= multiple
        bend = np.einsum("j,jab->ab", first, hessian) + np.einsum("j,ja,jb->ab", second, gradient, gradient)
        if fixed:
            bend[n, n] += 1.0
            slope[n] = sigma - 1.0
            result += 0.5 * (sigma - 1.0) ** 2
        return float(result), slope, bend

    whole = mass.sum() / problem.masses.sum()
    z = np.concatenate([t, [1.0 if fixed else whole, 0.0]])
    length = max(_length(terms, t), float(mass.max()))
    last = np.inf
    for _ in range(_RATIOS if problem.mode == MOVE_ESTIMATE else 1):
        z = _minimiser(value, z, length, halfspaces, careful=True)
        loss, tau = total(problem, *parts(problem, labels, np.ascontiguousarray(z[:n])))
        if not loss < last * (1.0 - 1e-13):
            break
        last, multiple = loss, loss
        if problem.mode == MOVE_ESTIMATE and tau > 0.0:
            z[n] = 1.0 / tau
    return z[:n]
