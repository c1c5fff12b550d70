"""Quadrature over the target."""

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.model import MixtureOfExperts
from gatewise.theory.modulus.design import TargetGrid

__all__ = ["target_rule"]

_TAIL = 1e-12
_MOST_COUNTS = 10_000


def target_rule(design: TargetGrid, truth: MixtureOfExperts, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n,) and weights (n,) of y: all classes or counts with weight 1, or an even grid over the truth's range.

    The even grid is the trapezoidal rule, whose error for a density that fades at both ends falls faster than any power
    of the spacing.

    Raises:
        InputError: targets have several components, or the family has no quantiles and no range is given.
    """
    family = truth.family
    if family.event_size:
        raise InputError(
            f"targets of the {family.name} family have {family.event_size} components: the modulus takes one"
        )
    if family.n_unordered is not None:
        return np.arange(family.n_unordered, dtype=float), np.ones(family.n_unordered)
    low, high = design.low, design.high
    if low is None or high is None:
        found = _range(truth, x)
        low, high = found[0] if low is None else low, found[1] if high is None else high
    if not low < high:
        raise InputError(f"the range of the target must not be empty: low = {low}, high = {high}")
    if family.is_discrete:
        counts = np.arange(int(np.floor(low)), int(np.ceil(high)) + 1, dtype=float)
        if len(counts) > _MOST_COUNTS:
            raise InputError(f"the targets take {len(counts)} values: give a smaller range by low and high")
        return counts, np.ones(len(counts))
    nodes = np.linspace(low, high, design.nodes)
    return nodes, np.full(design.nodes, nodes[1] - nodes[0])


def _range(truth: MixtureOfExperts, x: np.ndarray) -> tuple[float, float]:
    """The range that holds all of every expert's distribution but its outermost 1e-12."""
    with torch.no_grad():
        location, dispersion = truth.expert_parameters(torch.from_numpy(x))
        shape = (len(x),)
        low = truth.family.quantile(torch.full(shape, _TAIL, dtype=torch.float64), location, dispersion)
        high = truth.family.quantile(torch.full(shape, 1 - _TAIL, dtype=torch.float64), location, dispersion)
    return float(low.min()), float(high.max())
