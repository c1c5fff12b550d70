"""What a router did with some tokens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.nn.selection import Selection

__all__ = ["Routing"]


@dataclass(frozen=True)
class Routing:
    """What a router did with T tokens.

    Attributes:
        logits: z (T, E).
        weights: (T, K).
        indices: (T, K).
        selection: how they were chosen.
        normalised: whether the gate's own weights are the softmax of its logits.
    """

    logits: Tensor
    weights: Tensor
    indices: Tensor
    selection: Selection
    normalised: bool = True

    @property
    def n_experts(self) -> int:
        """E."""
        return self.logits.shape[-1]

    @property
    def log_scores(self) -> Tensor:
        """Log s (T, E)."""
        return self.selection.log_scores(self.selection.capped(self.logits), self.normalised)

    @property
    def filled(self) -> Tensor:
        """Which slots hold an expert, a mask (T, K): all but those that expert choice left empty."""
        every = self.selection.method != "expert_choice"
        return torch.ones_like(self.indices, dtype=torch.bool) if every else self.weights > 0.0

    @property
    def slots(self) -> Tensor:
        """The experts of all slots in one row, without the slots that expert choice left empty."""
        every = self.selection.method != "expert_choice"
        return self.indices.reshape(-1) if every else self.indices[self.filled]

    def only(self, mask: Tensor) -> "Routing":
        """That of some tokens, a mask (T,) or of the tokens' own shape: those that are no padding.

        Raises:
            InputError: there is not one entry for each token.
        """
        kept = mask.reshape(-1)
        if kept.dtype != torch.bool or len(kept) != len(self.logits):
            raise InputError(f"the mask must have {len(self.logits)} booleans, one for each token, not {len(kept)}")
        return self.at(kept)

    def at(self, rows: Tensor) -> "Routing":
        """That of the tokens in these rows: whole numbers (n,), or a mask (T,)."""
        return replace(self, logits=self.logits[rows], weights=self.weights[rows], indices=self.indices[rows])
