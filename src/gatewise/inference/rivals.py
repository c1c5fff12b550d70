"""What would change if a rival of the kept optimum were the right one."""

import math

import numpy as np
import pandas as pd

from gatewise.fit import FitResult
from gatewise.fit.names import Names
from gatewise.inference.parameters import parameter_table

__all__ = ["changes_in_words", "refit_of_rival", "rival_changes", "rivals_table"]

_SHARE = 0.05
_LISTED_CHANGES = 6
_COLUMNS = ("rival", "log_likelihood", "objective", "below", "starts", "status", "changes")


def rivals_table(result: FitResult, names: Names, level: float = 0.95) -> pd.DataFrame:
    """One row per rival: other optima whose log-likelihood is at most 2 below that of the kept one.

    Args:
        result: a fit.
        names: the user's names.
        level: a coefficient is significant if its interval of this level leaves out 0.

    Returns:
        Columns rival (from 1), log_likelihood (NaN for least squares), objective, below (by how much the
        log-likelihood, with priors, is below that of the kept one; for least squares by how many residual variances the
        sum of squares is above), starts (how many ended there), status, changes (sentences, see `rival_changes`).

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.
    """
    rows = [
        {
            "rival": number,
            "log_likelihood": rival.log_likelihood,
            "objective": rival.objective,
            "below": _below(result, rival),
            "starts": len(rival.starts),
            "status": rival.status.name,
            "changes": rival_changes(result, rival, names, level),
        }
        for number, rival in enumerate(result.rivals, start=1)
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _below(result: FitResult, rival: FitResult) -> float:
    difference = result.objective - rival.objective
    return difference if result.residual_variance is None else 2.0 * difference / result.residual_variance


def rival_changes(result: FitResult, rival: FitResult, names: Names, level: float = 0.95) -> list[str]:
    """What a rival would change, in words: signs, significant coefficients, shares of experts.

    A sign counts where the coefficient is significant in one of the two, and a share where it differs by more than .05.

    Args:
        result: a fit.
        rival: one of its rivals.
        names: the user's names.
        level: a coefficient is significant if its interval of this level leaves out 0.

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.
    """
    changes = []
    shares = zip(result.effective_rows / result.total_weight, rival.effective_rows / rival.total_weight, strict=True)
    for expert, (own, other) in enumerate(shares, start=1):
        if abs(own - other) > _SHARE:
            changes.append(f"expert {expert} has a share of {other:.2f}, not {own:.2f}")
    kept, there = parameter_table(result, names, level), parameter_table(rival, names, level)
    for own, other in zip(kept.to_dict("records"), there.to_dict("records"), strict=True):
        changes += _changed(own, other, 1.0 - level)
    return changes


def _changed(own: dict[str, float], other: dict[str, float], alpha: float) -> list[str]:
    here, there = own["p_value"] < alpha, other["p_value"] < alpha
    # Of a scale there is neither a sign nor a test; of what separates there is no standard error to compare by.
    withheld = math.isnan(other["standard_error"])
    if own["held"] or not (here or there):
        return []
    name = f"{own['component']}: {own['term']}"
    estimates = f"{other['estimate']:.3g}, not {own['estimate']:.3g}"
    if np.sign(own["estimate"]) != np.sign(other["estimate"]):
        both = " and significant in both" if here and there else ""
        return [f"{name} has the other sign{both}{' and no standard error' if withheld else ''} ({estimates})"]
    if math.isnan(own["standard_error"]):
        return [f"{name} has a standard error there, and none here ({estimates})"]
    if withheld:
        return [f"{name} has no standard error there ({estimates})"]
    if here != there:
        return [f"{name} is {'no longer ' if here else ''}significant ({estimates})"]
    return []


def changes_in_words(changes: list[str]) -> str:
    """The first of a rival's changes as one line, how many are left out, or that there are none.

    Example:
        >>> changes_in_words(["expert 1 has a share of 0.60, not 0.72", "expert 1: x is no longer significant"])
        'expert 1 has a share of 0.60, not 0.72; expert 1: x is no longer significant'
    """
    listed = changes[:_LISTED_CHANGES]
    left = len(changes) - len(listed)
    return "; ".join([*listed, *([f"and {left} more"] if left else [])]) or "no sign, significance or share"


def refit_of_rival(number: int) -> str:
    """The options with which a fit keeps rival `number` (from 1).

    Example:
        >>> refit_of_rival(1)
        'n_starts=1, init=result_.rivals[0].model'
    """
    return f"n_starts=1, init=result_.rivals[{number - 1}].model"
