"""Dependences between derivatives as identities that can be read: found from numbers, confirmed by algebra."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import mpmath
import numpy as np
import sympy
from sympy import Expr

from gatewise.parts.expressions import rational
from gatewise.theory.identifiability.atom import Order
from gatewise.theory.identifiability.coefficients import coefficient_text, is_negative, recognised
from gatewise.theory.identifiability.confirm import ratio_without, vanishes
from gatewise.theory.identifiability.parts import Number, Numbers
from gatewise.theory.identifiability.rank import Span, circuits, null_vector, tolerance
from gatewise.theory.identifiability.sampling import Study

__all__ = ["Identity", "find_identities", "grouped"]

_CHECKS = 4
_MOST_TRIED = 40
_LONGEST = 6
_EXTRA_ROWS = 24
_LONGEST_TEXT = 44


@dataclass(frozen=True)
class Identity:
    """A linear dependence between derivatives of an atom's function, Σ coefficient · derivative = 0.

    Attributes:
        text: the identity as it is printed, "∂²u/∂b² = 2 ∂u/∂s"; a long coefficient as c(b), which `coefficients` has
            in full.
        derivatives: of each term, the labels of the parameters by which the derivative is taken.
        coefficients: of each term, a function of the parameters; numbers at one point if none was recognised.
        kind: "zero" for a derivative that vanishes, "same function" for two that are equal, "proportional" for two
            that differ by a factor, "combination" for more.
        roles: the parts whose parameters take part, in the order gate, expert, family.
        where: "" if it holds at all parameters, else the point at which it does, "a = 0".
        confirmed: "sympy" if algebra shows it, "numerically" if it holds at fresh samples and parameters only.
        residual: the largest |Σ terms| / Σ |terms| at fresh samples and, if coefficients are functions, parameters.
        alike: how many further identities are the same for other inputs.
        source: where it is published, "" if that is not known.
    """

    text: str
    derivatives: tuple[tuple[str, ...], ...]
    coefficients: tuple[str, ...]
    kind: str
    roles: tuple[str, ...]
    where: str
    confirmed: str
    residual: float
    alike: int = 0
    source: str = ""

    @property
    def order(self) -> int:
        """The highest derivative's."""
        return max(len(labels) for labels in self.derivatives)


def find_identities(
    study: Study,
    orders: Sequence[Order],
    where: str = "",
    known: Sequence[tuple[int, ...]] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Identity], list[tuple[int, ...]]]:
    """A sparse basis of the dependences among derivatives, those first that need fewest terms.

    Args:
        study: the function and its samples.
        orders: the derivatives, simple ones first.
        where: the point, in words, if parameters are held.
        known: sets of derivatives that are known to depend on each other, as this function returns them: only what
            does not follow from them is returned.
        progress: takes a line of text before every step that may take long.

    Returns:
        The identities, and for each the places in `orders` of its terms.
    """
    digits = study.atom.digits
    place_text = f"at {where}" if where else "at all parameters"
    progress(f"{len(orders)} derivatives {place_text}, with {digits} digits")
    columns = study.columns(orders, study.rows_for(len(orders)), 0, 0)
    progress(f"which of them depend on each other {place_text}")
    candidates = circuits(columns, digits, study.seed)
    if not candidates:
        return [], []
    free = [place for place, own in enumerate(study.atom.parameters) if own.label not in study.pinned]
    count = len(free) + 1 + _CHECKS
    rows = study.rows_for(_LONGEST) + (_EXTRA_ROWS if _may_be_off(study) else 0)
    tables = [study.columns(orders, rows, number, number) for number in range(count)]
    points = [study.point(number) for number in range(count)]
    span = Span(columns, digits)
    for support in known:
        span.add(support)
    chosen: dict[tuple[int, ...], list[Expr] | None] = {}
    tried = 0
    # Short ones as they are; of the longer ones those first whose coefficients are recognised.
    for only_recognised in (True, False):
        for place, support in enumerate(candidates, start=1):
            if support in chosen or span.holds(support):
                continue
            progress(f"dependence {place} of {len(candidates)}, {len(chosen)} taken")
            coefficients = None
            if len(support) <= _LONGEST and tried < _MOST_TRIED:
                vectors = [null_vector(table[:, list(support)], digits) for table in tables]
                coefficients = _coefficients(study, support, vectors, points, free)
                tried += only_recognised
            if coefficients is None and only_recognised and len(support) > 2:
                continue
            if span.add(support):
                chosen[support] = coefficients
    supports = sorted(chosen, key=lambda places: (len(places), places))
    found = []
    for place, support in enumerate(supports, start=1):
        progress(f"identity {place} of {len(supports)}")
        vector = null_vector(columns[:, list(support)], digits)
        found.append(_identity(study, [orders[place] for place in support], chosen[support], vector, where, count))
    return found, supports


