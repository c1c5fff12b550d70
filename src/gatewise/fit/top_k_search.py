"""The search for the maximum of a likelihood that jumps where a row changes its selected experts.

Within a partition of the rows the objective is smooth, and a smooth solver climbs it. Between partitions it is searched
along lines of gate parameters: with scores that are linear in them, all points are known at which a row changes its
experts, and the objective between any two of them; otherwise a grid is refined. Only improvements of the objective
itself are accepted. The search ends where neither a line leads higher nor a step within the partition.
"""

import re

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.cell import climb_in_cell, middle_of_cell
from gatewise.fit.gradient_sampling import gradient_sampling
from gatewise.fit.monitor import Monitor
from gatewise.fit.newton import newton
from gatewise.fit.partition import PartitionedProblem
from gatewise.fit.quasi_newton import ascend
from gatewise.fit.some_entries import EntriesMonitor, SomeEntries
from gatewise.fit.status import FitStatus
from gatewise.kernels.selection_lines import best_on_line, crossings, interval_middles

__all__ = ["top_k_search"]

_APPROACHES = 20
_SMOOTH_STEPS = 40
_DENSE_STEPS = 80
_SHORTER = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
# An improvement of the mean objective below this share of it is none.
_GAIN = 1e-10
# Before the smooth part is at its maximum, jumps of the objective below this are left for later.
_COARSE = 1e-2
# How many of the best points of a line are evaluated before it is given up.
_TRIED = 3
# Lines and partitions of each of them that are tried with experts of their own, and steps for these.
_LOOK_LINES = 2
_LOOKS = 12
_LOOK_STEPS = 6
# Points at a time of a grid along a line, and how often it is refined at most.
_GRID = 11
_REFINEMENTS = 4
# A grid along scores that are not linear ends where they have changed by this many of their spreads.
_REACH = 4.0


def top_k_search(
    problem: PartitionedProblem, theta: np.ndarray, monitor: Monitor, tol: float, generator: np.random.Generator
) -> tuple[np.ndarray, FitStatus, float]:
    """Climb from θ, within partitions and from one to the next, until nothing leads higher.

    Args:
        problem: with a top-K gate.
        theta: where it begins.
        monitor: is told of every improvement.
        tol: bound on the largest component of what is left of the gradient, less what points out of the cell.
        generator: draws directions.

    Returns:
        The last θ; CONVERGED, or STALLED where the gradient's remainder is larger than `tol`; and its largest
        component. The monitor ends it earlier by raising.
    """
    search = _Search(problem, theta, monitor, generator)
    monitor.begin(search.theta, search.value)
    search.approach()
    search.from_dense()
    while True:
        while search.sweep() or search.look_ahead():
            search.improve_the_rest()
        status, slope = search.settle(tol)
        if not search.sweep():
            return search.theta, status, slope


