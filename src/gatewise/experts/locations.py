"""Words for the formulas of experts' locations. Loads sympy."""

from collections.abc import Callable, Sequence

import sympy
from sympy import Expr

from gatewise.parts.expressions import inputs, vector
from gatewise.parts.formulas import Formula, TheoryParameter

__all__ = ["affine", "by_outputs", "indexed", "input_free", "kink"]


def kink(activation: str) -> str:
    """What is said of an activation that has one."""
    return "derivatives of relu are those beside its kink" if activation == "relu" else ""


def affine(weight: Sequence[TheoryParameter], bias: TheoryParameter, x: Sequence[Expr]) -> Expr:
    """AᵀX + b."""
    return sympy.Add(*(entry.symbol * value for entry, value in zip(weight, x, strict=True)), bias.symbol)


def input_free(weight: Sequence[TheoryParameter]) -> dict[str, tuple[str, ...]]:
    """The point where the expert does not depend on x."""
    return {"a = 0": tuple(entry.label for entry in weight)} if weight else {}


def indexed(name: str, output: int, n_outputs: int, atom: str, place: tuple[int, ...] = ()) -> TheoryParameter:
    """A parameter that each output has."""
    several = n_outputs > 1
    return TheoryParameter(
        name, (output + 1,) if several else (), atom=atom, place=(output, *place) if several else place
    )


def slopes_of(size: int, output: int, n_outputs: int) -> tuple[TheoryParameter, ...]:
    """The slopes of one output."""
    if n_outputs == 1:
        return vector("a", size, "expert_slope")
    return tuple(
        TheoryParameter("a", (output + 1, *((j + 1,) if size > 1 else ())), atom="expert_slope", place=(output, j))
        for j in range(size)
    )


def by_outputs(name: str, d: int, terms: Sequence[Expr], n_outputs: int, of: Callable[[Expr], Expr]) -> Formula:
    """Each output a function of a linear combination of the terms and a constant."""
    slopes: list[TheoryParameter] = []
    biases: list[TheoryParameter] = []
    values = []
    for output in range(n_outputs):
        weight = slopes_of(len(terms), output, n_outputs)
        bias = indexed("b", output, n_outputs, "expert_intercept")
        slopes.extend(weight)
        biases.append(bias)
        values.append(of(affine(weight, bias, terms)))
    return Formula(name, inputs(d), (*slopes, *biases), tuple(values), input_free(slopes))
