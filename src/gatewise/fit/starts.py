"""Which start comes when, and the responsibilities that it begins with."""

from collections.abc import Sequence

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.options import Init
from gatewise.fit.perturbations import PERTURBATIONS
from gatewise.fit.rows import real_numbers
from gatewise.fit.start_rows import StartRows
from gatewise.fit.strategies import STRATEGIES
from gatewise.messages import choose, shown
from gatewise.model import MixtureOfExperts

__all__ = [
    "BLOCK",
    "checked_init",
    "is_independent",
    "is_perturbation",
    "model_of_start",
    "responsibilities_of_start",
    "strategy_of_start",
]

BLOCK = 8
"""Starts of a block: what a start may know of others is how the blocks before its own ended."""

# Blocks of independent starts before half of each block perturbs the best point.
_INDEPENDENT_BLOCKS = 2
# "redraw" finds more than "reassign", which finds others.
_PERTURBATIONS = ("redraw", "redraw", "reassign")
# Labels of starts are softened by a random share between these where the targets are discrete.
_SOFTEST, _HARDEST = 0.3, 0.003


def checked_init(init: Init, model: MixtureOfExperts, n_rows: int) -> str | np.ndarray | tuple[MixtureOfExperts, ...]:
    """What `FitOptions.init` says, in one form: a strategy's name, responsibilities whose rows sum to 1, or models.

    Raises:
        InputError: the name is unknown, the responsibilities have another shape or are none, or a model has other parts
            than the prototype.
    """
    if isinstance(init, str):
        if init != "auto" and init not in STRATEGIES:
            raise InputError(
                f"unknown init {shown(init)}: {choose(init, ['auto', *STRATEGIES])}, or pass responsibilities (n, k) "
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
                f"init is a model whose {what} is {shown(own)}, and {shown(asked)} is to be fitted: a start must have "
                "the same parts, each with the same sizes and options"
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
    """Which strategy start number `index` uses: the named one, or all in turn; "given" for what the caller gives.

    After two blocks of independent starts every other start is a perturbation of the best point so far.
    """
    if index < n_given(init):
        return "given"
    return _in_turn(index, [init] if isinstance(init, str) and init != "auto" else list(STRATEGIES))


def n_given(init: Init) -> int:
    """How many of the first starts begin where the caller says."""
    if isinstance(init, str):
        return 0
    return len(init) if isinstance(init, tuple) else 1


def _in_turn(index: int, names: list[str]) -> str:
    later = index - _INDEPENDENT_BLOCKS * BLOCK
    if later < 0:
        return names[index % len(names)]
    turn, is_independent = divmod(later, 2)
    return names[turn % len(names)] if is_independent else _PERTURBATIONS[turn % len(_PERTURBATIONS)]


def is_perturbation(strategy: str) -> bool:
    """Whether a strategy starts near the best point so far."""
    return strategy in PERTURBATIONS


def is_independent(strategy: str) -> bool:
    """Whether a strategy depends on the data and the seed alone, so that its starts tell what has not been seen."""
    return strategy in STRATEGIES


def model_of_start(init: Init, index: int) -> MixtureOfExperts | None:
    """The model at whose parameters start number `index` begins, or None."""
    return init[index] if isinstance(init, tuple) and index < len(init) else None


def responsibilities_of_start(
    data: StartRows, init: Init, index: int, seed: int, best: np.ndarray | None = None
) -> np.ndarray:
    """Responsibilities (k, n) of one start, from a generator keyed by (seed, index).

    Args:
        data: the rows.
        init: where to start, checked.
        index: the start's number.
        seed: of everything random.
        best: responsibilities (k, n) at the best point so far, None before there is one: then a perturbation is
            replaced by labels drawn row by row.
    """
    name = strategy_of_start(init, index)
    if isinstance(init, np.ndarray) and name == "given":
        return init[data.kept].T
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    if is_perturbation(name) and best is not None:
        responsibilities = PERTURBATIONS[name](data, best, generator)
    else:
        labels = STRATEGIES["shares" if is_perturbation(name) else name](data, generator)
        responsibilities = np.eye(data.n_experts)[labels].T
    if not data.is_discrete:
        return responsibilities
    # Groups made by looking at the targets would give each expert a class of its own: a plateau at the boundary of
    # what probabilities can be, and a long climb back. How much is shared out equally decides what is reached.
    softened = _HARDEST * (_SOFTEST / _HARDEST) ** generator.uniform()
    return (1.0 - softened) * responsibilities + softened / data.n_experts
