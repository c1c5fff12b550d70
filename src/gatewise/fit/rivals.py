"""Optima that the data hardly tell from the best one: which they are, with experts in the order of the best one's."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from gatewise.fit.assess import KeptPoint, examine
from gatewise.fit.optima import Optima
from gatewise.fit.problem import Problem

__all__ = ["WITHIN", "find_rivals"]

WITHIN = 2.0
"""A rival's log-likelihood is at most so much below that of the best optimum."""

_MOST = 5


def find_rivals(problem: Problem, optima: Optima, kept: KeptPoint) -> list[KeptPoint]:
    """The other optima off the floor whose log-likelihood is within 2 of the kept one's, the best first, at most five.

    For least squares the difference counts in units of the residual variance. Their experts stand in the order in which
    they share rows with the kept ones, as far as the gate and constraints allow.
    """
    variance = problem.residual_variance(kept.theta)
    unit = problem.total_weight / (1.0 if variance is None or variance <= 0.0 else variance)
    found: list[KeptPoint] = []
    for seen in optima.sorted():
        if len(found) == _MOST:
            break
        below = (kept.value - seen.value) * unit
        if seen.on_floor or kept.end in seen.members or not 0.0 <= below <= WITHIN:
            continue
        theta = problem.canonical_order(seen.theta, _key_like(problem, kept.theta, seen.theta))
        found.append(examine(problem, seen.members[0], theta))
    return found


def _key_like(problem: Problem, kept: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """A key (k,) that puts the experts of θ in the order of the kept ones with which they share most rows."""
    shared = (problem.responsibilities(kept) * problem.weight) @ problem.responsibilities(theta).T
    place, expert = linear_sum_assignment(-shared)
    key = np.empty(len(expert))
    key[expert] = -place.astype(float)
    return key
