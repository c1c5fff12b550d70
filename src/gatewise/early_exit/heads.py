"""Heads: from one vector for each sample to the logits of the classes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["HEADS", "HeadMaker", "LinearHead", "make_heads"]

HeadMaker = Callable[[int, int], nn.Module]
"""Makes of a width d and C classes a module (n, d) ↦ (n, C)."""


class LinearHead(nn.Module):
    """z = W (x − μ)/σ + b, with μ and σ those of the training data.

    Args:
        d: the width of x.
        n_classes: C.

    Example:
        >>> head = LinearHead(3, 2)
        >>> head.standardise(torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 6.0]]))
        >>> head.shift, head(torch.zeros(5, 3)).shape
        (tensor([1., 1., 4.]), torch.Size([5, 2]))
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, d: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, n_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("shift", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))

    def standardise(self, x: Tensor) -> None:
        """Take μ and σ from x (n, d); where x does not vary, σ is 1."""
        scale, shift = torch.std_mean(x.float(), dim=0, correction=0)
        self.shift.copy_(shift)
        self.scale.copy_(torch.where(scale > 1e-6 * shift.abs().clamp_min(1e-6), scale, torch.ones_like(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, C) of x (n, d)."""
        return self.linear((x - self.shift) / self.scale)


def _norm_linear(d: int, n_classes: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(d), nn.Linear(d, n_classes))


HEADS: dict[str, HeadMaker] = {"linear": LinearHead, "norm_linear": _norm_linear}
"""Heads by name: `LinearHead`, and a layer norm before a linear map, as the paper's."""


def make_heads(head: str | HeadMaker | Sequence[nn.Module], widths: Sequence[int], n_classes: int) -> nn.ModuleList:
    """One head for each width.

    Args:
        head: a name of `HEADS`, a function that makes one, or the heads themselves.
        widths: d of each exit.
        n_classes: C.

    Raises:
        InputError: no such name, or another number of heads than exits.
    """
    if isinstance(head, str):
        if head not in HEADS:
            raise InputError(f"head must be one of {', '.join(map(repr, HEADS))} or a function, not {shown(head)}")
        head = HEADS[head]
    if callable(head):
        return nn.ModuleList(head(width, n_classes) for width in widths)
    if len(head) != len(widths):
        raise InputError(f"there are {len(head)} heads for {len(widths)} exits: give one for each")
    return nn.ModuleList(head)
