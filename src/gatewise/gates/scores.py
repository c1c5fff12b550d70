"""Words for the formulas of gates' scores, without the bias, which is the weight of an atom. Loads sympy."""

from collections.abc import Sequence
from dataclasses import replace

import sympy
from sympy import Expr

from gatewise.parts.expressions import rational, vector
from gatewise.parts.formulas import Formula, TheoryParameter

__all__ = ["BIAS", "SCALED_BIAS", "norm", "number", "pairs", "renamed", "slope_of"]

BIAS = "the bias is left out: it is the weight of an atom, ∂/∂β₀ gives the function itself"
SCALED_BIAS = "the bias is left out: exp(β₀/τ) is the weight of an atom"


def norm(entries: Sequence[Expr]) -> Expr:
    """The Euclidean length."""
    return sympy.sqrt(sympy.Add(*(entry**2 for entry in entries)))


def slope_of(d: int) -> tuple[TheoryParameter, ...]:
    """β₁, (d,)."""
    return vector("β₁", d, "gate_slope")


def number(value: float) -> Expr:
    """An option by its decimals, exactly."""
    return rational(str(value))


def pairs(coordinates: Sequence[Expr], functions: Sequence[Expr]) -> tuple[tuple[Expr, Expr], ...]:
    """What `Formula.linear` has."""
    return tuple(zip(coordinates, functions, strict=True))


def renamed(formula: Formula, mark: str, role: str) -> Formula:
    """The formula with marked names of parameters."""
    new = tuple(
        replace(own, name=own.name + mark, atom=own.atom.replace("gate_", f"gate_{role}_"))
        for own in formula.parameters
    )
    change = {old.symbol: fresh.symbol for old, fresh in zip(formula.parameters, new, strict=True)}
    labels = {old.label: fresh.label for old, fresh in zip(formula.parameters, new, strict=True)}
    special = {f"{where} ({role})": tuple(labels[label] for label in zeros) for where, zeros in formula.special.items()}
    values = tuple(value.xreplace(change) for value in formula.values)
    return replace(formula, parameters=new, values=values, special=special, linear=(), coordinates="")
