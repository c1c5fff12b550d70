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
evaluation costs a few matrix products.
"""

import numpy as np
from numba import njit

from gatewise.ops.linear_pass import LinearPass, linear_channels
from gatewise.ops.mixture_pass import BLOCK, ELEMENTWISE, mixture_block

__all__ = ["gate_information", "linear_hessian", "linear_responsibilities", "row_products", "weighted_gram"]

# Rows per matrix product: the pair channels and the products of the design columns stay in the second-level cache.
ROWS = 2 * BLOCK


@njit(cache=True, nogil=True, error_model="numpy")
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
        weights[:, start : start + m] = block_weights[:, :m]
        responsibilities[:, start : start + m] = block_share[:, :m]
        residual[:, start : start + m] = block_residual[:, :m]
        log_prob[start : start + m] = block_log_prob[:m]


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


@njit(cache=True, nogil=True, fastmath=ELEMENTWISE, error_model="numpy")
def row_products(left: np.ndarray, right: np.ndarray, low: int, m: int, symmetric: bool, out: np.ndarray) -> None:
    """Products of design columns: out[(i, j), r] = left[i, low + r] right[j, low + r], j ≤ i only if symmetric."""
    row = 0
    for i in range(left.shape[0]):
        a = left[i, low : low + m]
        for j in range(i + 1 if symmetric else right.shape[0]):
            b = right[j, low : low + m]
            product = out[row]
            for r in range(m):
                product[r] = a[r] * b[r]
            row += 1


@njit(cache=True, nogil=True, fastmath=ELEMENTWISE, error_model="numpy")
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


def _unpack_symmetric(sums: np.ndarray, channels: int, columns: int) -> np.ndarray:
    """(pairs of channels, pairs of columns) ↦ the symmetric matrix (channels·columns, channels·columns)."""
    rows, cols = np.tril_indices(channels)
    first, second = np.tril_indices(columns)
    blocks = np.empty((channels, channels, columns, columns))
    block = np.empty((len(sums), columns, columns))
    block[:, first, second] = sums
    block[:, second, first] = sums
    blocks[rows, cols] = block
    blocks[cols, rows] = block
    return blocks.transpose(0, 2, 1, 3).reshape(channels * columns, channels * columns)


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
    k, n = len(log_scale), data.y.size
    q, p = len(data.gate_design), len(data.design)
    free = k - 1
    inverse_scale = np.exp(-log_scale)
    weights, responsibilities, residual = (np.empty((k, ROWS)) for _ in range(3))
    log_prob = np.empty(ROWS)
    pairs = {
        "gate_gate": np.empty((free * k // 2, ROWS)),
        "gate_location": np.empty((free * k, ROWS)),
        "gate_scale": np.empty((free * k, ROWS)),
        "location_location": np.empty((k * (k + 1) // 2, ROWS)),
        "location_scale": np.empty((k * k, ROWS)),
        "scale_scale": np.empty((k * k, ROWS)),
    }
    gate_products = np.empty((q * (q + 1) // 2, ROWS))
    mixed_products = np.empty((q * p, ROWS))
    products = np.empty((p * (p + 1) // 2, ROWS))
    gate_gate = np.zeros((free * k // 2, len(gate_products)))
    gate_location = np.zeros((free * k, len(mixed_products)))
    gate_scale = np.zeros((free * k, q))
    location_location = np.zeros((k * (k + 1) // 2, len(products)))
    location_scale = np.zeros((k * k, p))
    scale_scale = np.zeros(k * k)
    for low in range(0, n, ROWS):
        m = min(ROWS, n - low)
        _evaluate_rows(
            data.gate_design,
            data.design,
            data.y,
            gate_coefficients,
            coefficients,
            log_scale,
            low,
            m,
            weights,
            responsibilities,
            residual,
            log_prob,
        )
        _pair_channels(
            data.weight[low : low + m], weights, responsibilities, residual, inverse_scale, m, *pairs.values()
        )
        if free:
            row_products(data.gate_design, data.gate_design, low, m, True, gate_products)
            row_products(data.gate_design, data.design, low, m, False, mixed_products)
            gate_gate += pairs["gate_gate"][:, :m] @ gate_products[:, :m].T
            gate_location += pairs["gate_location"][:, :m] @ mixed_products[:, :m].T
            gate_scale += pairs["gate_scale"][:, :m] @ data.gate_design[:, low : low + m].T
        row_products(data.design, data.design, low, m, True, products)
        location_location += pairs["location_location"][:, :m] @ products[:, :m].T
        location_scale += pairs["location_scale"][:, :m] @ data.design[:, low : low + m].T
        scale_scale += pairs["scale_scale"][:, :m].sum(axis=1)

    gate, expert = slice(0, free * q), slice(free * q, free * q + k * p)
    scale = slice(free * q + k * p, free * q + k * p + k)
    hessian = np.empty((scale.stop, scale.stop))
    hessian[gate, gate] = _unpack_symmetric(gate_gate, free, q)
    hessian[gate, expert] = gate_location.reshape(free, k, q, p).transpose(0, 2, 1, 3).reshape(free * q, k * p)
    hessian[gate, scale] = gate_scale.reshape(free, k, q).transpose(0, 2, 1).reshape(free * q, k)
    hessian[expert, expert] = _unpack_symmetric(location_location, k, p)
    hessian[expert, scale] = location_scale.reshape(k, k, p).transpose(0, 2, 1).reshape(k * p, k)
    hessian[scale, scale] = scale_scale.reshape(k, k)
    hessian[expert, gate] = hessian[gate, expert].T
    hessian[scale, gate] = hessian[gate, scale].T
    hessian[scale, expert] = hessian[expert, scale].T
    return hessian


def weighted_gram(design: np.ndarray, channel_weights: np.ndarray) -> np.ndarray:
    """Σ_r c_ir Z_r Z_rᵀ for each channel i: (c, n) weights and a (p, n) design ↦ (c, p, p)."""
    channels, n = channel_weights.shape
    p = len(design)
    products = np.empty((p * (p + 1) // 2, ROWS))
    sums = np.zeros((channels, len(products)))
    for low in range(0, n, ROWS):
        m = min(ROWS, n - low)
        row_products(design, design, low, m, True, products)
        sums += channel_weights[:, low : low + m] @ products[:, :m].T
    first, second = np.tril_indices(p)
    gram = np.empty((channels, p, p))
    gram[:, first, second] = sums
    gram[:, second, first] = sums
    return gram


def gate_information(gate_design: np.ndarray, weights: np.ndarray, row_weight: np.ndarray) -> np.ndarray:
    """Σ_r w_r (diag π − π πᵀ) ⊗ G_r G_rᵀ over the first k − 1 experts: the softmax's own curvature, (k−1)q square."""
    k = len(weights)
    rows, cols = np.tril_indices(k - 1)
    pairs = -weights[rows] * weights[cols] * row_weight
    pairs[rows == cols] += weights[: k - 1] * row_weight
    first, second = np.tril_indices(len(gate_design))
    return _unpack_symmetric(weighted_gram(gate_design, pairs)[:, first, second], k - 1, len(gate_design))
