"""From a block's output to one vector for each sample."""

from collections.abc import Callable

from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["POOLINGS", "Pooling", "pooling"]

Pooling = Callable[[Tensor, Tensor | None], Tensor]
"""Makes of a block's output (n, …) and the padding mask (n, T), or None, one vector each, (n, d)."""


def _mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Over tokens (n, T, d) that are no padding, or over all places of a map (n, d, …)."""
    if hidden.ndim == 2:
        return hidden
    if hidden.ndim > 3:
        return hidden.flatten(2).mean(2)
    if mask is None:
        return hidden.mean(1)
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)


def _first(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if hidden.ndim != 3:
        raise InputError(
            f'pool="cls" takes the first of the tokens (n, T, d), and the block gives {tuple(hidden.shape)}: take '
            '"mean", or a function of your own'
        )
    return hidden[:, 0]


POOLINGS: dict[str, Pooling] = {"auto": _mean, "mean": _mean, "cls": _first}
"""By name. "auto" is the mean, and of a vector the vector itself."""


def pooling(pool: str | Pooling) -> Pooling:
    """The pooling of that name, or the function itself.

    Raises:
        InputError: there is none of that name.

    Example:
        >>> import torch
        >>> pooling("mean")(torch.ones(2, 3, 4, 4), None).shape
        torch.Size([2, 3])
    """
    if callable(pool):
        return pool
    if pool not in POOLINGS:
        raise InputError(f"pool must be one of {', '.join(map(repr, POOLINGS))} or a function, not {shown(pool)}")
    return POOLINGS[pool]
