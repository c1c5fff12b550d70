"""One temperature for each exit: the calibration that every policy can share."""

import torch
from torch import Tensor

from gatewise.early_exit.outputs import ExitLogits

__all__ = ["temperatures"]

_STEPS = 60
_WIDEST = 5.0


def temperatures(outputs: ExitLogits) -> Tensor:
    """T (L,), of each exit the minimiser of the mean cross-entropy of softmax(z/T) (Guo et al. 2017, arXiv:1706.04599).

    In s = log 1/T the cross-entropy falls and then rises, so a golden-section search over |s| ≤ 5 finds it.

    Args:
        outputs: of data that the heads were not trained on, with classes.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.randint(2, (4000,), generator=generator)
        >>> z = torch.nn.functional.one_hot(y, 2) + torch.randn(4000, 2, generator=generator)
        >>> float(temperatures(ExitLogits(3.0 * z[:, None], y)).round(decimals=0))
        3.0
    """
    logits, y = outputs.logits.double(), outputs.labels()
    target = y[:, None, None].expand(-1, outputs.n_exits, 1)

    def loss(s: Tensor) -> Tensor:
        return -torch.log_softmax(logits * s.exp()[None, :, None], -1).gather(-1, target).mean((0, 2))

    ratio = (5.0**0.5 - 1.0) / 2.0
    low = torch.full((outputs.n_exits,), -_WIDEST, dtype=torch.float64)
    high = -low
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        smaller = at_left < at_right
        low, high = torch.where(smaller, low, left), torch.where(smaller, right, high)
        new = torch.where(smaller, high - ratio * (high - low), low + ratio * (high - low))
        at_new = loss(new)
        left, right = torch.where(smaller, new, right), torch.where(smaller, left, new)
        at_left, at_right = torch.where(smaller, at_new, at_right), torch.where(smaller, at_left, at_new)
    return (-(low + high) / 2.0).exp().to(outputs.logits.dtype)
