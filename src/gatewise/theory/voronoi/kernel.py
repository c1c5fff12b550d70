"""The compiled part of a loss: cells, terms, the best scale of the weights, and the search along a line."""

from typing import NamedTuple

import numpy as np

from gatewise.kernels.compiled import compiled

__all__ = [
    "FIXED",
    "MOVE_CELLS",
    "MOVE_ESTIMATE",
    "MOVE_TRUTH",
    "Problem",
    "cells_at",
    "line_minimum",
    "parts",
    "scaled_total",
    "still_values",
    "total",
]

FIXED, MOVE_TRUTH, MOVE_ESTIMATE, MOVE_CELLS = 0, 1, 2, 3
_HALVINGS = 200


class Problem(NamedTuple):
    """A loss between two measures of k and k* atoms as numbers, with a translation t of T coordinates.

    The parameter terms of atom i in a cell j of m atoms are

        factorᵢ · (extraᵢⱼ + Σ_g (constant_gᵢⱼ + Σ_c mask_gc (offsetᵢⱼ_c − t_c)²)^(exponent_jmg / 2))

    over the groups g whose exponent is not 0.

    Attributes:
        weights: w of the estimate (k,).
        factors: what stands before the parameter terms of an atom (k,): w, or 1.
        masses: w of the truth (k*,).
        constant: squared differences of what t does not move (G, k, k*).
        offset: differences of what t moves (k, k*, T).
        mask: 1 for the coordinates of `offset` that a group has, else 0 (G, T).
        exponent: by cell, its number of atoms, and group (k*, k + 1, G); 0 for a group that is not used.
        mass_on: whether a cell of m atoms has a weight term (k + 1,).
        extra: terms without exponent (k, k*).
        distance: squared distances that decide on the cells, without what t moves (k, k*).
        moved: whether t moves the cells.
        mode: what happens to the scale of the weights: `FIXED`, or the infimum over a factor of all weights of the
            truth or of the estimate, or over a factor of each cell (`MOVE_CELLS`).
        top: K if the loss is that of the K largest cells, 0 for the sum of all.
    """

    weights: np.ndarray
    factors: np.ndarray
    masses: np.ndarray
    constant: np.ndarray
    offset: np.ndarray
    mask: np.ndarray
    exponent: np.ndarray
    mass_on: np.ndarray
    extra: np.ndarray
    distance: np.ndarray
    moved: bool
    mode: int
    top: int


@compiled(error_model="numpy")
def cells_at(problem: Problem, t: np.ndarray) -> np.ndarray:
    """The nearest true atom of each atom at the translation t (T,), ties to the lowest index: (k,)."""
    k, true_k = problem.distance.shape
    labels = np.empty(k, np.int64)
    for i in range(k):
        best = np.inf
        for j in range(true_k):
            square = problem.distance[i, j]
            if problem.moved:
                for c in range(len(t)):
                    square += (problem.offset[i, j, c] - t[c]) ** 2
            if square < best:
                best = square
                labels[i] = j
    return labels


