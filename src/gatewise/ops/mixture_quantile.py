"""Quantiles of a mixture, row by row, between the smallest and the largest quantile of its components."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import elementwise

__all__ = ["RowDistribution", "continuous_quantile", "discrete_quantile"]

RowDistribution = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(y (m,), rows (m,)) ↦ P(Y ≤ y) at these rows, (m,)."""


def continuous_quantile(
    distribution: RowDistribution, low: np.ndarray, high: np.ndarray, probability: float
) -> np.ndarray:
    """The y with P(Y ≤ y) = probability in each row, by Chandrupatla's method, to the last digits.

    Args:
        distribution: of the mixture.
        low: the smallest quantile of the components at this probability (n,): P(Y ≤ low) ≤ probability.
        high: the largest (n,): P(Y ≤ high) ≥ probability.
        probability: strictly between 0 and 1.

    Returns:
        (n,) numbers in [low, high].

    Example:
        >>> import numpy as np
        >>> uniform = lambda y, rows: np.clip(y / 4.0, 0.0, 1.0)
        >>> continuous_quantile(uniform, np.array([0.0]), np.array([4.0]), 0.25)
        array([1.])
    """
    if not (low < high).any():
        return low

    def excess(y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return distribution(y, rows) - probability

    rows = np.arange(len(low))
    found = elementwise.find_root(excess, (low, high), args=(rows,))
    # Rounding can leave no change of sign where one expert has all the weight or all agree: an end is the root.
    return np.where(excess(high, rows) <= 0.0, high, np.where(found.success, found.x, low))


def discrete_quantile(
    distribution: RowDistribution, low: np.ndarray, high: np.ndarray, probability: float, rounding: float
) -> np.ndarray:
    """The smallest whole number y with P(Y ≤ y) ≥ probability in each row, by bisection.

    A sum of k products that should be the probability exactly may fall below it by rounding, so that y would be one too
    large; a shortfall of 64 units of rounding, relative to the probability, counts as reached.

    Args:
        distribution: of the mixture.
        low: the smallest quantile of the components at this probability (n,): the answer is not below it.
        high: the largest (n,): the answer is not above it.
        probability: strictly between 0 and 1.
        rounding: the unit of rounding with which `distribution` is computed.

    Returns:
        (n,) whole numbers in [low, high].

    Example:
        >>> import numpy as np
        >>> die = lambda y, rows: np.clip(np.floor(y) / 6.0, 0.0, 1.0)
        >>> discrete_quantile(die, np.array([1.0]), np.array([6.0]), 0.5, rounding=2e-16)
        array([3.])
    """
    threshold = probability * (1.0 - 64.0 * rounding)
    # Throughout P(Y ≤ below) < threshold ≤ P(Y ≤ answer), in float64, which holds every whole number up to 2^53.
    below, answer = low.astype(np.float64) - 1.0, high.astype(np.float64)
    rows = np.arange(len(answer))
    while True:
        middle = np.floor(0.5 * (below[rows] + answer[rows]))
        inside = (below[rows] < middle) & (middle < answer[rows])
        rows, middle = rows[inside], middle[inside]
        if not len(rows):
            return answer.astype(high.dtype)
        reached = distribution(middle, rows) >= threshold
        answer[rows[reached]] = middle[reached]
        below[rows[~reached]] = middle[~reached]
