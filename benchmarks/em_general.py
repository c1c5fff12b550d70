"""The plain NumPy EM for Poisson and multinomial logistic experts that the benchmark compares with.

E-step: responsibilities rᵢ = πᵢ fᵢ / Σⱼ πⱼ fⱼ. M-step: one weighted regression per expert, Poisson or multinomial
logistic, and a multinomial logit of the responsibilities for the gate, each by Newton's method (iteratively reweighted
least squares) with step halving, started at the previous coefficients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from common import GeneralParameters
from em_numpy import NEWTON_STEPS, NEWTON_TOLERANCE, SMALLEST_STEP, log_sum_exp
from general_designs import log_densities

__all__ = ["GeneralEMFit", "fit_general_em"]

Derivatives = Callable[[np.ndarray], tuple[float, Callable[[], tuple[np.ndarray, np.ndarray]]]]


@dataclass(frozen=True)
class GeneralEMFit:
    """Where EM stopped.

    Attributes:
        parameters: the last M-step's.
        n_iterations: M-steps after the start.
        converged: whether the relative change of the log-likelihood fell to the tolerance.
    """

    parameters: GeneralParameters
    n_iterations: int
    converged: bool


def newton(derivatives: Derivatives, coefficients: np.ndarray, n: int) -> np.ndarray:
    """Maximise by Newton's method with step halving.

    Args:
        derivatives: coefficients ↦ the value, and a function that returns gradient and negative Hessian there.
        coefficients: where to begin.
        n: rows; a gain below `NEWTON_TOLERANCE` per row ends it.
    """
    value, slopes = derivatives(coefficients)
    for _ in range(NEWTON_STEPS):
        gradient, information = slopes()
        # A ridge in the last digits: the information is singular to rounding where a weight saturates.
        information[np.diag_indices_from(information)] += 1e-10 * np.trace(information) / len(information)
        step = np.linalg.solve(information, gradient.ravel()).reshape(coefficients.shape)
        length = 1.0
        while True:
            candidate = coefficients + length * step
            new_value, slopes = derivatives(candidate)
            if new_value >= value - 1e-12 * abs(value) or length < SMALLEST_STEP:
                break
            length /= 2
        gain = new_value - value
        coefficients, value = candidate, new_value
        if gain < NEWTON_TOLERANCE * n:
            break
    return coefficients


def maximise_multinomial(with_one: np.ndarray, shares: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Maximise Σ Σⱼ sⱼ log pⱼ over the coefficients (C − 1, q) of all classes but the last, shares (n, C)."""
    free, q = coefficients.shape
    mass = shares.sum(axis=1)

    def derivatives(at: np.ndarray) -> tuple[float, Callable[[], tuple[np.ndarray, np.ndarray]]]:
        logits = np.column_stack([with_one @ at.T, np.zeros(len(with_one))])
        log_weights = logits - log_sum_exp(logits)

        def slopes() -> tuple[np.ndarray, np.ndarray]:
            weights = np.exp(log_weights[:, :free])
            information = np.empty((free, q, free, q))
            for i in range(free):
                for j in range(i + 1):
                    block = (with_one * (mass * weights[:, i] * ((i == j) - weights[:, j]))[:, None]).T @ with_one
                    information[i, :, j] = block
                    information[j, :, i] = block
            gradient = (shares[:, :free] - mass[:, None] * weights).T @ with_one
            return gradient, information.reshape(free * q, free * q)

        return float(np.sum(shares * log_weights)), slopes

    return newton(derivatives, coefficients, len(with_one))


def maximise_poisson(with_one: np.ndarray, y: np.ndarray, weight: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Maximise Σ w (y h − eʰ) over the coefficients (1, q)."""

    def derivatives(at: np.ndarray) -> tuple[float, Callable[[], tuple[np.ndarray, np.ndarray]]]:
        location = with_one @ at[0]
        mean = np.exp(location)

        def slopes() -> tuple[np.ndarray, np.ndarray]:
            return with_one.T @ (weight * (y - mean)), (with_one * (weight * mean)[:, None]).T @ with_one

        return float(weight @ (y * location - mean)), slopes

    return newton(derivatives, coefficients, len(with_one))


def first_coefficients(family: str, y: np.ndarray, weight: np.ndarray, n_outputs: int, q: int) -> np.ndarray:
    """Coefficients (m, q) of an expert without slopes: the logarithm of its mean count, or equal classes."""
    coefficients = np.zeros((n_outputs, q))
    if family == "poisson":
        coefficients[0, 0] = np.log(weight @ y / weight.sum())
    return coefficients


def fit_general_em(
    family: str,
    x: np.ndarray,
    y: np.ndarray,
    responsibilities: np.ndarray,
    *,
    n_outputs: int,
    tolerance: float,
    max_iter: int,
) -> GeneralEMFit:
    """Start with one M-step from `responsibilities` and iterate until the log-likelihood changes by `tolerance`.

    Args:
        family: "poisson" or "categorical".
        x: features, (n, d).
        y: counts or class codes, (n,).
        responsibilities: the start, (n, k).
        n_outputs: m, the numbers of a location.
        tolerance: on the relative change of the log-likelihood.
        max_iter: the largest number of iterations.
    """
    with_one = np.column_stack([np.ones(len(y)), x])
    k, q = responsibilities.shape[1], with_one.shape[1]
    log_factorial = gammaln(y + 1.0)
    indicators = np.eye(n_outputs + 1)[y.astype(int)] if family == "categorical" else np.empty(0)
    gate = np.zeros((k - 1, q))
    experts = np.stack([first_coefficients(family, y, responsibilities[:, i], n_outputs, q) for i in range(k)])

    def maximise(shares: np.ndarray) -> None:
        nonlocal gate
        gate = maximise_multinomial(with_one, shares, gate)
        for i in range(k):
            if family == "poisson":
                experts[i] = maximise_poisson(with_one, y, shares[:, i], experts[i])
            else:
                experts[i] = maximise_multinomial(with_one, indicators * shares[:, i : i + 1], experts[i])

    def result(iterations: int, converged: bool) -> GeneralEMFit:
        whole = np.vstack([gate, np.zeros(q)])
        return GeneralEMFit(GeneralParameters(whole, experts.copy()), iterations, converged)

    maximise(responsibilities)
    previous = -np.inf
    for iteration in range(max_iter + 1):
        logits = np.column_stack([with_one @ gate.T, np.zeros(len(y))])
        locations = (with_one @ experts.reshape(k * n_outputs, q).T).reshape(-1, k, n_outputs)
        log_joint = logits - log_sum_exp(logits) + log_densities(family, locations, y, log_factorial)
        log_total = log_sum_exp(log_joint)
        value = float(np.sum(log_total))
        if abs(value - previous) <= tolerance * abs(value):
            return result(iteration, converged=True)
        previous = value
        if iteration < max_iter:
            maximise(np.exp(log_joint - log_total))
    return result(max_iter, converged=False)
