"""The distinct end points of a search, sorted in as they come."""

from dataclasses import dataclass, field

import numpy as np

from gatewise.fit.problem import Problem
from gatewise.fit.result import Optimum
from gatewise.fit.start import EndPoint
from gatewise.fit.status import FitStatus

__all__ = ["Optima", "SeenOptimum", "have_many_rows", "tight_experts"]

# Tight: a spread below this share of that of the one-expert fit.
_TIGHT_SPREAD = 0.05
# Many rows are so many times those that an expert needs for its own parameters, and this share of all rows. By chance
# some share of the order of the floor itself, a thousandth, lies within the floor of any line.
_MANY_TIMES = 3
_MANY_SHARE = 0.02
# An optimum with a tight expert that so many starts reached is no accident.
_OFTEN = 3
# Mean objectives that agree to this share may be of one optimum.
_SAME_VALUE = 1e-6
# Near a maximum the mean square of what a step changes in the rows' log-densities is about its information, which is
# twice what the mean objective loses: √(2·1e-6) = 1.4e-3 for two points of one optimum. Some rows stand for all: 5e-3.
_SAME_ROWS = 5e-3


@dataclass
class SeenOptimum:
    """One distinct end point: where it is, and which starts ended there.

    Attributes:
        theta: internal units, experts in canonical order.
        mixture: what the mixture says of rows spread over the data.
        effective_rows: Σ_rows w · responsibility (k,).
        on_floor: experts on the variance floor.
        tight: tight experts.
        members: the starts that ended there, the best first point kept.
    """

    theta: np.ndarray
    mixture: np.ndarray
    effective_rows: np.ndarray
    on_floor: tuple[int, ...]
    tight: tuple[int, ...]
    members: list[EndPoint] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The mean objective."""
        return self.members[0].value


class Optima:
    """Distinct first-order points of a problem.

    Two end points are one optimum if they are one mixture: their mean objectives agree to 1e-6 relative, and their
    log-densities (for least squares, their means) at rows spread over the data to 5e-3 root mean square. No order of
    experts, no symmetry and no parameter that has ceased to matter comes into this.

    Args:
        problem: whose points they are.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._seen: list[SeenOptimum] = []

    def add(self, end: EndPoint) -> None:
        """Sort an end point in; what is no first-order point is left out."""
        if end.status is not FitStatus.CONVERGED:
            return
        mixture = self.problem.mixture_at(end.theta, self.problem.compared_rows)
        for optimum in self._seen:
            same_value = abs(end.value - optimum.value) <= _SAME_VALUE * max(1.0, abs(end.value))
            if same_value and _distance(mixture, optimum.mixture) <= _SAME_ROWS:
                optimum.members.append(end)
                return
        theta = self.problem.canonical_order(end.theta)
        effective = self.problem.responsibilities(theta) @ self.problem.weight
        tight = tight_experts(self.problem, theta, effective)
        # The floor may have been lowered since: a start that the old one held is no maximum for that.
        on_floor = self.problem.with_floor(end.scale_floor).floored(theta)
        self._seen.append(SeenOptimum(theta, mixture, effective, on_floor, tight, [end]))

    def sorted(self) -> list[SeenOptimum]:
        """The best first, but those on the floor last."""
        return sorted(self._seen, key=lambda optimum: (bool(optimum.on_floor), -optimum.value))

    def ordinary(self) -> list[SeenOptimum]:
        """Those that a search is about, the best first: off the floor, and without tight experts unless hit often.

        Of optima with a tight expert there are many, each on some rows that happen to agree; what several starts reach
        is another matter. Where there are no others all of them count.
        """
        away = [optimum for optimum in self.sorted() if not optimum.on_floor]
        return [optimum for optimum in away if not optimum.tight or len(optimum.members) >= _OFTEN] or away

    def table(self) -> tuple[tuple[Optimum, ...], dict[int, int]]:
        """What a result says of each, and which one each start reached."""
        problem, optima, reached = self.problem, [], {}
        for number, seen in enumerate(self.sorted()):
            scales = problem.relative_scales(seen.theta)
            optima.append(
                Optimum(
                    log_likelihood=problem.log_likelihood(seen.theta),
                    objective=problem.objective(seen.theta),
                    n_starts=len(seen.members),
                    model=problem.build_model(seen.theta),
                    scale=np.empty(0) if scales is None else problem.unit * scales,
                    effective_rows=seen.effective_rows,
                    on_floor=seen.on_floor,
                    tight=seen.tight,
                )
            )
            reached.update((end.index, number) for end in seen.members)
        return tuple(optima), reached


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The root mean square difference of what two mixtures say of the same rows, relative where that is above 1."""
    size = np.maximum(1.0, np.maximum(np.abs(one), np.abs(other)))
    return float(np.sqrt(np.mean(((one - other) / size) ** 2)))


def tight_experts(problem: Problem, theta: np.ndarray, effective_rows: np.ndarray) -> tuple[int, ...]:
    """Experts with a spread below 5 % of the one-expert one, or with fewer than p + 2 effective rows."""
    tight = effective_rows < problem.row_need
    for spread in problem.relative_spreads(theta):
        tight |= spread.values < _TIGHT_SPREAD
    return tuple(int(i) for i in np.flatnonzero(tight))


def have_many_rows(problem: Problem, effective_rows: np.ndarray, experts: tuple[int, ...]) -> bool:
    """Whether each of these experts has so many rows that they do not just happen to agree."""
    many = max(_MANY_TIMES * problem.row_need, _MANY_SHARE * problem.total_weight)
    return bool((effective_rows[list(experts)] >= many).all())
