"""Within a cell of gate parameters, in which every row keeps its experts: the maximum, and the middle.

The cell is where s_i(x) ≥ s_j(x) for every row and every selected expert i and every other j, up to a margin that keeps
rounding from changing a selection. With scores that are linear in the parameters it is a convex cone.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from gatewise.fit.monitor import Monitor
from gatewise.fit.partition import PartitionedProblem
from gatewise.fit.status import FitStatus

__all__ = ["climb_in_cell", "middle_of_cell", "shortest_step"]

# The smallest lead of a selected score over another one, as a share of the typical difference of two scores.
_MARGIN = 1e-7
# Constraints that one round of a quadratic programme may add, and rounds.
_ADDED = 20
_ROUNDS = 50
_HALVINGS = 30
_FLAT_MOVES = 5
_CURVATURE_FLOOR = 1e-8
_ROUNDING = 8.0 * float(np.finfo(float).eps)


@dataclass(frozen=True)
class _Leads:
    """By how much selected scores lead, and which rows and pairs of experts these are.

    Attributes:
        row: (c,).
        ahead: the selected expert (c,).
        behind: the other one (c,).
        lead: (c,).
    """

    row: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray
    lead: np.ndarray


class _Cell:
    """The constraints of a partition (n, k) of the problem's rows."""

    def __init__(self, problem: PartitionedProblem, theta: np.ndarray) -> None:
        self.problem = problem
        self.chosen = problem.partition(theta).cpu().numpy()
        score = problem.gate_rows(theta)[0]
        spread = float(np.median(np.ptp(score, axis=1)))
        self.margin = _MARGIN * (spread if spread > 0.0 else 1.0)

    def closest(self, theta: np.ndarray) -> _Leads:
        """For each row the smallest lead."""
        score = self.problem.gate_rows(theta)[0]
        ahead = np.where(self.chosen, score, np.inf).argmin(axis=1)
        behind = np.where(self.chosen, -np.inf, score).argmax(axis=1)
        row = np.arange(len(score))
        return _Leads(row, ahead, behind, score[row, ahead] - score[row, behind])

    def contains(self, theta: np.ndarray) -> bool:
        """Whether the partition at θ is that of the cell."""
        return bool((self.problem.partition(theta).cpu().numpy() == self.chosen).all())

    def broken(self, theta: np.ndarray, least: float, known: set[tuple[int, int, int]]) -> _Leads:
        """The smallest leads below `least`, some of those that are not known yet; they are from then on."""
        leads = self.closest(theta)
        names = list(zip(leads.row.tolist(), leads.ahead.tolist(), leads.behind.tolist(), strict=True))
        order = np.argsort(leads.lead, kind="stable")
        wanted = order[leads.lead[order] < least].tolist()
        fresh = [place for place in wanted if names[place] not in known][:_ADDED]
        known.update(names[place] for place in fresh)
        return _Leads(leads.row[fresh], leads.ahead[fresh], leads.behind[fresh], leads.lead[fresh])

    def lead_of(self, theta: np.ndarray, which: _Leads) -> np.ndarray:
        """The leads of the same rows and pairs elsewhere."""
        score = self.problem.gate_rows(theta)[0]
        return score[which.row, which.ahead] - score[which.row, which.behind]

    def slopes(self, theta: np.ndarray, which: _Leads) -> np.ndarray:
        """The derivatives of the leads by θ, (c, size)."""
        slopes = self.problem.score_slopes(theta, which.row)
        place = np.arange(len(which.row))
        return slopes[place, which.ahead] - slopes[place, which.behind]


