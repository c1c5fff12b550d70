"""The sum of the chosen adapters' changes, Σₖ w_tk s_e (B_e A_e u_t + c_e), without work for those not chosen."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gatewise.lora.places import Factors

__all__ = ["adapter_sum", "dense_sum"]

# Up to so many ranks in all, one product of all of them costs less than sorting the tokens (measured on a CPU).
_FEW_RANKS = 64


def adapter_sum(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors]) -> Tensor:
    """Every token's weighted sum of its adapters' changes.

    Tokens are sorted by adapter, and each adapter reads only its own. Where all adapters together have few ranks, A and
    B are concatenated and the ranks of adapters that were not chosen are multiplied by 0.

    Args:
        u: tokens (T, d), in the dtype of the adapters.
        weights: w (T, K).
        indices: e (T, K); no adapter twice for one token.
        adapters: E of them, of any ranks.

    Returns:
        (T, out), in the dtype that A u has.

    Example:
        >>> from torch import nn
        >>> scales = {"one": 0.5, "two": 1.0}
        >>> one = Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]]), None, "one", scales, nn.Identity())
        >>> two = Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0]]), None, "two", scales, nn.Identity())
        >>> u, weights = torch.tensor([[3.0, 5.0]]), torch.tensor([[0.25, 0.75]])
        >>> adapter_sum(u, weights, torch.tensor([[1, 0]]), [one, two])
        tensor([[3.5000]])
    """
    if len(u) == 1 and u.device.type == "cpu":
        return _one_token(u, weights, indices, adapters)
    plain = all(adapter.bias is None and not _drops(adapter) for adapter in adapters)
    ranks = sum(adapter.rank for adapter in adapters)
    if plain and (ranks <= _FEW_RANKS or u.is_meta):
        return _concatenated(u, weights, indices, adapters, ranks)
    return _sorted(u, weights, indices, adapters)


def dense_sum(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors]) -> Tensor:
    """The same with every adapter's change of every token: what the others are tested against."""
    share = weights.new_zeros(len(u), len(adapters)).scatter_add(-1, indices, weights) * _scaled(weights, adapters)
    share = share.to(u.dtype)
    changes = [_change(u, share[:, index : index + 1], adapter) for index, adapter in enumerate(adapters)]
    return torch.stack(changes).sum(0)


def _drops(adapter: Factors) -> bool:
    """Whether a dropout acts now: each adapter draws its own zeros, and so their products cannot be shared."""
    return adapter.dropout.training and isinstance(adapter.dropout, torch.nn.Dropout)


def _change(u: Tensor, weight: Tensor, adapter: Factors) -> Tensor:
    """B A u + c of tokens (n, d), times weights (n, 1) in which the adapter's scale is."""
    if adapter.dropout.training:
        u = adapter.dropout(u)
    # The weights multiply the ranks, of which there are fewer than outputs.
    change = functional.linear(functional.linear(u, adapter.down) * weight, adapter.up)
    return change if adapter.bias is None else change + weight * adapter.bias


def _one_token(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors]) -> Tensor:
    """The sum of a step of decoding, where nothing is to be sorted."""
    total: Tensor | None = None
    chosen = [adapters[index] for index in indices[0].tolist()]
    if not torch.is_grad_enabled() and not any(map(_drops, chosen)):
        # Weights as plain numbers take half as many operations, and here each is a good part of the time.
        for adapter, weight in zip(chosen, weights[0].tolist(), strict=True):
            change = functional.linear(functional.linear(u, adapter.down), adapter.up, adapter.bias)
            share = weight * adapter.scaling
            total = change * share if total is None else total.add_(change, alpha=share)
        assert total is not None
        return total
    for adapter, weight in zip(chosen, weights.to(u.dtype).unbind(1), strict=True):
        change = _change(u, weight * adapter.scaling, adapter)
        total = change if total is None else total + change
    assert total is not None
    return total


def _scaled(weights: Tensor, adapters: Sequence[Factors]) -> Tensor:
    """The adapters' scales (E,)."""
    return torch.tensor([adapter.scaling for adapter in adapters], device=weights.device, dtype=weights.dtype)


def _concatenated(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors], ranks: int) -> Tensor:
    share = weights.new_zeros(len(u), len(adapters)).scatter_add(-1, indices, weights)
    sizes = torch.tensor([adapter.rank for adapter in adapters], device=u.device)
    share = (share * _scaled(weights, adapters)).to(u.dtype).repeat_interleave(sizes, -1, output_size=ranks)
    low = functional.linear(u, torch.cat([adapter.down for adapter in adapters]))
    return functional.linear(low * share, torch.cat([adapter.up for adapter in adapters], 1))


def _sorted(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors]) -> Tensor:
    slots = indices.reshape(-1)
    order = slots.argsort(stable=True)
    counts = torch.bincount(slots, minlength=len(adapters)).tolist()
    used = [(adapter, count) for adapter, count in zip(adapters, counts, strict=True) if count]
    sizes = [count for _, count in used]
    rows = order.div(indices.shape[-1], rounding_mode="floor")
    shares = (weights * _scaled(weights, adapters)[indices]).to(u.dtype).reshape(-1).index_select(0, order)
    total: Tensor | None = None
    parts = zip(used, rows.split(sizes), shares.unsqueeze(1).split(sizes), strict=True)
    for (adapter, _), mine, share in parts:
        change = _change(u.index_select(0, mine), share, adapter)
        if total is None:
            total = change.new_zeros(len(u), change.shape[-1])
        # A token has an adapter once: no two of the rows are the same, and the bits are the same for any threads.
        total = total.index_add_(0, mine, change)
    return u.new_zeros(0, len(adapters[0].up)) if total is None else total
