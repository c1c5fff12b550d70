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
    if len(adapters) == 1:
        return _change(u, adapters[0]) * (weights * adapters[0].scaling).to(u.dtype)
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
    changes = torch.stack([_change(u, adapter) for adapter in adapters], 1)
    return (changes * share.to(u.dtype).unsqueeze(-1)).sum(1)


def _drops(adapter: Factors) -> bool:
    """Whether a dropout acts now: each adapter draws its own zeros, and so their products cannot be shared."""
    return adapter.dropout.training and isinstance(adapter.dropout, torch.nn.Dropout)


def _scaled(weights: Tensor, adapters: Sequence[Factors]) -> Tensor:
    """The adapters' scales (E,)."""
    return torch.tensor([adapter.scaling for adapter in adapters], device=weights.device, dtype=weights.dtype)


def _change(u: Tensor, adapter: Factors) -> Tensor:
    """B A u + c of tokens (n, d), without the scale."""
    if adapter.dropout.training:
        u = adapter.dropout(u)
    return functional.linear(functional.linear(u, adapter.down), adapter.up, adapter.bias)


def _one_token(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors]) -> Tensor:
    """The sum of a step of decoding, where nothing is to be sorted."""
    chosen = [adapters[index] for index in indices[0].tolist()]
    if torch.is_grad_enabled():
        shares = weights.to(u.dtype).unbind(1)
        changes = [
            _change(u, adapter) * (share * adapter.scaling) for adapter, share in zip(chosen, shares, strict=True)
        ]
        return torch.stack(changes).sum(0)
    # Weights as plain numbers take half as many operations, and here each is a good part of the time.
    total = u.new_zeros(1, len(chosen[0].up))
    for adapter, weight in zip(chosen, weights[0].tolist(), strict=True):
        total.add_(_change(u, adapter), alpha=weight * adapter.scaling)
    return total


def _concatenated(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors], ranks: int) -> Tensor:
    # Tokens lie along the rows here: a rank's weights are then one row, which is quick to copy and to multiply by.
    share = weights.new_zeros(len(adapters), len(u)).scatter_add(0, indices.T, weights.T)
    share = (share * _scaled(weights, adapters).unsqueeze(1)).to(u.dtype)
    sizes = torch.tensor([adapter.rank for adapter in adapters], device=u.device)
    low = torch.cat([adapter.down for adapter in adapters]) @ u.T
    low = low * share.repeat_interleave(sizes, 0, output_size=ranks)
    return functional.linear(low.T, torch.cat([adapter.up for adapter in adapters], 1))


def _sorted(u: Tensor, weights: Tensor, indices: Tensor, adapters: Sequence[Factors]) -> Tensor:
    slots = indices.reshape(-1)
    order = slots.argsort(stable=True)
    counts = torch.bincount(slots, minlength=len(adapters)).tolist()
    used = [(adapter, count) for adapter, count in zip(adapters, counts, strict=True) if count]
    if not used:
        return u.new_zeros(0, len(adapters[0].up))
    # The sorted tokens are not kept while their changes are summed: both are K times as many as the tokens.
    changes = _changes(
        u.index_select(0, order.div(indices.shape[-1], rounding_mode="floor")),
        [adapter for adapter, _ in used],
        [count for _, count in used],
    )
    shares = weights * _scaled(weights, adapters).index_select(0, slots).view_as(weights)
    # Where each slot's change lies: to read K rows for a token costs less than to add to the token's row K times.
    places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return functional.embedding_bag(
        places.view_as(indices), changes, mode="sum", per_sample_weights=shares.to(u.dtype).contiguous()
    )


def _changes(tokens: Tensor, adapters: Sequence[Factors], sizes: Sequence[int]) -> Tensor:
    """The changes of tokens that are sorted by adapter, so many for each."""
    parts = tokens.split(sizes)
    if torch.is_grad_enabled():
        return torch.cat([_change(part, adapter) for part, adapter in zip(parts, adapters, strict=True)])
    found = tokens.new_empty(len(tokens), len(adapters[0].up))
    for part, adapter, mine in zip(parts, adapters, found.split(sizes), strict=True):
        # A u with the tokens along the rows: a product with so few columns as A has rows is slow.
        low = torch.mm(adapter.down, (adapter.dropout(part) if adapter.dropout.training else part).t())
        torch.mm(low.t(), adapter.up.t(), out=mine)
        if adapter.bias is not None:
            mine += adapter.bias
    return found
