"""Whether an expression is 0: by algebra, and with both sides of every kink."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import cast

import sympy
from sympy import Basic, Expr

__all__ = ["ratio_without", "vanishes"]

_MOST_KINKS = 3


def vanishes(expression: Expr) -> bool:
    """Whether algebra shows that an expression is 0, beside its kinks; False if it does not show it.

    Example:
        >>> z = sympy.Symbol("z", real=True)
        >>> vanishes(sympy.tanh(z).diff(z) - 1 + sympy.tanh(z) ** 2), vanishes(z - 1)
        (True, False)
    """
    return all(_plainly_vanishes(side) for side in _sides(expression))


def _plainly_vanishes(expression: Expr) -> bool:
    if expression == 0 or sympy.expand(expression) == 0:
        return True
    # Exponentials and tanh become letters in which everything is a rational function.
    rational = expression.rewrite(sympy.exp) if expression.has(sympy.tanh) else expression
    if sympy.cancel(sympy.together(sympy.expand(rational, power_exp=True, mul=False))) == 0:
        return True
    return sympy.simplify(expression) == 0


def _sides(expression: Expr) -> Iterator[Expr]:
    """The expression on each side of its kinks."""
    branches = {
        piece: cast("tuple[tuple[Expr, Basic], ...]", piece.args) for piece in expression.atoms(sympy.Piecewise)
    }
    conditions = sorted({pairs[0][1] for pairs in branches.values()}, key=str)
    if not conditions or len(conditions) > _MOST_KINKS:
        yield expression
        return
    for sides in product((True, False), repeat=len(conditions)):
        chosen = dict(zip(conditions, sides, strict=True))
        change = {piece: pairs[0 if chosen[pairs[0][1]] else -1][0] for piece, pairs in branches.items()}
        yield cast(Expr, expression.xreplace(change))


def ratio_without(above: Expr, below: Expr, variables: Iterable[Basic]) -> Expr | None:
    """The ratio of two expressions if it simplifies to one without these variables, else None.

    Example:
        >>> x, b = sympy.symbols("x b", real=True)
        >>> ratio_without(x * sympy.tanh(b), x * b, {x})
        tanh(b)/b
    """
    if below == 0 or above.has(sympy.Piecewise) or below.has(sympy.Piecewise):
        return None
    ratio = sympy.simplify(above / below)
    return None if ratio.free_symbols & set(variables) else ratio