def shortest_step(factor: np.ndarray, gradient: np.ndarray, slopes: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Argmax of gᵀd − ½ dᵀLLᵀd where A d ≥ b, by the least-distance programme of Lawson and Hanson (1974, ch. 23).

    With z = Lᵀd − L⁻¹g it is the shortest z with A L⁻ᵀ z ≥ b − A L⁻ᵀ L⁻¹ g, which non-negative least squares solves.

    Args:
        factor: L (p, p), lower triangular.
        gradient: g (p,).
        slopes: A (c, p).
        least: b (c,), such that some d is allowed.

    Example:
        >>> shortest_step(np.eye(2), np.array([1.0, 1.0]), np.array([[-1.0, 0.0]]), np.array([-0.25]))
        array([0.25, 1.  ])
    """
    free = solve_triangular(factor, gradient, lower=True)
    z = np.zeros_like(free)
    if len(least):
        across = solve_triangular(factor, slopes.T, lower=True)
        lengths = np.maximum(np.linalg.norm(across, axis=0), 1e-300)
        across, bound = across / lengths, (least - free @ across) / lengths
        if (bound > 0.0).any():
            columns = np.vstack([across, bound])
            target = np.zeros(len(columns))
            target[-1] = 1.0
            found, _ = nnls(columns, target, maxiter=50 * columns.shape[1])
            residual = columns @ found - target
            z = -residual[:-1] / residual[-1]
    return solve_triangular(factor.T, z + free)


def climb_in_cell(
    problem: PartitionedProblem, theta: np.ndarray, monitor: Monitor, tol: float
) -> tuple[np.ndarray, FitStatus, float]:
    """The maximum over the cell of θ by Newton steps within its linearised constraints.

    Where the objective would rise beyond the cell's edge, the gradient does not vanish at the maximum; what vanishes is
    the gradient less its part that points out of the cell.

    Returns:
        The last θ; CONVERGED, or STALLED where no step leads higher although that remainder is larger than `tol`; and
        its largest component. The monitor ends it earlier by raising.
    """
    cell = _Cell(problem, theta)
    value, gradient = problem.value_and_gradient(theta)
    flat_moves = 0
    while True:
        hessian = problem.hessian(theta)
        step, slope = _best_step(cell, theta, gradient, hessian)
        promised = float(gradient @ step)
        rounding = _ROUNDING * max(1.0, abs(value))
        if slope <= tol and promised <= rounding:
            return theta, FitStatus.CONVERGED, slope
        share = 1.0
        for _ in range(_HALVINGS):
            candidate = np.maximum(theta + share * step, problem.lower)
            new_value, new_gradient = problem.value_and_gradient(candidate)
            inside = np.isfinite(new_value) and cell.contains(candidate)
            flat = promised <= 1e3 * rounding and new_value >= value - rounding and flat_moves < _FLAT_MOVES
            if inside and (flat or new_value - value > 1e-4 * share * promised):
                break
            share *= 0.5
        else:
            return theta, FitStatus.CONVERGED if slope <= tol else FitStatus.STALLED, slope
        flat_moves += promised <= 1e3 * rounding
        theta, value, gradient = candidate, new_value, new_gradient
        monitor.iterate(theta, value)


def _best_step(cell: _Cell, theta: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, float]:
    """The step to the maximum of the quadratic model within the cell, and the largest component of what drives it.

    Curvature of the wrong sign counts as curvature of the right one. Constraints enter as a step breaks them.
    """
    values, vectors = np.linalg.eigh(-hessian)
    sizes = np.maximum(np.abs(values), _CURVATURE_FLOOR * max(float(np.abs(values).max(initial=0.0)), 1e-300))
    model = (vectors * sizes) @ vectors.T
    factor = np.linalg.cholesky(model)
    lower = cell.problem.lower
    bounded = np.flatnonzero(np.isfinite(lower))
    slopes, least = np.eye(len(theta))[bounded], lower[bounded] - theta[bounded]
    known: set[tuple[int, int, int]] = set()
    step = shortest_step(factor, gradient, slopes, least)
    for _ in range(_ROUNDS):
        broken = cell.broken(theta + step, 0.5 * cell.margin, known)
        if not len(broken.row):
            break
        here = cell.lead_of(theta, broken)
        slopes = np.vstack([slopes, cell.slopes(theta, broken)])
        least = np.concatenate([least, np.minimum(cell.margin, here) - here])
        step = shortest_step(factor, gradient, slopes, least)
    return step, float(np.abs(model @ step).max(initial=0.0))


def middle_of_cell(problem: PartitionedProblem, theta: np.ndarray) -> np.ndarray:
    """The θ of the same partition whose smallest lead is largest for the length of its moving entries, for K = 1.

    With linear scores this is the hard-margin problem of support vector machines (Boser, Guyon and Vapnik 1992). The
    length stays what it was, and so do the other entries. Where leads are not linear in θ, or θ is already as good, θ
    is left alone.
    """
    moving = problem.moving
    if not problem.is_linear or problem.options.constraints is not None or not len(moving):
        return theta
    cell = _Cell(problem, theta)
    factor, zero = np.eye(len(moving)), np.zeros(len(moving))
    slopes = np.empty((0, len(moving)))
    at = theta.copy()
    at[moving] = found = zero
    known: set[tuple[int, int, int]] = set()
    while np.isfinite(found).all():
        at[moving] = found
        broken = cell.broken(at, 1.0 - 1e-9, known)
        if not len(broken.row):
            break
        slopes = np.vstack([slopes, cell.slopes(theta, broken)[:, moving]])
        found = shortest_step(factor, zero, slopes, np.ones(len(slopes)))
    length = float(np.linalg.norm(found))
    if not (np.isfinite(length) and length > 0.0):
        return theta
    middle = theta.copy()
    middle[moving] = found * (float(np.linalg.norm(theta[moving])) / length)
    return middle if cell.contains(middle) else theta
