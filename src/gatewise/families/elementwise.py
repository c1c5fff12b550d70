"""Distribution functions and quantiles by SciPy on tensors, without gradients."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import special
from torch import Tensor

__all__ = ["gamma_below", "gamma_quantile", "poisson_draws", "smallest_count", "through_numpy", "uniform"]

_MANY = 1e6
_SMALLEST_UNIFORM = 2.0**-54
_LARGEST_COUNT = 1e15


def through_numpy(function: Callable[..., np.ndarray], like: Tensor, *tensors: Tensor) -> Tensor:
    """A NumPy function of float64 arrays, broadcast; the answer has the precision and the device of `like`."""
    arrays = np.broadcast_arrays(*(tensor.detach().cpu().numpy().astype(np.float64) for tensor in tensors))
    with np.errstate(all="ignore"):
        answer = function(*arrays)
    return torch.as_tensor(np.asarray(answer), dtype=like.dtype, device=like.device)


def uniform(shape: torch.Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Float64 uniform numbers strictly between 0 and 1 on the device of `like`."""
    draws = torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)
    return torch.clamp(draws, min=_SMALLEST_UNIFORM)


def poisson_draws(mean: Tensor, generator: torch.Generator | None) -> Tensor:
    """Poisson counts with these means, float64; rounded normal numbers above 10¹⁵, near where 64-bit integers end."""
    counts = torch.poisson(torch.clamp(mean, max=_LARGEST_COUNT), generator=generator)
    normal = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return torch.where(mean > _LARGEST_COUNT, torch.round(mean + torch.sqrt(mean) * normal), counts)


def gamma_below(shape: np.ndarray, ratio: np.ndarray, upper: bool = False) -> np.ndarray:
    """P(G ≤ shape · ratio) of a standard gamma variable G, or P(G > shape · ratio), elementwise.

    SciPy's series stop early beyond 4.5 standard deviations when the shape is above about 10⁷. There Temme's uniform
    expansion is used, ½ erfc(±η √(a/2)) ± e^(−aη²/2)/√(2πa) (c₀ + c₁/a), with ½η² = λ − 1 − log λ and λ the ratio
    (NIST Digital Library of Mathematical Functions, 8.12).
    """
    exact = special.gammaincc if upper else special.gammainc
    plain = exact(shape, shape * ratio)
    step = ratio - 1.0
    far = (shape > _MANY) & (np.abs(step) * np.sqrt(shape) > 4.0) & (ratio > 0.0)
    if not far.any():
        return plain
    a, step = shape[far], step[far]
    eta = np.copysign(np.sqrt(2.0 * (step - np.log1p(step))), step)
    first = 1.0 / step - 1.0 / eta
    second = 1.0 / eta**3 - 1.0 / step**3 - 1.0 / step**2 - 1.0 / (12.0 * step)
    rest = np.exp(-0.5 * a * eta**2) / np.sqrt(2.0 * math.pi * a) * (first + second / a)
    sign = 1.0 if upper else -1.0
    answer = plain.copy()
    answer[far] = special.ndtr(-sign * eta * np.sqrt(a)) + sign * rest
    return np.clip(answer, 0.0, 1.0)


def gamma_quantile(shape: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The quantile of a gamma variable of mean 1, elementwise; by Cornish and Fisher's expansion at shapes above 10⁶.

    The terms are those of chi-squared (Johnson, Kotz and Balakrishnan 1994, §18.5).
    """
    z, a = special.ndtri(probability), np.maximum(shape, _MANY)
    with np.errstate(all="ignore"):
        expansion = (
            1.0
            + z / np.sqrt(a)
            + (z**2 - 1.0) / (3.0 * a)
            + (z**3 - 7.0 * z) / (36.0 * a**1.5)
            - (6.0 * z**4 + 14.0 * z**2 - 32.0) / (1620.0 * a**2)
        )
        expansion = np.where(probability <= 0.0, 0.0, np.where(probability >= 1.0, np.inf, expansion))
        return np.where(shape > _MANY, expansion, special.gammaincinv(shape, probability) / shape)


def smallest_count(
    below: Callable[..., np.ndarray],
    probability: np.ndarray,
    guess: np.ndarray,
    step: np.ndarray,
    last: float,
    *parameters: np.ndarray,
) -> np.ndarray:
    """The smallest count y ≤ last with below(y, *parameters) ≥ probability, elementwise: a bracket, then bisection.

    It inverts `below` as it is computed: the quantile at below(y) is y for every y of positive probability.

    Args:
        below: the distribution function; all arguments have the same shape.
        probability: in [0, 1]; the answer is 0 at 0, `last` at 1, NaN outside.
        guess: near the answer.
        step: the first half-width of the bracket.
        last: the largest count, perhaps infinite.
        parameters: what `below` takes beside y.
    """
    flat = [np.ravel(np.asarray(array, dtype=float)) for array in (probability, guess, step, *parameters)]
    level, start, width, *others = flat
    answer = np.where(level >= 1.0, last, np.where(level <= 0.0, 0.0, np.nan))
    answer[(level > 1.0) | (level < 0.0)] = np.nan
    active = np.flatnonzero((level > 0.0) & (level < 1.0) & np.isfinite(start))

    def reached(y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return below(y, *(other[rows] for other in others)) >= level[rows]

    centre = np.clip(np.floor(start), 0.0, min(last, 1e300))
    width = np.ceil(np.clip(width, 1.0, 1e300))
    low, high = np.maximum(centre - width, -1.0), np.minimum(centre + width, last)
    for end, towards in ((low, -1.0), (high, 1.0)):
        rows, reach = active, width.copy()
        while len(rows):
            inside = (end[rows] < 0.0) if towards < 0.0 else (end[rows] >= last)
            if towards < 0.0:
                rows = rows[~inside & reached(end[rows], rows)]
            else:
                rows = rows[~inside & ~reached(end[rows], rows)]
            reach[rows] *= 4.0
            moved = centre[rows] + towards * reach[rows]
            end[rows] = np.maximum(moved, -1.0) if towards < 0.0 else np.minimum(moved, last)
    rows = active
    while len(rows):
        # Above 2⁵³ neighbouring numbers differ by more than 1: a middle that is an end says that none lies between.
        middle = np.floor(0.5 * (low[rows] + high[rows]))
        rows, middle = (array[(middle > low[rows]) & (middle < high[rows])] for array in (rows, middle))
        up = reached(middle, rows)
        high[rows[up]] = middle[up]
        low[rows[~up]] = middle[~up]
    answer[active] = high[active]
    return answer.reshape(np.shape(probability))
