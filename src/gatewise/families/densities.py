"""Words for the formulas of families' densities. Loads sympy."""

from fractions import Fraction

from sympy import Symbol

__all__ = ["FINE", "H", "Y", "count", "positive", "real"]

Y = Symbol("y", real=True)
H = Symbol("h", real=True)
FINE = 10**6
"""How many different targets can be drawn where they are numbers of any kind."""


def real(number: int) -> tuple[Fraction, ...]:
    """A number in (−3, 3)."""
    return (Fraction(6 * number + 1, FINE) - 3,)


def positive(number: int) -> tuple[Fraction, ...]:
    """A number in (1/10, 4)."""
    return (Fraction(39 * number + 1, 10 * FINE) + Fraction(1, 10),)


def count(number: int) -> tuple[Fraction, ...]:
    """The number itself."""
    return (Fraction(number),)
