"""Log-space primitives whose value and gradient stay finite wherever a limit exists, at ±∞ too.

`torch.logsumexp` and `torch.log_softmax` have NaN gradients when a slice is −∞ throughout, which is what a sparse
gate or an impossible target produces. Here such a slice has the limit's value and shares the gradient equally.
"""

import torch
from torch import Tensor

__all__ = ["log_softmax", "logsumexp"]


def logsumexp(x: Tensor, dim: int = -1) -> Tensor:
    """Log Σ exp(x) along `dim`.

    A slice of −∞ gives −∞, one that holds +∞ gives +∞; their gradient is shared equally by the largest entries.

    Example:
        >>> x = torch.tensor([-torch.inf, -torch.inf], requires_grad=True)
        >>> logsumexp(x).backward()
        >>> x.grad
        tensor([0.5000, 0.5000])
    """
    top = x.amax(dim, keepdim=True)
    infinite = torch.isinf(top)
    shift = torch.where(infinite, torch.zeros_like(top), top).detach()
    shifted = torch.where(infinite, torch.zeros_like(x), x - shift)
    finite_value = shifted.exp().sum(dim, keepdim=True).log() + shift
    return torch.where(infinite, top, finite_value).squeeze(dim)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """X − logsumexp(x) along `dim`.

    A slice of −∞ throughout, or one that holds +∞, gives equal weights to its largest entries, with gradient 0.

    Example:
        >>> log_softmax(torch.tensor([-torch.inf, 0.0, 0.0])).exp()
        tensor([0.0000, 0.5000, 0.5000])
    """
    top = x.amax(dim, keepdim=True)
    infinite = torch.isinf(top)
    ties = (x == top).detach()
    equal_shares = torch.where(ties, -ties.sum(dim, keepdim=True).to(x.dtype).log(), -torch.inf)
    shifted = torch.where(infinite, torch.zeros_like(x), x - torch.where(infinite, torch.zeros_like(top), top).detach())
    ordinary = shifted - logsumexp(shifted, dim).unsqueeze(dim)
    return torch.where(infinite, equal_shares, ordinary)
