"""From end points to a verdict: canonical order, distinct optima, separation, and what must be said."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import entr

from gatewise.experts import ConstantExperts, LinearExperts
from gatewise.fit.data import FitData
from gatewise.fit.newton import projected_gradient
from gatewise.fit.objective import Objective
from gatewise.fit.result import Optimum
from gatewise.fit.start import EndPoint
from gatewise.fit.status import FitStatus
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from gatewise.ops.separation import separating_direction

__all__ = [
    "KeptPoint",
    "build_model",
    "canonical_order",
    "distinct_optima",
    "examine",
]

# Tight: σ below this share of the one-expert residual standard deviation.
_TIGHT_SCALE = 0.05
# A separating ray leaves the gate no curvature; above this smallest eigenvalue there is none to look for.
_CURVED_GATE = 1e-4
_RAY_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class KeptPoint:
    """The kept end point in canonical order, and all that a verdict needs to know there.

    Attributes:
        end: the end point as its start left it.
        theta: internal units, experts in canonical order.
        value: the mean objective.
        relative_gradient: largest projected gradient component of the mean objective.
        information: its negative Hessian.
        curvature: the information's eigenvalues over the coordinates that are not held at a bound, ascending.
        conditional_curvature: the same given the gate where the gate separates, and `curvature` where it does not.
        effective_rows: (k,).
        entropy: −Σ w Σᵢ rᵢ log rᵢ.
        on_floor: experts on the variance floor.
        tight: tight experts.
        direction: the separating direction of the gate (k, q), or None.
    """

    end: EndPoint
    theta: np.ndarray
    value: float
    relative_gradient: float
    information: np.ndarray
    curvature: np.ndarray
    conditional_curvature: np.ndarray
    effective_rows: np.ndarray
    entropy: float
    on_floor: tuple[int, ...]
    tight: tuple[int, ...]
    direction: np.ndarray | None


def examine(objective: Objective, ends: list[EndPoint]) -> KeptPoint:
    """Choose the end point to keep and compute what must be known about it."""
    data, layout = objective.data, objective.layout
    end = _best_end_point(ends)
    theta = canonical_order(objective, end.theta)
    value, gradient = objective.value_and_gradient(theta)
    projected = projected_gradient(theta, gradient, objective.lower)
    information = -objective.hessian(theta)
    _, responsibilities = objective.responsibilities(theta)
    effective = responsibilities @ data.weight
    direction = None if data.is_saturated else _confirmed_separation(objective, theta, information, responsibilities)
    free = projected == gradient
    # A separated gate has no curvature along its ray; what must be regular then is the rest, given the gate.
    given_gate = free.copy()
    given_gate[layout.gate] &= direction is None
    return KeptPoint(
        end=end,
        theta=theta,
        value=value,
        relative_gradient=float(np.abs(projected).max(initial=0.0)),
        information=information,
        curvature=np.linalg.eigvalsh(information[np.ix_(free, free)]),
        conditional_curvature=np.linalg.eigvalsh(information[np.ix_(given_gate, given_gate)]),
        effective_rows=effective,
        entropy=float(data.weight @ entr(responsibilities).sum(axis=0)),
        on_floor=_floor_experts(objective, theta),
        tight=_tight_experts(data, theta, effective),
        direction=direction,
    )


def _best_end_point(ends: list[EndPoint]) -> EndPoint:
    """The end point with the largest objective among those off the variance floor, or among all if there is none."""
    candidates = [end for end in ends if not end.on_floor] or ends
    return max(candidates, key=lambda end: (end.value if np.isfinite(end.value) else -np.inf, -end.index))


def canonical_order(objective: Objective, theta: np.ndarray) -> np.ndarray:
    """θ with experts by mean responsibility, largest first, then by first coefficient; the last is the reference."""
    data = objective.data
    _, responsibilities = objective.responsibilities(theta)
    share = np.round(responsibilities @ data.weight / data.total_weight, 9)
    _, coefficients, _ = data.layout.unpack(theta)
    return data.layout.permute(theta, np.lexsort([coefficients[:, 0], -share]))


def build_model(prototype: MixtureOfExperts, data: FitData, theta: np.ndarray) -> MixtureOfExperts:
    """A copy of the prototype, in float64 on the CPU, with the user-unit parameters of θ."""
    gate, coefficients, scale = (torch.from_numpy(array) for array in data.coordinates.to_user(theta))
    model = copy.deepcopy(prototype)
    model.to(device="cpu", dtype=torch.float64)
    gate_module, experts_module = model.gate, model.experts
    assert isinstance(gate_module, SoftmaxGate)
    assert isinstance(experts_module, LinearExperts | ConstantExperts)
    gate_module.assign(gate)
    experts_module.assign(coefficients, scale.log())
    model.requires_grad_(False)
    return model


def _floor_experts(objective: Objective, theta: np.ndarray) -> tuple[int, ...]:
    """Experts whose scale is on the floor."""
    _, _, log_scale = objective.layout.unpack(theta)
    return tuple(int(i) for i in np.flatnonzero(log_scale <= objective.lower[-1] + 1e-9))


def _tight_experts(data: FitData, theta: np.ndarray, effective_rows: np.ndarray) -> tuple[int, ...]:
    """Experts with σ below 5 % of the one-expert residual scale, or with fewer than p + 2 effective rows."""
    _, _, log_scale = data.layout.unpack(theta)
    tight = (np.exp(log_scale) < _TIGHT_SCALE) | (effective_rows < data.layout.expert_size + 2)
    return tuple(int(i) for i in np.flatnonzero(tight))


def distinct_optima(
    objective: Objective, ends: list[EndPoint], prototype: MixtureOfExperts
) -> tuple[tuple[Optimum, ...], dict[int, int]]:
    """The distinct first-order points, best first but those on the floor last, and which one each start reached.

    Two end points are one optimum if their log-likelihoods agree to 1e-6 relative and their canonically ordered
    scales and coefficients to 1e-3 in internal units; gates are left out, since a separated gate has no end point.
    """
    data, layout = objective.data, objective.layout
    found: list[tuple[np.ndarray, list[EndPoint]]] = []
    for end in sorted(ends, key=lambda end: (bool(end.on_floor), -end.value)):
        if end.status is not FitStatus.CONVERGED:
            continue
        theta = canonical_order(objective, end.theta)
        for other, members in found:
            same_value = abs(end.value - members[0].value) <= 1e-6 * max(1.0, abs(end.value))
            if same_value and np.allclose(
                theta[layout.experts.start :], other[layout.experts.start :], rtol=1e-3, atol=1e-3
            ):
                members.append(end)
                break
        else:
            found.append((theta, [end]))
    optima, reached = [], {}
    for number, (theta, members) in enumerate(found):
        effective = objective.responsibilities(theta)[1] @ data.weight
        optima.append(
            Optimum(
                log_likelihood=objective.log_likelihood(theta),
                n_starts=len(members),
                model=build_model(prototype, data, theta),
                scale=data.coordinates.to_user(theta)[2],
                effective_rows=effective,
                on_floor=_floor_experts(objective, theta),
                tight=_tight_experts(data, theta, effective),
            )
        )
        reached.update((end.index, number) for end in members)
    return tuple(optima), reached


def _confirmed_separation(
    objective: Objective, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
) -> np.ndarray | None:
    """A direction (k, q) in internal units along which the gate separates, or None.

    The linear programme runs only where the gate's information is nearly singular, and its answer counts only if the
    likelihood does not fall along the ray.
    """
    data, layout = objective.data, objective.layout
    if layout.n_experts < 2 or objective.gate_ridge > 0.0:
        return None
    if np.linalg.eigvalsh(information[layout.gate, layout.gate])[0] > _CURVED_GATE:
        return None
    direction = separating_direction(data.gate_design, responsibilities)
    if direction is None:
        return None
    gate, coefficients, log_scale = layout.unpack(theta)
    here = objective.value_and_gradient(theta)[0]
    slack = 1e-9 * max(1.0, abs(here))
    for length in _RAY_LENGTHS:
        ahead = layout.pack(gate + length * direction, coefficients, log_scale)
        if objective.value_and_gradient(ahead)[0] < here - slack:
            return None
    return direction
