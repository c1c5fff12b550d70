"""Sums of products of design columns with channels of the rows, block by block, and how they are unpacked."""

from functools import lru_cache

import numpy as np

from gatewise.kernels.compiled import compiled
from gatewise.kernels.mixture_pass import BLOCK, ELEMENTWISE

__all__ = ["clear_rows", "copy_rows", "row_products", "unpack_columns", "unpack_symmetric", "weighted_gram"]


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def row_products(left: np.ndarray, right: np.ndarray, low: int, m: int, symmetric: bool, out: np.ndarray) -> None:
    """Products of design columns: out[(i, j), r] = left[i, low + r] right[j, low + r], j ≤ i only if symmetric."""
    row = 0
    for i in range(left.shape[0]):
        a = left[i, low : low + m]
        for j in range(i + 1 if symmetric else right.shape[0]):
            b = right[j, low : low + m]
            product = out[row]
            for r in range(m):
                product[r] = a[r] * b[r]
            row += 1


@compiled(error_model="numpy")
def copy_rows(design: np.ndarray, low: int, m: int, out: np.ndarray) -> None:
    """out[j, r] = design[j, low + r] for r < m."""
    for j in range(design.shape[0]):
        source, target = design[j, low : low + m], out[j]
        for r in range(m):
            target[r] = source[r]


@compiled(error_model="numpy")
def clear_rows(channels: np.ndarray, m: int) -> None:
    """channels[i, r] = 0 for r ≥ m."""
    for i in range(channels.shape[0]):
        channel = channels[i]
        for r in range(m, channel.size):
            channel[r] = 0.0


@lru_cache(maxsize=256)
def _lower_triangle(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the lower triangle; NumPy makes them anew, which costs more than a small Hessian."""
    return np.tril_indices(size)


def unpack_columns(sums: np.ndarray, columns: int) -> np.ndarray:
    """(channels, pairs of columns) ↦ one symmetric matrix per channel (channels, columns, columns)."""
    first, second = _lower_triangle(columns)
    block = np.empty((len(sums), columns, columns))
    block[:, first, second] = sums
    block[:, second, first] = sums
    return block


def unpack_symmetric(sums: np.ndarray, channels: int, columns: int) -> np.ndarray:
    """(pairs of channels, pairs of columns) ↦ the symmetric matrix (channels·columns, channels·columns)."""
    rows, cols = _lower_triangle(channels)
    blocks = np.empty((channels, channels, columns, columns))
    block = unpack_columns(sums, columns)
    blocks[rows, cols] = block
    blocks[cols, rows] = block
    return blocks.transpose(0, 2, 1, 3).reshape(channels * columns, channels * columns)


@compiled(error_model="numpy")
def _gram_sums(design: np.ndarray, channel_weights: np.ndarray) -> np.ndarray:
    p, n = design.shape
    products = np.zeros((p * (p + 1) // 2, BLOCK))
    block_weights = np.empty((channel_weights.shape[0], BLOCK))
    sums = np.zeros((channel_weights.shape[0], products.shape[0]))
    for low in range(0, n, BLOCK):
        m = min(BLOCK, n - low)
        row_products(design, design, low, m, True, products)
        copy_rows(channel_weights, low, m, block_weights)
        clear_rows(block_weights, m)
        sums += np.dot(block_weights, products.T)
    return sums


def weighted_gram(design: np.ndarray, channel_weights: np.ndarray) -> np.ndarray:
    """Σ_r c_ir Z_r Z_rᵀ for each channel i: (c, n) weights and a (p, n) design ↦ (c, p, p)."""
    return unpack_columns(_gram_sums(np.ascontiguousarray(design), np.ascontiguousarray(channel_weights)), len(design))
