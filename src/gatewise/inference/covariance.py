"""Covariance of the identified quantities, by the delta method in user units."""

from typing import Literal

import numpy as np
import pandas as pd

from gatewise.exceptions import InputError
from gatewise.fit import FitResult, FitStatus
from gatewise.inference.names import Names

__all__ = ["CovarianceKind", "covariance", "quantity_covariance"]

CovarianceKind = Literal["auto", "observed", "sandwich"]

# With one of these the estimate is no regular interior maximum, and a curvature there measures nothing.
_WITHOUT_ERRORS = frozenset(
    {
        FitStatus.INTERRUPTED,
        FitStatus.TIME_LIMIT,
        FitStatus.SATURATED,
        FitStatus.ON_FLOOR,
        FitStatus.MAX_ITER,
        FitStatus.STALLED,
        FitStatus.EMPTY_EXPERT,
        FitStatus.NOT_A_MAXIMUM,
    }
)
# A quantity whose derivative along an unidentified direction is larger than this share of its gradient has no error.
_TOUCHED = 1e-6


def quantity_covariance(result: FitResult, kind: CovarianceKind = "auto") -> np.ndarray:
    """J I⁺ Jᵀ for the identified quantities in user units, NaN where there is no standard error.

    J holds the derivatives of the quantities by θ, and I⁺ is the inverse of the information on the complement of its
    null space. A declared symmetry does not move the quantities, so nothing is lost with the directions it explains. A
    quantity that moves along any other direction without information has no standard error, one that acts through the
    selection of experts only among them. Neither has one of a gate
    or an expert that separates; those of the others are then conditional on it. Any status without a regular maximum
    withholds them all.

    Args:
        result: a fit.
        kind: "observed": I is the observed information, for least squares s² over the Gauss–Newton matrix;
            "sandwich": I⁺ S I⁺ with S the sum of the outer products of the rows' scores (Huber 1967, White 1982);
            "auto": observed for likelihoods, sandwich for least squares.

    Raises:
        InputError: a sandwich is wanted of a fit that has no scores.
    """
    size = result.coordinates.size
    jacobian = result.coordinates.jacobian(result.theta)
    none = np.full((len(jacobian), len(jacobian)), np.nan)
    codes = {finding.code for finding in result.findings}
    if codes & _WITHOUT_ERRORS:
        return none
    kept = np.setdiff1d(np.arange(size), result.separated)
    quantities = np.flatnonzero((jacobian[:, result.separated] == 0.0).all(axis=1))
    jacobian = jacobian[np.ix_(quantities, kept)]
    unseen = np.vstack([result.null_space.further, result.null_space.by_selection])[:, kept]
    flat = np.vstack([result.null_space.explained[:, kept], unseen])
    regular = _complement(flat, len(kept))
    inner = jacobian @ regular
    information = regular.T @ result.information[np.ix_(kept, kept)] @ regular
    inverse = np.linalg.inv(information)
    wanted = ("sandwich" if result.kind == "least_squares" else "observed") if kind == "auto" else kind
    if wanted == "sandwich":
        if result.score_gram is None:
            raise InputError("this fit has no scores for a sandwich covariance: use kind='observed'")
        inverse = inverse @ regular.T @ result.score_gram[np.ix_(kept, kept)] @ regular @ inverse
    elif result.residual_variance is not None:
        inverse = inverse * result.residual_variance
    known = inner @ inverse @ inner.T
    along = jacobian @ unseen.T
    touched = np.abs(along).max(axis=1, initial=0.0) > _TOUCHED * np.maximum(np.linalg.norm(jacobian, axis=1), 1e-300)
    known[touched], known[:, touched] = np.nan, np.nan
    none[np.ix_(quantities, quantities)] = known
    return none


def _complement(rows: np.ndarray, size: int) -> np.ndarray:
    """An orthonormal basis (size, ·) of what is orthogonal to all rows (·, size)."""
    lengths = np.linalg.norm(rows, axis=1)
    rows = rows[lengths > 0.0]
    if not len(rows):
        return np.eye(size)
    _, values, basis = np.linalg.svd(rows, full_matrices=True)
    return basis[int((values > 1e-8 * values[0]).sum()) :].T


def covariance(result: FitResult, names: Names, kind: CovarianceKind = "auto") -> pd.DataFrame:
    """The named covariance matrix of all identified quantities in user units, scales as standard deviations σ.

    Row and column names are "component: term", as in the parameter table.
    """
    quantities = names.quantities(result)
    labels = [f"{quantity.component}: {quantity.term}" for quantity in quantities]
    return pd.DataFrame(quantity_covariance(result, kind), index=labels, columns=labels)
