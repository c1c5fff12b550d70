"""The function of one atom, exp(score) times location or density, and its derivatives of order 1 and 2."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal, cast

import mpmath
import numpy as np
import sympy
from sympy import Expr, Symbol

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.parts.formulas import FamilyFormula, Formula, TheoryParameter
from gatewise.theory.identifiability.parts import Numbers, Part

__all__ = ["AtomFunction", "Order", "Role", "Symbols", "derivative_text", "orders_up_to", "symbols_of"]

Order = tuple[int, ...]
"""By which parameters a derivative is taken, ascending: () for the function itself, (2, 2) for a second derivative."""

Role = Literal["gate", "expert", "family"]

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def orders_up_to(n_parameters: int, highest: int) -> list[Order]:
    """All derivatives up to an order, the function itself first.

    Example:
        >>> orders_up_to(2, 2)
        [(), (0,), (1,), (0, 0), (0, 1), (1, 1)]
    """
    return [order for r in range(highest + 1) for order in combinations_with_replacement(range(n_parameters), r)]


def derivative_text(function: str, labels: Sequence[str]) -> str:
    """A derivative as it is printed.

    Example:
        >>> derivative_text("u", ["β₁", "b"]), derivative_text("u", ["b", "b"]), derivative_text("F", [])
        ('∂²u/∂β₁∂b', '∂²u/∂b²', 'F')
    """
    if not labels:
        return function
    times = Counter(labels)
    below = "".join(f"∂{label}{str(n).translate(_SUPERSCRIPTS) if n > 1 else ''}" for label, n in times.items())
    return f"∂{str(len(labels)).translate(_SUPERSCRIPTS) if len(labels) > 1 else ''}{function}/{below}"


@dataclass(frozen=True)
class Symbols:
    """The symbolic form of an atom's function, as far as all parts have one.

    Attributes:
        score: of the gate.
        core: the location, or the density at the location.
        by_logarithm: whether the core is a density that is never 0, so that derivatives of its logarithm are simpler.
    """

    score: Expr
    core: tuple[Expr, ...]
    by_logarithm: bool


class AtomFunction:
    """u(x, y; θ) = exp(s(x; β)) f(y | h(x; η), σ), or F(x; θ) = exp(s(x; β)) h(x; η) without a family.

    Args:
        gate: the score s, or None for a score of 0 without parameters.
        expert: the locations h.
        family: the density f, or None.
        symbols: the symbolic form, or None.

    Attributes:
        parameters: θ, those of the gate, the expert and the family in this order.
        roles: of each, which part it belongs to.
        digits: of the derivatives.
        name: "u", or "F".
    """

    def __init__(self, gate: Part | None, expert: Part, family: Part | None, symbols: Symbols | None) -> None:
        self._gate, self._expert, self._family = gate, expert, family
        self.symbols = symbols
        own = (() if gate is None else gate.parameters, expert.parameters, () if family is None else family.parameters)
        self.parameters: tuple[TheoryParameter, ...] = tuple(entry for part in own for entry in part)
        roles: tuple[Role, ...] = ("gate", "expert", "family")
        self.roles: tuple[Role, ...] = tuple(role for role, part in zip(roles, own, strict=True) for _ in part)
        self._sizes = tuple(len(part) for part in own)
        self.digits = min(part.digits for part in (gate, expert, family) if part is not None)
        self.name = "F" if family is None else "u"
        labels = [entry.label for entry in self.parameters]
        twice = sorted(label for label, n in Counter(labels).items() if n > 1)
        if twice:
            raise InputError(
                f"the gate and the experts both have a parameter called {shown(twice[0])}: rename one, so that "
                "derivatives can be told apart"
            )

    @property
    def labels(self) -> list[str]:
        """The parameters' names."""
        return [entry.label for entry in self.parameters]

    def text(self, order: Order) -> str:
        """The derivative as it is printed."""
        return derivative_text(self.name, [self.labels[place] for place in order])

    def columns(self, orders: Sequence[Order], x: Numbers, y: Numbers | None, point: Numbers) -> Numbers:
        """Derivatives as columns, (N·m, number of orders), at inputs x (N, d), targets y (N, e) and θ (p,)."""
        g = self._sizes[0]
        value, first, second = self._core(x, y, point[g:])
        n, m = value.shape
        p = len(self.parameters)
        gradient = np.full((n, m, p), mpmath.mpf(0), dtype=object)
        hessian = np.full((n, m, p, p), mpmath.mpf(0), dtype=object)
        gradient[:, :, g:], hessian[:, :, g:, g:] = first, second
        if self._gate is not None:
            score = self._gate.derivatives(x, point[:g])
            slope = score.first[:, 0]
            factor = np.array([mpmath.exp(entry) for entry in score.value[:, 0]], dtype=object)
            curved = score.second[:, 0] + slope[:, :, None] * slope[:, None, :]
            gradient[:, :, :g] = slope[:, None, :] * value[:, :, None]
            hessian[:, :, :g, :g] = curved[:, None] * value[:, :, None, None]
            mixed = slope[:, None, :, None] * first[:, :, None, :]
            hessian[:, :, :g, g:], hessian[:, :, g:, :g] = mixed, np.swapaxes(mixed, 2, 3)
            value = factor[:, None] * value
            gradient = factor[:, None, None] * gradient
            hessian = factor[:, None, None, None] * hessian
        columns = np.empty((n, m, len(orders)), dtype=object)
        for place, order in enumerate(orders):
            if len(order) == 2:
                columns[:, :, place] = hessian[:, :, order[0], order[1]]
            else:
                columns[:, :, place] = gradient[:, :, order[0]] if order else value
        return columns.reshape(n * m, len(orders))

    def exponential(self, orders: Sequence[Order], x: Numbers, point: Numbers) -> Numbers:
        """The same derivatives of exp(score) alone, (N, number of orders): 0 where another part's parameter occurs."""
        found = np.full((len(x), len(orders)), mpmath.mpf(0), dtype=object)
        g = self._sizes[0]
        if self._gate is None:
            return found
        score = self._gate.derivatives(x, point[:g])
        slope = score.first[:, 0]
        factor = np.array([mpmath.exp(entry) for entry in score.value[:, 0]], dtype=object)
        for place, order in enumerate(orders):
            if any(entry >= g for entry in order):
                continue
            if len(order) == 2:
                i, j = order
                found[:, place] = factor * (slope[:, i] * slope[:, j] + score.second[:, 0, i, j])
            else:
                found[:, place] = factor * slope[:, order[0]] if order else factor
        return found

    def _core(self, x: Numbers, y: Numbers | None, point: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Location, or density, with its derivatives by the expert's and the family's parameters."""
        e = self._sizes[1]
        location = self._expert.derivatives(x, point[:e])
        if self._family is None or y is None:
            return location.value, location.first, location.second
        n, m, _ = location.first.shape
        s = self._sizes[2]
        dispersion = np.broadcast_to(point[e:], (n, s))
        density = self._family.derivatives(y, np.concatenate([location.value, dispersion], axis=1))
        f_h, f_hh = density.first[:, 0], density.second[:, 0]
        first = np.empty((n, 1, e + s), dtype=object)
        second = np.empty((n, 1, e + s, e + s), dtype=object)
        for row in range(n):
            slope = location.first[row]
            first[row, 0, :e] = f_h[row, :m] @ slope if e else []
            first[row, 0, e:] = f_h[row, m:]
            curved = slope.T @ f_hh[row, :m, :m] @ slope
            for j in range(m):
                curved = curved + f_h[row, j] * location.second[row, j]
            mixed = slope.T @ f_hh[row, :m, m:] if s else np.empty((e, 0), dtype=object)
            second[row, 0, :e, :e], second[row, 0, e:, e:] = curved, f_hh[row, m:, m:]
            second[row, 0, :e, e:], second[row, 0, e:, :e] = mixed, mixed.T
        return density.value, first, second

    def symbolic(self, order: Order) -> tuple[Expr, ...]:
        """The derivative over exp(score), or over the function itself where that is a density of numbers, (m,).

        Raises:
            ValueError: a part has no symbolic form.
        """
        if self.symbols is None:
            raise ValueError("a part has no symbolic form")
        score = self.symbols.score
        by = [self.parameters[place].symbol for place in order]
        if self.symbols.by_logarithm:
            logarithm = sympy.expand_log(sympy.log(self.symbols.core[0]), force=True)
            return (_over_itself(score + logarithm, by),)
        return tuple(_over_exponential(core, score, by) for core in self.symbols.core)


def _over_itself(logarithm: Expr, by: Sequence[Symbol]) -> Expr:
    """A derivative of exp(L) over exp(L), which is a polynomial of derivatives of L."""
    if not by:
        return sympy.Integer(1)
    slopes = [sympy.diff(logarithm, symbol) for symbol in by]
    value = slopes[0] if len(by) == 1 else slopes[0] * slopes[1] + sympy.diff(logarithm, *by)
    return _beside_kinks(value)


def _over_exponential(core: Expr, score: Expr, by: Sequence[Symbol]) -> Expr:
    """A derivative of exp(score) core over exp(score)."""
    if not by:
        return core
    if len(by) == 1:
        return _beside_kinks(sympy.diff(core, by[0]) + core * sympy.diff(score, by[0]))
    first, second = (sympy.diff(score, symbol) for symbol in by)
    value = sympy.diff(core, *by) + sympy.diff(core, by[0]) * second + sympy.diff(core, by[1]) * first
    return _beside_kinks(value + core * (first * second + sympy.diff(score, *by)))


def _beside_kinks(value: Expr) -> Expr:
    return cast(Expr, value.replace(sympy.DiracDelta, lambda *_: sympy.Integer(0)))


def symbols_of(gate: Formula | None, expert: Formula, family: FamilyFormula | None) -> Symbols:
    """The symbolic form of an atom's function from its parts'."""
    score = sympy.Integer(0) if gate is None else gate.values[0]
    if family is None:
        return Symbols(score, expert.values, False)
    density = cast(Expr, family.density.xreplace(dict(zip(family.location, expert.values, strict=True))))
    # As a polynomial of the indicators of classes a density can be 0.
    return Symbols(score, (density,), len(family.y) == 1 and family.n_targets > 2)
