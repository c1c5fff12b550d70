"""The likelihood of a mixture with K selected experts along a line of gate parameters, experts held.

Along θ + t d the scores of a gate that is linear in its parameters are s + t v, row by row and expert by expert. The
set of the K largest changes where two scores cross of which one is the K-th and the other the next: all these t are
known, and so is the jump of the row's log-likelihood at each of them. Between them the log-likelihood is smooth in t,
and constant for K = 1.
"""

import numpy as np

from gatewise.kernels.compiled import compiled
from gatewise.kernels.vector_math import exp, log

__all__ = ["best_on_line", "crossings", "interval_middles", "line_values"]

# Intervals at which the objective is found exactly before the others are compared, and how many of the best of those.
_EXACT = 12
_BEST = 6


@compiled(error_model="numpy")
def _rank(score: np.ndarray, i: int) -> int:
    """How many experts come before expert i: those with a larger score, and those of a lower index with the same."""
    rank = 0
    for j in range(len(score)):
        if score[j] > score[i] or (score[j] == score[i] and j < i):
            rank += 1
    return rank


@compiled(error_model="numpy")
def _log_mixture(logit: np.ndarray, density: np.ndarray, chosen: np.ndarray) -> float:
    """Log Σ exp(γ + l) − log Σ exp γ over the chosen experts."""
    top, joint_top = -np.inf, -np.inf
    for i in range(len(logit)):
        if chosen[i]:
            top = max(top, logit[i])
            joint_top = max(joint_top, logit[i] + density[i])
    if joint_top == -np.inf:
        return joint_top
    total, joint_total = 0.0, 0.0
    for i in range(len(logit)):
        if chosen[i]:
            total += exp(logit[i] - top)
            joint_total += exp(logit[i] + density[i] - joint_top)
    return joint_top + log(joint_total) - top - log(total)


@compiled(error_model="numpy")
def line_values(
    score: np.ndarray,
    score_step: np.ndarray,
    logit: np.ndarray,
    logit_step: np.ndarray,
    density: np.ndarray,
    weight: np.ndarray,
    n_active: int,
    lengths: np.ndarray,
) -> np.ndarray:
    """Σ w ℓ at each t of `lengths`.

    Args:
        score: what the selection looks at, s (n, k).
        score_step: v (n, k).
        logit: logits (n, k).
        logit_step: their change with t (n, k).
        density: log-densities (n, k).
        weight: row weights (n,).
        n_active: K.
        lengths: t, any number of them.

    Example:
        >>> score, step = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
        >>> density = np.array([[-1.0, -2.0]])
        >>> line_values(score, step, score, step, density, np.ones(1), 1, np.array([0.5, 1.5]))
        array([-2., -1.])
    """
    n, k = score.shape
    values = np.zeros(len(lengths))
    at, gate = np.empty(k), np.empty(k)
    chosen = np.empty(k, dtype=np.bool_)
    for place in range(len(lengths)):
        t, total = lengths[place], 0.0
        for r in range(n):
            for i in range(k):
                at[i] = score[r, i] + t * score_step[r, i]
                gate[i] = logit[r, i] + t * logit_step[r, i]
            for i in range(k):
                chosen[i] = _rank(at, i) < n_active
            total += weight[r] * _log_mixture(gate, density[r], chosen)
        values[place] = total
    return values


