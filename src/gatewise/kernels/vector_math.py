"""Exponential and logarithm that the compiler turns into vector instructions.

Inside a numba loop `math.exp` is a call into the C library, one number at a time. The two functions here are plain
arithmetic, so LLVM vectorises any loop that calls them, on every processor and without Intel's SVML. Both follow
the classical scheme: reduce the range by a power of two, then a short polynomial (Muller, *Elementary Functions*,
3rd ed., 2016, chapters 3 and 11). Against mpmath both stay within 2 units in the last place (tests/ops).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["exp", "log"]

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
# Adding 1.5 * 2^52 rounds to an integer and leaves that integer in the low bits of the sum.
_ROUNDER = 6755399441055744.0
_ROUNDER_BITS = 0x4338000000000000
# The bits of 1 less those of √½.
_SQRT_HALF_SHIFT = 0x3FF0000000000000 - 0x3FE6A09E667F3BCD
_SMALLEST_ARGUMENT = -708.0


def _float_bits_intrinsic(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


def _bits_float_intrinsic(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


# Inside compiled code each takes the value alone; the typing context is numba's.
_float_bits: Callable[[Any], Any] = intrinsic(_float_bits_intrinsic)  # pyright: ignore[reportAssignmentType]
_bits_float: Callable[[Any], Any] = intrinsic(_bits_float_intrinsic)  # pyright: ignore[reportAssignmentType]


# A caller may allow contraction, never reassociation: numba applies its flags here, and they would cancel the rounding.
@njit(forceinline=True, error_model="numpy")
def exp(x: float) -> float:
    """e^x for x ≤ 709; 0 below −708, where the true value is no longer a normal number. NaN stays NaN."""
    shifted = x * _LOG2_E + _ROUNDER
    whole = shifted - _ROUNDER
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    # Taylor to degree 13: the remainder at |r| ≤ ln(2)/2 is 4e-18.
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r * r + r + 1.0
    power = _bits_float((_float_bits(shifted) + np.int64(1023)) << np.int64(52))
    return 0.0 if x < _SMALLEST_ARGUMENT else p * power


@njit(forceinline=True, error_model="numpy")
def log(x: float) -> float:
    """Natural logarithm of a positive, normal, finite number; −inf at 0, NaN at NaN and infinity."""
    # Split at √½ so that the mantissa lies in [√½, √2). The exponent stays biased, hence positive, because vector
    # units shift unsigned numbers only.
    bits = _float_bits(x)
    biased = np.int64(np.uint64(bits + _SQRT_HALF_SHIFT) >> np.uint64(52))
    mantissa = _bits_float(bits - ((biased - np.int64(1023)) << np.int64(52)))
    exponent = _bits_float(biased + _ROUNDER_BITS) - (_ROUNDER + 1023.0)
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    # atanh series: log(1 + f) = 2 (s + s³/3 + …); |s| ≤ 0.1716, so the term after s²³ is below 1e-20.
    p = 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    # f − s (f − z p) keeps the leading digits of f exact.
    value = exponent * _LN2_HIGH + (f - s * (f - z * p) + exponent * _LN2_LOW)
    return -np.inf if x == 0.0 else value + (x - x)
