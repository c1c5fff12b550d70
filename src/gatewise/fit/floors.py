"""Floors that are too high, and rows that agree exactly: where many rows ask for a narrower expert, the floor is lowered.

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
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.start import EndPoint, continue_start
from gatewise.fit.status import FitStatus

__all__ = ["Floors", "settle_floors"]

# Many rows are so many times those that an expert needs for its own parameters, and this share of all rows. By chance
# some share of the order of the floor itself, a thousandth, lies within the floor of any line.
_MANY_TIMES = 3
_MANY_SHARE = 0.02
_LOWERED_BY = 10.0
# Rows whose spread, as a share of the one-expert one, is below this agree exactly.
_EXACT = 1e-9
_LOWEST = 1e-8
_ROUNDING = 1e-12
# Ends on the floor whose mean objectives agree so well are one; of different ones so many are followed.
_SAME = 1e-8
_MOST = 10
_STOPPED = (FitStatus.TIME_LIMIT, FitStatus.INTERRUPTED)


@dataclass(frozen=True)
class Floors:
    """What became of the floor after the starts had run.

    Attributes:
        problem: with the floor that was settled on.
        ends: the end points; those that the old floor held, and the new one does not, where they come to rest.
        asked: the floor that the search began with.
        tied_rows: how many rows agree exactly, of the start on the floor with the largest objective of those that are
            higher than every other; 0 if there is none.
    """

    problem: Problem
    ends: list[EndPoint]
    asked: float
    tied_rows: float = 0.0

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
    higher = max((end.value for end in ends if not end.on_floor and np.isfinite(end.value)), default=-math.inf)
    settled: list[_Descent] = []
    tied: list[_Descent] = []
    for end in _distinct(problem, ends):
        descent = _descend(problem, options, end, deadline, interrupted)
        if descent.end.status in _STOPPED:
            # What was found so far may not be all: the status must say that the time was up.
            return Floors(problem, _with(ends, replace(end, status=descent.end.status)), problem.scale_floor)
        if descent.is_tied:
            tied.append(descent)
        elif descent.has_settled:
            settled.append(descent)
    best = max((descent.end.value for descent in settled), default=-math.inf)
    if best <= higher + _ROUNDING * max(1.0, abs(higher)):
        return Floors(problem, ends, problem.scale_floor, _most_tied(tied, higher))
    floor = min(descent.problem.scale_floor for descent in settled)
    lowered = problem.with_floor(floor)
    found = list(ends)
    for place, end in enumerate(ends):
        if _is_held(problem, end):
            further = continue_start(lowered, options, end, deadline, interrupted)
            found[place] = further if _rests(lowered, further, end.on_floor) else end
    return Floors(lowered, found, problem.scale_floor, _most_tied(tied, best))


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
    def is_tied(self) -> bool:
        """Whether it is still on the floor, with many rows, so that these agree exactly."""
        return bool(self.end.on_floor) and _have_many(self.problem, self.end.theta, self.end.on_floor)

    @property
    def n_tied(self) -> float:
        """How many rows agree exactly."""
        return float(_effective_rows(self.problem, self.end.theta)[list(self.end.on_floor)].sum())


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
    """Whether a start ended on the floor, with many rows for each of the experts there."""
    return bool(end.on_floor) and np.isfinite(end.value) and _have_many(problem, end.theta, end.on_floor)


def _rests(problem: Problem, end: EndPoint, experts: tuple[int, ...]) -> bool:
    """Whether an end is an ordinary maximum, in which these experts have many rows."""
    return end.status is FitStatus.CONVERGED and not end.on_floor and _have_many(problem, end.theta, experts)


def _have_many(problem: Problem, theta: np.ndarray, experts: tuple[int, ...]) -> bool:
    """Whether each of these experts has many rows."""
    many = max(_MANY_TIMES * problem.row_need, _MANY_SHARE * problem.total_weight)
    return bool((_effective_rows(problem, theta)[list(experts)] >= many).all())


def _effective_rows(problem: Problem, theta: np.ndarray) -> np.ndarray:
    return problem.responsibilities(theta) @ problem.weight


def _most_tied(tied: list[_Descent], higher: float) -> float:
    """How many rows agree exactly in the highest start on the floor, if it is above what wins."""
    best = max(tied, key=lambda descent: descent.began.value, default=None)
    return 0.0 if best is None or best.began.value <= higher else best.n_tied


def _with(ends: list[EndPoint], changed: EndPoint) -> list[EndPoint]:
    return [changed if end.index == changed.index else end for end in ends]
