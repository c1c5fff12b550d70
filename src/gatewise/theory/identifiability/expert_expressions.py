"""The locations of the built-in experts as formulas, and the one expert of the papers that is not built in."""

from collections.abc import Callable
from typing import Any

import sympy
from sympy import Expr

from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.experts.constant import ConstantExperts
from gatewise.experts.feed_forward import FeedForwardExperts
from gatewise.experts.linear import LinearExperts
from gatewise.experts.polynomial import PolynomialExperts
from gatewise.experts.polynomial_basis import PolynomialBasisExperts
from gatewise.messages import shown
from gatewise.theory.identifiability.expressions import ACTIVATIONS, Formula, TheoryParameter, inputs, vector

__all__ = ["expert_formula", "ridge"]


def expert_formula(experts: Experts) -> Formula | None:
    """The locations of one expert of a built-in bank, or None if there is no formula for it.

    Example:
        >>> from gatewise.experts import build_experts
        >>> expert_formula(build_experts("polynomial", 2, 1, power=3)).values[0]
        (a[1]*x[1] + a[2]*x[2] + b)**3
    """
    make = _EXPERTS.get(type(experts))
    return None if make is None else make(experts)


def ridge(n_features: int, activation: str = "tanh") -> Formula:
    """φ(aᵀx + b), one unit without output weight: the example that the papers give for their conditions.

    Args:
        n_features: d, at least 1.
        activation: φ, one of `gatewise.parts.activations`' own names.

    Raises:
        InputError: there is no such activation, or no feature.

    Example:
        >>> ridge(1, "cube").values[0]
        (a*x[1] + b)**3
    """
    function = ACTIVATIONS.get(activation) if isinstance(activation, str) else None
    if function is None:
        known = ", ".join(sorted(ACTIVATIONS))
        raise InputError(f"there is no formula for the activation {shown(activation)}: choose one of {known}")
    if n_features < 1:
        raise InputError("a ridge expert needs a feature: take constant experts without")
    x, weight, bias = inputs(n_features), vector("a", n_features), TheoryParameter("b")
    value = function(_affine(weight, bias, x))
    return Formula(f"ridge {activation}", x, (*weight, bias), (value,), _input_free(weight), note=_kink(activation))


def _kink(activation: str) -> str:
    return "derivatives of relu are those beside its kink" if activation == "relu" else ""


def _affine(weight: tuple[TheoryParameter, ...], bias: TheoryParameter, x: tuple[sympy.Symbol, ...]) -> Expr:
    return sympy.Add(*(entry.symbol * value for entry, value in zip(weight, x, strict=True)), bias.symbol)


def _input_free(weight: tuple[TheoryParameter, ...]) -> dict[str, tuple[str, ...]]:
    return {"a = 0": tuple(entry.label for entry in weight)} if weight else {}


def _indexed(name: str, output: int, n_outputs: int, atom: str, place: tuple[int, ...] = ()) -> TheoryParameter:
    several = n_outputs > 1
    return TheoryParameter(
        name, (output + 1,) if several else (), atom=atom, place=(output, *place) if several else place
    )


def _slopes(size: int, output: int, n_outputs: int) -> tuple[TheoryParameter, ...]:
    if n_outputs == 1:
        return vector("a", size, "expert_slope")
    return tuple(
        TheoryParameter("a", (output + 1, *((j + 1,) if size > 1 else ())), atom="expert_slope", place=(output, j))
        for j in range(size)
    )


def _powers(experts: LinearExperts | PolynomialExperts, power: int) -> Formula:
    d, m = experts.n_features, experts.n_outputs
    x = inputs(d)
    slopes: list[TheoryParameter] = []
    biases: list[TheoryParameter] = []
    values = []
    for output in range(m):
        weight, bias = _slopes(d, output, m), _indexed("b", output, m, "expert_intercept")
        slopes.extend(weight)
        biases.append(bias)
        values.append(_affine(weight, bias, x) ** power)
    return Formula(experts.name, x, (*slopes, *biases), tuple(values), _input_free(tuple(slopes)))


def _constant(experts: ConstantExperts) -> Formula:
    m = experts.n_outputs
    biases = tuple(_indexed("b", output, m, "expert_intercept") for output in range(m))
    return Formula(experts.name, inputs(experts.n_features), biases, tuple(bias.symbol for bias in biases))


def _polynomial_basis(experts: PolynomialBasisExperts) -> Formula:
    m, x = experts.n_outputs, inputs(experts.n_features)
    monomials = [sympy.Mul(*(x[j] for j in factors)) for factors in experts.monomials.factors]
    slopes: list[TheoryParameter] = []
    biases: list[TheoryParameter] = []
    values = []
    for output in range(m):
        weight, bias = _slopes(len(monomials), output, m), _indexed("b", output, m, "expert_intercept")
        slopes.extend(weight)
        biases.append(bias)
        values.append(sympy.Add(*(w.symbol * t for w, t in zip(weight, monomials, strict=True)), bias.symbol))
    return Formula(experts.name, x, (*slopes, *biases), tuple(values), _input_free(tuple(slopes)))


def _feed_forward(experts: FeedForwardExperts) -> Formula | None:
    function = ACTIVATIONS.get(experts.activation)
    if function is None:
        return None
    d, m, hidden = experts.n_features, experts.n_outputs, experts.hidden
    x = inputs(d)
    slopes: list[TheoryParameter] = []
    inner: list[TheoryParameter] = []
    units = []
    for j in range(hidden):
        mark = (j + 1,) if hidden > 1 else ()
        weight = tuple(
            TheoryParameter("a", (*mark, *((i + 1,) if d > 1 else ())), atom="expert_inner_slope", place=(j, i))
            for i in range(d)
        )
        bias = TheoryParameter("b", mark, atom="expert_inner_intercept", place=(j,))
        slopes.extend(weight)
        inner.append(bias)
        units.append(function(_affine(weight, bias, x)))
    outer: list[TheoryParameter] = []
    constants: list[TheoryParameter] = []
    values = []
    for output in range(m):
        several = (output + 1,) if m > 1 else ()
        first = (output,) if m > 1 else ()
        own = tuple(
            TheoryParameter(
                "v", (*several, *((j + 1,) if hidden > 1 else ())), atom="expert_outer_weight", place=(*first, j)
            )
            for j in range(hidden)
        )
        outer.extend(own)
        value = sympy.Add(*(v.symbol * unit for v, unit in zip(own, units, strict=True)))
        if experts.output_bias:
            constants.append(TheoryParameter("c", several, atom="expert_outer_intercept", place=first))
            value = value + constants[-1].symbol
        values.append(value)
    parameters = (*slopes, *inner, *outer, *constants)
    note = _kink(experts.activation)
    return Formula(experts.name, x, parameters, tuple(values), _input_free(tuple(slopes)), note=note)


_EXPERTS: dict[type[Experts], Callable[[Any], Formula | None]] = {
    LinearExperts: lambda experts: _powers(experts, 1),
    ConstantExperts: _constant,
    PolynomialExperts: lambda experts: _powers(experts, experts.power),
    PolynomialBasisExperts: _polynomial_basis,
    FeedForwardExperts: _feed_forward,
}
