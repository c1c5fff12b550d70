"""What the strategies of a start look at where the family is not Gaussian: residuals of a working regression."""

import math

import numpy as np

from gatewise.families import Family
from gatewise.fit.coordinates import Standardisation
from gatewise.fit.problem import StartRows
from gatewise.fit.rows import FitRows

__all__ = ["working_start_rows"]


def working_start_rows(family: Family, rows: FitRows, n_experts: int) -> StartRows:
    """Standardised covariates, those of the gate among them, and one residual for each row.

    Args:
        family: of the targets.
        rows: in the user's units.
        n_experts: k.
    """
    columns = rows.x if np.array_equal(rows.x, rows.gate_x) else np.column_stack([rows.x, rows.gate_x])
    covariates = Standardisation.of(columns, rows.weight).design(columns)
    design = covariates[: 1 + rows.x.shape[1]]
    residual = _residual(family, rows, design)
    keys = (*covariates[1:], residual)
    return StartRows(n_experts, residual, covariates[1:], design, rows.weight, rows.kept, keys, family.is_discrete)


def _residual(family: Family, rows: FitRows, design: np.ndarray) -> np.ndarray:
    """One number per row that tells targets apart: the standardised residual of a working regression.

    Of a target with several numbers, or of several classes, the first principal component of the residuals.
    """
    columns, weight = _numbers(family, rows.y, rows.offset), rows.weight
    root = np.sqrt(weight)
    coefficients = np.linalg.lstsq((design * root).T, columns * root[:, None], rcond=None)[0]
    residual = columns - design.T @ coefficients
    if residual.shape[1] > 1:
        _, vectors = np.linalg.eigh((residual.T * weight) @ residual)
        residual = residual @ vectors[:, -1:]
    spread = math.sqrt(float(weight @ residual[:, 0] ** 2) / float(weight.sum()))
    return residual[:, 0] / spread if spread > 0.0 else residual[:, 0]


def _numbers(family: Family, y: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """Targets as columns of numbers for a working regression: classes as indicators, counts by their logarithms."""
    if family.name == "categorical":
        return np.eye(int(y.max()) + 1)[y.astype(int)]
    if family.event_size and family.is_discrete:
        return ((y[:, 0] + 0.5) / (y[:, 1] + 1.0))[:, None]
    if family.log_link:
        rate = y if offset is None else y * np.exp(offset.mean() - offset)
        return np.log(rate + (0.5 if family.is_discrete else 0.0))[:, None]
    return y.reshape(len(y), -1)
