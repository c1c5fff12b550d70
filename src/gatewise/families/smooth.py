"""Functions that families share and that stay finite, with finite derivatives, where the plain formulas overflow."""

import math

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.nn.functional import softplus

__all__ = [
    "bounded_log",
    "exp_or_tangent",
    "expm1_or_tangent",
    "largest_log",
    "log_gamma_increment",
    "log_gamma_increment_slopes",
    "log_sigmoid",
    "stirling_rest",
    "stirling_slopes",
]

_SERIES_FROM = 16.0
_SERIES = (1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360360.0)


def largest_log(dtype: torch.dtype) -> float:
    """The logarithm c up to which exp is exact here: 319 in float64, 39 in float32; e²ᶜ does not overflow."""
    return 0.45 * math.log(torch.finfo(dtype).max)


def exp_or_tangent(h: Tensor) -> Tensor:
    """Elementwise exp(h) up to h = c of `largest_log`, and its tangent at c above.

    The derivative is at most eᶜ. With the plain exponential it overflows, and the 0 · ∞ of an expert without
    responsibility is NaN.
    """
    bound = largest_log(h.dtype)
    return torch.exp(torch.clamp(h, max=bound)) * (1.0 + torch.relu(h - bound))


def expm1_or_tangent(h: Tensor) -> Tensor:
    """Elementwise exp(h) − 1, accurate near 0, with the tangent of `exp_or_tangent` above c."""
    bound = largest_log(h.dtype)
    return torch.expm1(torch.clamp(h, max=bound)) + math.exp(bound) * torch.relu(h - bound)


def log_sigmoid(h: Tensor) -> Tensor:
    """Elementwise −log(1 + exp(−h)), exact in both tails, as are its derivatives.

    PyTorch's own warns when it is differentiated under `vmap`, and rounds its second derivative to 0 at large −h.
    """
    negative = h < 0.0
    # Not through |h|, whose derivative at 0 is 0.
    away = torch.where(negative, h, -h)
    return torch.where(negative, h, torch.zeros_like(h)) - softplus(away)


def bounded_log(log_value: Tensor) -> Tensor:
    """The logarithm of a positive dispersion, kept within ±c of `largest_log`.

    At these ends a family has become another one to the last digit (a negative binomial has become a Poisson), so the
    derivative 0 beyond them is right.
    """
    bound = largest_log(log_value.dtype)
    return torch.clamp(log_value, -bound, bound)


def stirling_rest(a: Tensor) -> Tensor:
    """Elementwise log Γ(a) − (a log a − a) for a > 0, without the cancellation at large a.

    It is ½ log(2π/a) + 1/(12a) − 1/(360a³) + … from a = 16 on (Abramowitz and Stegun 1964, 6.1.41), exact to rounding.
    """
    small, large = torch.clamp(a, max=_SERIES_FROM), torch.clamp(a, min=_SERIES_FROM)
    inverse = 1.0 / large
    square = inverse * inverse
    tail = torch.zeros_like(square)
    for coefficient in reversed(_SERIES):
        tail = tail * square + coefficient
    series = 0.5 * (math.log(2.0 * math.pi) - torch.log(large)) + inverse * tail
    return torch.where(a < _SERIES_FROM, torch.lgamma(small) - small * (torch.log(small) - 1.0), series)


def stirling_slopes(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and second derivatives of `stirling_rest` by log a, elementwise, without its cancellation either.

    They are a (ψ(a) − log a) and a (ψ(a) − log a) + a² ψ′(a) − a, from a = 16 on by the same series: its term
    c a⁻ʲ has derivatives −j c a⁻ʲ and j² c a⁻ʲ. (PyTorch's own ψ′ is right to eight digits only.)

    Example:
        >>> [float(part.round(6)) for part in stirling_slopes(np.array(1e9))]
        [-0.5, 0.0]
    """
    small, inverse = np.minimum(a, _SERIES_FROM), 1.0 / np.maximum(a, _SERIES_FROM)
    square = inverse * inverse
    first, second = np.zeros_like(square), np.zeros_like(square)
    for power, coefficient in reversed([(2 * index + 1, value) for index, value in enumerate(_SERIES)]):
        first = first * square - power * coefficient
        second = second * square + power * power * coefficient
    slope = small * (special.digamma(small) - np.log(small))
    curvature = slope + small * (small * special.polygamma(1, small) - 1.0)
    below = a < _SERIES_FROM
    return np.where(below, slope, inverse * first - 0.5), np.where(below, curvature, inverse * second)


def log_gamma_increment(a: Tensor, y: Tensor) -> Tensor:
    """Elementwise log Γ(a + y) − log Γ(a) − y log a for a > 0, y ≥ 0; it tends to 0 as a → ∞ at fixed y."""
    return stirling_rest(a + y) - stirling_rest(a) + ((a + y) * torch.log1p(y / a) - y)


def log_gamma_increment_slopes(a: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and second derivatives of `log_gamma_increment` by log a, elementwise, at a > 0 and y ≥ 0.

    With R the rest of Stirling's formula, S₁ and S₂ its `stirling_slopes` and p = a/(a + y) they are
    p S₁(a + y) − S₁(a) + a log(1 + y/a) − y and p² S₂(a + y) + p (1 − p) S₁(a + y) − S₂(a) + a log(1 + y/a) − p y.

    Example:
        >>> first, second = log_gamma_increment_slopes(np.array(2.0), np.array(1.0))  # log Γ(a + 1) − log Γ(a) − log a
        >>> bool(abs(first) < 1e-15), bool(abs(second) < 1e-15)
        (True, True)
    """
    share = a / (a + y)
    slope, curvature = stirling_slopes(a + y)
    own_slope, own_curvature = stirling_slopes(a)
    logarithm = a * np.log1p(y / a)
    first = share * slope - own_slope + logarithm - y
    second = share * (share * curvature + (1.0 - share) * slope) - own_curvature + logarithm - share * y
    return first, second
