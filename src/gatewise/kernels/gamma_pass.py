"""Log-densities of gamma variables with derivatives by location and log shape, in one compiled loop over the rows.

It is what `families.Gamma` says by formula. What depends on the shape alone is handed in, once for each expert.
"""

import math

import numpy as np

from gatewise.kernels.compiled import compiled

__all__ = ["gamma_derivatives"]


@compiled(error_model="numpy")
def _rows(
    log_y: np.ndarray,
    location: np.ndarray,
    shape: np.ndarray,
    rests: np.ndarray,
    inside: np.ndarray,
    bound: float,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    largest = math.exp(bound)
    with_second = second.shape[0] > 0
    for r in range(location.shape[0]):
        for i in range(location.shape[1]):
            if not math.isfinite(log_y[r]):
                value[r, i] = -np.inf
                first[r, i] = 0.0
                if with_second:
                    second[r, i] = 0.0
                continue
            ratio, a = log_y[r] - location[r, i], shape[i]
            above = ratio > bound
            growth = math.expm1(bound if above else ratio)
            excess = a * (ratio - (growth + largest * (ratio - bound) if above else growth))
            slope = a * growth
            value[r, i] = excess - log_y[r] - rests[0, i]
            first[r, i, 0] = slope
            first[r, i, 1] = inside[i] * (excess - rests[1, i])
            if with_second:
                second[r, i, 0, 0] = 0.0 if above else -a * math.exp(ratio)
                second[r, i, 0, 1] = inside[i] * slope
                second[r, i, 1, 0] = inside[i] * slope
                second[r, i, 1, 1] = inside[i] * (excess - rests[2, i])


def gamma_derivatives(
    y: np.ndarray,
    location: np.ndarray,
    shape: np.ndarray,
    rests: np.ndarray,
    inside: np.ndarray,
    bound: float,
    with_second: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Log f = a (1 + u − eᵘ) − log y − S(s) with u = log y − h, a = eˢ, and its derivatives by h and s.

    The first are a (eᵘ − 1) and a (1 + u − eᵘ) − S′; the second −a eᵘ and a (1 + u − eᵘ) − S″, and the mixed one
    a (eᵘ − 1).

    Args:
        y: targets (n,); the value of those that are not positive and finite is −∞, and its derivatives 0.
        location: h (n, k).
        shape: a (k,).
        rests: S, S′ and S″ of each expert's shape, (3, k).
        inside: 1 where log f depends on s, and 0 where the shape is held at an end, (k,).
        bound: where eᵘ is continued by its tangent.
        with_second: whether second derivatives are wanted.

    Returns:
        (n, k), (n, k, 2) and (n, k, 2, 2); None for the last if it is not wanted.

    Example:
        An exponential variable, a = 1, whose log-density at y = 1 is −1: S(0) = 1.

        >>> rests = np.array([[1.0], [-0.577], [0.068]])
        >>> value, first, _ = gamma_derivatives(
        ...     np.ones(1), np.zeros((1, 1)), np.ones(1), rests, np.ones(1), 300.0, False
        ... )
        >>> value, first
        (array([[-1.]]), array([[[0.   , 0.577]]]))
    """
    location = np.ascontiguousarray(location, dtype=np.float64)
    known = (y > 0.0) & np.isfinite(y)
    log_y = np.where(known, np.log(np.where(known, y, 1.0)), np.nan)
    value = np.empty_like(location)
    first = np.empty((*location.shape, 2))
    second = np.empty((*location.shape, 2, 2) if with_second else (0, 0, 0, 0))
    _rows(log_y, location, shape, rests, inside, bound, value, first, second)
    return value, first, second if with_second else None
