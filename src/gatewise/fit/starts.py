"""Where to start: strategies that turn the data into responsibilities.

Every strategy depends on the rows' content and a keyed generator, never on the rows' order, and on weights as if they
were repetitions: permuting or duplicating rows gives the same start. They look at z = (standardised covariates,
one-expert residual), in which units no longer matter.
"""

from collections.abc import Callable

import numpy as np

from gatewise.fit.problem import StartRows
from gatewise.ops.linalg import weighted_least_squares

__all__ = ["STRATEGIES", "responsibilities_of_start", "strategy_of_start"]

Strategy = Callable[[StartRows, np.random.Generator], np.ndarray]

_LLOYD_ROUNDS = 20
_LINE_ROUNDS = 3


def _split(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """Split the one-expert fit: slices of equal weight along a direction of z, the residual itself at first."""
    k = data.n_experts
    z = np.vstack([data.residual, data.covariates])
    direction = generator.normal(size=len(z))
    direction[0] = 2.0 * np.sqrt(len(z)) * (1.0 if direction[0] >= 0.0 else -1.0)
    # Added up row by row of z, not by a matrix product, whose rounding depends on where a row stands.
    score = sum((c * row for c, row in zip(direction, z, strict=True)), start=np.zeros(data.n_rows))
    _, group = np.unique(score, return_inverse=True)
    group_weight = np.bincount(group, weights=data.weight)
    middle = np.cumsum(group_weight) - 0.5 * group_weight
    return np.minimum((middle / data.total_weight * k).astype(int), k - 1)[group]


def _kmeans(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """k-means with k-means++ seeding (Arthur and Vassilvitskii 2007) on z, the residual stretched at random."""
    stretch = 2.0 ** generator.uniform(-1.0, 3.0)
    z = np.vstack([stretch * data.residual, data.covariates])
    k = data.n_experts
    centres = z[:, _draw_row(data, data.weight, generator)][:, None]
    for _ in range(1, k):
        nearest = _squared_distances(z, centres).min(axis=0)
        mass = data.weight * nearest
        chosen = _draw_row(data, mass if mass.any() else data.weight, generator)
        centres = np.column_stack([centres, z[:, chosen]])
    labels = np.zeros(data.n_rows, dtype=int)
    for _ in range(_LLOYD_ROUNDS):
        new_labels = _squared_distances(z, centres).argmin(axis=0)
        if np.array_equal(new_labels, labels):
            break
        labels = new_labels
        for i in range(k):
            member_weight = data.weight * (labels == i)
            if member_weight.any():
                centres[:, i] = z @ member_weight / member_weight.sum()
    return labels


def _partition(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """A random partition: each expert has a random linear score of z, a row goes to the largest."""
    z = np.vstack([np.ones(data.n_rows), data.residual, data.covariates])
    return (generator.normal(size=(data.n_experts, len(z))) @ z).argmax(axis=0)


def _lines(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """K regressions, each through a few random rows; a row goes to the nearest, a few times over."""
    p, k = len(data.design), data.n_experts
    coefficients = np.empty((k, p))
    for i in range(k):
        rows = np.array([_draw_row(data, data.weight, generator) for _ in range(p + 2)])
        coefficients[i] = weighted_least_squares(data.design[:, rows], data.residual[rows], np.ones(len(rows)))
    labels = np.zeros(data.n_rows, dtype=int)
    for _ in range(_LINE_ROUNDS):
        labels = np.abs(data.residual - coefficients @ data.design).argmin(axis=0)
        for i in range(k):
            member_weight = data.weight * (labels == i)
            if np.count_nonzero(member_weight) > p:
                coefficients[i] = weighted_least_squares(data.design, data.residual, member_weight)
    return labels


STRATEGIES: dict[str, Strategy] = {"split": _split, "kmeans": _kmeans, "lines": _lines, "partition": _partition}
"""The strategies by name; "auto" takes them in turn."""


def strategy_of_start(init: str | np.ndarray, index: int) -> str:
    """Which strategy start number `index` uses: the named one, or all in turn; "given" for a caller's array."""
    if isinstance(init, np.ndarray):
        if index == 0:
            return "given"
        init = "auto"
    return list(STRATEGIES)[index % len(STRATEGIES)] if init == "auto" else init


def responsibilities_of_start(data: StartRows, init: str | np.ndarray, index: int, seed: int) -> np.ndarray:
    """Responsibilities (k, n) of one start, from a generator keyed by (seed, index)."""
    name = strategy_of_start(init, index)
    if isinstance(init, np.ndarray) and name == "given":
        return init[data.kept].T
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    labels = STRATEGIES[name](data, generator)
    return np.eye(data.n_experts)[labels].T


def _draw_row(data: StartRows, mass: np.ndarray, generator: np.random.Generator) -> int:
    """One row with probability proportional to its mass, by inversion along the content order of the rows."""
    order = data.sorted_rows
    cumulative = np.cumsum(mass[order])
    position = np.searchsorted(cumulative, generator.uniform() * cumulative[-1], side="right")
    return int(order[min(int(position), data.n_rows - 1)])


def _squared_distances(z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(c, n) squared distances between the columns of centres (d, c) and of z (d, n)."""
    return np.stack([((z - centre[:, None]) ** 2).sum(axis=0) for centre in centres.T])
