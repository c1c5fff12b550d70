"""EM steps of regressions: the E-step is the fused pass, the M-step weighted least squares and damped Newton.

EM is used for what it is good at, the first steps from a rough start, and to turn responsibilities into parameters;
it is not iterated to convergence (it slows down without being at a maximum).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gatewise.fit.bounds import Bounds
from gatewise.fit.gaussian_channels import GaussianChannels
from gatewise.fit.options import FitOptions
from gatewise.kernels.expectation import ExpectationSums, expectation_sums, gate_derivatives, gate_expectation
from gatewise.kernels.products import weighted_gram
from gatewise.ops.linalg import solve_symmetric

__all__ = ["Expectation", "em_step", "expectation", "maximise_expectation"]

_EMPTY = 1e-8
_NEGLIGIBLE_GAIN = 1e-10
_SMALLEST_STEP = 1e-4


class RegressionProblem(Protocol):
    """What EM asks of a problem that is counted from one regression."""

    bounds: Bounds
    options: FitOptions
    total_weight: float
    n_evaluations: int

    @property
    def regressions(self) -> GaussianChannels: ...

    def log_prior(self, theta: np.ndarray) -> float: ...

    def gate_precision(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Expectation:
    """An E-step: where it was taken, the mean objective there, and its sums."""

    theta: np.ndarray
    value: float
    sums: ExpectationSums


def expectation(problem: RegressionProblem, theta: np.ndarray) -> Expectation:
    """The E-step at θ."""
    problem.n_evaluations += 1
    data = problem.regressions.sweep
    arrays = (data.gate_design, data.design, data.y, data.weight)
    sums = expectation_sums(*arrays, *problem.regressions.unpack(theta), data.same_design)
    return Expectation(theta, (sums.log_likelihood + problem.log_prior(theta)) / problem.total_weight, sums)


def em_step(problem: RegressionProblem, at: Expectation) -> Expectation:
    """One EM step: the experts' maximum in closed form, one Newton step for the gate, halved until nothing is lost."""
    channels, sums = problem.regressions, at.sums
    gate, coefficients, log_scale = channels.unpack(at.theta)
    coefficients = coefficients.copy()
    filled = sums.mass > _EMPTY * problem.total_weight
    squares = sums.squares.copy()
    for i in np.flatnonzero(filled):
        change = solve_symmetric(sums.gram[i], sums.moments[i])
        coefficients[i] += change
        # The residual sum of squares about the new coefficients; it cannot be negative but for rounding.
        squares[i] = max(squares[i] - float(change @ sums.moments[i]), 0.0)
    log_scale = _maximise_scale(problem, sums.mass, squares, filled, log_scale)
    if len(gate) == 1:
        return expectation(problem, channels.pack(gate, coefficients, log_scale))
    precision = problem.gate_precision()
    slope = sums.gate_gradient - precision @ gate[:-1].ravel()
    step = solve_symmetric(sums.gate_information + precision, slope).reshape(gate[:-1].shape)
    length = 1.0
    while True:
        candidate = gate.copy()
        candidate[:-1] += length * step
        reached = expectation(problem, channels.pack(candidate, coefficients, log_scale))
        if reached.value >= at.value or length < _SMALLEST_STEP:
            return reached if reached.value >= at.value else at
        length *= 0.25


def maximise_expectation(
    problem: RegressionProblem, responsibilities: np.ndarray, theta: np.ndarray, gate_steps: int
) -> np.ndarray:
    """argmax_θ of the expected complete log-likelihood (plus log priors) under the given responsibilities.

    Each expert's coefficients solve weighted least squares; σᵢ² = (Σ w r e² + 2b) / (Σ w r + 2(a + 1)), with (a, b)
    the variance prior and both terms 0 without; a shared σ² pools the sums. An expert without rows keeps what it has.

    Args:
        problem: rows, priors and floor.
        responsibilities: r (k, n).
        theta: where the gate's Newton steps begin, and what empty experts keep.
        gate_steps: Newton steps on the gate.
    """
    data = problem.regressions.sweep
    gate, coefficients, log_scale = problem.regressions.unpack(theta)
    coefficients = coefficients.copy()
    shares = np.multiply(responsibilities, data.weight, order="C")
    totals = shares.sum(axis=1)
    gram = weighted_gram(data.design, shares)
    right = (shares * data.y) @ data.design.T
    filled = totals > _EMPTY * problem.total_weight
    for i in np.flatnonzero(filled):
        coefficients[i] = solve_symmetric(gram[i], right[i])
    squares = (shares * (data.y - coefficients @ data.design) ** 2).sum(axis=1)
    log_scale = _maximise_scale(problem, totals, squares, filled, log_scale)
    if len(gate) > 1:
        gate = _maximise_gate(problem, shares, gate, gate_steps)
    return problem.regressions.pack(gate, coefficients, log_scale)


def _maximise_scale(
    problem: RegressionProblem, mass: np.ndarray, squares: np.ndarray, filled: np.ndarray, log_scale: np.ndarray
) -> np.ndarray:
    """σᵢ² = (Σ w r e² + 2b) / (Σ w r + 2(a + 1)), not below the floor; experts without rows keep what they have."""
    a, b = problem.options.variance_prior or (-1.0, 0.0)
    shared = problem.regressions.model.experts.shared_scale
    if shared:
        variance = np.full_like(squares, (squares.sum() + 2.0 * b) / (mass.sum() + 2.0 * (a + 1.0)))
    else:
        variance = (squares + 2.0 * b) / np.where(filled, mass + 2.0 * (a + 1.0), 1.0)
    with np.errstate(divide="ignore"):
        new_scale = np.maximum(0.5 * np.log(variance), problem.bounds.lower[-1])
    return np.where(filled | shared, new_scale, log_scale)


def _maximise_gate(problem: RegressionProblem, shares: np.ndarray, gate: np.ndarray, steps: int) -> np.ndarray:
    """Newton steps on Σ w r log π (plus ridge), each halved until it does not descend."""
    data = problem.regressions.sweep
    precision = problem.gate_precision()
    arrays = (data.gate_design, shares, data.weight)
    for _ in range(steps):
        flat = gate[:-1].ravel()
        value, gradient, information = gate_derivatives(*arrays, gate)
        value -= 0.5 * float(flat @ precision @ flat)
        gradient = gradient - precision @ flat
        step = solve_symmetric(information + precision, gradient)
        # Nothing to gain: a line search would only compare rounding errors.
        if gradient @ step <= _NEGLIGIBLE_GAIN * problem.total_weight:
            return gate
        length = 1.0
        while True:
            moved = flat + length * step
            candidate = np.concatenate([moved.reshape(gate[:-1].shape), gate[-1:]])
            if gate_expectation(*arrays, candidate) - 0.5 * float(moved @ precision @ moved) > value:
                gate = candidate
                break
            length *= 0.5
            if length < _SMALLEST_STEP:
                return gate
    return gate
