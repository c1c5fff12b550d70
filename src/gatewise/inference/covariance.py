"""Covariance of the estimates from the exact observed information, by the delta method in user units."""

import numpy as np
import pandas as pd

from gatewise.fit import FitResult, FitStatus
from gatewise.inference.names import Names, parameter_names

__all__ = ["covariance", "user_covariance"]

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
        FitStatus.SINGULAR,
        FitStatus.NOT_A_MAXIMUM,
    }
)


def user_covariance(result: FitResult) -> np.ndarray:
    """J I⁻¹ Jᵀ for (gate contrasts, expert coefficients, log σ), user units; NaN where there is no standard error.

    I is the observed information in internal units and J the derivative of the user-unit parameters, which are affine
    in the internal ones except for σ. A separated gate has no standard errors; the experts' are then conditional on
    the gate, from the inverse of their own block. Any status without a regular maximum withholds them all.
    """
    layout = result.coordinates.layout
    inverse = np.full((layout.size, layout.size), np.nan)
    codes = {finding.code for finding in result.findings}
    if codes & _WITHOUT_ERRORS:
        return inverse
    first = layout.gate.stop if FitStatus.SEPARATED in codes else 0
    jacobian = result.coordinates.jacobian()[first:, first:]
    inverse[first:, first:] = jacobian @ np.linalg.inv(result.information[first:, first:]) @ jacobian.T
    return inverse


def covariance(result: FitResult, names: Names) -> pd.DataFrame:
    """The named covariance matrix of all estimates in user units, scales as standard deviations σ.

    Row and column names are "component: term", as in the parameter table. For σ the delta method multiplies the
    covariance of log σ by σ.
    """
    matrix = user_covariance(result)
    scales = result.coordinates.layout.scales
    factor = np.ones(len(matrix))
    factor[scales] = result.scale[: scales.stop - scales.start]
    labels = [f"{component}: {term}" for component, term in parameter_names(result.coordinates.layout, names)]
    return pd.DataFrame(matrix * factor[:, None] * factor, index=labels, columns=labels)
