"""The polynomial system that over-specified Gaussian experts lead to."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["PolynomialSystem", "order_sums", "order_term", "polynomial_system"]


@dataclass(frozen=True)
class PolynomialSystem:
    """The equations of arXiv:2305.03288, section 3.2, for m atoms in one cell.

    Attributes:
        weights: the atoms' weights, symbols declared positive (the paper has squares p₅² of real numbers).
        gates: Δβ₁ of each atom, d symbols each.
        slopes: Δa of each atom, d symbols each.
        intercepts: Δb of each atom.
        variances: half of Δσ² of each atom, because ∂f/∂σ² = ½ ∂²f/∂b².
        equations: left-hand sides by (ℓ₁, ℓ₂), ℓ₁ a tuple of d orders, for 1 ≤ |ℓ₁| + ℓ₂ ≤ r.
    """

    weights: tuple[sympy.Symbol, ...]
    gates: tuple[tuple[sympy.Symbol, ...], ...]
    slopes: tuple[tuple[sympy.Symbol, ...], ...]
    intercepts: tuple[sympy.Symbol, ...]
    variances: tuple[sympy.Symbol, ...]
    equations: dict[tuple[tuple[int, ...], int], sympy.Expr]


def polynomial_system(m: int, r: int, d: int = 1) -> PolynomialSystem:
    """The polynomial system of softmax-gated Gaussian experts with linear means, for m atoms up to order r.

    For every (ℓ₁, ℓ₂) in N^d × N with 1 ≤ |ℓ₁| + ℓ₂ ≤ r

        Σᵢ wᵢ Σ_α βᵢ^α₁ aᵢ^α₂ bᵢ^α₃ sᵢ^α₄ / (α₁! α₂! α₃! α₄!) = 0,  α₁ + α₂ = ℓ₁,  |α₂| + α₃ + 2α₄ = ℓ₂.

    The left side is the coefficient of s^ℓ₁ t^ℓ₂ in Σᵢ wᵢ exp(βᵢᵀs + aᵢᵀs t + bᵢt + sᵢt²). (ℓ₁, ℓ₂) = (0, ℓ) gives the
    system of location-scale Gaussian mixtures (Ho and Nguyen 2016).

    Args:
        m: atoms in the cell, at least 1.
        r: highest order, at least 1.
        d: number of inputs, at least 1.

    Raises:
        InputError: one of them is not a positive integer.

    Source:
        arXiv:2305.03288, section 3.2 (index set as in its first version).

    Example:
        >>> system = polynomial_system(2, 2)
        >>> for order, equation in system.equations.items():
        ...     print(order, equation)
        ((0,), 1) b1*w1 + b2*w2
        ((0,), 2) b1**2*w1/2 + b2**2*w2/2 + s1*w1 + s2*w2
        ((1,), 0) beta1_1*w1 + beta2_1*w2
        ((1,), 1) a1_1*w1 + a2_1*w2 + b1*beta1_1*w1 + b2*beta2_1*w2
        ((2,), 0) beta1_1**2*w1/2 + beta2_1**2*w2/2
    """
    for name, value in (("m", m), ("r", r), ("d", d)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a positive integer, not {shown(value)}")
    atoms = range(1, m + 1)
    weights = tuple(sympy.Symbol(f"w{i}", positive=True) for i in atoms)
    gates, slopes = (
        tuple(tuple(sympy.Symbol(f"{name}{i}_{j}", real=True) for j in range(1, d + 1)) for i in atoms)
        for name in ("beta", "a")
    )
    intercepts, variances = (tuple(sympy.Symbol(f"{name}{i}", real=True) for i in atoms) for name in ("b", "s"))
    equations = {}
    for first in itertools.product(range(r + 1), repeat=d):
        for second in range(r - sum(first) + 1):
            if sum(first) + second > 0:
                terms = (
                    w * _coefficient(first, second, gate, slope, b, s)
                    for w, gate, slope, b, s in zip(weights, gates, slopes, intercepts, variances, strict=True)
                )
                equations[first, second] = sympy.expand(sympy.Add(*terms))
    return PolynomialSystem(weights, gates, slopes, intercepts, variances, equations)


def _coefficient(
    first: tuple[int, ...],
    second: int,
    gate: Sequence[sympy.Symbol],
    slope: Sequence[sympy.Symbol],
    intercept: sympy.Symbol,
    variance: sympy.Symbol,
) -> sympy.Expr:
    total = sympy.Integer(0)
    for split in itertools.product(*(range(order + 1) for order in first)):
        rest = second - sum(split)
        if rest < 0:
            continue
        of_slope = sympy.Mul(
            *(
                gate[j] ** (first[j] - n) * slope[j] ** n / (math.factorial(first[j] - n) * math.factorial(n))
                for j, n in enumerate(split)
            )
        )
        total += of_slope * order_term(rest, intercept, variance)
    return total


def order_term(order: int, intercept: Any, variance: Any) -> Any:
    """Σ b^n₁ s^n₂ / (n₁! n₂!) over n₁ + 2n₂ = order: the coefficient of t^order in exp(bt + st²).

    Example:
        >>> order_term(3, sympy.Symbol("b"), sympy.Symbol("s"))
        b**3/6 + b*s
    """
    return sum(
        intercept ** (order - 2 * n) * variance**n / sympy.Integer(math.factorial(order - 2 * n) * math.factorial(n))
        for n in range(order // 2 + 1)
    )


def order_sums(
    weights: Sequence[Any], intercepts: Sequence[Any], variances: Sequence[Any], r: int
) -> tuple[sympy.Expr, ...]:
    """Left sides of the equations (0, 1), …, (0, r): Σᵢ wᵢ Σ bᵢ^n₁ sᵢ^n₂ / (n₁! n₂!), n₁ + 2n₂ = ℓ.

    Args:
        weights: m numbers or expressions.
        intercepts: m numbers or expressions, the Δb.
        variances: m numbers or expressions, half of the Δσ².
        r: highest order.

    Example:
        >>> half = sympy.Rational(1, 2)
        >>> order_sums([1, 1], [1, -1], [-half, -half], 4)
        (0, 0, 0, -1/6)
    """
    return tuple(
        sympy.radsimp(
            sympy.expand(
                sympy.Add(
                    *(w * order_term(order, b, s) for w, b, s in zip(weights, intercepts, variances, strict=True))
                )
            )
        )
        for order in range(1, r + 1)
    )
