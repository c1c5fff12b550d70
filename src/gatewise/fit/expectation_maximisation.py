"""EM steps: the E-step is the fused pass, the M-step weighted least squares and damped Newton for the gate.

EM is used for what it is good at, the first steps from a rough start, and to turn responsibilities into parameters;
it is not iterated to convergence (it slows down without being at a maximum).
"""

import numpy as np

from gatewise.fit.objective import Objective
from gatewise.ops.curvature import gate_information, weighted_gram
from gatewise.ops.linalg import solve_symmetric
from gatewise.ops.log_space_numpy import log_softmax_columns

__all__ = ["em_step", "maximise_expectation"]

_EMPTY = 1e-8


def em_step(objective: Objective, theta: np.ndarray) -> np.ndarray:
    """One EM step from θ; the gate takes one damped Newton step, so this is a generalised EM and never descends."""
    _, responsibilities = objective.responsibilities(theta)
    return maximise_expectation(objective, responsibilities, theta, gate_steps=1)


def maximise_expectation(
    objective: Objective, responsibilities: np.ndarray, theta: np.ndarray, gate_steps: int
) -> np.ndarray:
    """argmax_θ of the expected complete log-likelihood (plus log priors) under the given responsibilities.

    Each expert's coefficients solve weighted least squares; σᵢ² = (Σ w r e² + 2b) / (Σ w r + 2(a + 1)), with (a, b)
    the variance prior and both terms 0 without; a shared σ² pools the sums. An expert without rows keeps what it has.

    Args:
        objective: data, priors and floor.
        responsibilities: r (k, n).
        theta: where the gate's Newton steps begin, and what empty experts keep.
        gate_steps: Newton steps on the gate.
    """
    data, layout = objective.data, objective.layout
    gate, coefficients, log_scale = layout.unpack(theta)
    shares = responsibilities * data.weight
    totals = shares.sum(axis=1)
    gram = weighted_gram(data.design, shares)
    right = (shares * data.y) @ data.design.T
    filled = totals > _EMPTY * data.total_weight
    for i in np.flatnonzero(filled):
        coefficients[i] = solve_symmetric(gram[i], right[i])
    squares = (shares * (data.y - coefficients @ data.design) ** 2).sum(axis=1)
    a, b = objective.variance_prior or (-1.0, 0.0)
    if layout.shared_scale:
        variance = np.full_like(squares, (squares.sum() + 2.0 * b) / (totals.sum() + 2.0 * (a + 1.0)))
    else:
        variance = (squares + 2.0 * b) / np.where(filled, totals + 2.0 * (a + 1.0), 1.0)
    with np.errstate(divide="ignore"):
        new_scale = np.maximum(0.5 * np.log(variance), objective.lower[layout.scales.start])
    log_scale = np.where(filled | layout.shared_scale, new_scale, log_scale)
    if layout.n_experts > 1:
        gate = _maximise_gate(objective, shares, gate, gate_steps)
    return layout.pack(gate, coefficients, log_scale)


def _maximise_gate(objective: Objective, shares: np.ndarray, gate: np.ndarray, steps: int) -> np.ndarray:
    """Newton steps on Σ w r log π (plus ridge), each halved until it does not descend."""
    data, layout = objective.data, objective.layout
    design = data.gate_design
    precision = objective.gate_precision()

    def expectation(candidate: np.ndarray) -> tuple[float, np.ndarray]:
        log_weights = log_softmax_columns(candidate @ design)
        flat = candidate[:-1].ravel()
        return float(np.vdot(shares, log_weights)) - 0.5 * float(flat @ precision @ flat), log_weights

    value, log_weights = expectation(gate)
    for _ in range(steps):
        weights = np.exp(log_weights)
        gradient = ((shares - weights * data.weight)[:-1] @ design.T).ravel() - precision @ gate[:-1].ravel()
        step = solve_symmetric(gate_information(design, weights, data.weight) + precision, gradient)
        length = 1.0
        while length > 1e-6:
            candidate = gate.copy()
            candidate[:-1] += length * step.reshape(layout.n_experts - 1, layout.gate_size)
            new_value, new_log_weights = expectation(candidate)
            if new_value > value:
                gate, value, log_weights = candidate, new_value, new_log_weights
                break
            length *= 0.5
        else:
            break
    return gate
