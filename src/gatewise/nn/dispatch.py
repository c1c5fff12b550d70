"""Tokens to their experts and back: y_t = Σⱼ w_tj f_e(t,j)(x_t), by four paths that agree."""

from typing import Literal, get_args

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.nn.arguments import one_of
from gatewise.nn.experts import NetworkBank
from gatewise.ops.readable import readable

__all__ = ["Dispatch", "dispatch", "grouped_is_possible"]

Dispatch = Literal["auto", "sorted", "grouped", "dense", "naive"]

# What `torch.nn.functional.grouped_mm` asks of rows, in bytes.
_ALIGNMENT = 16
_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def dispatch(bank: NetworkBank, x: Tensor, weights: Tensor, indices: Tensor, path: Dispatch = "auto") -> Tensor:
    """Every token's weighted sum of its experts' outputs.

    Args:
        bank: the experts.
        x: tokens (T, d).
        weights: w (T, K).
        indices: e (T, K) in int64.
        path: "sorted": tokens sorted by expert, one product for each expert that has some; "grouped": sorted, one
            grouped product for all, not in float64; "dense": every expert on every token, E/K times the work;
            "naive": a loop over experts that looks for its tokens. "auto" takes "grouped" on CUDA where it is possible,
            and "sorted" elsewhere, which is as fast on a CPU.

    Returns:
        (T, d) in the dtype of x. The weights multiply in the wider of both dtypes.

    Raises:
        InputError: there is no such path, or grouped products are not possible here; the shapes or dtypes do not fit
            each other; an index is none of an expert.

    Example:
        >>> from gatewise.nn import MLPBank
        >>> bank, x = MLPBank(n_experts=2, d=4, hidden=8), torch.ones(3, 4)
        >>> weights, indices = torch.full((3, 2), 0.5), torch.tensor([[0, 1]] * 3)
        >>> first, second = (network(x) for network in bank.networks())
        >>> torch.allclose(dispatch(bank, x, weights, indices), (first + second) / 2)
        True
    """
    one_of("the path", path, get_args(Dispatch))
    _check(bank, x, weights, indices)
    indices = indices.long()
    if path == "auto" and x.is_meta:
        # Without numbers there is nothing to sort by.
        path = "dense"
    if path == "auto":
        path = "grouped" if x.is_cuda and grouped_is_possible(bank, x) else "sorted"
    if path == "dense":
        return _dense(bank, x, weights, indices)
    if path == "naive":
        return _naive(bank, x, weights, indices)
    if path == "grouped" and not grouped_is_possible(bank, x):
        raise InputError(
            f"grouped products need float32, bfloat16 or float16 and rows of a multiple of {_ALIGNMENT} bytes; the "
            f"tokens are {x.dtype} with d = {bank.d} and hidden = {bank.hidden}: take path='sorted'"
        )
    return _sorted(bank, x, weights, indices, path == "grouped")


def grouped_is_possible(bank: NetworkBank, x: Tensor) -> bool:
    """Whether `torch.nn.functional.grouped_mm` takes these tokens and the bank's weights."""
    sizes = {size for weight in bank.weights() for size in weight.shape[1:]}
    aligned = all(size * x.element_size() % _ALIGNMENT == 0 for size in sizes)
    same = all(weight.dtype == x.dtype for weight in bank.weights())
    return hasattr(torch.nn.functional, "grouped_mm") and x.dtype in _GROUPED_DTYPES and aligned and same


def _check(bank: NetworkBank, x: Tensor, weights: Tensor, indices: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] != bank.d:
        raise InputError(f"tokens must be (T, {bank.d}), as the experts take them, not {tuple(x.shape)}")
    if indices.ndim != 2 or len(indices) != len(x) or weights.shape != indices.shape:
        raise InputError(
            f"weights and indices must both be (T, K) with T = {len(x)} tokens, not {tuple(weights.shape)} and "
            f"{tuple(indices.shape)}"
        )
    if indices.dtype not in (torch.int64, torch.int32):
        raise InputError(f"indices must be of int64, not {indices.dtype}")
    if indices.device.type == "cpu" and indices.numel() and readable(indices):
        least, most = (int(end) for end in indices.aminmax())
        if least < 0 or most >= bank.n_experts:
            raise InputError(f"indices must lie between 0 and {bank.n_experts - 1}, and they go from {least} to {most}")
    own = bank.weights()[0].dtype
    if x.dtype != own and not _is_cast(x, own):
        raise InputError(f"the tokens are {x.dtype} and the experts {own}: cast one of them, or run under autocast")


def _is_cast(x: Tensor, own: torch.dtype) -> bool:
    """Whether autocast brings tokens and weights to one dtype: it leaves float64 and whole numbers as they are."""
    device, double = x.device.type, torch.float64 in (x.dtype, own)
    available = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return available and x.is_floating_point() and not double


def _sorted(bank: NetworkBank, x: Tensor, weights: Tensor, indices: Tensor, grouped: bool) -> Tensor:
    n_slots = indices.shape[-1]
    experts = indices.reshape(-1)
    order = experts.argsort(stable=True)
    tokens = x[order // n_slots]
    counts = torch.bincount(experts, minlength=bank.n_experts)
    if grouped:
        found = bank.grouped(tokens, counts.cumsum(0).to(torch.int32))
    else:
        parts = tokens.split(counts.tolist())
        networks = bank.networks()
        pairs = zip(networks, parts, strict=True)
        # Without any token the first expert gets none, so that dtype and gradients are what they always are.
        found = torch.cat([network(part) for network, part in pairs if len(part)] or [networks[0](tokens)])
    # Back in the tokens' order and summed over the slots: no two threads add to one row, so that the bits are the same.
    back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    slots = found[back].reshape(len(x), n_slots, bank.d)
    return (slots * weights.unsqueeze(-1)).sum(1).to(found.dtype)


def _dense(bank: NetworkBank, x: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
    share = weights.new_zeros(len(x), bank.n_experts).scatter_add(-1, indices, weights)
    outputs = torch.stack([network(x) for network in bank.networks()], 1)
    return (outputs * share.unsqueeze(-1)).sum(1).to(outputs.dtype)


def _naive(bank: NetworkBank, x: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
    total = torch.zeros(len(x), bank.d, dtype=torch.promote_types(x.dtype, weights.dtype), device=x.device)
    dtype = x.dtype
    for expert, network in enumerate(bank.networks()):
        token, slot = (indices == expert).nonzero(as_tuple=True)
        found = network(x[token])
        dtype = found.dtype
        total = total.index_add(0, token, found * weights[token, slot].unsqueeze(-1))
    return total.to(dtype)
