"""Where to start: strategies that turn the data into responsibilities.

Every strategy depends on the rows' content and a keyed generator, never on the rows' order, and on weights as if they
were repetitions: permuting or duplicating rows gives the same start. They look at z = (standardised covariates,
one-expert residual), in which units no longer matter.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.options import Init
from gatewise.fit.problem import StartRows
from gatewise.fit.rows import real_numbers
from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import weighted_least_squares

__all__ = ["STRATEGIES", "checked_init", "model_of_start", "responsibilities_of_start", "strategy_of_start"]

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


def checked_init(init: Init, model: MixtureOfExperts, n_rows: int) -> str | np.ndarray | tuple[MixtureOfExperts, ...]:
    """What `FitOptions.init` says, in one form: a strategy's name, responsibilities whose rows sum to 1, or models.

    Raises:
        InputError: the name is unknown, the responsibilities have another shape or are none, or a model has other parts
            than the prototype.
    """
    if isinstance(init, str):
        if init != "auto" and init not in STRATEGIES:
            raise InputError(
                f"unknown init {init!r}: choose one of auto, {', '.join(STRATEGIES)}, or pass responsibilities (n, k) "
                "or a model"
            )
        return init
    models = (init,) if isinstance(init, MixtureOfExperts) else init
    if isinstance(models, Sequence) and models and all(isinstance(each, MixtureOfExperts) for each in models):
        for each in models:
            _check_same_parts(each, model)
        return tuple(models)
    return _shares(init, n_rows, model.n_experts)


def _check_same_parts(start: MixtureOfExperts, model: MixtureOfExperts) -> None:
    for what, own, asked in (
        ("gate", start.gate, model.gate),
        ("experts", start.experts, model.experts),
        ("family", start.family, model.family),
    ):
        if type(own) is not type(asked) or repr(own) != repr(asked):
            raise InputError(
                f"init is a model whose {what} is {own!r}, and {asked!r} is to be fitted: a start must have the same "
                "parts, each with the same sizes and options"
            )
    for what, own, asked in (
        ("gate", start.gate_scaler, model.gate_scaler),
        ("experts", start.expert_scaler, model.expert_scaler),
    ):
        known = {} if own is None else own.state_dict()
        wanted = {} if asked is None else asked.state_dict()
        if known.keys() != wanted.keys() or any(not torch.equal(known[name], wanted[name]) for name in known):
            raise InputError(
                f"init is a model that standardises the inputs of its {what} in another way than the model to be "
                "fitted: a start must have the same standardisation, or none where that has none"
            )


def _shares(init: object, n_rows: int, n_experts: int) -> np.ndarray:
    """Responsibilities (n, k) as given, with rows that sum to 1."""
    try:
        array = real_numbers("init", init)
    except InputError:
        raise InputError(
            "init must be the name of a strategy, responsibilities (n, k), a table of numbers, or a model or several"
        ) from None
    if array.shape != (n_rows, n_experts):
        raise InputError(
            f"init has shape {array.shape}; responsibilities need one row per row of X and one column per expert, "
            f"{(n_rows, n_experts)}"
        )
    totals = array.sum(axis=1)
    bad = ~(np.isfinite(totals) & (array >= 0.0).all(axis=1) & (totals > 0.0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"init has no valid responsibilities in row {row}: they must be non-negative and not all zero")
    return array / totals[:, None]


def strategy_of_start(init: Init, index: int) -> str:
    """Which strategy start number `index` uses: the named one, or all in turn; "given" for what the caller gives."""
    if isinstance(init, str):
        return list(STRATEGIES)[index % len(STRATEGIES)] if init == "auto" else init
    given = len(init) if isinstance(init, tuple) else 1
    return "given" if index < given else strategy_of_start("auto", index)


def model_of_start(init: Init, index: int) -> MixtureOfExperts | None:
    """The model at whose parameters start number `index` begins, or None."""
    return init[index] if isinstance(init, tuple) and index < len(init) else None


def responsibilities_of_start(data: StartRows, init: Init, index: int, seed: int) -> np.ndarray:
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