@compiled(error_model="numpy")
def parts(problem: Problem, labels: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameter terms, weights and numbers of atoms of the cells, (k*,) each; t of length 0 leaves out what t moves."""
    true_k = len(problem.masses)
    mass, size, terms = np.zeros(true_k), np.zeros(true_k, np.int64), np.zeros(true_k)
    for i in range(len(labels)):
        mass[labels[i]] += problem.weights[i]
        size[labels[i]] += 1
    for i in range(len(labels)):
        j = labels[i]
        value = problem.extra[i, j]
        for g in range(len(problem.constant)):
            power = problem.exponent[j, size[j], g]
            if power > 0.0:
                square = problem.constant[g, i, j]
                for c in range(len(t)):
                    square += problem.mask[g, c] * (problem.offset[i, j, c] - t[c]) ** 2
                if square > 0.0:
                    value += square ** (0.5 * power)
        terms[j] += problem.factors[i] * value
    if problem.mode == MOVE_CELLS:
        for j in range(true_k):
            if mass[j] > 0.0:
                terms[j] *= problem.masses[j] / mass[j]
    return terms, mass, size


@compiled(error_model="numpy")
def scaled_total(problem: Problem, tau: float, terms: np.ndarray, mass: np.ndarray, size: np.ndarray) -> float:
    """The loss of these cells with all weights of the truth, or of the estimate, multiplied by τ."""
    true_k = len(mass)
    cells = np.empty(true_k)
    for j in range(true_k):
        if problem.mode == MOVE_CELLS:
            cells[j] = terms[j] if mass[j] > 0.0 else problem.masses[j]
            continue
        own = tau if problem.mode == MOVE_ESTIMATE else 1.0
        other = tau if problem.mode == MOVE_TRUTH else 1.0
        cells[j] = own * terms[j]
        if problem.mass_on[size[j]]:
            cells[j] += abs(own * mass[j] - other * problem.masses[j])
    if 0 < problem.top < true_k:
        cells = np.sort(cells)[true_k - problem.top :]
    return cells.sum()


@compiled(error_model="numpy")
def total(problem: Problem, terms: np.ndarray, mass: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """The loss of these cells at the best scale, and that scale τ.

    As a function of τ the loss is convex and piecewise linear, so one of its breakpoints is a minimiser: a τ with which
    the weight of a cell is right, which makes it a weighted median, or, for the largest K cells, one with which two
    cells have the same value.
    """
    if problem.mode in (FIXED, MOVE_CELLS):
        return scaled_total(problem, 1.0, terms, mass, size), 1.0
    true_k, masses, move_truth = len(mass), problem.masses, problem.mode == MOVE_TRUTH
    candidates = np.zeros(1 + true_k + 2 * true_k * (true_k - 1))
    n = 1
    for j in range(true_k):
        above, below = (mass[j], masses[j]) if move_truth else (masses[j], mass[j])
        if above > 0.0 and below > 0.0 and problem.mass_on[size[j]]:
            candidates[n] = above / below
            n += 1
    if 0 < problem.top < true_k:
        for j in range(true_k):
            for m in range(j):
                for first in (-1.0, 1.0):
                    for second in (-1.0, 1.0):
                        # Cell j is term + s (mass − τ true mass), or τ term + s (τ mass − true mass), s = ±1 or 0.
                        s = first if problem.mass_on[size[j]] else 0.0
                        r = second if problem.mass_on[size[m]] else 0.0
                        own = terms[j] + s * mass[j] - terms[m] - r * mass[m]
                        other = s * masses[j] - r * masses[m]
                        above, below = (own, other) if move_truth else (other, own)
                        if below != 0.0 and above / below > 0.0:
                            candidates[n] = above / below
                            n += 1
    best, scale = np.inf, 0.0
    for c in range(n):
        value = scaled_total(problem, candidates[c], terms, mass, size)
        # At a tie the larger scale: the limit τ → 0 is no translation.
        if value < best or (value == best and candidates[c] > scale):
            best, scale = value, candidates[c]
    return best, scale


@compiled(error_model="numpy")
def _value(problem: Problem, labels: np.ndarray, t: np.ndarray) -> float:
    terms, mass, size = parts(problem, labels, t)
    return total(problem, terms, mass, size)[0]


@compiled(error_model="numpy")
def still_values(problem: Problem, assignments: np.ndarray) -> np.ndarray:
    """For each assignment (N, k) the loss without the terms that t moves (N,): no t has a smaller one."""
    found, nothing = np.empty(len(assignments)), np.zeros(0)
    for n in range(len(assignments)):
        found[n] = _value(problem, assignments[n], nothing)
    return found


@compiled(error_model="numpy")
def _slope(problem: Problem, labels: np.ndarray, mass: np.ndarray, size: np.ndarray, t: float) -> float:
    """Derivative of the sum of all parameter terms by the only translation."""
    slope = 0.0
    for i in range(len(labels)):
        j = labels[i]
        factor = problem.factors[i]
        if problem.mode == MOVE_CELLS and mass[j] > 0.0:
            factor *= problem.masses[j] / mass[j]
        for g in range(len(problem.constant)):
            power = problem.exponent[j, size[j], g]
            if power > 0.0 and problem.mask[g, 0] > 0.0:
                difference = t - problem.offset[i, j, 0]
                square = problem.constant[g, i, j] + difference * difference
                if square > 0.0:
                    slope += factor * power * square ** (0.5 * power - 1.0) * difference
    return slope


@compiled(error_model="numpy")
def _golden(problem: Problem, labels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """An interval of rounding's length around the minimiser of a convex function, by golden sections."""
    ratio = 0.5 * (np.sqrt(5.0) - 1.0)
    t = np.empty(1)
    first, second = high - ratio * (high - low), low + ratio * (high - low)
    t[0] = first
    at_first = _value(problem, labels, t)
    t[0] = second
    at_second = _value(problem, labels, t)
    for _ in range(_HALVINGS):
        if not low < first < second < high:
            break
        if at_first <= at_second:
            high, second, at_second = second, first, at_first
            first = high - ratio * (high - low)
            t[0] = first
            at_first = _value(problem, labels, t)
        else:
            low, first, at_first = first, second, at_second
            second = low + ratio * (high - low)
            t[0] = second
            at_second = _value(problem, labels, t)
    return low, high


@compiled(error_model="numpy")
def _convex_minimum(problem: Problem, labels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The least loss of fixed cells for low ≤ t ≤ high, and where."""
    t = np.empty(1)
    best, at = np.inf, low
    # Kinks first: where an atom meets its true atom, an estimate without error has the loss 0 exactly.
    for i in range(len(labels)):
        t[0] = min(max(problem.offset[i, labels[i], 0], low), high)
        value = _value(problem, labels, t)
        if value < best:
            best, at = value, t[0]
    if 0 < problem.top < len(problem.masses):
        low, high = _golden(problem, labels, low, high)
    else:
        # Whatever the scale, the loss increases with the sum of the parameter terms: that is minimised.
        _, mass, size = parts(problem, labels, t)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            if _slope(problem, labels, mass, size, middle) < 0.0:
                low = middle
            else:
                high = middle
    for end in (low, high):
        t[0] = end
        value = _value(problem, labels, t)
        if value < best:
            best, at = value, end
    return best, at


@compiled(error_model="numpy")
def _breakpoints(problem: Problem) -> np.ndarray:
    """Sorted t at which an atom is as near to one true atom as to another, between −∞ and ∞.

    A difference of two squared distances is linear in t: t² cancels.
    """
    k, true_k = problem.distance.shape
    found = np.empty(2 + k * true_k * (true_k - 1) // 2)
    found[0], n = -np.inf, 1
    if problem.moved:
        for i in range(k):
            for j in range(true_k):
                for m in range(j):
                    one, other = problem.offset[i, j, 0], problem.offset[i, m, 0]
                    if one != other:
                        level = problem.distance[i, j] - problem.distance[i, m]
                        found[n] = 0.5 * (level / (one - other) + one + other)
                        n += 1
    found[n] = np.inf
    return np.sort(found[: n + 1])


@compiled(error_model="numpy")
def line_minimum(problem: Problem) -> tuple[float, float, np.ndarray]:
    """The least loss over one translation t ∈ R, with the cells of every t: the loss, t, and the labels (k,).

    Between neighbouring breakpoints the cells are constant and the loss is convex in t. At a breakpoint the limits from
    both sides count. The result is exact up to rounding.
    """
    breaks = _breakpoints(problem)
    best, best_t, best_labels = np.inf, 0.0, np.zeros(len(problem.weights), np.int64)
    t, nothing = np.zeros(1), np.zeros(0)
    for piece in range(len(breaks) - 1):
        low, high = breaks[piece], breaks[piece + 1]
        if low == high:
            continue
        if low == -np.inf and high == np.inf:
            t[0] = 0.0
        elif low == -np.inf:
            t[0] = high - 1.0 - abs(high)
        elif high == np.inf:
            t[0] = low + 1.0 + abs(low)
        else:
            t[0] = 0.5 * (low + high)
        labels = cells_at(problem, t)
        # Without the terms that t moves the loss is smaller for every t.
        if _value(problem, labels, nothing) >= best:
            continue
        left, right = np.inf, -np.inf
        for i in range(len(labels)):
            left, right = min(left, problem.offset[i, labels[i], 0]), max(right, problem.offset[i, labels[i], 0])
        # Outside of the atoms' own offsets the loss only increases.
        low, high = max(low, min(left, high)), min(high, max(right, low))
        value, at = _convex_minimum(problem, labels, low, high)
        if value < best:
            best, best_t, best_labels = value, at, labels
    return best, best_t, best_labels
