"""What a gate, an expert or a family is as a formula: symbolic expressions with named parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr, Symbol

__all__ = [
    "ACTIVATIONS",
    "FamilyFormula",
    "Formula",
    "TheoryParameter",
    "dot",
    "formula_of",
    "inputs",
    "parameter",
    "rational",
    "symbols",
    "vector",
]


@dataclass(frozen=True)
class TheoryParameter:
    """One real parameter of an atom, as the papers write it.

    Attributes:
        name: "β₁", "a", "τ", without an index.
        index: its place in an array, counted from 1 as in print; () for a number.
        positive: whether it is positive by nature.
        atom: the array of `MixtureOfExperts.atoms()` in which its value is found, or "" if there is none.
        place: where in a row of that array, counted from 0.
        divisor: by what a value drawn at random is divided, for covariances, which must be small beside variances.
    """

    name: str
    index: tuple[int, ...] = ()
    positive: bool = False
    atom: str = ""
    place: tuple[int, ...] = ()
    divisor: int = 1

    @property
    def label(self) -> str:
        """The name with its index: "a[2]"."""
        return self.name + (f"[{','.join(map(str, self.index))}]" if self.index else "")

    @property
    def symbol(self) -> Symbol:
        """The parameter in formulas; parameters with the same label and sign are the same symbol."""
        return Symbol(self.label, real=True, positive=True if self.positive else None)


@dataclass(frozen=True)
class Formula:
    """The score of a gate without its bias, or the location of an expert, for one atom.

    Attributes:
        name: what it is called in results.
        x: the inputs' symbols, (d,).
        parameters: those that derivatives are taken by.
        values: the score, one expression; or the locations, m of them. Functions of `x` and the parameters' symbols.
        special: points where more identities may hold, "a = 0" with the labels of the parameters that are 0 there.
        linear: how a score depends linearly on coordinates of the parameters, Σ v(β) g(x): pairs (v, g). One vector may
            then be added to the v of all experts, if they can move freely.
        coordinates: what v is, in words, "v = β₁/(‖β₁‖ + τ₁)".
        note: what was left out or assumed, for the reader of a result.

    Example:
        >>> from sympy import exp
        >>> x, rate = inputs(1), parameter("r")
        >>> decay = Formula("decay", x, (rate,), (exp(-rate.symbol * x[0]),))
        >>> decay.values
        (exp(-r*x[1]),)
    """

    name: str
    x: tuple[Symbol, ...]
    parameters: tuple[TheoryParameter, ...]
    values: tuple[Expr, ...]
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    linear: tuple[tuple[Expr, Expr], ...] = ()
    coordinates: str = ""
    note: str = ""


@dataclass(frozen=True)
class FamilyFormula:
    """A density f(y | location, dispersion).

    Attributes:
        name: the family's.
        y: the symbols of a target, one, or an indicator for each class.
        location: the symbols of the location, (m,).
        parameters: the dispersions.
        density: an expression of all of these.
        targets: an integer ↦ a target, as numbers for `y`; the integers are drawn at random, below `n_targets`.
        n_targets: how many different targets can be drawn.
        note: on the parameters.
    """

    name: str
    y: tuple[Symbol, ...]
    location: tuple[Symbol, ...]
    parameters: tuple[TheoryParameter, ...]
    density: Expr
    targets: Callable[[int], tuple[Fraction, ...]]
    n_targets: int
    note: str = ""


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
        if any(name in vars(cls) for name in ("logits", "location", "log_density")):
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
