"""Whether exits are used as they were: the histogram of exits in two data sets."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError

__all__ = ["ExitDrift", "exit_drift"]


@dataclass(frozen=True)
class ExitDrift:
    """How two histograms of exits differ.

    Attributes:
        first: shares (L,) of the first data set.
        second: of the second.
        distance: ½ Σ |first − second|, the share of samples that would have to change their exit.
        p_value: how often two parts of one population differ so much, by permutations.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    distance: float
    p_value: float


def exit_drift(first: Tensor, second: Tensor, n_exits: int, n_draws: int = 2000, seed: int = 0) -> ExitDrift:
    """Compare where the samples of two data sets leave.

    Args:
        first: exits (n,).
        second: exits (m,).
        n_exits: L.
        n_draws: permutations.
        seed: of the permutations.

    Raises:
        InputError: one is empty.

    Example:
        >>> drift = exit_drift(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
        >>> drift.distance, drift.p_value
        (0.0, 1.0)
    """
    if not len(first) or not len(second):
        raise InputError("both data sets need samples")
    counts = [torch.bincount(each, minlength=n_exits).numpy() for each in (first, second)]
    shares = [each / each.sum() for each in counts]
    distance = _distance(*shares)
    both = counts[0] + counts[1]
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(both, len(first), size=n_draws, method="marginals")
    others = 0.5 * np.abs(drawn / len(first) - (both - drawn) / len(second)).sum(1)
    at_least = int((others >= distance - 1e-12).sum())
    return ExitDrift(tuple(shares[0].tolist()), tuple(shares[1].tolist()), distance, (1.0 + at_least) / (1.0 + n_draws))


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(0.5 * np.abs(first - second).sum())
