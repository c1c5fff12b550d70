"""Within a cell of gate parameters, in which every row keeps its experts: the maximum, and the middle.

The cell is where s_i(x) ≥ s_j(x) for every row and every selected expert i and every other j, up to a margin that keeps
rounding from changing a selection. With scores that are linear in the parameters it is a convex cone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from gatewise.fit.monitor import Monitor
from gatewise.fit.partition import PartitionedProblem
from gatewise.fit.status import FitStatus

__all__ = ["climb_in_cell", "edge_of_cell", "middle_of_cell", "shortest_step"]

# The smallest lead of a selected score over another one, as a share of the typical difference of two scores.
_MARGIN = 1e-7
# Constraints that one round of a quadratic programme may add, and rounds.
_ADDED = 20
_ROUNDS = 50
_HALVINGS = 30
# Rounds of bringing a step back over a curved edge.
_RETURNS = 8
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

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """All of them in one."""
        none = cls(np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty(0))
        arrays = [[getattr(part, entry.name) for part in (none, *parts)] for entry in fields(cls)]
        return cls(*(np.concatenate(pieces) for pieces in arrays))

    def some(self, kept: np.ndarray) -> Self:
        """Those where `kept` is True."""
        return replace(self, row=self.row[kept], ahead=self.ahead[kept], behind=self.behind[kept], lead=self.lead[kept])


@dataclass(frozen=True)
class _Edge:
    """The constraints that a step met.

    Attributes:
        leads: which they are, and the leads before the step.
        slopes: their derivatives by θ (c, size).
        multipliers: how strongly each held the step back (c,).
    """

    leads: _Leads
    slopes: np.ndarray
    multipliers: np.ndarray


@dataclass(frozen=True)
class _Step:
    """A step to the maximum of a quadratic model within the linearised cell.

    Attributes:
        step: (size,).
        slope: the largest component of what drives it.
        factor: L of the model's curvature LLᵀ.
        edge: the constraints that it met.
    """

    step: np.ndarray
    slope: float
    factor: np.ndarray
    edge: _Edge


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
        """The smallest leads below `least`, at most 20 of those that are not known yet; they are from then on."""
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

    def curvature(self, theta: np.ndarray, edge: _Edge) -> np.ndarray:
        """The Hessian of the sum of leads by θ, each times its multiplier, (size, size)."""
        held = edge.multipliers > 0.0
        if self.problem.is_linear or not held.any():
            return np.zeros((len(theta), len(theta)))
        leads = edge.leads.some(held)
        weight = np.zeros((len(leads.row), self.problem.n_experts))
        place = np.arange(len(leads.row))
        weight[place, leads.ahead] += edge.multipliers[held]
        weight[place, leads.behind] -= edge.multipliers[held]
        return self.problem.score_curvature(theta, leads.row, weight)


def shortest_step(factor: np.ndarray, gradient: np.ndarray, slopes: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Argmax of gᵀd − ½ dᵀLLᵀd where A d ≥ b, by the least-distance programme of Lawson and Hanson (1974, ch. 23).

    With z = Lᵀd − L⁻¹g it is the shortest z with A L⁻ᵀ z ≥ b − A L⁻ᵀ L⁻¹ g, which non-negative least squares solves.

    Args:
        factor: L (p, p), lower triangular.
        gradient: g (p,).
        slopes: A (c, p).
        least: b (c,).

    Returns:
        d, NaN where none is allowed.

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
            if residual[-1] == 0.0:
                return np.full_like(z, np.nan)
            z = -residual[:-1] / residual[-1]
    return solve_triangular(factor.T, z + free)


def climb_in_cell(
    problem: PartitionedProblem, theta: np.ndarray, monitor: Monitor, tol: float
) -> tuple[np.ndarray, FitStatus, float]:
    """The maximum over the cell of θ by sequential quadratic programming within its linearised constraints.

    Where the objective would rise beyond the cell's edge, the gradient does not vanish at the maximum; what vanishes is
    the gradient less its part that points out of the cell. With scores that are not linear the edges are curved: the
    quadratic model then has the Hessian of the Lagrangian, and steps that end outside are brought back by the shortest
    steps that the model knows (Nocedal and Wright 2006, chapter 18).

    Returns:
        The last θ; CONVERGED, or STALLED where no step leads higher although that remainder is larger than `tol`; and
        its largest component. The monitor ends it earlier by raising.
    """
    cell = _Cell(problem, theta)
    value, gradient = problem.value_and_gradient(theta)
    flat_moves, edge = 0, None
    while True:
        hessian = problem.hessian(theta)
        if edge is not None:
            hessian = hessian + cell.curvature(theta, edge)
        found = _best_step(cell, theta, gradient, hessian)
        promised = float(gradient @ found.step)
        rounding = _ROUNDING * max(1.0, abs(value))
        if found.slope <= tol and promised <= rounding:
            return theta, FitStatus.CONVERGED, found.slope
        share = 1.0
        for _ in range(_HALVINGS):
            candidate = _brought_back(cell, theta, share, found)
            new_value, new_gradient = problem.value_and_gradient(candidate)
            inside = np.isfinite(new_value) and cell.contains(candidate)
            flat = promised <= 1e3 * rounding and new_value >= value - rounding and flat_moves < _FLAT_MOVES
            if inside and (flat or new_value - value > 1e-4 * share * promised):
                break
            share *= 0.5
        else:
            return theta, FitStatus.CONVERGED if found.slope <= tol else FitStatus.STALLED, found.slope
        flat_moves += promised <= 1e3 * rounding
        theta, value, gradient = candidate, new_value, new_gradient
        edge = None if problem.is_linear else found.edge
        monitor.iterate(theta, value)


def _best_step(cell: _Cell, theta: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> _Step:
    """The step to the maximum of the quadratic model within the cell, and the largest component of what drives it.

    Curvature of the wrong sign counts as curvature of the right one. Constraints enter as a step breaks them.
    """
    values, vectors = np.linalg.eigh(-hessian)
    sizes = np.maximum(np.abs(values), _CURVATURE_FLOOR * max(float(np.abs(values).max(initial=0.0)), 1e-300))
    model = (vectors * sizes) @ vectors.T
    factor = np.linalg.cholesky(model)
    slopes, least = cell.problem.bounds.as_inequalities(theta)
    n_bounds = len(slopes)
    known: set[tuple[int, int, int]] = set()
    leads = []
    step = shortest_step(factor, gradient, slopes, least)
    least_lead = 0.5 * cell.margin
    if cell.problem.is_linear:
        fresh = cell.broken(theta + step, least_lead, known)
    else:
        # A long step may pass over a curved edge and back: the nearest ones count anyway.
        fresh = cell.broken(theta, np.inf, known)
    for _ in range(_ROUNDS):
        if not len(fresh.row):
            break
        here = cell.lead_of(theta, fresh)
        leads.append(replace(fresh, lead=here))
        slopes = np.vstack([slopes, cell.slopes(theta, fresh)])
        least = np.concatenate([least, np.minimum(cell.margin, here) - here])
        step = shortest_step(factor, gradient, slopes, least)
        fresh = cell.broken(theta + step, least_lead, known)
    push = model @ step
    # At its maximum the model's gradient is a sum of what the constraints push back with.
    multipliers = nnls(slopes.T, push - gradient, maxiter=50 * len(slopes))[0] if len(slopes) else np.empty(0)
    edge = _Edge(_Leads.together(leads), slopes[n_bounds:], multipliers[n_bounds:])
    return _Step(step, float(np.abs(push).max(initial=0.0)), factor, edge)


def _brought_back(cell: _Cell, theta: np.ndarray, share: float, found: _Step) -> np.ndarray:
    """Part of a step, brought back into the cell where an edge is curved, and to the bounds."""
    bounds, edge = cell.problem.bounds, found.edge
    candidate = bounds.clip(theta + share * found.step)
    if cell.problem.is_linear or not len(edge.leads.row):
        return candidate
    wanted = np.minimum(cell.margin, edge.leads.lead)
    nothing = np.zeros_like(theta)
    for _ in range(_RETURNS):
        missing = wanted - cell.lead_of(candidate, edge.leads)
        if (missing <= 0.0).all():
            break
        # A little more than is missing, so that rounding leaves nothing of it.
        missing = np.where(missing > 0.0, missing + 1e-3 * wanted, missing)
        back = shortest_step(found.factor, nothing, edge.slopes, missing)
        if not np.linalg.norm(found.factor.T @ back) < np.linalg.norm(found.factor.T @ found.step):
            break
        candidate = bounds.clip(candidate + back)
    return candidate


def edge_of_cell(problem: PartitionedProblem, theta: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """At a maximum on the edge of its cell: which ways are barred, and how the bars bend.

    Returns:
        The derivatives of the leads (c, size) that hold the objective back, each with a positive multiplier; and the
        sum of the leads' Hessians (size, size), each times its multiplier, which the objective's Hessian is added to:
        a maximum needs the sum to curve downward along whatever is not barred.
    """
    cell = _Cell(problem, theta)
    gradient = problem.value_and_gradient(theta)[1]
    edge = _best_step(cell, theta, gradient, problem.hessian(theta)).edge
    held = (edge.multipliers * np.linalg.norm(edge.slopes, axis=1)) > tol
    barred = _Edge(edge.leads.some(held), edge.slopes[held], edge.multipliers[held])
    return barred.slopes, cell.curvature(theta, barred)


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
