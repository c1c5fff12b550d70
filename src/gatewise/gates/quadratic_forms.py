"""Quadratic forms xᵀAx as coefficients of the monomials xᵢxⱼ, i ≤ j, in the order 11, 12, …, 1d, 22, …, dd."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gatewise.parts.component import Coordinates

__all__ = ["from_matrix", "isometric", "monomial_names", "monomials", "n_monomials", "to_matrix"]


def n_monomials(d: int) -> int:
    """The number of monomials, d(d + 1)/2."""
    return d * (d + 1) // 2


def monomials(x: Tensor) -> Tensor:
    """Products xᵢxⱼ, i ≤ j: (…, d) ↦ (…, d(d + 1)/2)."""
    row, column = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    return x[..., row] * x[..., column]


def monomial_names(features: Sequence[str]) -> list[str]:
    """Names of the monomials: "x²" for squares and "x*z" for products.

    Example:
        >>> monomial_names(["x", "z"])
        ['x²', 'x*z', 'z²']
    """
    names = list(features)
    pairs = [(i, j) for i in range(len(names)) for j in range(i, len(names))]
    return [f"{names[i]}²" if i == j else f"{names[i]}*{names[j]}" for i, j in pairs]


def to_matrix(coefficients: Tensor, d: int) -> Tensor:
    """The symmetric A with xᵀAx = Σ cᵢⱼ xᵢxⱼ: (…, d(d + 1)/2) ↦ (…, d, d); products are shared by two entries."""
    row, column = torch.triu_indices(d, d, device=coefficients.device)
    place = torch.zeros(d, d, dtype=torch.long, device=coefficients.device)
    place[row, column] = place[column, row] = torch.arange(len(row), device=coefficients.device)
    share = 0.5 * (1.0 + torch.eye(d, dtype=coefficients.dtype, device=coefficients.device))
    return coefficients[..., place] * share


def isometric(coordinates: Coordinates, name: str) -> Coordinates:
    """The block of symmetric matrices as d(d + 1)/2 numbers with the same Euclidean length: their Frobenius norm."""
    flat = coordinates.blocks[name]
    d = round(flat.shape[1] ** 0.5)
    row, column = np.triu_indices(d)
    block = flat.reshape(-1, d, d)[:, row, column] * np.where(row == column, 1.0, np.sqrt(2.0))
    return coordinates._replace(blocks={**coordinates.blocks, name: block})


def from_matrix(matrix: Tensor) -> Tensor:
    """The coefficients of xᵀAx for a symmetric A, the inverse of `to_matrix`: (…, d, d) ↦ (…, d(d + 1)/2)."""
    row, column = torch.triu_indices(matrix.shape[-1], matrix.shape[-1], device=matrix.device)
    return matrix[..., row, column] * torch.where(row == column, 1.0, 2.0).to(matrix)
