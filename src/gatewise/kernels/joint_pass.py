"""The fused mixture pass for any family: gate logits and log-densities in, log-likelihood and its gradients out.

For one row with gate logits γᵢ and log-densities lᵢ = log f(y | expert i),

    ℓ = log Σᵢ exp(γᵢ + lᵢ) − log Σᵢ exp(γᵢ)         (normalised)
    ℓ = log Σᵢ exp(γᵢ + lᵢ)                           (joint: exp(γᵢ) is itself a density or a weight)
    πᵢ = exp(γᵢ) / Σⱼ exp(γⱼ),   rᵢ = exp(γᵢ + lᵢ) / Σⱼ exp(γⱼ + lⱼ)
    ∂ℓ/∂lᵢ = rᵢ,   ∂ℓ/∂γᵢ = rᵢ − πᵢ                  (joint: rᵢ).

Whoever has the chain rule from γᵢ and lᵢ to the parameters, autograd for one, has the gradient of any mixture for two
exponentials per row and expert and one logarithm per row. Arrays outside are row-major, (n, k), as modules give them;
inside a block they are channel-major, so that every loop over rows becomes vector instructions. Every sum is taken in a
fixed order, block by block, so that the result has the same bits whatever the number of threads.

At infinity the limits hold. An expert with logit −∞ has π = r = 0. A row whose largest logit is infinite shares its
weight equally among its largest logits. A row with γᵢ + lᵢ = −∞ for every i has ℓ = −∞ and r = π; one with +∞ has
ℓ = +∞ and shares r equally among those. NaN stays NaN. A row of weight 0 adds nothing to the value, even if ℓ = −∞.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gatewise.exceptions import InputError
from gatewise.kernels.compiled import compiled
from gatewise.kernels.mixture_pass import BLOCK, ELEMENTWISE, REDUCTION
from gatewise.kernels.vector_math import exp, log

__all__ = ["joint_pass", "joint_rows", "load_rows"]


# Up to four experts a strided loop over rows is a few vector shuffles; with more, walking through memory is faster.
@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def load_rows(rows: np.ndarray, low: int, m: int, out: np.ndarray) -> None:
    """out[i, r] = rows[low + r, i] for r < m."""
    k = out.shape[0]
    flat = rows[low : low + m].reshape(m * k)
    if k <= 4:
        for i in range(k):
            channel = out[i]
            for r in range(m):
                channel[r] = flat[r * k + i]
    else:
        for r in range(m):
            for i in range(k):
                out[i, r] = flat[r * k + i]


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _store_rows(channels: np.ndarray, low: int, m: int, rows: np.ndarray) -> None:
    """rows[low + r, i] = channels[i, r] for r < m."""
    k = channels.shape[0]
    flat = rows[low : low + m].reshape(m * k)
    if k <= 4:
        for i in range(k):
            channel = channels[i]
            for r in range(m):
                flat[r * k + i] = channel[r]
    else:
        for r in range(m):
            for i in range(k):
                flat[r * k + i] = channels[i, r]


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _tops(channels: np.ndarray, m: int, top: np.ndarray) -> bool:
    """top[r] = maxᵢ channels[i, r] for r < m; returns whether all of them are finite."""
    first = channels[0]
    for r in range(m):
        top[r] = first[r]
    for i in range(1, channels.shape[0]):
        channel = channels[i]
        for r in range(m):
            top[r] = channel[r] if channel[r] > top[r] else top[r]
    odd = 0
    for r in range(m):
        odd += 0 if top[r] - top[r] == 0.0 else 1
    return odd == 0


@compiled(error_model="numpy")
def _share_equally(channels: np.ndarray, m: int, top: np.ndarray) -> None:
    """In rows whose top is infinite: entries equal to it ↦ 0, smaller ones ↦ −∞, NaN stays; top ↦ 0."""
    for r in range(m):
        if np.isinf(top[r]):
            for i in range(channels.shape[0]):
                if channels[i, r] == top[r]:
                    channels[i, r] = 0.0
                elif channels[i, r] < top[r]:
                    channels[i, r] = -np.inf
            top[r] = 0.0


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _powers(channels: np.ndarray, m: int, top: np.ndarray, out: np.ndarray, total: np.ndarray) -> None:
    """out[i, r] = exp(channels[i, r] − top[r]) and their sum over i."""
    total[:m] = 0.0
    for i in range(channels.shape[0]):
        channel, power = channels[i], out[i]
        for r in range(m):
            value = exp(channel[r] - top[r])
            power[r] = value
            total[r] += value


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _joint_block(
    logits: np.ndarray,
    joint: np.ndarray,
    normalised: bool,
    with_weights: bool,
    m: int,
    log_prob: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """One block of m rows; all arrays have room for `BLOCK` rows.

    Args:
        logits: γ (k, ·); overwritten.
        joint: l (k, ·); overwritten.
        normalised: whether ℓ subtracts log Σ exp γ.
        with_weights: whether π is wanted where ℓ does not need it.
        m: the number of rows.
        log_prob: out, ℓ (·,).
        weights: out, π (k, ·); undefined if neither normalised nor wanted.
        responsibilities: out, r (k, ·).
        scratch: (4, ·).
    """
    k = logits.shape[0]
    gate_top, gate_sum, joint_top, joint_sum = scratch[0], scratch[1], scratch[2], scratch[3]
    if normalised:
        # First, so that γ − max γ is what l is added to: it is exact where γ alone would swamp l.
        if not _tops(logits, m, gate_top):
            _share_equally(logits, m, gate_top)
        for i in range(k):
            logit, term = logits[i], joint[i]
            for r in range(m):
                term[r] += logit[r] - gate_top[r]
    else:
        for i in range(k):
            logit, term = logits[i], joint[i]
            for r in range(m):
                term[r] += logit[r]
    ordinary = _tops(joint, m, joint_top)
    limit = joint_top
    if not ordinary:
        limit = joint_top.copy()
        _share_equally(joint, m, joint_top)
    _powers(joint, m, joint_top, responsibilities, joint_sum)
    with_weights = with_weights or normalised or not ordinary
    if with_weights and not normalised and not _tops(logits, m, gate_top):
        _share_equally(logits, m, gate_top)
    if with_weights:
        _powers(logits, m, gate_top, weights, gate_sum)
        for r in range(m):
            gate_sum[r] = 1.0 / gate_sum[r]
        for i in range(k):
            weight = weights[i]
            for r in range(m):
                weight[r] *= gate_sum[r]
    if normalised:
        for r in range(m):
            log_prob[r] = log(joint_sum[r] * gate_sum[r]) + joint_top[r]
    else:
        for r in range(m):
            log_prob[r] = log(joint_sum[r]) + joint_top[r]
    for r in range(m):
        joint_sum[r] = 1.0 / joint_sum[r]
    for i in range(k):
        share = responsibilities[i]
        for r in range(m):
            share[r] *= joint_sum[r]
    if not ordinary:
        for r in range(m):
            if np.isinf(limit[r]) and not np.isnan(log_prob[r]):
                log_prob[r] = limit[r]
                if limit[r] < 0.0:
                    for i in range(k):
                        responsibilities[i, r] = weights[i, r]


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _weigh(weight: np.ndarray, normalised: bool, m: int, weights: np.ndarray, responsibilities: np.ndarray) -> None:
    """In place: responsibilities ← w r, and if normalised weights ← w (r − π)."""
    for i in range(responsibilities.shape[0]):
        share = responsibilities[i]
        for r in range(m):
            share[r] *= weight[r]
        if normalised:
            gate = weights[i]
            for r in range(m):
                gate[r] = share[r] - weight[r] * gate[r]


@compiled(fastmath=REDUCTION)
def _weighted_sum(weight: np.ndarray, values: np.ndarray, m: int) -> float:
    """Σ_{r<m} weight_r values_r over the rows whose weight is not 0."""
    total = 0.0
    for r in range(m):
        total += 0.0 if weight[r] == 0.0 else weight[r] * values[r]
    return total


@compiled()
def _gradient_blocks(
    first: int,
    last: int,
    logits: np.ndarray,
    log_density: np.ndarray,
    weight: np.ndarray,
    normalised: bool,
    value: np.ndarray,
    logits_gradient: np.ndarray,
    density_gradient: np.ndarray,
) -> None:
    n, k = logits.shape
    gate, joint, weights, share = np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK))
    log_prob, scratch = np.empty(BLOCK), np.empty((4, BLOCK))
    for block in range(first, last):
        low = block * BLOCK
        m = min(BLOCK, n - low)
        row_weight = weight[low : low + m]
        load_rows(logits, low, m, gate)
        load_rows(log_density, low, m, joint)
        _joint_block(gate, joint, normalised, False, m, log_prob, weights, share, scratch)
        value[block] = _weighted_sum(row_weight, log_prob, m)
        _weigh(row_weight, normalised, m, weights, share)
        _store_rows(weights if normalised else share, low, m, logits_gradient)
        _store_rows(share, low, m, density_gradient)


@compiled()
def _row_blocks(
    first: int,
    last: int,
    logits: np.ndarray,
    log_density: np.ndarray,
    normalised: bool,
    log_prob: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
) -> None:
    n, k = logits.shape
    gate, joint, pi, share = np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK)), np.empty((k, BLOCK))
    scratch = np.empty((4, BLOCK))
    for block in range(first, last):
        low = block * BLOCK
        m = min(BLOCK, n - low)
        load_rows(logits, low, m, gate)
        load_rows(log_density, low, m, joint)
        _joint_block(gate, joint, normalised, True, m, log_prob[low : low + m], pi, share, scratch)
        _store_rows(pi, low, m, weights)
        _store_rows(share, low, m, responsibilities)


def _share_blocks(run: Callable[[int, int], None], n_rows: int, n_threads: int) -> None:
    """Call run(first, last) so that every block is in one range, on as many threads as asked for."""
    n_blocks = -(-n_rows // BLOCK)
    n_threads = min(n_threads, n_blocks)
    if n_threads <= 1:
        run(0, n_blocks)
        return
    edges = np.linspace(0, n_blocks, n_threads + 1).astype(int)
    with ThreadPoolExecutor(n_threads) as pool:
        for finished in [pool.submit(run, *edge) for edge in itertools.pairwise(edges)]:
            finished.result()


def _matching_rows(logits: np.ndarray, log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (n, k) arrays that compiled code may walk through.

    Raises:
        InputError: they do not have one shape (n, k): compiled code would read beyond an end.
    """
    if logits.ndim != 2 or logits.shape != log_density.shape:
        raise InputError(
            f"gate logits have shape {logits.shape} and log-densities {log_density.shape}: give one (n, k) for both"
        )
    return np.ascontiguousarray(logits, dtype=np.float64), np.ascontiguousarray(log_density, dtype=np.float64)


