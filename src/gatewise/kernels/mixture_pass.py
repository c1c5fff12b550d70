"""The fused mixture pass on a block of rows, compiled: log-likelihood, responsibilities and gradients in one sweep.

For one row with gate logits γᵢ, locations μᵢ, scales σᵢ and target y,

    ℓ = log Σᵢ exp(γᵢ + log f(y | μᵢ, σᵢ)) − log Σᵢ exp(γᵢ),
    rᵢ = πᵢ fᵢ / Σⱼ πⱼ fⱼ                                      (responsibilities)
    ∂ℓ/∂γᵢ = rᵢ − πᵢ,   ∂ℓ/∂μᵢ = rᵢ zᵢ / σᵢ,   ∂ℓ/∂log σᵢ = rᵢ (zᵢ² − 1),   zᵢ = (y − μᵢ)/σᵢ,

so two exponentials per row and expert and one logarithm per row are all the transcendental work. Arrays here are
channel-major, (k, rows): each loop runs over rows and becomes vector instructions, and a block of `BLOCK` rows stays
in the first-level cache. Every sum is taken in a fixed order, block by block, so that the result has the same bits
whatever the number of threads.
"""

import math

import numpy as np

from gatewise.kernels.compiled import compiled
from gatewise.kernels.vector_math import exp, log

__all__ = ["BLOCK", "dot_rows", "mixture_block", "weighted_sum"]

BLOCK = 256
HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)
# Contraction (fused multiply-add) is safe everywhere; reassociation only where a loop does nothing but add up.
ELEMENTWISE = {"contract"}
REDUCTION = {"contract", "reassoc"}
# Every elementwise loop also has numpy's error model: Python's would test each divisor for zero and so stay scalar.


# Arrays are passed whole with a range of rows: a slice of a two-dimensional array has strides that the compiler cannot
# know, and a loop over unknown strides does not become vector instructions. A single row of one does.
@compiled(fastmath=REDUCTION)
def dot_rows(channels: np.ndarray, design: np.ndarray, low: int, m: int, out: np.ndarray) -> None:
    """out[i, j] = Σ_{r<m} channels[i, r] design[j, low + r], four channels at a time to load the design once."""
    k = channels.shape[0]
    for j in range(design.shape[0]):
        column = design[j, low : low + m]
        i = 0
        while i + 3 < k:
            c0, c1, c2, c3 = channels[i], channels[i + 1], channels[i + 2], channels[i + 3]
            s0 = s1 = s2 = s3 = 0.0
            for r in range(m):
                s0 += c0[r] * column[r]
                s1 += c1[r] * column[r]
                s2 += c2[r] * column[r]
                s3 += c3[r] * column[r]
            out[i, j], out[i + 1, j], out[i + 2, j], out[i + 3, j] = s0, s1, s2, s3
            i += 4
        while i < k:
            c0 = channels[i]
            s0 = 0.0
            for r in range(m):
                s0 += c0[r] * column[r]
            out[i, j] = s0
            i += 1


@compiled(fastmath=REDUCTION)
def weighted_sum(weight: np.ndarray, values: np.ndarray, m: int) -> float:
    """Σ_{r<m} weight_r values_r."""
    total = 0.0
    for r in range(m):
        total += weight[r] * values[r]
    return total


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def mixture_block(
    logits: np.ndarray,
    location: np.ndarray,
    log_scale: np.ndarray,
    y: np.ndarray,
    m: int,
    log_prob: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    residual: np.ndarray,
) -> None:
    """One block of m rows under a Gaussian family; all arrays have room for `BLOCK` rows.

    Args:
        logits: γ (k, ·).
        location: μ (k, ·).
        log_scale: log σ (k,).
        y: targets (m,).
        m: the number of rows.
        log_prob: out, ℓ (·,).
        weights: out, π (k, ·).
        responsibilities: out, r (k, ·). A row with density 0 under every expert gets r = π and ℓ = −∞.
        residual: out, z (k, ·).
    """
    # Short loops on purpose: the compiler gives up on one that needs more than eight checks for overlapping arrays.
    k = logits.shape[0]
    gate_top = np.empty(m)
    first = logits[0]
    joint_top = np.full(m, -np.inf)
    gate_sum = np.zeros(m)
    joint_sum = np.zeros(m)
    for r in range(m):
        gate_top[r] = first[r]
    for i in range(1, k):
        logit = logits[i]
        for r in range(m):
            gate_top[r] = logit[r] if logit[r] > gate_top[r] else gate_top[r]
    for i in range(k):
        logit, weight = logits[i], weights[i]
        for r in range(m):
            centred = logit[r] - gate_top[r]
            weight[r] = centred
            power = exp(centred)
            logit[r] = power
            gate_sum[r] += power
    for i in range(k):
        inverse = math.exp(-log_scale[i])
        shift = log_scale[i]
        mean, weight, joint, z = location[i], weights[i], responsibilities[i], residual[i]
        for r in range(m):
            z[r] = (y[r] - mean[r]) * inverse
        for r in range(m):
            joint[r] = weight[r] - 0.5 * z[r] * z[r] - shift
            joint_top[r] = joint[r] if joint[r] > joint_top[r] else joint_top[r]
    for i in range(k):
        joint = responsibilities[i]
        for r in range(m):
            power = exp(joint[r] - joint_top[r])
            joint[r] = power
            joint_sum[r] += power
    for r in range(m):
        gate_sum[r] = 1.0 / gate_sum[r]
        log_prob[r] = log(joint_sum[r] * gate_sum[r]) + joint_top[r] - HALF_LOG_2_PI
        joint_sum[r] = 1.0 / joint_sum[r]
    for i in range(k):
        logit, weight, share = logits[i], weights[i], responsibilities[i]
        for r in range(m):
            weight[r] = logit[r] * gate_sum[r]
            share[r] *= joint_sum[r]
    for r in range(m):
        if joint_top[r] == -np.inf:
            log_prob[r] = -np.inf
            for i in range(k):
                responsibilities[i, r] = weights[i, r]
