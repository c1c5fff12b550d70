"""The densities of the built-in families as formulas."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
from sympy import Symbol

from gatewise.families import Family
from gatewise.families.bernoulli import Bernoulli
from gatewise.families.categorical import Categorical
from gatewise.families.gamma import Gamma
from gatewise.families.gaussian import Gaussian
from gatewise.families.laplace import Laplace
from gatewise.families.negative_binomial import NegativeBinomial
from gatewise.families.poisson import Poisson
from gatewise.families.student_t import StudentT
from gatewise.theory.identifiability.expressions import FamilyFormula, TheoryParameter, rational

__all__ = ["family_formula"]

_Y = Symbol("y", real=True)
_H = Symbol("h", real=True)
_FINE = 10**6


def family_formula(family: Family) -> FamilyFormula | None:
    """The density of a built-in family, or None if there is no formula for it.

    Example:
        >>> from gatewise.families import build_family
        >>> family_formula(build_family("gaussian")).density
        sqrt(2)*exp(-(-h + y)**2/(2*s))/(2*sqrt(pi)*sqrt(s))
    """
    make = _FAMILIES.get(type(family))
    return None if make is None else make(family)


def _real(number: int) -> tuple[Fraction, ...]:
    """A number in (−3, 3)."""
    return (Fraction(6 * number + 1, _FINE) - 3,)


def _positive(number: int) -> tuple[Fraction, ...]:
    """A number in (1/10, 4)."""
    return (Fraction(39 * number + 1, 10 * _FINE) + Fraction(1, 10),)


def _count(number: int) -> tuple[Fraction, ...]:
    return (Fraction(number),)


def _gaussian(family: Gaussian) -> FamilyFormula:
    variance = TheoryParameter("s", positive=True, atom="variance")
    density = sympy.exp(-((_Y - _H) ** 2) / (2 * variance.symbol)) / sympy.sqrt(2 * sympy.pi * variance.symbol)
    return FamilyFormula(family.name, (_Y,), (_H,), (variance,), density, _real, _FINE, "s is the variance")


def _laplace(family: Laplace) -> FamilyFormula:
    scale = TheoryParameter("σ", positive=True, atom="scale")
    distance = sympy.Piecewise((_Y - _H, _Y > _H), (_H - _Y, True))
    density = sympy.exp(-distance / scale.symbol) / (2 * scale.symbol)
    note = "σ is the mean absolute deviation; derivatives are those beside the kink at y = h"
    return FamilyFormula(family.name, (_Y,), (_H,), (scale,), density, _real, _FINE, note)


def _student_t(family: StudentT) -> FamilyFormula:
    scale = TheoryParameter("σ", positive=True, atom="scale")
    own = () if family.df is not None else (TheoryParameter("ν", positive=True, atom="degrees of freedom"),)
    df = own[0].symbol if own else rational(str(family.df))
    square = ((_Y - _H) / scale.symbol) ** 2 / df
    constant = sympy.gamma((df + 1) / 2) / (sympy.gamma(df / 2) * sympy.sqrt(df * sympy.pi) * scale.symbol)
    density = constant * (1 + square) ** (-(df + 1) / 2)
    note = "σ is the scale and ν the degrees of freedom" if own else "σ is the scale"
    return FamilyFormula(family.name, (_Y,), (_H,), (scale, *own), density, _real, _FINE, note)


def _poisson(family: Poisson) -> FamilyFormula:
    density = sympy.exp(_Y * _H - sympy.exp(_H)) / sympy.gamma(_Y + 1)
    return FamilyFormula(family.name, (_Y,), (_H,), (), density, _count, 12, "h is the logarithm of the mean")


def _gamma(family: Gamma) -> FamilyFormula:
    shape = TheoryParameter("α", positive=True, atom="shape")
    alpha, rate = shape.symbol, shape.symbol * sympy.exp(-_H)
    density = rate**alpha * _Y ** (alpha - 1) * sympy.exp(-rate * _Y) / sympy.gamma(alpha)
    note = "α is the shape, h the logarithm of the mean"
    return FamilyFormula(family.name, (_Y,), (_H,), (shape,), density, _positive, _FINE, note)


def _negative_binomial(family: NegativeBinomial) -> FamilyFormula:
    size = TheoryParameter("r", positive=True, atom="size")
    r, mean = size.symbol, sympy.exp(_H)
    share = r / (r + mean)
    density = sympy.gamma(_Y + r) / (sympy.gamma(r) * sympy.gamma(_Y + 1)) * share**r * (mean / (r + mean)) ** _Y
    note = "r is the size, h the logarithm of the mean"
    return FamilyFormula(family.name, (_Y,), (_H,), (size,), density, _count, 20, note)


def _bernoulli(family: Bernoulli) -> FamilyFormula:
    probability = 1 / (1 + sympy.exp(-_H))
    density = _Y * probability + (1 - _Y) * (1 - probability)
    return FamilyFormula(family.name, (_Y,), (_H,), (), density, _count, 2, "h is the logit of y = 1")


def _categorical(family: Categorical) -> FamilyFormula:
    classes = family.n_classes
    y = tuple(Symbol(f"1[y={c}]", real=True) for c in range(classes))
    location = (_H,) if classes == 2 else tuple(Symbol(f"h[{c + 1}]", real=True) for c in range(classes - 1))
    terms = [*(sympy.exp(logit) for logit in location), sympy.Integer(1)]
    total = sympy.Add(*terms)
    density = sympy.Add(*(indicator * term / total for indicator, term in zip(y, terms, strict=True)))

    def indicators(number: int) -> tuple[Fraction, ...]:
        return tuple(Fraction(int(c == number)) for c in range(classes))

    note = "locations are the logits against the last class"
    return FamilyFormula(family.name, y, location, (), density, indicators, classes, note)


_FAMILIES: dict[type[Family], Callable[[Any], FamilyFormula]] = {
    Gaussian: _gaussian,
    Laplace: _laplace,
    StudentT: _student_t,
    Poisson: _poisson,
    Gamma: _gamma,
    NegativeBinomial: _negative_binomial,
    Bernoulli: _bernoulli,
    Categorical: _categorical,
}
