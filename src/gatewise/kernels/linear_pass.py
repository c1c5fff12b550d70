"""The fused pass for channels that are linear in the parameters: γ = B G and μ = A Z, block by block.

The gate's design G is (q, n) and the experts' Z is (p, n), channel-major and with a row of ones where there is an
intercept. One call evaluates a range of blocks and stores each block's sums in a slot of its own; `sum_blocks` adds
the slots in order. The caller may hand different ranges to different threads: the bits do not change.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gatewise.kernels.compiled import compiled
from gatewise.kernels.mixture_pass import BLOCK, ELEMENTWISE, REDUCTION, dot_rows, mixture_block, weighted_sum

__all__ = ["LinearPass", "linear_channels"]


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def linear_channels(coefficients: np.ndarray, design: np.ndarray, low: int, m: int, out: np.ndarray) -> None:
    """out[i, r] = Σ_j coefficients[i, j] design[j, low + r] for r < m, four terms at a time."""
    k, p = coefficients.shape
    for i in range(k):
        channel = out[i]
        first = design[0, low : low + m]
        b0 = coefficients[i, 0]
        for r in range(m):
            channel[r] = b0 * first[r]
        j = 1
        while j + 3 < p:
            b0, b1 = coefficients[i, j], coefficients[i, j + 1]
            b2, b3 = coefficients[i, j + 2], coefficients[i, j + 3]
            x0, x1 = design[j, low : low + m], design[j + 1, low : low + m]
            x2, x3 = design[j + 2, low : low + m], design[j + 3, low : low + m]
            for r in range(m):
                channel[r] += b0 * x0[r] + b1 * x1[r] + b2 * x2[r] + b3 * x3[r]
            j += 4
        while j < p:
            b0 = coefficients[i, j]
            x0 = design[j, low : low + m]
            for r in range(m):
                channel[r] += b0 * x0[r]
            j += 1


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _scores(
    weight: np.ndarray,
    inverse_scale: np.ndarray,
    m: int,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    residual: np.ndarray,
) -> None:
    """In place: weights ← w (r − π), responsibilities ← w r z/σ, residual ← w r (z² − 1)."""
    for i in range(weights.shape[0]):
        inverse = inverse_scale[i]
        gate_score, location_score, scale_score = weights[i], responsibilities[i], residual[i]
        for r in range(m):
            share = weight[r] * location_score[r]
            z = scale_score[r]
            gate_score[r] = share - weight[r] * gate_score[r]
            location_score[r] = share * z * inverse
            scale_score[r] = share * (z * z - 1.0)


@compiled(fastmath=REDUCTION)
def _row_sums(channels: np.ndarray, m: int, out: np.ndarray) -> None:
    for i in range(channels.shape[0]):
        channel = channels[i]
        total = 0.0
        for r in range(m):
            total += channel[r]
        out[i] = total


@compiled()
def _evaluate_blocks(
    first: int,
    last: int,
    gate_design: np.ndarray,
    design: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    gate_coefficients: np.ndarray,
    coefficients: np.ndarray,
    log_scale: np.ndarray,
    value: np.ndarray,
    gate_gradient: np.ndarray,
    gradient: np.ndarray,
    scale_gradient: np.ndarray,
) -> None:
    k = coefficients.shape[0]
    n = y.size
    logits, location = np.empty((k, BLOCK)), np.empty((k, BLOCK))
    weights, responsibilities, residual = np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK))
    log_prob = np.empty(BLOCK)
    inverse_scale = np.exp(-log_scale)
    for block in range(first, last):
        low = block * BLOCK
        m = min(BLOCK, n - low)
        row_weight = weight[low : low + m]
        linear_channels(gate_coefficients, gate_design, low, m, logits)
        linear_channels(coefficients, design, low, m, location)
        mixture_block(logits, location, log_scale, y[low : low + m], m, log_prob, weights, responsibilities, residual)
        value[block] = weighted_sum(row_weight, log_prob, m)
        _scores(row_weight, inverse_scale, m, weights, responsibilities, residual)
        dot_rows(weights, gate_design, low, m, gate_gradient[block])
        dot_rows(responsibilities, design, low, m, gradient[block])
        _row_sums(residual, m, scale_gradient[block])


class LinearPass:
    """(B, A, log σ) ↦ Σ_r w_r ℓ_r and its gradient, for γ = B G and μ = A Z on fixed data.

    Args:
        gate_design: G (q, n), channel-major.
        design: Z (p, n), channel-major.
        y: targets (n,).
        weight: row weights (n,).
        n_threads: how many threads share the blocks; the result does not depend on it.
    """

    def __init__(
        self, gate_design: np.ndarray, design: np.ndarray, y: np.ndarray, weight: np.ndarray, n_threads: int = 1
    ) -> None:
        self.gate_design = np.ascontiguousarray(gate_design, dtype=np.float64)
        self.design = np.ascontiguousarray(design, dtype=np.float64)
        self.same_design = gate_design is design or np.array_equal(self.gate_design, self.design)
        self.y = np.ascontiguousarray(y, dtype=np.float64)
        self.weight = np.ascontiguousarray(weight, dtype=np.float64)
        self.n_blocks = -(-self.y.size // BLOCK)
        self.n_threads = max(1, min(n_threads, self.n_blocks))

    def __call__(
        self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """The weighted log-likelihood and its gradients by B (k, q), A (k, p) and log σ (k,)."""
        k = len(log_scale)
        value = np.empty(self.n_blocks)
        gate_gradient = np.empty((self.n_blocks, k, len(self.gate_design)))
        gradient = np.empty((self.n_blocks, k, len(self.design)))
        scale_gradient = np.empty((self.n_blocks, k))

        def run(first: int, last: int) -> None:
            _evaluate_blocks(
                first,
                last,
                self.gate_design,
                self.design,
                self.y,
                self.weight,
                gate_coefficients,
                coefficients,
                log_scale,
                value,
                gate_gradient,
                gradient,
                scale_gradient,
            )

        if self.n_threads == 1:
            run(0, self.n_blocks)
        else:
            edges = np.linspace(0, self.n_blocks, self.n_threads + 1).astype(int)
            with ThreadPoolExecutor(self.n_threads) as pool:
                for finished in [pool.submit(run, *edge) for edge in itertools.pairwise(edges)]:
                    finished.result()
        return float(value.sum()), gate_gradient.sum(0), gradient.sum(0), scale_gradient.sum(0)
