"""Euclidean distances between inputs and centres, without an array of every input, centre and coordinate."""

import torch
from torch import Tensor

__all__ = ["distance", "safe_root"]


def safe_root(square: Tensor, negligible: Tensor | float = 0.0) -> Tensor:
    """√square, and 0 with gradient 0 where it is at most `negligible`: the subgradient of smallest norm at a centre."""
    at_centre = square <= negligible
    # The root is taken of 1 there, so that no infinite derivative meets the zero one.
    return torch.where(at_centre, 0.0, torch.where(at_centre, 1.0, square).sqrt())


def distance(x: Tensor, centre: Tensor) -> Tensor:
    """‖x − Wᵢ‖, (…, d) and (k, d) ↦ (…, k).

    In float64 from the differences, to the last digit; they take k · d numbers for every input. In other dtypes from
    one matrix product, ‖a‖² + ‖w‖² − 2 aᵀw with a and w relative to the mean of the centres. Its rounding is
    ε (‖a‖² + ‖w‖²), with ε that of the dtype: squares below that count as 0.

    Example:
        >>> distance(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
        tensor([[5.]])
    """
    if x.dtype == torch.float64:
        return safe_root((x.unsqueeze(-2) - centre).square().sum(-1))
    middle = centre.mean(0)
    away, other = x - middle, centre - middle
    lengths = away.square().sum(-1, keepdim=True) + other.square().sum(-1)
    square = torch.addmm(lengths, away, other.T, alpha=-2.0) if x.ndim == 2 else lengths - 2.0 * (away @ other.T)
    return safe_root(square, torch.finfo(x.dtype).eps * lengths.detach())
