"""Where to start: strategies that turn the data into labels, so many that some of them reach any basin.

No strategy leads everywhere: slices of the residual find experts of different level, half-spaces of the inputs experts
that rule in different places, uneven labels experts with few rows, lines through few rows experts of different slope.

Every strategy depends on the rows' content and a keyed generator, never on the order of rows or columns, and on weights
as if they were repetitions: permuting or duplicating rows, or permuting columns, gives the same start. They look at
z = (standardised covariates in canonical order, one-expert residual), in which units no longer matter.
"""

from collections.abc import Callable

import numpy as np

from gatewise.fit.start_rows import StartRows
from gatewise.ops.linalg import weighted_least_squares

__all__ = ["STRATEGIES", "half_spaces", "labels_by_share"]

Strategy = Callable[[StartRows, np.random.Generator], np.ndarray]

_LLOYD_ROUNDS = 20
_LINE_ROUNDS = 3
# A cut leaves at least this share of the weight on either side.
_SMALLEST_SHARE = 0.05


def _split(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """Split the one-expert fit: slices of equal weight along a direction of z, the residual itself at first."""
    k = data.n_experts
    z = np.vstack([data.residual, data.covariates])
    direction = generator.normal(size=len(z))
    direction[0] = 2.0 * np.sqrt(len(z)) * (1.0 if direction[0] >= 0.0 else -1.0)
    middle = _middle_ranks(_score(direction, z), data.weight)
    return np.minimum((middle * k).astype(int), k - 1)


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
    coefficients = _lines_through_rows(data, p + 2, generator)
    labels = np.zeros(data.n_rows, dtype=int)
    for _ in range(_LINE_ROUNDS):
        labels = np.abs(data.residual - coefficients @ data.design).argmin(axis=0)
        for i in range(k):
            member_weight = data.weight * (labels == i)
            if np.count_nonzero(member_weight) > p:
                coefficients[i] = weighted_least_squares(data.design, data.residual, member_weight)
    return labels


def _subsets(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """K regressions, each through a random number of random rows, more or fewer than it has coefficients."""
    p = len(data.design)
    n_rows = int(generator.integers(max(2, p // 2), p + 4))
    return np.abs(data.residual - _lines_through_rows(data, n_rows, generator) @ data.design).argmin(axis=0)


def _half_spaces(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """Half-spaces of the inputs."""
    return half_spaces(data, data.covariates, data.weight, data.n_experts, generator)


def _half_spaces_of_target(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """Half-spaces of inputs and residual, the residual stretched at random."""
    z = np.vstack([2.0 ** generator.uniform(-1.0, 2.0) * data.residual, data.covariates])
    return half_spaces(data, z, data.weight, data.n_experts, generator)


def _shares(data: StartRows, generator: np.random.Generator) -> np.ndarray:
    """Labels drawn row by row, with random and uneven shares of the experts."""
    share = generator.uniform(_SMALLEST_SHARE, 1.0 - _SMALLEST_SHARE, size=data.n_experts)
    return labels_by_share(data, share / share.sum(), generator)


STRATEGIES: dict[str, Strategy] = {
    "split": _split,
    "lines": _lines,
    "half_spaces": _half_spaces,
    "kmeans": _kmeans,
    "shares": _shares,
    "subsets": _subsets,
    "partition": _partition,
    "half_spaces_of_target": _half_spaces_of_target,
}
"""The strategies by name; "auto" takes them in turn."""


def half_spaces(
    data: StartRows, z: np.ndarray, weight: np.ndarray, n_groups: int, generator: np.random.Generator
) -> np.ndarray:
    """Labels (n,) of groups cut by half-spaces of random direction and random share, the heaviest group first.

    Args:
        data: the rows.
        z: what the half-spaces lie in (c, n).
        weight: how much a row counts (n,).
        n_groups: how many groups.
        generator: of directions and shares.
    """
    labels = np.zeros(data.n_rows, dtype=int)
    for group in range(1, n_groups):
        heaviest = int(np.bincount(labels, weights=weight, minlength=group).argmax())
        direction = generator.normal(size=len(z))
        share = generator.uniform(_SMALLEST_SHARE, 1.0 - _SMALLEST_SHARE)
        rows = labels == heaviest
        above = _middle_ranks(_score(direction, z[:, rows]), weight[rows]) > share
        labels[np.flatnonzero(rows)[above]] = group
    return labels


def labels_by_share(data: StartRows, share: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Labels (n,) drawn with probabilities `share` (k,); rows of the same content have the same label."""
    draws = generator.uniform(size=int(data.content.max()) + 1)
    return np.minimum(np.searchsorted(np.cumsum(share), draws), len(share) - 1)[data.content]


def _score(direction: np.ndarray, z: np.ndarray) -> np.ndarray:
    # Added up row by row of z, not by a matrix product, whose rounding depends on where a row stands.
    return sum((c * row for c, row in zip(direction, z, strict=True)), start=np.zeros(z.shape[1]))


def _middle_ranks(score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The share of the weight below each row, half of that of equal scores included (n,)."""
    _, group = np.unique(score, return_inverse=True)
    group_weight = np.bincount(group, weights=weight)
    total = float(group_weight.sum())
    middle = (np.cumsum(group_weight) - 0.5 * group_weight) / (total if total > 0.0 else 1.0)
    return middle[group]


def _lines_through_rows(data: StartRows, n_rows: int, generator: np.random.Generator) -> np.ndarray:
    """Coefficients (k, p) of the residual's regressions on `n_rows` random rows each."""
    coefficients = np.empty((data.n_experts, len(data.design)))
    for i in range(data.n_experts):
        rows = np.array([_draw_row(data, data.weight, generator) for _ in range(n_rows)])
        coefficients[i] = weighted_least_squares(data.design[:, rows], data.residual[rows], np.ones(len(rows)))
    return coefficients


def _draw_row(data: StartRows, mass: np.ndarray, generator: np.random.Generator) -> int:
    """One row with probability proportional to its mass, by inversion along the content order of the rows."""
    order = data.sorted_rows
    cumulative = np.cumsum(mass[order])
    position = np.searchsorted(cumulative, generator.uniform() * cumulative[-1], side="right")
    return int(order[min(int(position), data.n_rows - 1)])


def _squared_distances(z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(c, n) squared distances between the columns of centres (d, c) and of z (d, n)."""
    return np.stack([((z - centre[:, None]) ** 2).sum(axis=0) for centre in centres.T])
