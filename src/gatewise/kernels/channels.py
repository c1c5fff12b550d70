"""The exact Hessian of any family's mixture log-likelihood, where gate logits and locations are linear.

A row's log-likelihood ℓ depends on the parameters through channels: the gate logits γᵢ, and for each expert the m
numbers hᵢ of its location and its s dispersions. With Jᵢ = γᵢ + log fᵢ and gᵢ = ∇Jᵢ, which is 1 at expert i's own
logit, ∇log fᵢ at its own c = m + s channels and 0 elsewhere,

    ∇²ℓ = Σᵢ rᵢ (∇²log fᵢ + gᵢ gᵢᵀ) − (Σᵢ rᵢ gᵢ)(Σᵢ rᵢ gᵢ)ᵀ − (diag π − π πᵀ on the logits, if normalised)

because ℓ = log Σ exp Jᵢ − log Σ exp γᵢ and the Hessian of a log-sum-exp is the mean of ∇²Jᵢ plus the covariance of
∇Jᵢ under r. With channels γ = B G_r and hᵢ = Aᵢ Z_r the Hessian by the parameters is a weighted cross-product of the
designs for each pair of channels. (Checked against automatic differentiation.)
"""

import numpy as np

from gatewise.exceptions import InputError
from gatewise.kernels.compiled import compiled
from gatewise.kernels.joint_pass import load_rows
from gatewise.kernels.mixture_pass import BLOCK, ELEMENTWISE
from gatewise.kernels.products import (
    clear_rows,
    copy_rows,
    row_products,
    unpack_columns,
    unpack_symmetric,
    weighted_gram,
)

__all__ = ["channel_hessian", "fisher_gram"]

# Numbers in the arrays of one block: 32 MB.
_ROOM = 4_000_000
_SMALLEST_BLOCK = 16


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _weigh_scores(
    weight: np.ndarray, share: np.ndarray, m: int, n_channels: int, first: np.ndarray, second: np.ndarray
) -> None:
    """In place: first ← 0 and second ← 0 in rows where the expert has no part, else second ← w r second."""
    for i in range(share.shape[0]):
        part = share[i]
        for a in range(n_channels):
            score = first[i * n_channels + a]
            for r in range(m):
                # Where a density vanishes its derivatives need not exist, and 0 · ∞ is not 0.
                score[r] = 0.0 if part[r] == 0.0 or weight[r] == 0.0 else score[r]
        for pair in range(n_channels * n_channels):
            curvature = second[i * n_channels * n_channels + pair]
            for r in range(m):
                mass = weight[r] * part[r]
                curvature[r] = 0.0 if mass == 0.0 else mass * curvature[r]


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _gate_pairs(
    weight: np.ndarray, weights: np.ndarray, share: np.ndarray, normalised: bool, m: int, out: np.ndarray
) -> None:
    """Each w ∂²ℓ/∂γⱼ∂γₗ with l ≤ j."""
    row = 0
    for j in range(share.shape[0]):
        part, prior = share[j], weights[j]
        for other in range(j + 1):
            pair, part_other, prior_other = out[row], share[other], weights[other]
            if other == j:
                for r in range(m):
                    pair[r] = weight[r] * part[r] * (1.0 - part[r])
            else:
                for r in range(m):
                    pair[r] = -weight[r] * part[r] * part_other[r]
            if normalised and other == j:
                for r in range(m):
                    pair[r] -= weight[r] * prior[r] * (1.0 - prior[r])
            elif normalised:
                for r in range(m):
                    pair[r] += weight[r] * prior[r] * prior_other[r]
            row += 1


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _gate_expert_pairs(
    weight: np.ndarray,
    share: np.ndarray,
    first: np.ndarray,
    n_channels: int,
    begin: int,
    end: int,
    m: int,
    out: np.ndarray,
) -> None:
    """Each w ∂²ℓ/∂γⱼ∂(channel a of expert i), for all j and i and begin ≤ a < end."""
    k = share.shape[0]
    row = 0
    for j in range(k):
        for i in range(k):
            for a in range(begin, end):
                pair, own, part, score = out[row], share[j], share[i], first[i * n_channels + a]
                if i == j:
                    for r in range(m):
                        pair[r] = weight[r] * part[r] * score[r] * (1.0 - own[r])
                else:
                    for r in range(m):
                        pair[r] = -weight[r] * part[r] * score[r] * own[r]
                row += 1


