"""First values of a model's parameters from responsibilities, one rule for each kind of gate and expert.

Networks initialise their parts at random; a fit initialises them from the responsibilities of a start. What has no
rule of its own begins at its present values with a little noise, which is also what a user's own gate or expert gets.
"""

import math
from functools import singledispatch
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from gatewise.experts import CallableExperts, Experts, FeedForwardExperts, PolynomialExperts
from gatewise.families import Family
from gatewise.fit.draws import Draws
from gatewise.fit.working_regression import reweighted_least_squares
from gatewise.gates import (
    ActivationDenseToSparseGate,
    CosineGate,
    Gate,
    GaussianGate,
    HierarchicalGate,
    LaplaceGate,
    PerturbedCosineGate,
    SigmoidGate,
    TopKGate,
)
from gatewise.kernels.expectation import gate_derivatives, gate_expectation
from gatewise.ops.derivatives import jacobian
from gatewise.ops.linalg import solve_symmetric
from gatewise.parts.activations import activation
from gatewise.parts.parameters import Parameters, prefixed

__all__ = ["initial_experts", "initial_gate"]

_NOISE = 0.1
_RIDGE = 1e-3
_GATE_STEPS = 3
_SMALLEST_STEP = 1e-3
# For each part the derivatives of its coefficients by its parameters: every start of a fit asks for the same ones.
_COLUMNS: WeakKeyDictionary[Gate | Experts, Tensor] = WeakKeyDictionary()