def _may_be_off(study: Study) -> bool:
    """Whether a function may vanish at half of the inputs, so that more of them are needed."""
    symbols = study.atom.symbols
    return symbols is None or any(value.has(sympy.Piecewise) for value in (symbols.score, *symbols.core))


def _coefficients(
    study: Study,
    support: tuple[int, ...],
    vectors: Sequence[Numbers | None],
    points: Sequence[Numbers],
    free: Sequence[int],
) -> list[Expr] | None:
    """The coefficients as functions of the parameters, without denominators, or None."""
    if any(vector is None for vector in vectors):
        return None
    rows = [vector for vector in vectors if vector is not None]
    reference = len(support) - 1
    symbols = [study.atom.parameters[place].symbol for place in free]
    values = [[point[place] for place in free] for point in points]
    found: list[Expr] = []
    for term in range(len(support)):
        ratios = [row[term] / row[reference] for row in rows]
        coefficient = recognised(ratios, values, symbols, tolerance(study.atom.digits))
        if coefficient is None:
            return None
        found.append(coefficient)
    common = sympy.Integer(1)
    for coefficient in found:
        common = sympy.lcm(common, sympy.fraction(sympy.together(coefficient))[1])
    return [cast(Expr, sympy.factor(sympy.cancel(common * coefficient))) for coefficient in found]


def _identity(
    study: Study,
    orders: Sequence[Order],
    coefficients: list[Expr] | None,
    vector: Numbers | None,
    where: str,
    fresh: int,
) -> Identity:
    atom = study.atom
    by_algebra = False
    if atom.symbols is not None:
        held = [(own.symbol, rational(study.pinned[own.label])) for own in atom.parameters if own.label in study.pinned]
        symbolic = [[entry.subs(held) for entry in atom.symbolic(order)] for order in orders]
        if coefficients is None:
            coefficients = _solved(symbolic, {own.symbol for own in atom.parameters})
        if coefficients is not None:
            sums = [
                sympy.Add(*(c * row[value] for c, row in zip(coefficients, symbolic, strict=True)))
                for value in range(len(symbolic[0]))
            ]
            by_algebra = all(vanishes(total) for total in sums)
    numbers = None if coefficients is not None else vector
    residual = _residual(study, orders, coefficients, numbers, fresh)
    labels = tuple(tuple(atom.labels[place] for place in order) for order in orders)
    parts = ("gate", "expert", "family")
    taking_part = {atom.roles[place] for order in orders for place in order}
    if coefficients is not None:
        texts = tuple(str(coefficient) for coefficient in coefficients)
        text = _written([atom.text(order) for order in orders], coefficients)
    else:
        values = [mpmath.mpf(1)] * len(orders) if vector is None else list(vector / vector[-1])
        texts = tuple(str(mpmath.nstr(value, 6)) for value in values)
        text = _with_numbers([atom.text(order) for order in orders], values)
    kind = {1: "zero", 2: "proportional"}.get(len(orders), "combination")
    if kind == "proportional" and coefficients is not None and coefficients[0] == -coefficients[1]:
        kind = "same function"
    confirmed = "sympy" if by_algebra else "numerically"
    return Identity(
        text,
        labels,
        texts,
        kind,
        tuple(part for part in parts if part in taking_part),
        where,
        confirmed,
        residual,
    )


