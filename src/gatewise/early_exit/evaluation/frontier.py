"""Accuracy against cost, and differences between two policies at equal cost with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gatewise.exceptions import InputError

__all__ = ["Difference", "Frontier", "compare"]

_BLOCK = 250


@dataclass(frozen=True)
class Frontier:
    """A policy at several settings on the same n samples.

    Attributes:
        name: the policy.
        correct: (K, n), whether each answer is right.
        cost: (K, n), relative.
    """

    name: str
    correct: np.ndarray
    cost: np.ndarray

    def at(self, cost: float) -> float:
        """The accuracy at a mean cost, on straight lines between settings; not a number below the cheapest.

        That is what drawing between two settings at random gives. Beyond the dearest setting it is that setting's:
        nobody has to spend more.

        Example:
            >>> frontier = Frontier("a", np.array([[0, 0, 1, 1], [1, 1, 1, 1]]), np.array([[0.2] * 4, [0.6] * 4]))
            >>> frontier.at(0.4), frontier.at(0.7), frontier.at(0.1)
            (0.75, 1.0, nan)
        """
        return float(_interpolated(self.cost.mean(1)[None], self.correct.mean(1)[None], cost)[0])


@dataclass(frozen=True)
class Difference:
    """Accuracy of a first policy minus that of a second at one cost.

    Attributes:
        cost: relative.
        estimate: the mean over seeds.
        low: lower end of the percentile interval; not a number where a frontier begins above the cost.
        high: its upper end.
        level: of the interval.
    """

    cost: float
    estimate: float
    low: float
    high: float
    level: float

    @property
    def verdict(self) -> str:
        """Which is better: only what an interval says."""
        if not self.low <= self.high:
            return "unknown"
        return "first" if self.low > 0.0 else "second" if self.high < 0.0 else "undecided"


def compare(
    first: Sequence[Frontier],
    second: Sequence[Frontier],
    costs: Sequence[float] = (0.3, 0.5, 0.7),
    level: float = 0.95,
    n_draws: int = 1000,
    seed: int = 0,
) -> list[Difference]:
    """Differences at equal costs, with percentile intervals of a paired bootstrap over seeds and samples.

    Each draw takes seeds with replacement and, for all of them, the same samples with replacement: seeds share their
    test data, and both policies see the same samples.

    Args:
        first: one frontier for each seed.
        second: the same of the other policy.
        costs: at which to compare.
        level: of the intervals.
        n_draws: of the bootstrap.
        seed: of the draws.

    Raises:
        InputError: other numbers of seeds or samples.

    Example:
        >>> right = np.ones((1, 50)); wrong = np.zeros((1, 50)); cost = np.full((1, 50), 0.5)
        >>> compare([Frontier("a", right, cost)], [Frontier("b", wrong, cost)], costs=[0.5])[0].verdict
        'first'
    """
    if not first or len(first) != len(second):
        raise InputError(f"there are {len(first)} frontiers of the first policy and {len(second)} of the second")
    n = first[0].correct.shape[1]
    if any(each.correct.shape[1] != n for each in (*first, *second)):
        raise InputError("all frontiers must be of the same samples")
    rng = np.random.default_rng(seed)
    seeds = len(first)
    point = np.array([[a.at(cost) - b.at(cost) for cost in costs] for a, b in zip(first, second, strict=True)]).mean(0)
    draws = np.empty((n_draws, len(costs)))
    for start in range(0, n_draws, _BLOCK):
        size = min(_BLOCK, n_draws - start)
        weights = rng.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float32) / n
        # (seeds, draws, costs): both policies under the same weights.
        each = np.array(
            [_drawn(a, weights, costs) - _drawn(b, weights, costs) for a, b in zip(first, second, strict=True)]
        )
        taken = rng.integers(seeds, size=(size, seeds))
        draws[start : start + size] = each[taken, np.arange(size)[:, None]].mean(1)
    differences = []
    for place, cost in enumerate(costs):
        column = draws[:, place]
        column = column[~np.isnan(column)]
        # A frontier that often begins above the cost has no interval there.
        enough = len(column) > 0.9 * n_draws and not np.isnan(point[place])
        low, high = np.quantile(column, [(1 - level) / 2, (1 + level) / 2]) if enough else (np.nan, np.nan)
        differences.append(Difference(float(cost), float(point[place]), float(low), float(high), level))
    return differences


def _drawn(frontier: Frontier, weights: np.ndarray, costs: Sequence[float]) -> np.ndarray:
    """Accuracies (draws, costs) of the frontier of each draw."""
    product = torch.from_numpy(weights)
    spent = (product @ torch.from_numpy(frontier.cost.T.astype(np.float32))).numpy()
    right = (product @ torch.from_numpy(frontier.correct.T.astype(np.float32))).numpy()
    return np.stack([_interpolated(spent, right, cost) for cost in costs], 1)


def _interpolated(spent: np.ndarray, right: np.ndarray, cost: float) -> np.ndarray:
    """Rows of (draws, settings) read off at a cost; within a rounding of the first, the first."""
    order = np.argsort(spent, axis=1, kind="stable")
    spent, right = np.take_along_axis(spent, order, 1), np.take_along_axis(right, order, 1)
    above = np.clip((spent < cost - 1e-6).sum(1), 0, spent.shape[1] - 1)
    below = np.maximum(above - 1, 0)
    rows = np.arange(len(spent))
    low, high = spent[rows, below], spent[rows, above]
    share = np.where(high - low > 1e-12, (cost - low) / np.maximum(high - low, 1e-12), 1.0)
    value = right[rows, below] + np.clip(share, 0.0, 1.0) * (right[rows, above] - right[rows, below])
    return np.where(spent[:, 0] <= cost + 1e-6, value, np.nan)
