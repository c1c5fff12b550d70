"""Truths with more atoms than they need: where the spare ones stand, and the mixtures that equal the truth."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.model import MixtureOfExperts
from gatewise.theory.weights import weight_blocks

__all__ = ["allocations", "fitted_at_truth"]


def allocations(n_true: int, fit_k: int) -> Iterator[tuple[int, ...]]:
    """All ways in which the extra fitted atoms can stand by true ones: the true atom of each fitted atom, sorted.

    Example:
        >>> list(allocations(2, 3))
        [(0, 0, 1), (0, 1, 1)]
    """
    for extra in combinations_with_replacement(range(n_true), fit_k - n_true):
        yield tuple(sorted([*range(n_true), *extra]))


def fitted_at_truth(truth: MixtureOfExperts, cells: Sequence[int]) -> MixtureOfExperts:
    """A mixture with one atom for each entry of `cells` that equals the truth: copies share their original's weight.

    Raises:
        InputError: the gate has no weights that can be shared, or cannot be built with another number of experts.
    """
    if list(cells) == list(range(truth.n_experts)):
        return copy.deepcopy(truth)
    gate, experts = truth.gate, truth.experts
    if gate.branches or gate.dense is not gate:
        raise InputError(
            f"a {gate.name} gate with more experts can be built in several ways: give the fitted mixture, equal to the "
            "truth, and its cells"
        )
    k, index = len(cells), list(cells)
    bigger = type(gate).of(gate.n_features, k, **gate.options()).double()
    rows = {name: value[index] if name in gate.per_expert else value for name, value in gate.own_parameters().items()}
    often = Counter(cells)
    log_share = np.array([-np.log(often[cell]) for cell in cells])
    blocks = weight_blocks(gate)
    if not blocks:
        raise InputError(
            f"no parameter of the {gate.name} gate is a weight of an atom, so copies of an atom cannot share one: give "
            "the fitted mixture, equal to the truth, and its cells"
        )
    for block in blocks:
        weight = block.weight(rows[block.name].numpy())
        rows[block.name] = torch.from_numpy(block.value(weight + log_share))
    bigger.assign_parameters(rows)
    more = type(experts).of(experts.n_features, k, **experts.options(), **experts.sizes()).double()
    names = [*experts.per_expert, *([] if experts.shared_scale else ["log_scale"])]
    own = experts.own_parameters()
    more.assign_parameters({name: value[index] if name in names else value for name, value in own.items()})
    return MixtureOfExperts(bigger, more, truth.family)
