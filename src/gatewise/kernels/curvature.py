"""Second derivatives of the mixture log-likelihood, channel by channel.

A row's log-likelihood ℓ depends on the parameters through 3k channels only: gate logits γⱼ, locations μᵢ and
log-scales λᵢ. With u = ∂aᵢ/∂μᵢ = zᵢ/σᵢ and v = ∂aᵢ/∂λᵢ = zᵢ² − 1 for aᵢ = log f(y | μᵢ, σᵢ),

    ∂²ℓ/∂γⱼ∂γₗ = δⱼₗ (rⱼ − πⱼ) − rⱼ rₗ + πⱼ πₗ
    ∂²ℓ/∂γⱼ∂μᵢ = rᵢ uᵢ (δᵢⱼ − rⱼ),                 ∂²ℓ/∂γⱼ∂λᵢ = rᵢ vᵢ (δᵢⱼ − rⱼ)
    ∂²ℓ/∂μᵢ∂μₗ = δᵢₗ rᵢ (uᵢ² − 1/σᵢ²) − rᵢ uᵢ rₗ uₗ
    ∂²ℓ/∂μᵢ∂λₗ = δᵢₗ rᵢ (uᵢ vᵢ − 2 zᵢ/σᵢ) − rᵢ uᵢ rₗ vₗ
    ∂²ℓ/∂λᵢ∂λₗ = δᵢₗ rᵢ (vᵢ² − 2 zᵢ²) − rᵢ vᵢ rₗ vₗ

(derived from ∇²ℓ = Σ rᵢ (∇²aᵢ + ∇aᵢ ∇aᵢᵀ) − ∇ℓ ∇ℓᵀ; checked against automatic differentiation). For linear channels
the Hessian by the parameters is a weighted cross-product of the designs for each pair of channels, so that one
evaluation costs a few matrix products. The same holds of the scores' outer products, whose pairs are products of

    ∂ℓ/∂γⱼ = rⱼ − πⱼ,   ∂ℓ/∂μᵢ = rᵢ uᵢ,   ∂ℓ/∂λᵢ = rᵢ vᵢ.
"""

import numpy as np

from gatewise.kernels.compiled import compiled
from gatewise.kernels.linear_pass import LinearPass, linear_channels
from gatewise.kernels.mixture_pass import BLOCK, ELEMENTWISE, mixture_block
from gatewise.kernels.products import clear_rows, copy_rows, row_products, unpack_columns, unpack_symmetric

__all__ = ["linear_hessian", "linear_responsibilities", "linear_score_gram"]


@compiled(error_model="numpy")
def _evaluate_rows(
    gate_design: np.ndarray,
    design: np.ndarray,
    y: np.ndarray,
    gate_coefficients: np.ndarray,
    coefficients: np.ndarray,
    log_scale: np.ndarray,
    low: int,
    count: int,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    residual: np.ndarray,
    log_prob: np.ndarray,
) -> None:
    """π, r, z (k, ·) and ℓ of rows low … low + count, stored from column 0."""
    k = coefficients.shape[0]
    logits, location = np.empty((k, BLOCK)), np.empty((k, BLOCK))
    block_weights, block_share, block_residual = np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK))
    block_log_prob = np.empty(BLOCK)
    for start in range(0, count, BLOCK):
        m = min(BLOCK, count - start)
        linear_channels(gate_coefficients, gate_design, low + start, m, logits)
        linear_channels(coefficients, design, low + start, m, location)
        mixture_block(
            logits,
            location,
            log_scale,
            y[low + start : low + start + m],
            m,
            block_log_prob,
            block_weights,
            block_share,
            block_residual,
        )
        # Loops, because an assignment of slices takes the compiler seconds: it can report shapes that differ.
        for i in range(k):
            for r in range(m):
                weights[i, start + r] = block_weights[i, r]
                responsibilities[i, start + r] = block_share[i, r]
                residual[i, start + r] = block_residual[i, r]
        for r in range(m):
            log_prob[start + r] = block_log_prob[r]


