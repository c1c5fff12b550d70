"""Affine functions aᵀx + b of the inputs, which many experts begin with."""

import torch
from torch import Tensor

__all__ = ["affine_basis", "affine_values", "at_original_inputs"]


def affine_values(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """aᵀx + b for every row a of `weight` (…a, d) and entry b of `bias` (…a), (…, d) ↦ (…, …a)."""
    flat = x @ weight.flatten(0, -2).T
    return flat.reshape(*x.shape[:-1], *bias.shape) + bias


def affine_basis(x: Tensor) -> Tensor:
    """(1, x), (…, 1 + d)."""
    return torch.cat([x.new_ones((*x.shape[:-1], 1)), x], dim=-1)


def at_original_inputs(weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias that give at x what the given ones give at (x − shift)/scale: a/scale, b − aᵀ(shift/scale)."""
    weight = weight / scale
    return weight, bias - weight @ shift
