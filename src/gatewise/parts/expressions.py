"""Words for formulas of gates, experts and families: symbolic expressions with named parameters. Loads sympy."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr, Symbol

from gatewise.parts.formulas import TheoryParameter

__all__ = [
    "ACTIVATIONS",
    "dot",
    "formula_of",
    "inputs",
    "parameter",
    "rational",
    "symbols",
    "vector",
]


def inputs(d: int) -> tuple[Symbol, ...]:
    """The symbols x[1], …, x[d].

    Example:
        >>> inputs(2)
        (x[1], x[2])
    """
    return tuple(Symbol(f"x[{j + 1}]", real=True) for j in range(d))


def parameter(name: str, *, positive: bool = False, atom: str = "", place: tuple[int, ...] = ()) -> TheoryParameter:
    """A parameter that is one number.

    Example:
        >>> parameter("τ", positive=True).label
        'τ'
    """
    return TheoryParameter(name, (), positive, atom, place)


def vector(name: str, size: int, atom: str = "", place: tuple[int, ...] = ()) -> tuple[TheoryParameter, ...]:
    """The entries of a vector; of one entry, the name goes without index.

    Example:
        >>> [entry.label for entry in vector("a", 2)], [entry.label for entry in vector("a", 1)]
        (['a[1]', 'a[2]'], ['a'])
    """
    return tuple(TheoryParameter(name, (j + 1,) if size > 1 else (), atom=atom, place=(*place, j)) for j in range(size))


def symbols(entries: Sequence[TheoryParameter]) -> tuple[Symbol, ...]:
    """Of the parameters."""
    return tuple(entry.symbol for entry in entries)


def dot(entries: Sequence[TheoryParameter], values: Sequence[Expr]) -> Expr:
    """Σ parameter · value.

    Example:
        >>> dot(vector("a", 2), inputs(2))
        a[1]*x[1] + a[2]*x[2]
    """
    return sympy.Add(*(entry.symbol * value for entry, value in zip(entries, values, strict=True)))


def formula_of(part: Any) -> Any:
    """The formula that a gate, a bank or a family gives of itself by `expression`, or None.

    A class that has changed what is computed and not the formula is not taken at the word of the class that it is made
    from.

    Example:
        >>> from gatewise.experts import build_experts
        >>> formula_of(build_experts("polynomial", 2, 1, power=3)).values[0]
        (a[1]*x[1] + a[2]*x[2] + b)**3
    """
    for cls in type(part).__mro__:
        if "expression" in vars(cls):
            return part.expression()
        if any(name in vars(cls) for name in ("logits", "slope_score", "location", "log_density")):
            return None
    return None


def rational(number: Fraction | str | int) -> Expr:
    """An exact number in a formula, from a fraction or from its decimals.

    Example:
        >>> rational("0.1"), rational(Fraction(2, 6))
        (1/10, 1/3)
    """
    exact = Fraction(number)
    return sympy.Integer(exact.numerator) / sympy.Integer(exact.denominator)


def _gelu(z: Expr) -> Expr:
    return z * (1 + sympy.erf(z / sympy.sqrt(2))) / 2


ACTIVATIONS: dict[str, Callable[[Expr], Expr]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + sympy.exp(-z)),
    "tanh": lambda z: sympy.tanh(z),
    "relu": lambda z: sympy.Piecewise((z, z > 0), (sympy.Integer(0), True)),
    "gelu": _gelu,
    "silu": lambda z: z / (1 + sympy.exp(-z)),
    "cos": lambda z: sympy.cos(z),
    "cube": lambda z: z**3,
}
"""The activations of `gatewise.parts.activations` as formulas; the derivatives of relu are those beside its kink."""
