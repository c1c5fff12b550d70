"""What a model gives: the answers of a run, and the logits of all exits for a data set."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.early_exit.trace import ExitTrace, ExitView

__all__ = ["EarlyExitOutput", "ExitLogits"]


@dataclass(frozen=True)
class EarlyExitOutput:
    """Answers of n samples.

    Attributes:
        logits: (n, C), of the exit that answered, divided by its temperature if the policy is calibrated.
        exit_index: (n,), that exit, counted from 0.
        cost: (n,), in shares of the network without exits, with every head and decision on the way.
        near: (n,), whether a decision on the way was within 1e-6 of its threshold, so that rounding may turn it.
    """

    logits: Tensor
    exit_index: Tensor
    cost: Tensor
    near: Tensor

    @property
    def probabilities(self) -> Tensor:
        """(n, C)."""
        return self.logits.softmax(-1)

    @property
    def is_finite(self) -> Tensor:
        """(n,), whether a sample's logits are numbers; what is predicted for others means nothing."""
        return torch.isfinite(self.logits).all(-1)

    @property
    def predictions(self) -> Tensor:
        """(n,)."""
        return self.logits.argmax(-1)


class ExitLogits:
    """The logits of every exit for n samples, and their classes.

    Args:
        logits: (n, L, C).
        y: (n,), or None where classes are unknown.

    Example:
        >>> outputs = ExitLogits(torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]), torch.tensor([1]))
        >>> outputs.n_exits, outputs.correct().tolist()
        (2, [[False, True]])
    """

    def __init__(self, logits: Tensor, y: Tensor | None = None) -> None:
        self.logits = logits
        self.y = y
        self._statistics: Tensor | None = None
        self._views: dict[int, ExitView] = {}

    def __len__(self) -> int:
        """N."""
        return len(self.logits)

    @property
    def n_exits(self) -> int:
        """L."""
        return self.logits.shape[1]

    def calibrated(self, temperatures: Tensor | None) -> "ExitLogits":
        """The logits divided by each exit's temperature, (L,); themselves without one."""
        return self if temperatures is None else ExitLogits(self.logits / temperatures[None, :, None], self.y)

    def select(self, index: Tensor) -> "ExitLogits":
        """The samples at those places."""
        return ExitLogits(self.logits[index], None if self.y is None else self.y[index])

    def view(self, exit: int) -> ExitView:
        """One exit; what is made of its logits is kept."""
        if exit not in self._views:
            self._views[exit] = ExitView(exit, self.logits[:, exit])
        return self._views[exit]

    def trace(self, exits: list[int]) -> ExitTrace:
        """All samples at the last of these exits, having passed the others."""
        return ExitTrace(tuple(self.view(exit) for exit in exits))

    @property
    def statistics(self) -> Tensor:
        """The four statistics of every exit, (n, L, 4)."""
        if self._statistics is None:
            self._statistics = torch.stack([self.view(exit).statistics for exit in range(self.n_exits)], 1)
        return self._statistics

    def labels(self) -> Tensor:
        """Y.

        Raises:
            ValueError: it is unknown.
        """
        if self.y is None:
            raise ValueError("these outputs have no classes")
        return self.y

    def correct(self) -> Tensor:
        """Whether each exit is right, (n, L)."""
        return self.logits.argmax(-1) == self.labels()[:, None]

    def cross_entropies(self) -> Tensor:
        """Of each exit, (n, L)."""
        target = self.labels()[:, None, None].expand(-1, self.n_exits, 1)
        return -torch.log_softmax(self.logits, -1).gather(-1, target).squeeze(-1)

    def answers(self, exit_index: Tensor) -> Tensor:
        """The logits (n, C) of the exits at which samples leave."""
        return self.logits[torch.arange(len(self)), exit_index]
