"""Weighted statistics from which experts start."""

import torch
from torch import Tensor

__all__ = ["half_row", "no_dispersion", "one_where_zero", "weighted_mean", "weighted_median"]


def weighted_mean(y: Tensor, weight: Tensor) -> Tensor:
    """Σ w y / Σ w over the rows of y (n,) or (n, e)."""
    return (weight / weight.sum()) @ y.to(weight.dtype)


def weighted_median(y: Tensor, weight: Tensor) -> Tensor:
    """The smallest y (n,) with at least half of the weight at or below it."""
    order = torch.argsort(y, stable=True)
    below = torch.cumsum(weight[order], 0)
    return y[order][(below < 0.5 * below[-1]).sum().clamp(max=len(y) - 1)].to(weight.dtype)


def half_row(weight: Tensor) -> Tensor:
    """Half a row's share of the total weight, ½ Σ w² / (Σ w)², in (0, ½].

    Added to a share or to a mean count it keeps them away from 0 without changing them noticeably.
    """
    share = weight / weight.sum()
    return 0.5 * (share @ share)


def one_where_zero(value: Tensor) -> Tensor:
    """A scale that cannot be measured is 1."""
    return torch.where(value > 0.0, value, torch.ones_like(value))


def no_dispersion(weight: Tensor) -> Tensor:
    """The dispersions of a family without any, (0,)."""
    return weight.new_zeros(0)