def joint_pass(
    logits: np.ndarray, log_density: np.ndarray, weight: np.ndarray, normalised: bool = True, n_threads: int = 1
) -> tuple[float, np.ndarray, np.ndarray]:
    """Σ_r w_r ℓ_r and its gradients.

    Args:
        logits: γ (n, k).
        log_density: l (n, k).
        weight: row weights (n,).
        normalised: whether the weights are the softmax of the logits; if not, exp(γ) as they are.
        n_threads: how many threads share the blocks; the result does not depend on it.

    Returns:
        The value, ∂/∂γ = w (r − π), or w r if not normalised, and ∂/∂l = w r, both (n, k).

    Raises:
        InputError: the shapes do not fit together.

    Example:
        >>> zero = np.zeros((1, 2))
        >>> joint_pass(zero, np.log([[0.1, 0.3]]), np.ones(1))[1]
        array([[-0.25,  0.25]])
    """
    logits, log_density = _matching_rows(logits, log_density)
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    if weight.shape != (len(logits),):
        raise InputError(f"row weights have shape {weight.shape}: give one number for each of the {len(logits)} rows")
    value = np.empty(-(-len(logits) // BLOCK))
    logits_gradient, density_gradient = np.empty_like(logits), np.empty_like(logits)

    def run(first: int, last: int) -> None:
        _gradient_blocks(first, last, logits, log_density, weight, normalised, value, logits_gradient, density_gradient)

    _share_blocks(run, len(logits), n_threads)
    return float(value.sum()), logits_gradient, density_gradient


def joint_rows(
    logits: np.ndarray, log_density: np.ndarray, normalised: bool = True, n_threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihoods ℓ (n,), weights π (n, k) and responsibilities r (n, k) of all rows.

    Args:
        logits: γ (n, k).
        log_density: l (n, k).
        normalised: whether ℓ and r are those of softmax weights; π is the softmax of the logits either way.
        n_threads: how many threads share the blocks; the result does not depend on it.

    Raises:
        InputError: the shapes do not fit together.

    Example:
        >>> joint_rows(np.zeros((1, 2)), np.log([[0.1, 0.3]]))[2]
        array([[0.25, 0.75]])
    """
    logits, log_density = _matching_rows(logits, log_density)
    log_prob, weights, responsibilities = np.empty(len(logits)), np.empty_like(logits), np.empty_like(logits)

    def run(first: int, last: int) -> None:
        _row_blocks(first, last, logits, log_density, normalised, log_prob, weights, responsibilities)

    _share_blocks(run, len(logits), n_threads)
    return log_prob, weights, responsibilities
