"""Numbers that are the coefficients of an identity at several parameters, recognised as functions of the parameters."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import mpmath
import numpy as np
import sympy
from sympy import Expr, Symbol

from gatewise.theory.identifiability.parts import Number

__all__ = ["coefficient_text", "is_negative", "monomial", "recognised"]

_LARGEST_DENOMINATOR = 360
_LEAST_POINTS = 6
_MOST_PAIRS = 40
_FITS = 1e-11
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def monomial(
    values: Sequence[Number], points: Sequence[Sequence[Number]], symbols: Sequence[Symbol], small: Number
) -> Expr | None:
    """The q ∏ θᵢ^nᵢ, q rational and nᵢ whole, that has these values at these points, or None.

    Logarithms make it a linear system. As many points as there are unknowns determine it, the others check it.

    Args:
        values: of the coefficient, not 0; at least one more than there are parameters, and then some.
        points: values of the parameters at each; a parameter that is the same everywhere must be left out.
        symbols: the parameters.
        small: relative error of the values.

    Example:
        >>> a, t = Symbol("a"), Symbol("t")
        >>> points = [[mpmath.mpf(p) / 7, mpmath.mpf(q) / 5] for p, q in ((2, 3), (5, -4), (9, 8), (-3, 7))]
        >>> monomial([-2 * p / (3 * q * q) for p, q in points], points, [a, t], mpmath.mpf(10) ** -10)
        -2*a/(3*t**2)
    """
    unknowns = 1 + len(symbols)
    if len(values) <= unknowns or any(value == 0 for value in values):
        return None
    logarithms = [[mpmath.mpf(1), *(mpmath.log(abs(entry)) for entry in point)] for point in points]
    right = mpmath.matrix([mpmath.log(abs(value)) for value in values[:unknowns]])
    try:
        solution = mpmath.lu_solve(mpmath.matrix(logarithms[:unknowns]), right)
    except ZeroDivisionError:
        return None
    loose = mpmath.sqrt(small)
    exponents = [int(mpmath.nint(solution[i])) for i in range(1, unknowns)]
    if any(abs(solution[i + 1] - n) > loose for i, n in enumerate(exponents)):
        return None
    factors = [values[0] / mpmath.fprod(entry**n for entry, n in zip(points[0], exponents, strict=True))]
    rational = Fraction(str(mpmath.nstr(factors[0], 30))).limit_denominator(_LARGEST_DENOMINATOR)
    if rational == 0:
        return None
    ratio = mpmath.mpf(rational.numerator) / rational.denominator
    for value, point in zip(values, points, strict=True):
        expected = ratio * mpmath.fprod(entry**n for entry, n in zip(point, exponents, strict=True))
        if abs(value - expected) > loose * abs(expected):
            return None
    powers = (symbol**n for symbol, n in zip(symbols, exponents, strict=True))
    return sympy.Mul(sympy.Rational(rational.numerator, rational.denominator), *powers)


def recognised(
    values: Sequence[Number], points: Sequence[Sequence[Number]], symbols: Sequence[Symbol], small: Number
) -> Expr | None:
    """A monomial, or a sum of two with exponents from −2 to 2 in at most two parameters each; the rest as `monomial`.

    Example:
        >>> c, g = Symbol("c"), Symbol("g")
        >>> points = [[mpmath.mpf(3 * n % 7 + 1) / 5, mpmath.mpf(5 * n % 11 + 2) / 7] for n in range(8)]
        >>> recognised([2 * p * p - q for p, q in points], points, [c, g], mpmath.mpf(10) ** -10)
        2*c**2 - g
    """
    found = monomial(values, points, symbols, small)
    return _two_monomials(values, points, symbols, small) if found is None else found


def _two_monomials(
    values: Sequence[Number], points: Sequence[Sequence[Number]], symbols: Sequence[Symbol], small: Number
) -> Expr | None:
    if len(values) < _LEAST_POINTS:
        return None
    exponents = _small_exponents(len(symbols))
    table = np.array(points, dtype=np.float64)
    # Each pair of monomials is fitted in double precision; those that fit are solved and checked with all digits.
    rows = np.prod(table[None] ** exponents[:, None, :].astype(float), axis=2)
    target = np.array(values, dtype=np.float64)
    rows, lengths = rows / np.linalg.norm(rows, axis=1, keepdims=True), np.linalg.norm(target)
    gram, along = rows @ rows.T, rows @ (target / lengths)
    with np.errstate(divide="ignore", invalid="ignore"):
        other = along[None, :] - gram * along[:, None]
        rest = 1.0 - along[:, None] ** 2 - other**2 / (1.0 - gram**2)
    rest[~np.isfinite(rest)] = 1.0
    order = np.argsort(rest, axis=None)[:_MOST_PAIRS]
    loose = mpmath.sqrt(small)
    for first, second in zip(*np.unravel_index(order, rest.shape), strict=True):
        if first >= second or rest[first, second] > _FITS:
            continue
        both = [
            [mpmath.fprod(p ** int(n) for p, n in zip(point, exponents[i], strict=True)) for i in (first, second)]
            for point in points
        ]
        try:
            solution = mpmath.lu_solve(mpmath.matrix(both[:2]), mpmath.matrix(list(values[:2])))
        except ZeroDivisionError:
            continue
        numbers = [Fraction(str(mpmath.nstr(entry, 30))).limit_denominator(_LARGEST_DENOMINATOR) for entry in solution]
        exact = [mpmath.mpf(number.numerator) / number.denominator for number in numbers]
        sums = [exact[0] * row[0] + exact[1] * row[1] for row in both]
        if all(numbers) and all(
            abs(value - total) <= loose * (1 + abs(value)) for value, total in zip(values, sums, strict=True)
        ):
            terms = [
                sympy.Mul(
                    sympy.Rational(number.numerator, number.denominator),
                    *(symbol ** int(n) for symbol, n in zip(symbols, exponents[i], strict=True)),
                )
                for number, i in zip(numbers, (first, second), strict=True)
            ]
            return sympy.Add(*terms)
    return None


def _small_exponents(n: int) -> np.ndarray:
    """Exponents from −2 to 2 of which at most two are not 0, (number, n)."""
    rows = {(0,) * n}
    for i, j in product(range(n), repeat=2):
        for e, f in product(range(-2, 3), repeat=2):
            row = [0] * n
            row[i], row[j] = e, f
            rows.add(tuple(row))
    return np.array(sorted(rows, key=lambda row: (sum(map(abs, row)), row)), dtype=np.int64).reshape(len(rows), n)


def coefficient_text(coefficient: Expr) -> str:
    """A coefficient as it stands before a derivative: "", "2", "(β₁[1]/τ²)"; without its sign.

    Example:
        >>> a, t = Symbol("a"), Symbol("t")
        >>> coefficient_text(-2 * a / t**2), coefficient_text(sympy.Integer(1)), coefficient_text(sympy.Rational(1, 2))
        ('(2a/t²)', '', '½')
    """
    number, rest = coefficient.as_coeff_Mul()
    above, below = sympy.fraction(abs(number) * rest)
    if not (_is_monomial(above) and _is_monomial(below)):
        return f"({abs(number) * rest})"
    written, divisor = _product(above), _product(below)
    if divisor == "1":
        return "" if written == "1" else written
    return "½" if (written, divisor) == ("1", "2") else f"({written}/{divisor})"


def is_negative(coefficient: Expr) -> bool:
    """Whether it is printed with a minus: the sign of its rational factor.

    Example:
        >>> is_negative(-Symbol("a")), is_negative(Symbol("a") / 2)
        (True, False)
    """
    return bool(coefficient.as_coeff_Mul()[0] < 0)


def _is_monomial(expression: Expr) -> bool:
    return all(
        factor.is_Integer or (factor.as_base_exp()[0].is_Symbol and factor.as_base_exp()[1].is_Integer)
        for factor in sympy.Mul.make_args(expression)
    )


def _product(monomial_: Expr) -> str:
    """A product of a whole number and powers of symbols."""
    number, rest = monomial_.as_coeff_Mul()
    powers = [factor.as_base_exp() for factor in sympy.Mul.make_args(rest) if factor != 1]
    letters = sorted(f"{base}{str(n).translate(_SUPERSCRIPTS) if n != 1 else ''}" for base, n in powers)
    return "".join([*([str(number)] if number != 1 or not letters else []), *letters])
