"""The sums an EM step needs, in one compiled pass over the rows, and the gate's own objective with its curvature.

With responsibilities r and row weights w, the M-step of expert i needs Σ w rᵢ Z Zᵀ, Σ w rᵢ e Z and Σ w rᵢ e² for its
present residuals e; the gate needs the gradient Σ w (rᵢ − πᵢ) G and the curvature Σ w (δᵢⱼ πᵢ − πᵢ πⱼ) G Gᵀ. A sum of
products of design columns with several channels is one small matrix product per block.
"""

from dataclasses import dataclass

import numpy as np

from gatewise.kernels.compiled import compiled
from gatewise.kernels.linear_pass import linear_channels
from gatewise.kernels.mixture_pass import BLOCK, ELEMENTWISE, mixture_block, weighted_sum
from gatewise.kernels.products import clear_rows, copy_rows, row_products, unpack_columns, unpack_symmetric
from gatewise.kernels.vector_math import exp, log

__all__ = ["ExpectationSums", "expectation_sums", "gate_derivatives", "gate_expectation"]


@dataclass(frozen=True)
class ExpectationSums:
    """One E-step, summed over the rows.

    Attributes:
        log_likelihood: Σ w ℓ.
        mass: Σ w rᵢ (k,).
        squares: Σ w rᵢ eᵢ² (k,), e the residuals under the present coefficients.
        moments: Σ w rᵢ eᵢ Z (k, p).
        gram: Σ w rᵢ Z Zᵀ (k, p, p).
        gate_gradient: Σ w (rᵢ − πᵢ) G for the first k − 1 experts, flattened.
        gate_information: Σ w (diag π − π πᵀ) ⊗ G Gᵀ for the first k − 1 experts.
    """

    log_likelihood: float
    mass: np.ndarray
    squares: np.ndarray
    moments: np.ndarray
    gram: np.ndarray
    gate_gradient: np.ndarray
    gate_information: np.ndarray


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _gate_pairs(weight: np.ndarray, weights: np.ndarray, m: int, pairs: np.ndarray) -> None:
    """Write pairs ← w (δⱼₗ πⱼ − πⱼ πₗ) for l ≤ j < k − 1."""
    row = 0
    for j in range(weights.shape[0] - 1):
        for other in range(j + 1):
            out, pi, pi_other = pairs[row], weights[j], weights[other]
            if other == j:
                for r in range(m):
                    out[r] = weight[r] * pi[r] * (1.0 - pi[r])
            else:
                for r in range(m):
                    out[r] = -weight[r] * pi[r] * pi_other[r]
            row += 1


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _expectation_channels(
    weight: np.ndarray,
    scale: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    residual: np.ndarray,
    m: int,
    squares: np.ndarray,
) -> None:
    """In place: responsibilities ← w r, weights ← w (r − π), residual ← w r e; squares ← w r e²."""
    for i in range(weights.shape[0]):
        sigma = scale[i]
        pi, share, error, square = weights[i], responsibilities[i], residual[i], squares[i]
        for r in range(m):
            mass = weight[r] * share[r]
            pi[r] = mass - weight[r] * pi[r]
            share[r] = mass
        for r in range(m):
            e = sigma * error[r]
            error[r] = share[r] * e
            square[r] = share[r] * e * e