@compiled(fastmath=ELEMENTWISE, error_model="numpy")
def _expert_pairs(
    weight: np.ndarray,
    share: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    n_channels: int,
    begin: int,
    end: int,
    begin_other: int,
    end_other: int,
    m: int,
    out: np.ndarray,
) -> None:
    """Each w ∂²ℓ by channel a of expert i and channel b of expert l, a and b in the two ranges.

    All pairs if the ranges differ, those with (l, b) ≤ (i, a) if they are the same.
    """
    k = share.shape[0]
    symmetric = begin == begin_other and end == end_other
    row = 0
    for i in range(k):
        for a in range(begin, end):
            for other in range(i + 1 if symmetric else k):
                for b in range(begin_other, a + 1 if symmetric and other == i else end_other):
                    pair, part, part_other = out[row], share[i], share[other]
                    score, score_other = first[i * n_channels + a], first[other * n_channels + b]
                    if other == i:
                        curvature = second[(i * n_channels + a) * n_channels + b]
                        for r in range(m):
                            spread = weight[r] * part[r] * (1.0 - part[r])
                            pair[r] = curvature[r] + spread * score[r] * score_other[r]
                    else:
                        for r in range(m):
                            pair[r] = -weight[r] * part[r] * score[r] * part_other[r] * score_other[r]
                    row += 1


@compiled(error_model="numpy")
def _add_products(channels: np.ndarray, products: np.ndarray, m: int, total: np.ndarray) -> None:
    """total[a, b] += Σ_{r<m} channels[a, r] products[b, r]."""
    clear_rows(channels, m)
    total += np.dot(channels, products.T)