@compiled(error_model="numpy")
def crossings(
    score: np.ndarray,
    score_step: np.ndarray,
    logit: np.ndarray,
    logit_step: np.ndarray,
    density: np.ndarray,
    weight: np.ndarray,
    n_active: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Where along the line a row changes its selected experts, and by how much Σ w ℓ jumps there.

    Args:
        score: what the selection looks at, s (n, k).
        score_step: v (n, k).
        logit: logits (n, k).
        logit_step: their change with t (n, k).
        density: log-densities (n, k).
        weight: row weights (n,).
        n_active: K.

    Returns:
        t in no particular order, and the jump from below to above each of them.

    Example:
        >>> score, step = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
        >>> crossings(score, step, score, step, np.array([[-1.0, -2.0]]), np.ones(1), 1)
        (array([1.]), array([1.]))
    """
    n, k = score.shape
    places = np.empty(n * k * (k - 1) // 2)
    jumps = np.empty(len(places))
    found = 0
    gate = np.empty(k)
    chosen = np.empty(k, dtype=np.bool_)
    for r in range(n):
        for i in range(k):
            for j in range(i + 1, k):
                speed = score_step[r, j] - score_step[r, i]
                if speed == 0.0:
                    continue
                t = (score[r, i] - score[r, j]) / speed
                if not np.isfinite(t):
                    continue
                meeting = score[r, i] + t * score_step[r, i]
                above = 0
                for other in range(k):
                    chosen[other] = False
                    if other not in (i, j):
                        chosen[other] = score[r, other] + t * score_step[r, other] > meeting
                        above += chosen[other]
                if above != n_active - 1:
                    continue
                for other in range(k):
                    gate[other] = logit[r, other] + t * logit_step[r, other]
                before, after = (i, j) if speed > 0.0 else (j, i)
                chosen[before] = True
                old = _log_mixture(gate, density[r], chosen)
                chosen[before], chosen[after] = False, True
                places[found] = t
                jumps[found] = weight[r] * (_log_mixture(gate, density[r], chosen) - old)
                found += 1
    return places[:found].copy(), jumps[:found].copy()


def interval_middles(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A point in each interval between crossings, and which crossings lie below it.

    Intervals that are too narrow for floating point are left out.

    Args:
        places: crossings in ascending order, at least one.

    Returns:
        Points in ascending order, and for each the number of crossings below it.

    Example:
        >>> interval_middles(np.array([1.0, 1.0, 3.0]))
        (array([0., 2., 5.]), array([0, 2, 3]))
    """
    low, high = places[0] - 0.5 * (1.0 + abs(places[0])), places[-1] + 0.5 * (1.0 + abs(places[-1]))
    middles = np.concatenate([[low], 0.5 * (places[:-1] + places[1:]), [high]])
    width = np.concatenate([[np.inf], np.diff(places) / (1.0 + np.abs(places[1:])), [np.inf]])
    kept = width > 1e-12
    return middles[kept], np.arange(len(middles))[kept]


def best_on_line(
    score: np.ndarray,
    score_step: np.ndarray,
    logit: np.ndarray,
    logit_step: np.ndarray,
    density: np.ndarray,
    weight: np.ndarray,
    n_active: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a line at which Σ w ℓ is largest, the best first; none if no row changes its experts.

    One point stands for each interval between crossings. For K = 1 they are compared exactly. Otherwise the jumps are
    exact, and what is smooth is found exactly at some of the points and interpolated between.

    Args:
        score: what the selection looks at, s (n, k).
        score_step: v (n, k).
        logit: logits (n, k).
        logit_step: their change with t (n, k).
        density: log-densities (n, k).
        weight: row weights (n,).
        n_active: K.

    Returns:
        t, and Σ w ℓ there less Σ w ℓ at t = 0.

    Example:
        >>> score, step = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> density = np.array([[-1.0, -2.0], [-5.0, -2.0]])
        >>> lengths, gains = best_on_line(score, step, score, step, density, np.ones(2), 1)
        >>> lengths[0], gains[0]
        (np.float64(1.5), np.float64(1.0))
    """
    line = (score, score_step, logit, logit_step, density, weight, n_active)
    places, jumps = crossings(*line)
    if not len(places):
        return places, jumps
    order = np.argsort(places, kind="stable")
    places, jumps = places[order], np.nan_to_num(jumps[order])
    points, below = interval_middles(places)
    level = np.concatenate([[0.0], np.cumsum(jumps)])
    here = level[np.searchsorted(places, 0.0)]
    level = level[below]
    if n_active == 1:
        best = np.argsort(-level, kind="stable")[:_BEST]
        return points[best], level[best] - here
    exact = np.unique(np.linspace(0, len(points) - 1, _EXACT).round().astype(int))
    exact = np.union1d(exact, np.searchsorted(points, 0.0).clip(max=len(points) - 1))
    values = line_values(*line, points[exact])
    for _ in range(2):
        estimate = level + np.interp(points, points[exact], values - level[exact])
        best = np.argsort(-estimate, kind="stable")[:_BEST]
        fresh = np.setdiff1d(best, exact)
        exact, values = np.concatenate([exact, fresh]), np.concatenate([values, line_values(*line, points[fresh])])
        order = np.argsort(exact, kind="stable")
        exact, values = exact[order], values[order]
    best = np.argsort(-values, kind="stable")[:_BEST]
    return points[exact[best]], values[best] - line_values(*line, np.zeros(1))
