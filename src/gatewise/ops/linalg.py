"""Symmetric systems, least squares and rank, weighted and on channel-major designs (p, n)."""

import numpy as np
import scipy.linalg

from gatewise.kernels.products import weighted_gram

__all__ = ["INDEPENDENT", "dependent_columns", "orthonormal_rows", "solve_symmetric", "weighted_least_squares"]

_CUTOFF = 1e-13
INDEPENDENT = 1e-8
"""Smallest over largest singular value of directions that count as independent."""


def solve_symmetric(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The minimum-norm least-squares solution of a symmetric positive semi-definite system, by its eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    keep = values > _CUTOFF * max(values[-1], 0.0)
    projected = vectors[:, keep].T @ right
    return vectors[:, keep] @ (projected / values[keep].reshape(-1, *[1] * (right.ndim - 1)))


def weighted_least_squares(design: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """argmin_b Σ_r w_r (y_r − bᵀ Z_r)², of minimum norm; (p, n), (n,), (n,) ↦ (p,).

    The normal equations are solved twice, the second time for the residual, which returns the digits that forming
    them costs when the design is well scaled.
    """
    gram = weighted_gram(design, weight[None])[0]
    coefficients = np.zeros(len(design))
    for _ in range(2):
        coefficients = coefficients + solve_symmetric(gram, design @ (weight * (y - coefficients @ design)))
    return coefficients


def dependent_columns(design: np.ndarray, weight: np.ndarray, tolerance: float) -> list[int]:
    """Rows of a channel-major design that are linear combinations of earlier ones, by Householder QR.

    Args:
        design: (p, n), scaled so that each row has about unit mean square.
        weight: (n,).
        tolerance: the share of a row's root mean square that must remain for it to count as new.
    """
    share = weight / weight.sum()
    gram = weighted_gram(design, share[None])[0]
    # The Gram matrix shows only the square of a small remainder: enough to clear the usual case cheaply.
    if np.linalg.eigvalsh(gram)[0] > 1e-6:
        return []
    triangle = scipy.linalg.qr((design * np.sqrt(share)).T, mode="r")[0]
    diagonal = np.zeros(len(design))
    found = np.abs(np.diag(triangle))
    diagonal[: len(found)] = found
    return [int(index) for index in np.flatnonzero(diagonal <= tolerance)]


def orthonormal_rows(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the span of the rows, each row first brought to unit length."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows[lengths[:, 0] > 0.0] / lengths[lengths[:, 0] > 0.0]
    if not len(rows):
        return rows
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[values > INDEPENDENT * values[0]]