@compiled(error_model="numpy")
def _channel_sums(
    gate_design: np.ndarray,
    design: np.ndarray,
    weight: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    n_outputs: int,
    normalised: bool,
    same_design: bool,
    block_rows: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Σ_r w_r (second derivative by a pair of channels) × (product of a pair of design columns), for all pairs."""
    n, k = responsibilities.shape
    n_channels = first.shape[1] // k
    q, p = gate_design.shape[0], design.shape[0]
    n_locations, n_dispersions = k * n_outputs, k * (n_channels - n_outputs)
    # In an array, because numba compiles a function anew for each place in which a literal stands.
    edges = np.array([0, n_outputs, n_channels])
    prior, share = np.empty((k, block_rows)), np.empty((k, block_rows))
    score, curvature = np.empty((k * n_channels, block_rows)), np.empty((k * n_channels * n_channels, block_rows))
    gate_gate = np.empty((k * (k + 1) // 2, block_rows))
    gate_location, gate_dispersion = np.empty((k * n_locations, block_rows)), np.empty((k * n_dispersions, block_rows))
    location_location = np.empty((n_locations * (n_locations + 1) // 2, block_rows))
    location_dispersion = np.empty((n_locations * n_dispersions, block_rows))
    dispersion_dispersion = np.empty((n_dispersions * (n_dispersions + 1) // 2, block_rows))
    # Zeros, because a last block that is not full multiplies what stands here by zero.
    products = np.zeros((p * (p + 1) // 2, block_rows))
    gate_products = products if same_design else np.zeros((q * (q + 1) // 2, block_rows))
    mixed_products = products if same_design else np.zeros((q * p, block_rows))
    block_design, block_gate_design = np.zeros((p, block_rows)), np.zeros((q, block_rows))
    ones = np.ones((1, block_rows))

    gate_gate_sum = np.zeros((gate_gate.shape[0], gate_products.shape[0]))
    gate_location_sum = np.zeros((gate_location.shape[0], mixed_products.shape[0]))
    location_location_sum = np.zeros((location_location.shape[0], products.shape[0]))
    gate_dispersion_sum = np.zeros((gate_dispersion.shape[0], q))
    location_dispersion_sum = np.zeros((location_dispersion.shape[0], p))
    dispersion_dispersion_sum = np.zeros((dispersion_dispersion.shape[0], 1))
    for low in range(0, n, block_rows):
        m = min(block_rows, n - low)
        row_weight = weight[low : low + m]
        load_rows(weights, low, m, prior)
        load_rows(responsibilities, low, m, share)
        load_rows(first, low, m, score)
        load_rows(second, low, m, curvature)
        _weigh_scores(row_weight, share, m, n_channels, score, curvature)
        _gate_pairs(row_weight, prior, share, normalised, m, gate_gate)
        _gate_expert_pairs(row_weight, share, score, n_channels, edges[0], edges[1], m, gate_location)
        _expert_pairs(
            row_weight,
            share,
            score,
            curvature,
            n_channels,
            edges[0],
            edges[1],
            edges[0],
            edges[1],
            m,
            location_location,
        )
        row_products(design, design, low, m, True, products)
        if not same_design:
            row_products(gate_design, gate_design, low, m, True, gate_products)
            row_products(gate_design, design, low, m, False, mixed_products)
        _add_products(gate_gate, gate_products, m, gate_gate_sum)
        _add_products(gate_location, mixed_products, m, gate_location_sum)
        _add_products(location_location, products, m, location_location_sum)
        if n_dispersions:
            _gate_expert_pairs(row_weight, share, score, n_channels, edges[1], edges[2], m, gate_dispersion)
            _expert_pairs(
                row_weight,
                share,
                score,
                curvature,
                n_channels,
                edges[0],
                edges[1],
                edges[1],
                edges[2],
                m,
                location_dispersion,
            )
            _expert_pairs(
                row_weight,
                share,
                score,
                curvature,
                n_channels,
                edges[1],
                edges[2],
                edges[1],
                edges[2],
                m,
                dispersion_dispersion,
            )
            copy_rows(design, low, m, block_design)
            copy_rows(gate_design, low, m, block_gate_design)
            _add_products(gate_dispersion, block_gate_design, m, gate_dispersion_sum)
            _add_products(location_dispersion, block_design, m, location_dispersion_sum)
            _add_products(dispersion_dispersion, ones, m, dispersion_dispersion_sum)
    return (
        gate_gate_sum,
        gate_location_sum,
        location_location_sum,
        gate_dispersion_sum,
        location_dispersion_sum,
        dispersion_dispersion_sum,
    )


def _block_rows(k: int, n_channels: int, q: int, p: int) -> int:
    """How many rows a block has: `BLOCK`, or fewer where many channels or columns would not fit in `_ROOM` numbers.

    It depends on the sizes of the model alone, so that the bits do too.
    """
    n_expert_channels = k * n_channels
    n_pairs = (k + n_expert_channels) * (k + n_expert_channels + 1) // 2 + k * n_channels * n_channels
    n_products = (q + p) * (q + p + 1) // 2
    return max(_SMALLEST_BLOCK, min(BLOCK, _ROOM // (n_pairs + n_products)))


def channel_hessian(
    gate_design: np.ndarray,
    design: np.ndarray,
    weight: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    n_outputs: int = 1,
    normalised: bool = True,
) -> np.ndarray:
    """The Hessian of Σ_r w_r ℓ_r by (B, A, dispersions), for γ = G Bᵀ and hᵢ = Z Aᵢᵀ with B (k, q) and A (k, m, p).

    It is a sum over rows: where the derivatives of all rows at once would fill the memory, add up chunks of rows.

    Args:
        gate_design: G (n, q); best with contiguous columns, otherwise it is copied.
        design: Z (n, p); likewise.
        weight: row weights (n,).
        weights: π (n, k); not used if not normalised.
        responsibilities: r (n, k).
        first: ∂ log fᵢ by expert i's own channels, location first, (n, k, c) with c = m + s. Where r or w is 0 it does
            not count and may be infinite or NaN; `second` too.
        second: second derivatives of log fᵢ by the same channels, (n, k, c, c).
        n_outputs: m, how many numbers a location has; the other c − m channels are dispersions, the same for all rows.
        normalised: whether ℓ is that of softmax weights; if not, of exp(γ) as it is.

    Returns:
        A symmetric matrix of order k q + k m p + k s, parameters flattened in this order. All k gate rows are there:
        with softmax weights only contrasts are identified, and the caller drops or projects.

    Raises:
        InputError: the shapes do not fit together.

    Example:
        >>> one, half = np.ones((1, 1)), np.full((1, 2), 0.5)
        >>> log_density_first, log_density_second = np.array([[[1.0], [-1.0]]]), np.full((1, 2, 1, 1), -1.0)
        >>> channel_hessian(one, one, one[0], half, half, log_density_first, log_density_second)
        array([[ 0.  ,  0.  ,  0.25,  0.25],
               [ 0.  ,  0.  , -0.25, -0.25],
               [ 0.25, -0.25, -0.25,  0.25],
               [ 0.25, -0.25,  0.25, -0.25]])
    """
    n, k = responsibilities.shape
    n_channels = first.shape[-1]
    n_dispersion = n_channels - n_outputs
    shapes = {
        "gate_design": (gate_design.shape[:1], (n,)),
        "design": (design.shape[:1], (n,)),
        "weight": (weight.shape, (n,)),
        "weights": (weights.shape, (n, k)),
        "first": (first.shape, (n, k, n_channels)),
        "second": (second.shape, (n, k, n_channels, n_channels)),
    }
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            raise InputError(f"{name} has shape {shape}: with responsibilities of shape {(n, k)} it must be {expected}")
    if not 1 <= n_outputs <= n_channels:
        raise InputError(f"n_outputs is {n_outputs}: it must lie between 1 and the {n_channels} channels of an expert")
    same_design = gate_design is design or np.array_equal(gate_design, design)
    columns = np.ascontiguousarray(design.T, dtype=np.float64)
    gate_columns = columns if same_design else np.ascontiguousarray(gate_design.T, dtype=np.float64)
    q, p = len(gate_columns), len(columns)
    gate_gate, gate_location, location_location, gate_dispersion, location_dispersion, dispersion_dispersion = (
        _channel_sums(
            gate_columns,
            columns,
            np.ascontiguousarray(weight, dtype=np.float64),
            np.ascontiguousarray(weights, dtype=np.float64),
            np.ascontiguousarray(responsibilities, dtype=np.float64),
            np.ascontiguousarray(first.reshape(n, k * n_channels), dtype=np.float64),
            np.ascontiguousarray(second.reshape(n, k * n_channels * n_channels), dtype=np.float64),
            n_outputs,
            normalised,
            same_design,
            _block_rows(k, n_channels, q, p),
        )
    )
    if same_design:
        gate_location = unpack_columns(gate_location, p)
    locations, dispersions = k * n_outputs, k * n_dispersion
    gate, location = slice(0, k * q), slice(k * q, k * q + locations * p)
    dispersion = slice(location.stop, location.stop + dispersions)
    hessian = np.empty((dispersion.stop, dispersion.stop))
    hessian[gate, gate] = unpack_symmetric(gate_gate, k, q)
    hessian[gate, location] = (
        gate_location.reshape(k, locations, q, p).transpose(0, 2, 1, 3).reshape(k * q, locations * p)
    )
    hessian[location, location] = unpack_symmetric(location_location, locations, p)
    hessian[gate, dispersion] = (
        gate_dispersion.reshape(k, dispersions, q).transpose(0, 2, 1).reshape(k * q, dispersions)
    )
    hessian[location, dispersion] = (
        location_dispersion.reshape(locations, dispersions, p).transpose(0, 2, 1).reshape(locations * p, dispersions)
    )
    hessian[dispersion, dispersion] = unpack_symmetric(dispersion_dispersion, dispersions, 1)
    hessian[location, gate] = hessian[gate, location].T
    hessian[dispersion, gate] = hessian[gate, dispersion].T
    hessian[dispersion, location] = hessian[location, dispersion].T
    return hessian


def fisher_gram(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ_r Z_r Z_rᵀ c_ri for each expert i, or Σ_r c_ri ⊗ Z_r Z_rᵀ with symmetric matrices c_ri (m, m).

    With c = w r × (expected information of the location) it is the matrix of an expert's step of iteratively
    reweighted least squares, for coefficients (m, p) flattened row by row.

    Args:
        design: Z (n, p).
        weights: c (n, k) or (n, k, m, m).

    Returns:
        (k, p, p) or (k, m p, m p).

    Example:
        >>> fisher_gram(np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]]))
        array([[[23.]]])
    """
    n, k = weights.shape[:2]
    p = design.shape[1]
    if weights.ndim == 2:
        return weighted_gram(design.T, weights.T)
    n_outputs = weights.shape[-1]
    first, second = np.tril_indices(n_outputs)
    channels = weights[:, :, first, second].reshape(n, -1).T
    grams = weighted_gram(design.T, channels).reshape(k, len(first), p, p)
    blocks = np.empty((k, n_outputs, n_outputs, p, p))
    blocks[:, first, second] = grams
    blocks[:, second, first] = grams
    return blocks.transpose(0, 1, 3, 2, 4).reshape(k, n_outputs * p, n_outputs * p)
