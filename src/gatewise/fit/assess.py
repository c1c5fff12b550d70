"""From end points to a verdict: which one to keep, separation, curvature, and what must be known there."""

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from gatewise.fit.cell import edge_of_cell
from gatewise.fit.null_space import find_null_space
from gatewise.fit.optima import tight_experts
from gatewise.fit.partition import PartitionedProblem
from gatewise.fit.problem import Problem
from gatewise.fit.result import BoundaryInterval, NullSpace
from gatewise.fit.start import EndPoint
from gatewise.fit.status import FitStatus

__all__ = ["KeptPoint", "best_end_point", "examine"]

# A mean objective is higher than another one if it is by more than this share, which is above rounding.
_HIGHER = 1e-9


@dataclass(frozen=True)
class KeptPoint:
    """The kept end point in canonical order, and all that a verdict needs to know there.

    Attributes:
        end: the end point as its start left it.
        theta: internal units, experts in canonical order.
        value: the mean objective.
        relative_gradient: largest projected gradient component of the mean objective; see `EndPoint`.
        information: per unit of weight.
        curvature: the information's eigenvalues over the coordinates not held at a bound and not acting through a
            selection only, without the directions that the declared symmetries explain, ascending. At the edge of a
            cell also without those that its edges bar, and with the curvature of these.
        conditional_curvature: the same given what separates, and `curvature` where nothing does.
        is_definite: whether the information is positive definite over what is regular and identified. At a maximum it
            is, but for one on the edge of a cell, where a curvature across the edge may be of either sign.
        null_space: the directions without information, explained or not.
        effective_rows: (k,).
        entropy: −Σ w Σᵢ rᵢ log rᵢ.
        on_floor: experts on the variance floor.
        tight: tight experts.
        direction: the separating direction of the gate (size,), or None.
        expert_directions: the separating direction of each expert that separates.
        separated: entries of θ that belong to what separates.
        boundary: see `FitResult`.
        higher: an end point with a larger objective that is no first-order point, or None.
    """

    end: EndPoint
    theta: np.ndarray
    value: float
    relative_gradient: float
    information: np.ndarray
    curvature: np.ndarray
    conditional_curvature: np.ndarray
    is_definite: bool
    null_space: NullSpace
    effective_rows: np.ndarray
    entropy: float
    on_floor: tuple[int, ...]
    tight: tuple[int, ...]
    direction: np.ndarray | None
    expert_directions: dict[int, np.ndarray]
    separated: np.ndarray
    boundary: tuple[BoundaryInterval, ...] | None
    higher: EndPoint | None


def examine(problem: Problem, end: EndPoint, theta: np.ndarray, higher: EndPoint | None = None) -> KeptPoint:
    """Compute what must be known about an end point.

    Args:
        problem: whose it is.
        end: the end point.
        theta: the same with experts in canonical order.
        higher: an end point with a larger objective that is no first-order point, or None.
    """
    at_kink = end.at == "kink"
    value, gradient = problem.value_and_gradient(theta)
    projected = problem.bounds.projected(theta, gradient)
    information = problem.information_at_kink(theta) if at_kink else problem.information(theta)
    responsibilities = problem.responsibilities(theta)
    effective = responsibilities @ problem.weight
    curvature = information if at_kink else problem.curvature_matrix(theta, information)
    barred = np.empty((0, problem.size))
    if end.at == "edge" and isinstance(problem, PartitionedProblem) and problem.is_smooth:
        barred, bend = edge_of_cell(problem, theta, problem.options.tol)
        curvature = curvature - bend
    direction = None if problem.is_saturated else problem.gate_direction(theta, information, responsibilities)
    expert_directions = {} if problem.is_saturated else problem.expert_directions(theta, information)
    free = projected == gradient
    free[problem.selection_entries] = False
    # What separates has no curvature along its ray; the rest must be regular, given what separates.
    regular = free.copy()
    regular[: problem.n_gate] &= direction is None
    for ray in expert_directions.values():
        regular &= ray == 0.0
    null_space = find_null_space(problem, theta, information, regular)
    held = np.vstack([null_space.explained, barred / np.linalg.norm(barred, axis=1, keepdims=True)])
    unseen = np.vstack([null_space.explained, null_space.further])
    return KeptPoint(
        end=end,
        theta=theta,
        value=value,
        relative_gradient=float(np.abs(projected).max(initial=0.0)) if end.at == "interior" else end.relative_gradient,
        information=information,
        curvature=_eigenvalues(curvature, held, free),
        conditional_curvature=_eigenvalues(curvature, held, regular),
        is_definite=bool((_eigenvalues(information, unseen, regular) > 0.0).all()),
        null_space=null_space,
        effective_rows=effective,
        entropy=float(problem.weight @ entr(responsibilities).sum(axis=0)),
        on_floor=problem.floored(theta),
        tight=tight_experts(problem, theta, effective),
        direction=direction,
        expert_directions=expert_directions,
        separated=np.flatnonzero(free & ~regular),
        boundary=problem.boundary(theta),
        higher=higher,
    )


def _eigenvalues(information: np.ndarray, held: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Eigenvalues over the kept coordinates and orthogonal to the held directions (c, size), ascending."""
    if not held.size:
        return np.linalg.eigvalsh(information[np.ix_(kept, kept)])
    across = held[:, kept]
    rank = int(np.linalg.matrix_rank(across, tol=1e-8))
    complement = np.linalg.svd(across, full_matrices=True)[2][rank:]
    return np.linalg.eigvalsh(complement @ information[np.ix_(kept, kept)] @ complement.T)


def best_end_point(ends: list[EndPoint]) -> tuple[EndPoint, EndPoint | None]:
    """The end point to keep, and one off the floor that is higher without being a first-order point, if there is one.

    Kept is the largest objective among first-order points off the floor; else among what is off it; else among all.
    """
    off_floor = [end for end in ends if not end.on_floor] or ends
    kept = _highest([end for end in off_floor if end.status is FitStatus.CONVERGED] or off_floor)
    return kept, _higher_end_point(ends, kept)


def _highest(ends: list[EndPoint]) -> EndPoint:
    return max(ends, key=lambda end: (end.value if np.isfinite(end.value) else -np.inf, -end.index))


def _higher_end_point(ends: list[EndPoint], kept: EndPoint) -> EndPoint | None:
    """The end point off the floor that is higher than a kept first-order point without being one, or None."""
    if kept.status is not FitStatus.CONVERGED or kept.on_floor:
        return None
    highest = _highest([end for end in ends if not end.on_floor])
    return highest if highest.value > kept.value + _HIGHER * max(1.0, abs(kept.value)) else None
