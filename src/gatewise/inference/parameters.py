"""The parameter table: estimates, standard errors, z, p and intervals, in the user's units."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from gatewise.exceptions import InputError
from gatewise.fit import FitResult
from gatewise.fit.names import Names
from gatewise.inference.covariance import CovarianceKind, held_quantities, quantity_covariance

__all__ = ["confidence_intervals", "parameter_table"]


def parameter_table(
    result: FitResult, names: Names, level: float = 0.95, kind: CovarianceKind = "auto"
) -> pd.DataFrame:
    """One row per identified quantity, in the order gate, experts, dispersions.

    Wald statistics: z = estimate / SE against 0, p two-sided normal, interval estimate ± z* SE. A scale's interval is
    taken for log σ and mapped back, so that it stays positive; for scales z and p have no meaning and are NaN. A
    positive quantity of any other kind is treated likewise. A withheld standard error is NaN and so is all that follows
    from it. So it is for what the constraints of the fit hold, which was not estimated and is marked as held.

    Args:
        result: a fit.
        names: the user's names.
        level: of the intervals.
        kind: of the covariance; see `quantity_covariance`.

    Returns:
        Columns component, term, estimate, standard_error, z, p_value, lower, upper, held.

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of an interval must lie strictly between 0 and 1, not {level}")
    quantities = names.quantities(result.coordinates, result.model.family)
    estimate = result.coordinates.estimates(result.theta)
    held = held_quantities(result)
    error = np.where(held, np.nan, np.sqrt(np.diag(quantity_covariance(result, kind))))
    positive = np.array([quantity.positive for quantity in quantities])
    margin = float(norm.isf(0.5 * (1.0 - level))) * error
    lower, upper = estimate - margin, estimate + margin
    stretch = np.exp(margin[positive] / estimate[positive])
    lower[positive], upper[positive] = estimate[positive] / stretch, estimate[positive] * stretch
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(positive, np.nan, estimate / error)
    return pd.DataFrame(
        {
            "component": [quantity.component for quantity in quantities],
            "term": [quantity.term for quantity in quantities],
            "estimate": estimate,
            "standard_error": error,
            "z": z,
            "p_value": 2.0 * norm.sf(np.abs(z)),
            "lower": lower,
            "upper": upper,
            "held": held,
        }
    )


def confidence_intervals(result: FitResult, names: Names, level: float = 0.95) -> pd.DataFrame:
    """Columns component, term, lower and upper of `parameter_table`."""
    return parameter_table(result, names, level).drop(columns=["estimate", "standard_error", "z", "p_value", "held"])
