"""Floors that are too high, and rows that agree exactly: the floor is lowered where many rows press on it.

An expert on the floor is one of three things. Few rows that happen to agree: the likelihood is unbounded there, or has
a spurious maximum, and such an end point never wins. Many rows that agree exactly, as tied targets do: the likelihood
is unbounded, and no floor helps. Or many rows that agree closely, a group more precise than the floor lets it be: an
ordinary maximum lies below, and only the floor hides it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gatewise.fit.interrupt import never
from gatewise.fit.optima import have_many_rows
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.start import EndPoint, continue_start
from gatewise.fit.status import FitStatus

__all__ = ["Agreement", "Floors", "settle_floors"]

_LOWERED_BY = 10.0
# Rows whose spread, as a share of the one-expert one, is below this agree exactly; no floor is lower than the last.
_EXACT = 1e-9
_LOWEST = 1e-8
_ROUNDING = 1e-12
# Ends on the floor whose mean objectives agree so well are one; of different ones so many are followed.
_SAME = 1e-8
_MOST = 10
_AT_REST = (FitStatus.CONVERGED, FitStatus.STALLED)
_STOPPED = (FitStatus.TIME_LIMIT, FitStatus.INTERRUPTED)


@dataclass(frozen=True)
class Agreement:
    """Many rows that agree too well for a maximum to be found.

    Attributes:
        rows: how many, with their weights.
        within: how far they agree, as a share of the spread of the one-expert fit; 0 for exactly.
        floor: the floor that is out of the way of their spread.
    """

    rows: float
    within: float
    floor: float


@dataclass(frozen=True)
class Floors:
    """What became of the floor after the starts had run.

    Attributes:
        problem: with the floor that was settled on.
        ends: the end points; those that the old floor held, and the new one does not, where they come to rest.
        asked: the floor that the search began with.
        agreement: of the rows that hold the highest start on the floor there, if that is above every other start.
    """

    problem: Problem
    ends: list[EndPoint]
    asked: float
    agreement: Agreement | None = None

    @property
    def is_lowered(self) -> bool:
        """Whether the floor is not the one that was asked for."""
        return self.problem.scale_floor != self.asked


def settle_floors(
    problem: Problem,
    options: FitOptions,
    ends: list[EndPoint],
    deadline: float | None = None,
    interrupted: Callable[[], bool] = never,
) -> Floors:
    """Lower the floor where it stands in the way of an ordinary maximum.

    Args:
        problem: that the starts climbed.
        options: of the fit.
        ends: of the starts.
        deadline: on the monotonic clock, or None.
        interrupted: whether the user has had enough.

    Returns:
        The problem, with a lower floor if and only if a start that the old one held comes to rest, off the new one, at
        a first-order point above all others, and every expert that was on the floor has many rows there. Other starts
        that the old floor held stay where they are, and stay marked.
    """
    ordinary = [end.value for end in ends if not end.on_floor and end.status is FitStatus.CONVERGED]
    higher = max(ordinary, default=-math.inf)
    settled: list[_Descent] = []
    close: list[_Descent] = []
    for end in _distinct(problem, ends):
        descent = _descend(problem, options, end, deadline, interrupted)
        if descent.end.status in _STOPPED:
            # What was found so far may not be all: the status must say that the time was up.
            cut = replace(end, status=descent.end.status)
            return Floors(problem, [cut if each is end else each for each in ends], problem.scale_floor)
        if descent.has_settled:
            settled.append(descent)
        elif descent.is_close:
            close.append(descent)
    best = max((descent.end.value for descent in settled), default=-math.inf)
    if not settled or best - _ROUNDING * max(1.0, abs(best)) <= higher:
        return Floors(problem, ends, problem.scale_floor, _agreement(close, higher))
    floor = min(descent.problem.scale_floor for descent in settled)
    lowered = problem.with_floor(floor)
    found = list(ends)
    for place, end in enumerate(ends):
        if _is_held(problem, end):
            further = continue_start(lowered, options, end, deadline, interrupted)
            if _rests(lowered, further, end.on_floor):
                found[place] = further
            elif further.status in _STOPPED:
                found[place] = replace(end, status=further.status)
    return Floors(lowered, found, problem.scale_floor, _agreement(close, best))


@dataclass(frozen=True)
class _Descent:
    """Where a start on the floor comes to as the floor is lowered.

    Attributes:
        began: the start.
        end: where it came to.
        problem: with the floor at which that was.
        experts: those that were on a floor on the way.
    """

    began: EndPoint
    end: EndPoint
    problem: Problem
    experts: tuple[int, ...]

    @property
    def has_settled(self) -> bool:
        """Whether it is an ordinary maximum."""
        return _rests(self.problem, self.end, self.experts)

    @property
    def is_close(self) -> bool:
        """Whether many rows hold an expert on every floor, or agree too closely for the tolerance of the gradient."""
        return np.isfinite(self.end.value) and _have_many(self.problem, self.end.theta, self.held)

    @property
    def held(self) -> tuple[int, ...]:
        """The experts that are still on the floor; those that were, where none is."""
        return self.end.on_floor or self.experts

    def agreement(self) -> Agreement:
        """What the rows of the held experts have in common."""
        held = list(self.held)
        rows = float(_effective_rows(self.problem, self.end.theta)[held].sum())
        spreads = [spread.values[held].min() for spread in self.problem.relative_spreads(self.end.theta)]
        return Agreement(rows, 0.0 if self.end.on_floor else float(min(spreads)), self.problem.scale_floor)


def _descend(
    problem: Problem, options: FitOptions, began: EndPoint, deadline: float | None, interrupted: Callable[[], bool]
) -> _Descent:
    """Lower the floor step by step, following one start, while many rows hold it there and do not agree exactly."""
    end, experts = began, set(began.on_floor)
    while (
        end.on_floor
        and end.status not in _STOPPED
        and problem.scale_floor > _LOWEST
        and _have_many(problem, end.theta, end.on_floor)
        and not _agree_exactly(problem, end.theta)
    ):
        problem = problem.with_floor(problem.scale_floor / _LOWERED_BY)
        end = continue_start(problem, options, end, deadline, interrupted)
        experts.update(end.on_floor)
    return _Descent(began, end, problem, tuple(sorted(experts)))


def _agree_exactly(problem: Problem, theta: np.ndarray) -> bool:
    """Whether the rows that hold the experts on the floor would make their spreads vanish.

    The derivative of the log-likelihood by the logarithm of a spread s counts −(1 − (t/s)²) for each of the expert's
    rows, t being the spread that the rows have (of a Gaussian; other families are alike): all of them where t is 0.
    """
    gradient = problem.value_and_gradient(theta)[1]
    effective, on_floor = _effective_rows(problem, theta), problem.entries_on_floor(theta)
    pull = problem.total_weight * sum(abs(gradient[entry] / known.power) for entry, known in on_floor.items())
    rows = sum(float(effective[list(known.experts)].sum()) for known in on_floor.values())
    return problem.scale_floor * math.sqrt(max(0.0, 1.0 - pull / rows)) <= _EXACT


def _distinct(problem: Problem, ends: list[EndPoint]) -> list[EndPoint]:
    """The first of each group of equally high ends that many rows hold on the floor, highest first."""
    held = sorted((end for end in ends if _is_held(problem, end)), key=lambda end: (-end.value, end.index))
    found: list[EndPoint] = []
    for end in held:
        if not found or end.value < found[-1].value - _SAME * max(1.0, abs(end.value)):
            found.append(end)
    return found[:_MOST]


def _is_held(problem: Problem, end: EndPoint) -> bool:
    """Whether a start came to rest on the floor, with many rows for each of the experts there."""
    rests = bool(end.on_floor) and end.status in _AT_REST and np.isfinite(end.value)
    return rests and _have_many(problem, end.theta, end.on_floor)


def _rests(problem: Problem, end: EndPoint, experts: tuple[int, ...]) -> bool:
    """Whether an end is an ordinary maximum, in which these experts have many rows."""
    return end.status is FitStatus.CONVERGED and not end.on_floor and _have_many(problem, end.theta, experts)


def _have_many(problem: Problem, theta: np.ndarray, experts: tuple[int, ...]) -> bool:
    """Whether each of these experts has many rows."""
    return have_many_rows(problem, _effective_rows(problem, theta), experts)


def _effective_rows(problem: Problem, theta: np.ndarray) -> np.ndarray:
    return problem.responsibilities(theta) @ problem.weight


def _agreement(close: list[_Descent], higher: float) -> Agreement | None:
    """Of the highest start on the floor, if it is above what wins."""
    best = max(close, key=lambda descent: descent.began.value, default=None)
    return None if best is None or best.began.value <= higher else best.agreement()
