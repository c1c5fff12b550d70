"""From w(δ) to the exponent of w(δ) ~ δ^α, with a band and with what speaks against it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gatewise.theory.modulus.design import Extrapolation

__all__ = ["Exponent", "fit_exponent", "local_slopes"]

_JUMP = 0.35
_SETTLED = 0.1
_STEEP = 12.0


@dataclass(frozen=True)
class Exponent:
    """The exponent at δ → 0.

    Attributes:
        value: α; NaN for a flat direction or where too few distances are usable.
        low: lower end of the band.
        high: upper end.
        is_flat: whether the distance is zero to rounding at every δ of the window's beginning.
        flags: what speaks against the number, in words.
        slopes: the slope between each δ and the next.
        scaled: w/δ^α at every δ.
        above_floor: w over the rounding floor at every δ.
    """

    value: float
    low: float
    high: float
    is_flat: bool
    flags: tuple[str, ...]
    slopes: tuple[float, ...]
    scaled: tuple[float, ...]
    above_floor: tuple[float, ...]


def local_slopes(deltas: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Slopes of log w against log δ between neighbours.

    Example:
        >>> local_slopes([0.1, 0.01], [1e-2, 1e-4]).round(12).tolist()
        [2.0]
    """
    with np.errstate(all="ignore"):
        return np.diff(np.log(values)) / np.diff(np.log(deltas))


def fit_exponent(deltas: ArrayLike, values: ArrayLike, floor: float, rule: Extrapolation) -> Exponent:
    """The exponent by the rule that was fixed before.

    The slopes at the smallest usable δ are fitted by α + c δ^power. The band holds that value, the same with δ instead
    of δ^power, the same without the largest and without the smallest slope, with two standard errors, and is not
    narrower than the rule's least band.

    Example:
        >>> deltas = np.geomspace(0.1, 1e-3, 7)
        >>> found = fit_exponent(deltas, 3 * deltas**2, 1e-19, Extrapolation())
        >>> round(found.value, 6), found.is_flat, found.flags
        (2.0, False, ())
    """
    delta, value = np.asarray(deltas, float), np.asarray(values, float)
    above = value / floor
    usable = above > rule.floor_ratio
    slopes = local_slopes(delta, value)
    everything = (tuple(slopes.tolist()), above)
    first = int(np.argmax(usable))
    if first and usable[first:][:3].sum() == 3:
        # Zero at large displacements only is another copy of the truth within the box, and not about the limit.
        found = fit_exponent(delta[first:], value[first:], floor, rule)
        flags = (f"zero from δ = {delta[first - 1]:.2g} on: a copy of the truth within the box", *found.flags)
        return _result(found.value, found.low, found.high, False, flags, everything, delta, value)
    # What comes after the first distance at the floor is rounding.
    count = len(usable) if usable.all() else int(np.argmin(usable))
    if count < 3:
        # No power of δ falls to the floor between neighbours and stays there; a search that first failed does.
        fell = count == 0 or slopes[count - 1] > _STEEP
        is_flat = bool(fell and len(usable) - count >= 3 and not usable[count:].any())
        flags = () if is_flat else ("too few distances above the rounding floor",)
        return _result(np.nan, np.nan, np.nan, is_flat, flags, everything, delta, value)
    middle = np.sqrt(delta[: count - 1] * delta[1:count])[-rule.points :]
    chosen = slopes[: count - 1][-rule.points :]
    fits = [_line(middle**rule.power, chosen), _line(middle, chosen)]
    if len(chosen) > 4:
        fits += [_line(middle[1:] ** rule.power, chosen[1:]), _line(middle[:-1] ** rule.power, chosen[:-1])]
    alpha = fits[0][0]
    spread = [alpha, *(at - 2 * error for at, error in fits), *(at + 2 * error for at, error in fits), chosen[-1]]
    low, high = min(*spread, alpha - rule.least_band), max(*spread, alpha + rule.least_band)
    flags = []
    jumps = np.abs(np.diff(slopes[: count - 1]))
    if jumps.size and jumps.max() > _JUMP:
        place = int(jumps.argmax())
        flags.append(f"slopes jump by {jumps.max():.2f} at δ = {delta[place + 1]:.2g}")
    if abs(chosen[-1] - alpha) > _SETTLED:
        flags.append(f"not settled: last slope {chosen[-1]:.3f}, extrapolated {alpha:.3f}")
    if count < 6:
        flags.append(f"only {count} distances above the rounding floor")
    return _result(alpha, low, high, False, tuple(flags), everything, delta, value)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Intercept of the least-squares line, and its standard error."""
    if len(x) < 3:
        return float(y[-1]), float(np.ptp(y))
    design = np.column_stack([np.ones_like(x), x])
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ solution
    variance = float(rest @ rest) / (len(x) - 2)
    return float(solution[0]), float(np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0]))


def _result(
    alpha: float,
    low: float,
    high: float,
    is_flat: bool,
    flags: tuple[str, ...],
    everything: tuple[tuple[float, ...], np.ndarray],
    delta: np.ndarray,
    value: np.ndarray,
) -> Exponent:
    slopes, above = everything
    scaled = value / delta**alpha
    return Exponent(
        float(alpha), float(low), float(high), is_flat, flags, slopes, tuple(scaled.tolist()), tuple(above.tolist())
    )
