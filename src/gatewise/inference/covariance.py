"""Covariance of the identified quantities, by the delta method in user units."""

from typing import Literal

import numpy as np
import pandas as pd
import torch

from gatewise.exceptions import InputError
from gatewise.fit import FitResult, FitStatus
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.names import Names

__all__ = ["CovarianceKind", "covariance", "held_quantities", "quantity_covariance", "standard_error_kind"]

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
    selection of experts only among them. Neither has one of a gate or an expert that separates; those of the others are
    then conditional on it. Any status without a regular maximum withholds them all, and so does an information that is
    not positive definite on that complement: at the edge of a partition by a top-K gate the likelihood may curve upward
    across the edge. What the constraints hold does not vary: its variances are 0. Any other quantity without a
    derivative has no standard error either.

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
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    if values.min(initial=np.inf) <= 0.0:
        return none
    # Products of a matrix with its transpose, so that rounding makes no variance negative.
    root = inner @ (vectors / np.sqrt(values))
    wanted = ("sandwich" if result.kind == "least_squares" else "observed") if kind == "auto" else kind
    if wanted == "sandwich":
        if result.score_gram is None:
            raise InputError("this fit has no scores for a sandwich covariance: use kind='observed'")
        gram = regular.T @ result.score_gram[np.ix_(kept, kept)] @ regular
        sizes, directions = np.linalg.eigh(0.5 * (gram + gram.T))
        root = root @ (vectors / np.sqrt(values)).T @ (directions * np.sqrt(np.maximum(sizes, 0.0)))
    elif result.residual_variance is not None:
        root = root * np.sqrt(result.residual_variance)
    known = root @ root.T
    along = jacobian @ unseen.T
    fixed = ~jacobian.any(axis=1) & ~held_quantities(result)[quantities]
    touched = np.abs(along).max(axis=1, initial=0.0) > _TOUCHED * np.maximum(np.linalg.norm(jacobian, axis=1), 1e-300)
    touched |= fixed
    known[touched], known[:, touched] = np.nan, np.nan
    none[np.ix_(quantities, quantities)] = known
    return none


def held_quantities(result: FitResult) -> np.ndarray:
    """Which identified quantities depend on frozen parameters only, so that nothing was estimated, bool (m,)."""
    coordinates = result.coordinates
    nothing = np.zeros(len(coordinates.estimates(result.theta)), dtype=bool)
    if bool((coordinates.column >= 0).all()):
        return nothing
    free = np.any(coordinates.jacobian(result.theta) != 0.0, axis=1)
    if free.all():
        return nothing
    # As functions of all parameters, frozen or not.
    full = coordinates.full(torch.from_numpy(result.theta)).numpy()
    unfrozen = Coordinates(
        coordinates.prototype, coordinates.units, np.arange(len(full)), full, coordinates.has_dispersion
    )
    return np.logical_and(~free, np.any(unfrozen.jacobian(full) != 0.0, axis=1))


def standard_error_kind(result: FitResult) -> str:
    """What the standard errors of a fit are made from, with `kind="auto"`, in words."""
    if result.kind == "least_squares":
        return "sandwich, which does not assume that the errors have one variance"
    if not result.model.family.is_smooth or result.findings[0].evidence.get("at_kink"):
        return "outer products of the scores"
    penalised = result.gate_ridge or result.expert_ridge or result.variance_prior is not None
    return f"exact observed information{' of the likelihood with its priors' if penalised else ''}"


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
    quantities = names.quantities(result.coordinates, result.model.family)
    labels = [f"{quantity.component}: {quantity.term}" for quantity in quantities]
    return pd.DataFrame(quantity_covariance(result, kind), index=labels, columns=labels)
