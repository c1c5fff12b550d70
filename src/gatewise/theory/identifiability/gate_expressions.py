"""The scores of the built-in gates as formulas, without the bias, which is the weight of an atom."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sympy
from sympy import Expr

from gatewise.gates import (
    ActivationDenseToSparseGate,
    CosineGate,
    DenseToSparseGate,
    Gate,
    GaussianGate,
    HierarchicalGate,
    LaplaceGate,
    ModifiedSoftmaxGate,
    PerturbedCosineGate,
    QuadraticGate,
    SigmoidGate,
    SoftmaxGate,
    TopKGate,
)
from gatewise.theory.identifiability.expressions import (
    ACTIVATIONS,
    Formula,
    TheoryParameter,
    inputs,
    parameter,
    rational,
    vector,
)

__all__ = ["gate_formula"]

_BIAS = "the bias is left out: it is the weight of an atom, ∂/∂β₀ gives the function itself"


def gate_formula(gate: Gate) -> Formula | None:
    """The score of one atom of a built-in gate, or None if there is no formula for it.

    Example:
        >>> from gatewise.gates import build_gate
        >>> gate_formula(build_gate("perturbed_cosine", 1, 2)).values[0]
        x[1]*β₁/((Abs(x[1]) + 1/10)*(Abs(β₁) + 1/10))
    """
    make = _GATES.get(type(gate))
    return None if make is None else make(gate)


def _dot(entries: tuple[TheoryParameter, ...], x: tuple[sympy.Symbol, ...]) -> Expr:
    return sympy.Add(*(entry.symbol * value for entry, value in zip(entries, x, strict=True)))


def _norm(entries: tuple[sympy.Symbol, ...]) -> Expr:
    return sympy.sqrt(sympy.Add(*(entry**2 for entry in entries)))


def _symbols(entries: tuple[TheoryParameter, ...]) -> tuple[sympy.Symbol, ...]:
    return tuple(entry.symbol for entry in entries)


def _slope(d: int) -> tuple[TheoryParameter, ...]:
    return vector("β₁", d, "gate_slope")


def _number(value: float) -> Expr:
    return rational(str(value))


def _softmax(gate: SoftmaxGate) -> Formula:
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    return Formula(gate.name, x, slope, (_dot(slope, x),), {}, _pairs(_symbols(slope), x), "v = β₁", _BIAS)


def _pairs(coordinates: Sequence[Expr], functions: Sequence[Expr]) -> tuple[tuple[Expr, Expr], ...]:
    return tuple(zip(coordinates, functions, strict=True))


def _modified_softmax(gate: ModifiedSoftmaxGate) -> Formula | None:
    function = ACTIVATIONS.get(gate.transform)
    if function is None:
        return None
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    score = sympy.Add(*(entry.symbol * function(value) for entry, value in zip(slope, x, strict=True)))
    linear = _pairs(_symbols(slope), [function(value) for value in x])
    return Formula(gate.name, x, slope, (score,), {}, linear, "v = β₁", _BIAS)


def _tempered(gate: DenseToSparseGate | ActivationDenseToSparseGate) -> tuple[tuple[TheoryParameter, ...], Any]:
    if not gate.free_temperature:
        return (), _number(gate.initial_temperature)
    temperature = parameter("τ", positive=True, atom="gate_temperature")
    return (temperature,), temperature.symbol


def _dense_to_sparse(gate: DenseToSparseGate) -> Formula:
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    own, temperature = _tempered(gate)
    linear = _pairs([entry / temperature for entry in _symbols(slope)], x)
    score = _dot(slope, x) / temperature
    return Formula(gate.name, x, (*slope, *own), (score,), {}, linear, "v = β₁/τ", _SCALED_BIAS)


_SCALED_BIAS = "the bias is left out: exp(β₀/τ) is the weight of an atom"


def _activation_dense_to_sparse(gate: ActivationDenseToSparseGate) -> Formula | None:
    function = ACTIVATIONS.get(gate.activation)
    if function is None:
        return None
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    own, temperature = _tempered(gate)
    return Formula(gate.name, x, (*slope, *own), (function(_dot(slope, x)) / temperature,), note=_SCALED_BIAS)


def _cosine(gate: CosineGate) -> Formula | None:
    if gate.projection is not None:
        return None
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    cosine = _dot(slope, x) / (_norm(_symbols(slope)) * _norm(x))
    divisor = _number(gate.fixed_temperature) if gate.fixed_temperature is not None else sympy.Integer(1)
    own = [entry / _norm(_symbols(slope)) for entry in _symbols(slope)]
    linear = _pairs(own, [value / (_norm(x) * divisor) for value in x])
    return Formula(gate.name, x, slope, (cosine / divisor,), {}, linear, "v = β₁/‖β₁‖", _BIAS)


def _perturbed_cosine(gate: PerturbedCosineGate) -> Formula:
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    length = (_norm(_symbols(slope)) + _number(gate.tau1)) * (_norm(x) + _number(gate.tau2))
    tau1, tau2 = _number(gate.tau1), _number(gate.tau2)
    own = [entry / (_norm(_symbols(slope)) + tau1) for entry in _symbols(slope)]
    linear = _pairs(own, [value / (_norm(x) + tau2) for value in x])
    return Formula(gate.name, x, slope, (_dot(slope, x) / length,), {}, linear, "v = β₁/(‖β₁‖ + τ₁)", _BIAS)


def _sigmoid(gate: SigmoidGate) -> Formula:
    x, slope = inputs(gate.n_features), _slope(gate.n_features)
    bias = parameter("β₀", atom="gate_bias")
    score = -sympy.log(1 + sympy.exp(-_dot(slope, x) - bias.symbol))
    labels = tuple(entry.label for entry in slope)
    return Formula(gate.name, x, (*slope, bias), (score,), {"β₁ = 0": labels} if labels else {})


def _laplace(gate: LaplaceGate) -> Formula:
    x, centre = inputs(gate.n_features), vector("W", gate.n_features, "gate_centre")
    away = tuple(value - entry.symbol for entry, value in zip(centre, x, strict=True))
    return Formula(gate.name, x, centre, (-sympy.sqrt(sympy.Add(*(v**2 for v in away))),), note=_BIAS)


def _gaussian(gate: GaussianGate) -> Formula | None:
    d = gate.n_features
    full = gate.covariance == "full"
    if full and d > 3:
        return None
    x, centre = inputs(d), vector("c", d, "gate_centre")
    shape: dict[tuple[int, int], TheoryParameter] = {}
    for i in range(d):
        for j in range(i, d if full else i + 1):
            index = (i + 1, j + 1) if d > 1 else ()
            shape[i, j] = TheoryParameter("Γ", index, i == j, "gate_covariance", (i, j), 1 if i == j else 8)
    zero = sympy.Integer(0)
    matrix = sympy.Matrix(
        d, d, lambda i, j: shape[min(i, j), max(i, j)].symbol if (min(i, j), max(i, j)) in shape else zero
    )
    away = sympy.Matrix([value - entry.symbol for entry, value in zip(centre, x, strict=True)])
    # The covariances are drawn small beside the variances, so that the determinant is positive.
    determinant = matrix.det() if d else sympy.Integer(1)
    square = (away.T * matrix.adjugate() * away)[0, 0] / determinant if d else zero
    score = -square / 2 - sympy.log(determinant) / 2
    special = {"c = 0": tuple(entry.label for entry in centre)} if d else {}
    note = "log π is left out: it is the weight of an atom; a factor (2π)^(−d/2) too"
    return Formula(gate.name, x, (*centre, *shape.values()), (score,), special, note=note)


def _quadratic(gate: QuadraticGate) -> Formula:
    d = gate.n_features
    x = inputs(d)
    linear = () if gate.monomial else vector("b₁", d, "gate_slope")
    score = _dot(linear, x) if linear else sympy.Integer(0)
    curved = []
    for i in range(d):
        for j in range(i, d):
            entry = TheoryParameter("A", (i + 1, j + 1) if d > 1 else (), False, "gate_quadratic", (i, j))
            curved.append(entry)
            score = score + (1 if i == j else 2) * entry.symbol * x[i] * x[j]
    note = "the constant c is left out: it is the weight of an atom; A is symmetric, b₁ is the gate's slope"
    own = (*linear, *curved)
    pairs = _pairs(_symbols(own), [sympy.diff(score, entry.symbol) for entry in own])
    return Formula(gate.name, x, own, (score,), {}, pairs, "v = A" if gate.monomial else "v = (b₁, A)", note)


def _renamed(formula: Formula, mark: str, role: str) -> Formula:
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


def _hierarchical(gate: HierarchicalGate) -> Formula | None:
    inner_gate = gate.inner[0]
    outer = gate_formula(gate.outer)
    inner = gate_formula(inner_gate) if isinstance(inner_gate, Gate) else None
    if outer is None or inner is None:
        return None
    outer, inner = _renamed(outer, "ᵒ", "outer"), _renamed(inner, "ⁱ", "inner")
    return Formula(
        gate.name,
        outer.x,
        (*outer.parameters, *inner.parameters),
        (outer.values[0] + inner.values[0],),
        {**outer.special, **inner.special},
        note="of one leaf of the tree: ᵒ marks the outer gate, ⁱ the first inner one; biases are left out: weights",
    )


def _top_k(gate: TopKGate) -> Formula | None:
    inner = gate_formula(gate.inner)
    if inner is None:
        return None
    note = f"inside a region of the selection, where it is the {inner.name} gate. {inner.note}".strip()
    return replace(inner, name=gate.name, note=note)


_GATES: dict[type[Gate], Callable[[Any], Formula | None]] = {
    SoftmaxGate: _softmax,
    ModifiedSoftmaxGate: _modified_softmax,
    DenseToSparseGate: _dense_to_sparse,
    ActivationDenseToSparseGate: _activation_dense_to_sparse,
    CosineGate: _cosine,
    PerturbedCosineGate: _perturbed_cosine,
    SigmoidGate: _sigmoid,
    LaplaceGate: _laplace,
    GaussianGate: _gaussian,
    QuadraticGate: _quadratic,
    HierarchicalGate: _hierarchical,
    TopKGate: _top_k,
}
