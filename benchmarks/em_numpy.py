"""The plain NumPy EM that the benchmark compares with: what one writes from the textbook's formulas.

E-step: responsibilities rᵢ = πᵢ fᵢ / Σⱼ πⱼ fⱼ. M-step: one weighted least squares fit per expert, its variance the
weighted mean of the squared residuals, and a multinomial logit of the responsibilities for the gate, by Newton's
method with the full Hessian and step halving, started at the previous gate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common import Parameters

__all__ = ["EMFit", "LogSumExp", "fit_em", "log_sum_exp", "maximise_given"]

LogSumExp = Callable[[np.ndarray], np.ndarray]

NEWTON_STEPS = 25
NEWTON_TOLERANCE = 1e-8
SMALLEST_STEP = 1e-6


@dataclass(frozen=True)
class EMFit:
    """Where EM stopped.

    Attributes:
        parameters: the last M-step's.
        trace: the log-likelihood after every M-step, the start's included.
        n_iterations: M-steps after the start.
        converged: whether the relative change of the log-likelihood fell to the tolerance.
    """

    parameters: Parameters
    trace: list[float]
    n_iterations: int
    converged: bool


def log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Log Σᵢ exp(vᵢ) over the experts, (n, k) ↦ (n, 1)."""
    largest = values.max(axis=1, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=1, keepdims=True))


def maximise_gate(
    with_one: np.ndarray, responsibilities: np.ndarray, gate: np.ndarray, normaliser: LogSumExp
) -> np.ndarray:
    """Maximise Σ Σᵢ rᵢ log πᵢ over the gate (q, k), whose last column, the reference, stays zero."""

    def log_softmax(logits: np.ndarray) -> np.ndarray:
        return logits - normaliser(logits)

    n, q = with_one.shape
    free = responsibilities.shape[1] - 1
    log_weights = log_softmax(with_one @ gate)
    value = np.sum(responsibilities * log_weights)
    for _ in range(NEWTON_STEPS):
        weights = np.exp(log_weights[:, :free])
        gradient = with_one.T @ (responsibilities[:, :free] - weights)
        hessian = np.empty((free, q, free, q))
        for i in range(free):
            for j in range(i + 1):
                curvature = weights[:, i] * ((i == j) - weights[:, j])
                block = (with_one * curvature[:, None]).T @ with_one
                hessian[i, :, j] = block
                hessian[j, :, i] = block
        hessian = hessian.reshape(free * q, free * q)
        # A ridge in the last digits: the Hessian is singular to rounding when a weight saturates.
        hessian[np.diag_indices_from(hessian)] += 1e-10 * np.trace(hessian) / len(hessian)
        step = np.linalg.solve(hessian, gradient.T.ravel()).reshape(free, q).T
        length = 1.0
        while True:
            candidate = gate.copy()
            candidate[:, :free] += length * step
            log_weights = log_softmax(with_one @ candidate)
            new_value = np.sum(responsibilities * log_weights)
            if new_value >= value - 1e-12 * abs(value) or length < SMALLEST_STEP:
                break
            length /= 2
        gain = new_value - value
        gate, value = candidate, new_value
        if gain < NEWTON_TOLERANCE * n:
            break
    return gate


def maximise_given(
    with_one: np.ndarray,
    y: np.ndarray,
    responsibilities: np.ndarray,
    gate: np.ndarray | None = None,
    normaliser: LogSumExp = log_sum_exp,
) -> Parameters:
    """One M-step.

    Args:
        with_one: features behind a column of ones, (n, q).
        y: target, (n,).
        responsibilities: (n, k).
        gate: where the gate's Newton method starts, (k, q); zeros without it.
        normaliser: computes log Σᵢ exp(vᵢ), (n, k) ↦ (n, 1).
    """
    k = responsibilities.shape[1]
    q = with_one.shape[1]
    experts = np.empty((k, q))
    scale = np.empty(k)
    for i in range(k):
        weight = responsibilities[:, i]
        weighted = with_one * weight[:, None]
        experts[i] = np.linalg.solve(weighted.T @ with_one, weighted.T @ y)
        scale[i] = np.sqrt(np.sum(weight * (y - with_one @ experts[i]) ** 2) / np.sum(weight))
    start = np.zeros((q, k)) if gate is None else gate.T
    gate = maximise_gate(with_one, responsibilities, start, normaliser).T
    return Parameters(gate=gate, experts=experts, scale=scale)


def fit_em(
    x: np.ndarray,
    y: np.ndarray,
    responsibilities: np.ndarray,
    *,
    tolerance: float,
    max_iter: int,
    normaliser: LogSumExp = log_sum_exp,
) -> EMFit:
    """Start with one M-step from `responsibilities` and iterate until the log-likelihood changes by `tolerance`.

    Args:
        x: features, (n, d).
        y: target, (n,).
        responsibilities: the start, (n, k).
        tolerance: on the relative change of the log-likelihood.
        max_iter: the largest number of iterations.
        normaliser: computes log Σᵢ exp(vᵢ), (n, k) ↦ (n, 1).
    """
    with_one = np.column_stack([np.ones(len(y)), x])
    parameters = maximise_given(with_one, y, responsibilities, normaliser=normaliser)
    trace: list[float] = []
    for iteration in range(max_iter + 1):
        logits = with_one @ parameters.gate.T
        residual = (y[:, None] - with_one @ parameters.experts.T) / parameters.scale
        log_density = -0.5 * residual**2 - np.log(parameters.scale) - 0.5 * np.log(2 * np.pi)
        log_joint = logits - normaliser(logits) + log_density
        log_total = normaliser(log_joint)
        trace.append(float(np.sum(log_total)))
        if iteration and abs(trace[-1] - trace[-2]) <= tolerance * abs(trace[-1]):
            return EMFit(parameters, trace, iteration, converged=True)
        if iteration < max_iter:
            responsibilities = np.exp(log_joint - log_total)
            parameters = maximise_given(with_one, y, responsibilities, parameters.gate, normaliser)
    return EMFit(parameters, trace, max_iter, converged=False)
