"""The parts of an atom's function with their derivatives: from formulas with many digits, or by torch with sixteen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, Protocol

import mpmath
import numpy as np
import sympy
from sympy import Expr, Symbol

from gatewise.parts.formulas import FamilyFormula, Formula, TheoryParameter

__all__ = ["Derivatives", "FormulaPart", "Number", "Numbers", "Part", "family_part", "formula_part"]

Number = Any
"""A number of mpmath, which has no types for them."""

Numbers = np.ndarray
"""An array of such numbers, dtype object."""


@dataclass(frozen=True)
class Derivatives:
    """Values and derivatives at N samples of a function with m values and p arguments.

    Attributes:
        value: (N, m).
        first: (N, m, p).
        second: (N, m, p, p), symmetric.
    """

    value: Numbers
    first: Numbers
    second: Numbers


class Part(Protocol):
    """The score of a gate, the locations of an expert, or the density of a family.

    Attributes:
        parameters: what derivatives are taken by; for a family the dispersions, after its m locations.
        digits: to how many decimal digits the derivatives are right, relative to the largest.
        formula: the symbolic form, or None.
    """

    @property
    def parameters(self) -> tuple[TheoryParameter, ...]:
        """By what derivatives are taken."""
        ...

    @property
    def digits(self) -> int:
        """Of the derivatives."""
        ...

    def derivatives(self, samples: Numbers, arguments: Numbers) -> Derivatives:
        """At samples (N, ·) and arguments, (p,), or (N, p) if every sample has its own."""
        ...


class FormulaPart:
    """A part whose derivatives are taken symbolically and evaluated with `digits` digits.

    Args:
        variables: the symbols of a sample.
        arguments: the symbols that derivatives are taken by.
        values: the function's m expressions.
        parameters: of the part.
        digits: of the evaluation.
    """

    def __init__(
        self,
        variables: Sequence[Symbol],
        arguments: Sequence[Symbol],
        values: Sequence[Expr],
        parameters: tuple[TheoryParameter, ...],
        digits: int,
    ) -> None:
        self.parameters = parameters
        self.digits = digits
        self._variables = tuple(variables)
        self._arguments = tuple(arguments)
        self._values = tuple(values)

    @cached_property
    def _compiled(self) -> tuple[list[tuple[int, ...]], object]:
        """The multi-indices of the derivatives, and a function that gives them all, value by value."""
        p = len(self._arguments)
        orders: list[tuple[int, ...]] = [(), *((i,) for i in range(p))]
        orders.extend(combinations_with_replacement(range(p), 2))
        expressions = []
        for value in self._values:
            known: dict[tuple[int, ...], Expr] = {}
            for order in orders:
                known[order] = value if not order else sympy.diff(known[order[:-1]], self._arguments[order[-1]])
                # Beside a kink a jump of a derivative has no effect.
                expressions.append(known[order].replace(sympy.DiracDelta, lambda *_: sympy.Integer(0)))
        return orders, sympy.lambdify([*self._variables, *self._arguments], expressions, modules="mpmath", cse=True)

    def derivatives(self, samples: Numbers, arguments: Numbers) -> Derivatives:
        """See `Part`."""
        orders, function = self._compiled
        n, m, p = len(samples), len(self._values), len(self._arguments)
        rows = np.broadcast_to(arguments, (n, p))
        found = np.empty((n, m * len(orders)), dtype=object)
        for row in range(n):
            found[row] = [mpmath.mpmathify(value) for value in function(*samples[row], *rows[row])]  # pyright: ignore[reportCallIssue]
        found = found.reshape(n, m, len(orders))
        second = np.empty((n, m, p, p), dtype=object)
        for place, order in enumerate(orders):
            if len(order) == 2:
                second[:, :, order[0], order[1]] = second[:, :, order[1], order[0]] = found[:, :, place]
        return Derivatives(found[:, :, 0], found[:, :, 1 : 1 + p], second)


def formula_part(formula: Formula, digits: int) -> FormulaPart:
    """The score or the locations of a formula, as functions of its parameters at inputs x."""
    symbols = [own.symbol for own in formula.parameters]
    return FormulaPart(formula.x, symbols, formula.values, formula.parameters, digits)


def family_part(formula: FamilyFormula, digits: int) -> FormulaPart:
    """The density of a formula as a function of the locations and then the dispersions, at targets y."""
    symbols = [*formula.location, *(own.symbol for own in formula.parameters)]
    return FormulaPart(formula.y, symbols, (formula.density,), formula.parameters, digits)