@compiled(error_model="numpy")
def _expectation_pass(
    gate_design: np.ndarray,
    design: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    gate_coefficients: np.ndarray,
    coefficients: np.ndarray,
    log_scale: np.ndarray,
    same_design: bool,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    k, n = coefficients.shape[0], y.size
    q, p = gate_design.shape[0], design.shape[0]
    scale = np.exp(log_scale)
    logits, location = np.empty((k, BLOCK)), np.empty((k, BLOCK))
    weights, shares, residual = np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK))
    log_prob, squares = np.empty(BLOCK), np.empty((k, BLOCK))
    pairs = np.empty((k * (k - 1) // 2, BLOCK))
    # Zeros, because a last block that is not full multiplies what stands here by zero.
    products, block_design = np.zeros((p * (p + 1) // 2, BLOCK)), np.zeros((p, BLOCK))
    gate_products = products if same_design else np.zeros((q * (q + 1) // 2, BLOCK))
    block_gate_design = block_design if same_design else np.zeros((q, BLOCK))
    value, square_sums, moments = 0.0, np.zeros(k), np.zeros((k, p))
    gram = np.zeros((k, products.shape[0]))
    gate_gradient, gate_information = np.zeros((k, q)), np.zeros((pairs.shape[0], gate_products.shape[0]))
    for low in range(0, n, BLOCK):
        m = min(BLOCK, n - low)
        row_weight = weight[low : low + m]
        linear_channels(gate_coefficients, gate_design, low, m, logits)
        linear_channels(coefficients, design, low, m, location)
        mixture_block(logits, location, log_scale, y[low : low + m], m, log_prob, weights, shares, residual)
        value += weighted_sum(row_weight, log_prob, m)
        _gate_pairs(row_weight, weights, m, pairs)
        _expectation_channels(row_weight, scale, weights, shares, residual, m, squares)
        row_products(design, design, low, m, True, products)
        copy_rows(design, low, m, block_design)
        if not same_design:
            row_products(gate_design, gate_design, low, m, True, gate_products)
            copy_rows(gate_design, low, m, block_gate_design)
        if m < BLOCK:
            for channels in (pairs, weights, shares, residual, squares):
                clear_rows(channels, m)
        for i in range(k):
            square_sums[i] += squares[i].sum()
        gram += np.dot(shares, products.T)
        moments += np.dot(residual, block_design.T)
        gate_gradient += np.dot(weights, block_gate_design.T)
        if k > 1:
            gate_information += np.dot(pairs, gate_products.T)
    return value, square_sums, moments, gram, gate_gradient, gate_information


def expectation_sums(
    gate_design: np.ndarray,
    design: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    gate_coefficients: np.ndarray,
    coefficients: np.ndarray,
    log_scale: np.ndarray,
    same_design: bool,
) -> ExpectationSums:
    """One E-step at γ = B G and μ = A Z, summed.

    Args:
        gate_design: G (q, n), channel-major.
        design: Z (p, n), channel-major, its first row of ones.
        y: targets (n,).
        weight: row weights (n,).
        gate_coefficients: B (k, q).
        coefficients: A (k, p).
        log_scale: log σ (k,).
        same_design: whether G and Z are equal, which saves forming their products twice.
    """
    k, p, q = len(log_scale), len(design), len(gate_design)
    value, squares, moments, gram, gate_gradient, pairs = _expectation_pass(
        gate_design, design, y, weight, gate_coefficients, coefficients, log_scale, same_design
    )
    return ExpectationSums(
        log_likelihood=value,
        mass=gram[:, 0].copy(),
        squares=squares,
        moments=moments,
        gram=unpack_columns(gram, p),
        gate_gradient=gate_gradient[:-1].ravel(),
        gate_information=unpack_symmetric(pairs, k - 1, q),
    )


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _gate_block(logits: np.ndarray, shares: np.ndarray, low: int, m: int, terms: np.ndarray) -> None:
    """In place: logits ← π; terms ← Σᵢ shareᵢ log πᵢ."""
    top, total, mass = logits[0].copy(), np.zeros(m), np.zeros(m)
    for i in range(1, logits.shape[0]):
        logit = logits[i]
        for r in range(m):
            top[r] = logit[r] if logit[r] > top[r] else top[r]
    for r in range(m):
        terms[r] = 0.0
    for i in range(logits.shape[0]):
        logit, share = logits[i], shares[i, low : low + m]
        for r in range(m):
            centred = logit[r] - top[r]
            terms[r] += share[r] * centred
            mass[r] += share[r]
            power = exp(centred)
            logit[r] = power
            total[r] += power
    for r in range(m):
        terms[r] -= mass[r] * log(total[r])
        total[r] = 1.0 / total[r]
    for i in range(logits.shape[0]):
        logit = logits[i]
        for r in range(m):
            logit[r] *= total[r]


@compiled(error_model="numpy")
def _gate_pass(
    design: np.ndarray, shares: np.ndarray, weight: np.ndarray, gate_coefficients: np.ndarray, value_only: bool
) -> tuple[float, np.ndarray, np.ndarray]:
    k, n, q = gate_coefficients.shape[0], weight.size, design.shape[0]
    weights, terms, block_design = np.empty((k, BLOCK)), np.empty(BLOCK), np.zeros((q, BLOCK))
    pairs, products = np.empty((k * (k - 1) // 2, BLOCK)), np.zeros((q * (q + 1) // 2, BLOCK))
    value, gradient = 0.0, np.zeros((k, q))
    information = np.zeros((pairs.shape[0], products.shape[0]))
    for low in range(0, n, BLOCK):
        m = min(BLOCK, n - low)
        linear_channels(gate_coefficients, design, low, m, weights)
        _gate_block(weights, shares, low, m, terms)
        value += terms[:m].sum()
        if value_only:
            continue
        row_weight = weight[low : low + m]
        _gate_pairs(row_weight, weights, m, pairs)
        for i in range(k):
            score, share = weights[i], shares[i, low : low + m]
            for r in range(m):
                score[r] = share[r] - row_weight[r] * score[r]
        row_products(design, design, low, m, True, products)
        copy_rows(design, low, m, block_design)
        if m < BLOCK:
            clear_rows(weights, m)
            clear_rows(pairs, m)
        gradient += np.dot(weights, block_design.T)
        information += np.dot(pairs, products.T)
    return value, gradient, information


def gate_expectation(
    design: np.ndarray, shares: np.ndarray, weight: np.ndarray, gate_coefficients: np.ndarray
) -> float:
    """Σ_r Σᵢ sᵢ log πᵢ for shares s (k, n), a design G (q, n) and γ = B G with B (k, q)."""
    return _gate_pass(design, shares, weight, gate_coefficients, True)[0]


def gate_derivatives(
    design: np.ndarray, shares: np.ndarray, weight: np.ndarray, gate_coefficients: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """`gate_expectation`, its gradient and its negative Hessian by the first k − 1 rows of B, flattened.

    The shares of a row must add up to its weight.
    """
    free, q = len(gate_coefficients) - 1, len(design)
    value, gradient, pairs = _gate_pass(design, shares, weight, gate_coefficients, False)
    return value, gradient[:free].ravel(), unpack_symmetric(pairs, free, q)