def initial_gate(gate: Gate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    """Where the gate's parameters begin.

    Args:
        gate: whose parameters.
        x: its inputs in internal units (n, d).
        shares: weight times responsibility (n, k).
        draws: random numbers, keyed by the start.
    """
    return _gate_rule(gate, x, shares, draws)


@singledispatch
def _gate_rule(gate: Gate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    own = gate.own_parameters()
    basis = gate.basis(x)
    if basis is not None:
        return _multinomial_start(gate, own, basis.detach(), shares)
    return {name: value + _NOISE * draws.parameter(gate, name, value) for name, value in own.items()}


def _multinomial_start(gate: Gate, own: Parameters, basis: Tensor, shares: Tensor) -> Parameters:
    """Newton steps of the multinomial logistic regression of the shares on what the logits are linear in."""
    design = np.ascontiguousarray(basis.numpy().T)
    arrays = (design, np.ascontiguousarray(shares.numpy().T), shares.sum(-1).numpy())
    coefficients = np.zeros((gate.n_experts, len(design)))
    free = coefficients[:-1].shape
    value = gate_expectation(*arrays, coefficients)
    for _ in range(_GATE_STEPS if gate.n_experts > 1 else 0):
        _, gradient, information = gate_derivatives(*arrays, coefficients)
        step = solve_symmetric(information, gradient).reshape(free)
        length = 1.0
        while True:
            candidate = coefficients.copy()
            candidate[:-1] += length * step
            reached = gate_expectation(*arrays, candidate)
            if reached >= value or length < _SMALLEST_STEP:
                break
            length *= 0.25
        if not reached > value:
            break
        coefficients, value = candidate, reached
    return _from_coefficients(gate, own, torch.from_numpy(coefficients))


@_gate_rule.register
def _(gate: SigmoidGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    own = gate.own_parameters()
    k = gate.n_experts
    # Every expert begins with the weight 1/k.
    even = -math.log(k - 1) if k > 1 else 2.0
    return {"weight": torch.zeros_like(own["weight"]), "bias": torch.full_like(own["bias"], even)}


@_gate_rule.register
def _(gate: ActivationDenseToSparseGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    own = gate.own_parameters()
    # Not zero, where some activations have no slope.
    return {**own, "weight": 0.5 * draws.normal(own["weight"]), "bias": torch.zeros_like(own["bias"])}


@_gate_rule.register(CosineGate)
@_gate_rule.register(PerturbedCosineGate)
def _(gate: CosineGate | PerturbedCosineGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    own = gate.own_parameters()
    direction = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
    projected = "projection_matrix" in own
    if projected:
        present = own["projection_matrix"]
        # The first columns, which a new gate projects on, are the first in canonical order.
        first = torch.equal(present, torch.eye(*present.shape, dtype=present.dtype))
        present = draws.placed(present) if first else present
        own["projection_matrix"] = present + _NOISE * draws.normal(present)
        direction = direction @ own["projection_matrix"].T
    towards = _means(direction, shares) - _means(direction, shares.sum(-1, keepdim=True))
    towards = towards + _NOISE * draws.normal(towards, of_features=not projected)
    weight = towards / torch.linalg.vector_norm(towards, dim=-1, keepdim=True).clamp_min(1e-12)
    return {**own, "weight": weight, "bias": torch.zeros_like(own["bias"])}


@_gate_rule.register
def _(gate: LaplaceGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    own = gate.own_parameters()
    centre = _means(x, shares) + _NOISE * draws.normal(own["centre"])
    return {"centre": centre, "bias": torch.zeros_like(own["bias"])}


@_gate_rule.register
def _(gate: GaussianGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    own = gate.own_parameters()
    d = gate.n_features
    centre = _means(x, shares)
    total = shares.sum(0).clamp_min(1e-12)
    own["log_weight"] = (total / total.sum()).log()
    own["centre"] = centre
    factors = []
    for i in range(gate.n_experts):
        away = x - centre[i]
        covariance = away.T @ (shares[:, i : i + 1] * away) / total[i]
        # An expert with few rows begins with something between its own covariance and that of all inputs.
        few = d / (d + float(total[i]))
        covariance = (1.0 - few) * covariance + (few + 1e-6) * torch.eye(d, dtype=x.dtype)
        factors.append(torch.linalg.cholesky(covariance))
    factor = torch.stack(factors)
    if "lower" in own:
        row, column = torch.tril_indices(d, d, offset=-1)
        own["lower"] = factor[:, row, column]
        own["log_diagonal"] = factor.diagonal(dim1=-2, dim2=-1).log()
    else:
        own["log_diagonal"] = 0.5 * (factor @ factor.mT).diagonal(dim1=-2, dim2=-1).log()
    return own


@_gate_rule.register
def _(gate: HierarchicalGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    parts = cast(list[Gate], list(gate.inner))
    groups = shares.split([part.n_experts for part in parts], dim=-1)
    outer = torch.stack([group.sum(-1) for group in groups], dim=-1)
    found = prefixed("outer", initial_gate(gate.outer, x, outer, draws))
    for g, (part, group) in enumerate(zip(parts, groups, strict=True)):
        found |= prefixed(f"inner.{g}", initial_gate(part, x, group, draws))
    return found


@_gate_rule.register
def _(gate: TopKGate, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
    inner = initial_gate(gate.inner, x, shares, draws)
    basis = gate.inner.basis(x)
    return prefixed("inner", inner if basis is None else _linear_scores(inner, basis, x, shares))


def _linear_scores(parameters: Parameters, basis: Tensor, x: Tensor, shares: Tensor) -> Parameters:
    """Coefficients of the least-squares fit of the responsibilities on the gate's basis, times 4."""
    if not {"weight", "bias"} <= set(parameters):
        return parameters
    weight = shares.sum(-1, keepdim=True)
    target = shares / weight.clamp_min(1e-300)
    gram = basis.T @ (weight * basis) + 1e-9 * weight.sum() * torch.eye(basis.shape[1], dtype=x.dtype)
    found = 4.0 * torch.linalg.solve(gram, basis.T @ (weight * target)).T
    size = parameters["weight"].shape[-1]
    return {**parameters, "bias": found[:, 0], "weight": found[:, 1 : 1 + size]}


def initial_experts(
    experts: Experts,
    family: Family,
    x: Tensor,
    y: Tensor,
    shares: Tensor,
    offset: Tensor,
    draws: Draws,
) -> Parameters:
    """Where the experts' parameters begin: the maximum given the responsibilities where it is a weighted regression.

    Args:
        experts: whose parameters.
        family: of the targets.
        x: inputs in internal units (n, d).
        y: targets in internal units (n,) or (n, e).
        shares: weight times responsibility (n, k).
        offset: added to the locations (n,).
        draws: random numbers, keyed by the start.
    """
    own = experts.own_parameters()
    scales, regressions = [], []
    identity = torch.cat([torch.ones_like(x[:, :1]) if x.shape[1] else x.new_ones(len(x), 1), x], dim=-1)
    basis = experts.basis(x)
    every = shares.sum(-1)
    for i in range(experts.n_experts):
        weight = shares[:, i] if float(shares[:, i].sum()) > 1e-8 * float(every.sum()) else every
        # Counts are compared with what their exposure lets one expect.
        location, log_scale = family.moment_start(_without_offset(y, offset), weight)
        scales.append(log_scale)
        design = identity if basis is None else basis
        start = torch.zeros(*location.shape, design.shape[1], dtype=x.dtype)
        start[..., 0] = location
        if isinstance(experts, FeedForwardExperts | PolynomialExperts) or basis is not None:
            start = reweighted_least_squares(family, design, y, weight, start, log_scale, offset)
        regressions.append(start)
    dispersion = torch.stack(scales)
    own["log_scale"] = dispersion.mean(0, keepdim=True) if experts.shared_scale else dispersion
    own["log_scale"] = own["log_scale"].reshape(experts.log_scale.shape)
    coefficients = torch.stack(regressions)
    if basis is not None:
        return _from_coefficients(experts, own, coefficients)
    if isinstance(experts, PolynomialExperts):
        return _power_start(experts, own, identity, coefficients, shares, draws)
    if isinstance(experts, FeedForwardExperts):
        return _network_start(experts, own, x, identity, coefficients, shares, draws)
    noise = 0.0 if isinstance(experts, CallableExperts) and experts.n_experts == 1 else _NOISE
    log_scale = own.pop("log_scale")
    moved = {name: value + noise * draws.parameter(experts, name, value) for name, value in own.items()}
    return {**moved, "log_scale": log_scale}


def _without_offset(y: Tensor, offset: Tensor) -> Tensor:
    return y if not bool(offset.any()) else y * torch.exp(offset.mean() - offset)


def _from_coefficients(part: Gate | Experts, own: Parameters, coefficients: Tensor) -> Parameters:
    """The parameters whose `coefficients` these are; the map is linear, and onto the coefficients."""
    names = [name for name in own if name != "log_scale"]
    sizes = [own[name].numel() for name in names]
    zero = torch.zeros(sum(sizes), dtype=coefficients.dtype)

    def assemble(flat: Tensor) -> Parameters:
        pieces = zip(names, flat.split(sizes), strict=True)
        return {**own, **{name: piece.reshape(own[name].shape) for name, piece in pieces}}

    if part not in _COLUMNS:
        _COLUMNS[part] = jacobian(lambda flat: part.coefficients(assemble(flat)).reshape(-1), zero)
    # Not by least squares, whose last bits here differ from call to call.
    return assemble(torch.linalg.solve(_COLUMNS[part], coefficients.reshape(-1)))


def _power_start(
    experts: PolynomialExperts,
    own: Parameters,
    design: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    draws: Draws,
) -> Parameters:
    """(aᵀx + b)^p near the linear working regression: aᵀx + b regressed on its signed p-th root."""
    location = torch.einsum("np,i...p->ni...", design, coefficients)
    size = location.abs().clamp_min(1e-3) ** (1.0 / experts.power)
    sign = torch.sign(location) if experts.power % 2 else torch.ones_like(location)
    root = sign * size
    found = torch.empty_like(coefficients)
    for i in range(experts.n_experts):
        weight = shares[:, i : i + 1].clamp_min(1e-12)
        gram = design.T @ (weight * design) + 1e-9 * weight.sum() * torch.eye(design.shape[1], dtype=design.dtype)
        target = root[:, i].reshape(len(design), -1)
        found[i] = torch.linalg.solve(gram, design.T @ (weight * target)).T.reshape(found[i].shape)
    bias, weight = found[..., 0], found[..., 1:]
    bias = bias + _NOISE * draws.normal(bias, of_features=False)
    return {**own, "bias": bias, "weight": weight + _NOISE * draws.normal(weight)}


def _network_start(
    experts: FeedForwardExperts,
    own: Parameters,
    x: Tensor,
    design: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    draws: Draws,
) -> Parameters:
    """Random hidden units with their bends at rows of the data, outputs by ridge regression on the working location."""
    k, hidden = experts.n_experts, experts.hidden
    unit = draws.normal(own["inner_weight"])
    slope = unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True).clamp_min(1e-12)
    slope = slope * torch.from_numpy(draws.generator.uniform(0.5, 2.0, size=(k, hidden, 1)))
    rows = x[draws.rows((k, hidden))]
    bias = -(slope * rows).sum(-1)
    location = torch.einsum("np,i...p->ni...", design, coefficients).reshape(len(x), k, -1)
    units = activation(experts.activation)(torch.einsum("nd,khd->nkh", x, slope) + bias)
    if experts.output_bias:
        units = torch.cat([units, torch.ones_like(units[..., :1])], dim=-1)
    outputs = []
    for i in range(k):
        weight = shares[:, i : i + 1].clamp_min(1e-12)
        ridge = _RIDGE * weight.sum() * torch.eye(units.shape[-1], dtype=x.dtype)
        gram = units[:, i].T @ (weight * units[:, i]) + ridge
        outputs.append(torch.linalg.solve(gram, units[:, i].T @ (weight * location[:, i])).T)
    found = torch.stack(outputs).reshape(*own["outer_weight"].shape[:-1], -1)
    own |= {"inner_weight": slope, "inner_bias": bias, "outer_weight": found[..., :hidden]}
    if experts.output_bias:
        own["outer_bias"] = found[..., hidden]
    return own


def _means(x: Tensor, shares: Tensor) -> Tensor:
    """Σ s x / Σ s for each column of the shares, (k, d)."""
    return (shares.T @ x) / shares.sum(0).clamp_min(1e-12).unsqueeze(-1)