def _solved(symbolic: list[list[Expr]], parameters: set[sympy.Symbol]) -> list[Expr] | None:
    """Coefficients of two functions by algebra, where they are no sums of monomials."""
    if len(symbolic) != 2 or len(symbolic[0]) != 1:
        return None
    variables = set().union(*(entry.free_symbols for row in symbolic for entry in row)) - parameters
    ratio = ratio_without(symbolic[1][0], symbolic[0][0], variables)
    return None if ratio is None else [ratio, sympy.Integer(-1)]


def _residual(
    study: Study, orders: Sequence[Order], coefficients: list[Expr] | None, numbers: Numbers | None, fresh: int
) -> float:
    """The largest |Σ terms| / Σ |terms| at samples and, if it can be, parameters that were not used before."""
    number = fresh if coefficients is not None else 0
    columns = study.columns(orders, 8, number, fresh + 1)
    if coefficients is not None:
        point = study.point(number)
        names = [own.symbol for own in study.atom.parameters]
        function = sympy.lambdify(names, coefficients, modules="mpmath")
        weights = np.array([mpmath.mpmathify(value) for value in function(*point)], dtype=object)
    elif numbers is not None:
        weights = numbers
    else:
        return float("nan")
    if len(orders) == 1:
        whole = study.columns([()], 8, number, fresh + 1)
        return float(max(abs(value) for value in columns[:, 0]) / max(abs(value) for value in whole[:, 0]))
    terms = columns * weights
    sums, sizes = terms.sum(axis=1), np.array([mpmath.fsum(map(abs, row)) for row in terms], dtype=object)
    return float(max(abs(total) / size if size else abs(total) for total, size in zip(sums, sizes, strict=True)))


def _written(names: Sequence[str], coefficients: Sequence[Expr]) -> str:
    """Σ cᵢ Dᵢ = 0 with one term on the left whose coefficient is a number, if there is one."""
    if len(names) == 1:
        return f"{names[0]} = 0"
    plain = [place for place, coefficient in enumerate(coefficients) if coefficient.is_Rational]
    left = plain[-1] if plain else None
    if len(names) == 2 and left is None:
        left = 1
    if left is None:
        sign = -1 if is_negative(coefficients[0]) else 1
        return _sum(list(names), [sign * coefficient for coefficient in coefficients]) + " = 0"
    others = [place for place in range(len(names)) if place != left]
    right = [sympy.cancel(-coefficients[place] / coefficients[left]) for place in others]
    return f"{names[left]} = {_sum([names[place] for place in others], right)}"


def _sum(names: list[str], coefficients: list[Expr]) -> str:
    text = ""
    for name, coefficient in zip(names, coefficients, strict=True):
        negative = is_negative(coefficient)
        sign = " − " if negative and text else "−" if negative else " + " if text else ""
        before = coefficient_text(coefficient)
        if len(before) > _LONGEST_TEXT:
            letters = sorted(str(symbol) for symbol in coefficient.free_symbols)
            before = f"c({', '.join(letters)})"
        text += f"{sign}{before}{' ' if before else ''}{name}"
    return text


def _with_numbers(names: Sequence[str], values: Sequence[Number]) -> str:
    right = ""
    for name, value in zip(names[:-1], values[:-1], strict=True):
        value = -value / values[-1]
        sign = " − " if value < 0 and right else "−" if value < 0 else " + " if right else ""
        right += f"{sign}{mpmath.nstr(abs(value), 4)} {name}"
    return f"{names[-1]} = {right} (numbers at one point)"


def grouped(identities: Sequence[Identity]) -> list[Identity]:
    """One of each kind of identity, with the number of those that are the same for other inputs or units."""
    first: dict[tuple[str, str], int] = {}
    kept: list[Identity] = []
    for identity in identities:
        seen: dict[str, str] = {}

        def letter(match: re.Match[str], seen: dict[str, str] = seen) -> str:
            return seen.setdefault(match[0], f"[{chr(ord('i') + len(seen))}]")

        pattern = (re.sub(r"\[\d+(?:,\d+)*\]", letter, identity.text), identity.where)
        if pattern in first:
            place = first[pattern]
            kept[place] = replace(kept[place], alike=kept[place].alike + 1)
        else:
            first[pattern] = len(kept)
            kept.append(identity)
    return kept
