"""What a part says of itself as a formula. The expressions are sympy's, which is loaded by whoever writes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Expr, Symbol

__all__ = ["FamilyFormula", "Formula", "TheoryParameter"]


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
    def symbol(self) -> "Symbol":
        """The parameter in formulas; parameters with the same label and sign are the same symbol."""
        from sympy import Symbol

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
        >>> from gatewise.parts.expressions import inputs, parameter
        >>> x, rate = inputs(1), parameter("r")
        >>> decay = Formula("decay", x, (rate,), (exp(-rate.symbol * x[0]),))
        >>> decay.values
        (exp(-r*x[1]),)
    """

    name: str
    x: "tuple[Symbol, ...]"
    parameters: tuple[TheoryParameter, ...]
    values: "tuple[Expr, ...]"
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    linear: "tuple[tuple[Expr, Expr], ...]" = ()
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
    y: "tuple[Symbol, ...]"
    location: "tuple[Symbol, ...]"
    parameters: tuple[TheoryParameter, ...]
    density: "Expr"
    targets: Callable[[int], tuple[Fraction, ...]]
    n_targets: int
    note: str = ""