class _Search:
    """The best θ so far, and the ways to a better one."""

    def __init__(
        self, problem: PartitionedProblem, theta: np.ndarray, monitor: Monitor, generator: np.random.Generator
    ) -> None:
        self.problem = problem
        self.monitor = monitor
        self.generator = generator
        self.contrasts = _contrasts(problem)
        self.has_prior = problem.options.gate_ridge > 0.0
        self.is_settled = False
        held = problem.selection_entries
        order = problem.entry_order
        self.smooth = order[~np.isin(order, held)]
        self.rest = self.smooth[~np.isin(self.smooth, problem.moving)]
        self.theta = theta
        self.value = self.value_at(theta)
        self.floored = set(problem.floored(theta))

    @property
    def least_gain(self) -> float:
        """What counts as an improvement: little once the point is the maximum of its cell, more before."""
        return max(_GAIN * max(1.0, abs(self.value)), 0.0 if self.is_settled else _COARSE / self.problem.total_weight)

    def value_at(self, theta: np.ndarray) -> float:
        """The mean objective, −∞ where it is no number."""
        self.monitor.check()
        value = self.problem.value(theta)
        return value if np.isfinite(value) else -np.inf

    def accept(self, theta: np.ndarray) -> bool:
        """Take a point if it is better, and not by an expert that comes to the floor there."""
        value = self.value_at(theta)
        if value <= self.value + self.least_gain or set(self.problem.floored(theta)) - self.floored:
            return False
        self.theta, self.value = theta, value
        self.monitor.iterate(theta, value)
        return True

    # --- within the partition

    def _climbed(
        self, entries: np.ndarray, origin: np.ndarray, steps: int = _SMOOTH_STEPS, partition: Tensor | None = None
    ) -> np.ndarray:
        """Where some quasi-Newton steps in these entries lead with a partition, by default that of the origin."""
        part = SomeEntries(self.problem, origin, entries)

        def watched(theta: np.ndarray) -> tuple[float, np.ndarray]:
            self.monitor.check()
            return part.value_and_gradient(theta)

        with self.problem.held(self.problem.partition(origin) if partition is None else partition):
            return part.whole(ascend(watched, origin[entries], part.bounds, steps))

    def approach(self) -> None:
        """Several times to the maximum within the partition if it is as good there without it, or part of the way."""
        for _ in range(_APPROACHES):
            ahead = self._climbed(self.smooth, self.theta)
            if not any(self.accept(self.theta + share * (ahead - self.theta)) for share in _SHORTER):
                return

    def from_dense(self) -> None:
        """The same from where the model goes from here if every row keeps all its experts."""
        problem, here = self.problem, self.theta
        everything = torch.ones_like(problem.partition(here))
        dense = self._climbed(problem.entry_order, here, _DENSE_STEPS, everything)
        if self.accept(dense) or self.accept(self._climbed(self.smooth, dense)):
            self.approach()

    def improve_the_rest(self) -> bool:
        """Climb in the parameters that do not move the selection."""
        return self.accept(self._climbed(self.rest, self.theta))

    def settle(self, tol: float) -> tuple[FitStatus, float]:
        """To the maximum within the cell of the partition; at kinks, and with K = 1, the moving parameters held."""
        problem = self.problem
        if problem.n_active > 1 and problem.is_smooth:
            self.theta, status, slope = climb_in_cell(problem, self.theta, self.monitor, tol)
        else:
            status, slope = self._settle_the_rest(tol)
        if problem.n_active == 1:
            self.theta = middle_of_cell(problem, self.theta)
        self.value = self.value_at(self.theta)
        self.is_settled = True
        return status, slope

    def _settle_the_rest(self, tol: float) -> tuple[FitStatus, float]:
        rest = SomeEntries(self.problem, self.theta, self.rest)
        monitor = EntriesMonitor(self.monitor, rest)
        part, status = self.theta[self.rest], FitStatus.STALLED
        slope = 0.0
        if self.problem.is_smooth:
            part, status = newton(rest, part, monitor, tol)
        if status is FitStatus.STALLED:
            part, status, slope = gradient_sampling(rest, part, monitor, tol, self.generator)
        else:
            slope = float(np.abs(rest.value_and_gradient(part)[1]).max(initial=0.0))
        self.theta = rest.whole(part)
        return status, slope

    # --- along lines

    def sweep(self) -> bool:
        """Along every direction in turn to the best point; whether any led higher."""
        improved = False
        for direction in self._directions():
            improved |= self._search_line(direction)
        self.is_settled &= not improved
        return improved

    def _directions(self) -> list[np.ndarray]:
        """To where the densities alone would have the gate; each moving entry; contrasts; and some drawn at random."""
        problem = self.problem
        unit, moving = np.eye(problem.size), problem.moving
        away = problem.towards(self.theta, self.generator) - self.theta
        pairs = self.contrasts
        if len(pairs) > len(moving):
            pairs = [pairs[place] for place in self.generator.permutation(len(pairs))[: len(moving)]]
        drawn = np.zeros(((len(moving) + 1) // 2, problem.size))
        drawn[:, moving] = self.generator.normal(size=(len(drawn), len(moving)))
        return [away, *unit[moving], *(unit[i] - unit[j] for i, j in pairs), *drawn]

    def _search_line(self, direction: np.ndarray) -> bool:
        """To the best point of a line of gate parameters, if it is better."""
        problem = self.problem
        if not np.isfinite(direction).all() or not direction.any():
            return False
        if not problem.is_linear:
            return self._search_grid(direction)
        line = self._line(direction)
        if not problem.rows_are_mixtures:
            places = np.sort(crossings(*line, problem.weight, problem.n_active)[0])
            return bool(len(places)) and self._search_points(direction, interval_middles(places)[0])
        lengths, gains = best_on_line(*line, problem.weight, problem.n_active)
        # What the lines do not know of, a prior on the gate, is for `accept` to see.
        tried = gains > (0.0 if self.has_prior else self.least_gain * problem.total_weight)
        return any(self.accept(self.theta + length * direction) for length in lengths[tried][:_TRIED])

    def look_ahead(self) -> bool:
        """Try some other partitions along some lines with the experts that they would have; whether one is better.

        Lines compare partitions for the experts as they are, which favours those close by.
        """
        problem = self.problem
        if not problem.is_linear:
            return False
        for entry in self.generator.permutation(problem.moving)[:_LOOK_LINES]:
            direction = np.eye(problem.size)[entry]
            line = self._line(direction)
            places = np.sort(crossings(*line, problem.weight, problem.n_active)[0])
            if not len(places):
                continue
            points = interval_middles(places)[0]
            picks = np.sort(self.generator.permutation(len(points))[:_LOOKS])
            for length in points[picks]:
                theta = self.theta + length * direction
                # An expert that explains its few rows exactly would end on the floor.
                if (problem.responsibilities(theta) @ problem.weight).min() < problem.row_need - 1:
                    continue
                theta = problem.regressed(theta, self.generator)
                if self.accept(self._climbed(self.rest, theta, _LOOK_STEPS)):
                    return True
        return False

    def _line(self, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Scores and their change, logits and theirs, and densities."""
        score, logit = self.problem.gate_rows(self.theta)
        further = self.problem.gate_rows(self.theta + direction)
        return score, further[0] - score, logit, further[1] - logit, self.problem.evaluator.densities(self.theta)

    def _search_points(self, direction: np.ndarray, points: np.ndarray) -> bool:
        """To the best of some points in ascending order, found by refining a grid of them."""
        low, high = 0, len(points) - 1
        best, best_value = 0, -np.inf
        for _ in range(_REFINEMENTS):
            grid = np.unique(np.linspace(low, high, _GRID).round().astype(int))
            values = [self.value_at(self.theta + points[place] * direction) for place in grid]
            top = int(np.argmax(values))
            if values[top] > best_value:
                best, best_value = int(grid[top]), values[top]
            if len(grid) == high - low + 1:
                break
            low, high = int(grid[max(top - 1, 0)]), int(grid[min(top + 1, len(grid) - 1)])
        return best_value > self.value + self.least_gain and self.accept(self.theta + points[best] * direction)

    def _search_grid(self, direction: np.ndarray) -> bool:
        """The same where scores are not linear: a fine grid over what changes them by their spread and more."""
        score = self.problem.gate_rows(self.theta)[0]
        small = 1e-3
        change = self.problem.gate_rows(self.theta + small * direction)[0] - score
        speed = float(np.median(np.ptp(change, axis=1))) / small
        spread = float(np.median(np.ptp(score, axis=1)))
        if not speed > 0.0:
            return False
        far = _REACH * max(spread, 1.0) / speed
        # Finer near zero: the sign and a square keep the order.
        grid = np.linspace(-1.0, 1.0, _GRID**2)
        return self._search_points(direction, far * np.sign(grid) * grid**2)


def _contrasts(problem: PartitionedProblem) -> list[tuple[int, int]]:
    """Pairs of moving entries that are the same number of two experts, with three experts or more."""
    if problem.n_experts < 3:
        return []
    labels = problem.labels()
    groups: dict[str, list[int]] = {}
    for entry in problem.moving.tolist():
        # The first index is the expert's.
        groups.setdefault(re.sub(r"\[\d+", "[", labels[entry]), []).append(entry)
    return [(i, j) for group in groups.values() for place, i in enumerate(group) for j in group[place + 1 :]]