def linear_responsibilities(
    data: LinearPass, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights π, responsibilities r and residuals z, each (k, n), and log-likelihoods ℓ (n,) of all rows."""
    k, n = len(log_scale), data.y.size
    weights, responsibilities, residual = (np.empty((k, n)) for _ in range(3))
    log_prob = np.empty(n)
    _evaluate_rows(
        data.gate_design,
        data.design,
        data.y,
        gate_coefficients,
        coefficients,
        log_scale,
        0,
        n,
        weights,
        responsibilities,
        residual,
        log_prob,
    )
    return weights, responsibilities, residual, log_prob


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _pair_channels(
    weight: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    residual: np.ndarray,
    inverse_scale: np.ndarray,
    m: int,
    gate_gate: np.ndarray,
    gate_location: np.ndarray,
    gate_scale: np.ndarray,
    location_location: np.ndarray,
    location_scale: np.ndarray,
    scale_scale: np.ndarray,
) -> None:
    """The second derivatives of the module's formula, times the row weight; symmetric pairs with l ≤ j only."""
    k = weights.shape[0]
    location_score, scale_score = np.empty((k, m)), np.empty((k, m))
    for i in range(k):
        share, z, u, v = responsibilities[i], residual[i], location_score[i], scale_score[i]
        for r in range(m):
            u[r] = share[r] * z[r] * inverse_scale[i]
            v[r] = share[r] * (z[r] * z[r] - 1.0)
    row = 0
    for j in range(k - 1):
        for other in range(j + 1):
            out = gate_gate[row]
            share, share_other, pi, pi_other = responsibilities[j], responsibilities[other], weights[j], weights[other]
            for r in range(m):
                out[r] = weight[r] * (pi[r] * pi_other[r] - share[r] * share_other[r])
            if other == j:
                for r in range(m):
                    out[r] += weight[r] * (share[r] - pi[r])
            row += 1
    row = 0
    for j in range(k - 1):
        share = responsibilities[j]
        for i in range(k):
            out_location, out_scale, u, v = gate_location[row], gate_scale[row], location_score[i], scale_score[i]
            own = 1.0 if i == j else 0.0
            for r in range(m):
                out_location[r] = weight[r] * u[r] * (own - share[r])
            for r in range(m):
                out_scale[r] = weight[r] * v[r] * (own - share[r])
            row += 1
    row = 0
    for i in range(k):
        inverse = inverse_scale[i]
        share, z = responsibilities[i], residual[i]
        for other in range(i + 1):
            out, u, u_other = location_location[row], location_score[i], location_score[other]
            for r in range(m):
                out[r] = -weight[r] * u[r] * u_other[r]
            if other == i:
                for r in range(m):
                    out[r] += weight[r] * share[r] * (z[r] * z[r] - 1.0) * inverse * inverse
            row += 1
        for other in range(k):
            out, u, v = location_scale[i * k + other], location_score[i], scale_score[other]
            for r in range(m):
                out[r] = -weight[r] * u[r] * v[r]
            if other == i:
                for r in range(m):
                    out[r] += weight[r] * share[r] * z[r] * inverse * (z[r] * z[r] - 3.0)
        for other in range(k):
            out, v, v_other = scale_scale[i * k + other], scale_score[i], scale_score[other]
            for r in range(m):
                out[r] = -weight[r] * v[r] * v_other[r]
            if other == i:
                for r in range(m):
                    square = z[r] * z[r]
                    out[r] += weight[r] * share[r] * ((square - 1.0) * (square - 1.0) - 2.0 * square)


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _weighted_pairs(
    weight: np.ndarray, left: np.ndarray, right: np.ndarray, symmetric: bool, m: int, out: np.ndarray
) -> None:
    """Each w × left × right, for all pairs of channels, or those with l ≤ j of the same channels."""
    row = 0
    for j in range(left.shape[0]):
        one = left[j]
        for other in range(j + 1 if symmetric else right.shape[0]):
            pair, factor = out[row], right[other]
            for r in range(m):
                pair[r] = weight[r] * one[r] * factor[r]
            row += 1


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _channel_scores(
    weights: np.ndarray, responsibilities: np.ndarray, residual: np.ndarray, inverse_scale: np.ndarray, m: int
) -> None:
    """In place: weights ← r − π, responsibilities ← r z/σ, residual ← r (z² − 1)."""
    for i in range(weights.shape[0]):
        inverse = inverse_scale[i]
        pi, share, z = weights[i], responsibilities[i], residual[i]
        for r in range(m):
            pi[r] = share[r] - pi[r]
            part = share[r]
            share[r] = part * z[r] * inverse
            z[r] = part * (z[r] * z[r] - 1.0)


@compiled(error_model="numpy")
def _pair_sums(
    gate_design: np.ndarray,
    design: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    gate_coefficients: np.ndarray,
    coefficients: np.ndarray,
    log_scale: np.ndarray,
    same_design: bool,
    of_scores: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Σ_r (second derivative by a pair of channels) × (product of a pair of design columns), for all pairs.

    Of scores it is the product of the first derivatives by the two channels in place of the second one.
    """
    k, n = coefficients.shape[0], y.size
    q, p, free = gate_design.shape[0], design.shape[0], k - 1
    inverse_scale = np.exp(-log_scale)
    weights, responsibilities, residual = np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK))
    log_prob = np.empty(BLOCK)
    logits, location = np.empty((k, BLOCK)), np.empty((k, BLOCK))
    gate_gate, gate_location = np.empty((free * k // 2, BLOCK)), np.empty((free * k, BLOCK))
    location_location, gate_scale = np.empty((k * (k + 1) // 2, BLOCK)), np.empty((free * k, BLOCK))
    location_scale, scale_scale = np.empty((k * k, BLOCK)), np.empty((k * k, BLOCK))
    # Zeros, because a last block that is not full multiplies what stands here by zero.
    products = np.zeros((p * (p + 1) // 2, BLOCK))
    gate_products = products if same_design else np.zeros((q * (q + 1) // 2, BLOCK))
    mixed_products = products if same_design else np.zeros((q * p, BLOCK))
    block_design = np.zeros((p, BLOCK))
    block_gate_design = block_design if same_design else np.zeros((q, BLOCK))

    gate_gate_sum = np.zeros((gate_gate.shape[0], gate_products.shape[0]))
    gate_location_sum = np.zeros((gate_location.shape[0], mixed_products.shape[0]))
    location_location_sum = np.zeros((location_location.shape[0], products.shape[0]))
    gate_scale_sum, location_scale_sum = np.zeros((free * k, q)), np.zeros((k * k, p))
    scale_scale_sum = np.zeros(k * k)
    for low in range(0, n, BLOCK):
        m = min(BLOCK, n - low)
        linear_channels(gate_coefficients, gate_design, low, m, logits)
        linear_channels(coefficients, design, low, m, location)
        mixture_block(logits, location, log_scale, y[low : low + m], m, log_prob, weights, responsibilities, residual)
        row_weight = weight[low : low + m]
        if of_scores:
            _channel_scores(weights, responsibilities, residual, inverse_scale, m)
            gate_scores = weights[:free]
            _weighted_pairs(row_weight, gate_scores, gate_scores, True, m, gate_gate)
            _weighted_pairs(row_weight, gate_scores, responsibilities, False, m, gate_location)
            _weighted_pairs(row_weight, gate_scores, residual, False, m, gate_scale)
            _weighted_pairs(row_weight, responsibilities, responsibilities, True, m, location_location)
            _weighted_pairs(row_weight, responsibilities, residual, False, m, location_scale)
            _weighted_pairs(row_weight, residual, residual, False, m, scale_scale)
        else:
            _pair_channels(
                row_weight,
                weights,
                responsibilities,
                residual,
                inverse_scale,
                m,
                gate_gate,
                gate_location,
                gate_scale,
                location_location,
                location_scale,
                scale_scale,
            )
        row_products(design, design, low, m, True, products)
        copy_rows(design, low, m, block_design)
        if not same_design:
            row_products(gate_design, gate_design, low, m, True, gate_products)
            row_products(gate_design, design, low, m, False, mixed_products)
            copy_rows(gate_design, low, m, block_gate_design)
        if m < BLOCK:
            for channels in (gate_gate, gate_location, location_location, gate_scale, location_scale, scale_scale):
                clear_rows(channels, m)
        location_location_sum += np.dot(location_location, products.T)
        location_scale_sum += np.dot(location_scale, block_design.T)
        if free:
            gate_gate_sum += np.dot(gate_gate, gate_products.T)
            gate_location_sum += np.dot(gate_location, mixed_products.T)
            gate_scale_sum += np.dot(gate_scale, block_gate_design.T)
        for pair in range(k * k):
            scale_scale_sum[pair] += scale_scale[pair].sum()
    return (
        gate_gate_sum,
        gate_location_sum,
        location_location_sum,
        gate_scale_sum,
        location_scale_sum,
        scale_scale_sum,
    )


def linear_hessian(
    data: LinearPass, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
) -> np.ndarray:
    """The Hessian of Σ w ℓ by (gate rows 1 … k−1, expert rows, log-scales), the last gate row held fixed.

    Args:
        data: designs G (q, n) and Z (p, n), targets and weights.
        gate_coefficients: B (k, q).
        coefficients: A (k, p).
        log_scale: log σ (k,).

    Returns:
        A symmetric matrix of order (k − 1) q + k p + k.
    """
    return _pair_matrix(data, gate_coefficients, coefficients, log_scale, of_scores=False)


def linear_score_gram(
    data: LinearPass, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
) -> np.ndarray:
    """Σ w s sᵀ of the rows' scores s = ∇ℓ, by the same parameters and in the same order as `linear_hessian`."""
    return _pair_matrix(data, gate_coefficients, coefficients, log_scale, of_scores=True)


def _pair_matrix(
    data: LinearPass, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray, of_scores: bool
) -> np.ndarray:
    k, free = len(log_scale), len(log_scale) - 1
    q, p = len(data.gate_design), len(data.design)
    gate_gate, gate_location, location_location, gate_scale, location_scale, scale_scale = _pair_sums(
        data.gate_design,
        data.design,
        data.y,
        data.weight,
        gate_coefficients,
        coefficients,
        log_scale,
        data.same_design,
        of_scores,
    )
    if data.same_design:
        gate_location = unpack_columns(gate_location, p)
    gate, expert = slice(0, free * q), slice(free * q, free * q + k * p)
    scale = slice(free * q + k * p, free * q + k * p + k)
    hessian = np.empty((scale.stop, scale.stop))
    hessian[gate, gate] = unpack_symmetric(gate_gate, free, q)
    hessian[gate, expert] = gate_location.reshape(free, k, q, p).transpose(0, 2, 1, 3).reshape(free * q, k * p)
    hessian[gate, scale] = gate_scale.reshape(free, k, q).transpose(0, 2, 1).reshape(free * q, k)
    hessian[expert, expert] = unpack_symmetric(location_location, k, p)
    hessian[expert, scale] = location_scale.reshape(k, k, p).transpose(0, 2, 1).reshape(k * p, k)
    hessian[scale, scale] = scale_scale.reshape(k, k)
    hessian[expert, gate] = hessian[gate, expert].T
    hessian[scale, gate] = hessian[gate, scale].T
    hessian[scale, expert] = hessian[expert, scale].T
    return hessian
