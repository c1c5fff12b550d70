"""The parameter table: estimates, standard errors, z, p and intervals, in the user's units."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from gatewise.exceptions import InputError
from gatewise.fit import FitResult
from gatewise.inference.covariance import user_covariance
from gatewise.inference.names import Names, parameter_names

__all__ = ["Names", "confidence_intervals", "parameter_table"]


def parameter_table(result: FitResult, names: Names, level: float = 0.95) -> pd.DataFrame:
    """One row per free parameter, in the order gate, experts, scales.

    Wald statistics: z = estimate / SE against 0, p two-sided normal, interval estimate ± z* SE. A scale's interval is
    taken for log σ and mapped back, so that it stays positive; for scales z and p have no meaning and are NaN. A
    withheld standard error is NaN and so is all that follows from it.

    Args:
        result: a fit.
        names: the user's names.
        level: of the intervals.

    Returns:
        Columns component, term, estimate, standard_error, z, p_value, lower, upper.

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of an interval must lie strictly between 0 and 1, not {level}")
    layout = result.coordinates.layout
    gate, coefficients, scale = result.coordinates.to_user(result.theta)
    scales = scale[: layout.n_scales]
    estimate = np.concatenate([gate[:-1].ravel(), coefficients.ravel(), scales])
    error = np.sqrt(np.diag(user_covariance(result)))
    is_scale = np.zeros(layout.size, dtype=bool)
    is_scale[layout.scales] = True
    margin = float(norm.isf(0.5 * (1.0 - level))) * error
    lower, upper = estimate - margin, estimate + margin
    lower[is_scale], upper[is_scale] = scales * np.exp(-margin[is_scale]), scales * np.exp(margin[is_scale])
    z = np.where(is_scale, np.nan, estimate / error)
    labels = parameter_names(layout, names)
    return pd.DataFrame(
        {
            "component": [component for component, _ in labels],
            "term": [term for _, term in labels],
            "estimate": estimate,
            "standard_error": np.where(is_scale, estimate * error, error),
            "z": z,
            "p_value": 2.0 * norm.sf(np.abs(z)),
            "lower": lower,
            "upper": upper,
        }
    )


def confidence_intervals(result: FitResult, names: Names, level: float = 0.95) -> pd.DataFrame:
    """Columns component, term, lower and upper of `parameter_table`."""
    return parameter_table(result, names, level).drop(columns=["estimate", "standard_error", "z", "p_value"])
