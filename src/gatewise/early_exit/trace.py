"""What is known of samples at the exits that they have passed: logits, and what decisions are made of."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["N_STATISTICS", "STATISTICS", "ExitTrace", "ExitView", "statistics"]

STATISTICS = ("largest probability", "entropy", "margin", "entropy of p² normalised")
"""What gates read of an exit's probabilities p; the margin is between the largest and the second."""

N_STATISTICS = len(STATISTICS)


def statistics(logits: Tensor) -> Tensor:
    """The four uncertainty statistics (n, 4) of logits (n, C), in the order of `STATISTICS`.

    With log p = z − logsumexp z, the last is the entropy of softmax(2z), since p²/Σp² is that.

    Example:
        >>> statistics(torch.tensor([[0.0, 0.0], [50.0, 0.0]])).round(decimals=4)
        tensor([[0.5000, 0.6931, 0.0000, 0.6931],
                [1.0000, 0.0000, 1.0000, 0.0000]])
    """
    log_p = torch.log_softmax(logits, -1)
    p = log_p.exp()
    two = p.topk(2, -1).values
    sharp = torch.log_softmax(2.0 * log_p, -1)
    parts = (two[:, 0], -(p * log_p).sum(-1), two[:, 0] - two[:, 1], -(sharp.exp() * sharp).sum(-1))
    return torch.stack(parts, -1)


@dataclass
class ExitView:
    """One exit for n samples.

    Attributes:
        exit: its number, from 0 on.
        logits: (n, C), divided by the exit's temperature if there is a calibration.
    """

    exit: int
    logits: Tensor
    _statistics: Tensor | None = None
    _probabilities: Tensor | None = None
    _predictions: Tensor | None = None

    @property
    def statistics(self) -> Tensor:
        """(n, 4), see `statistics`."""
        if self._statistics is None:
            self._statistics = statistics(self.logits)
        return self._statistics

    @property
    def probabilities(self) -> Tensor:
        """(n, C)."""
        if self._probabilities is None:
            self._probabilities = self.logits.softmax(-1)
        return self._probabilities

    @property
    def confidence(self) -> Tensor:
        """(n,), the largest probability: alone it is a fifth of the work of all statistics."""
        return self.probabilities.max(-1).values

    @property
    def predictions(self) -> Tensor:
        """(n,), the class of the largest logit."""
        if self._predictions is None:
            self._predictions = self.logits.argmax(-1)
        return self._predictions

    def select(self, index: Tensor) -> "ExitView":
        """The samples at those places."""
        parts = (self._statistics, self._probabilities, self._predictions)
        return ExitView(
            self.exit,
            self.logits.index_select(0, index),
            *(None if part is None else part.index_select(0, index) for part in parts),
        )


class ExitTrace:
    """The exits that n samples have passed, in order; the last one is where they are.

    Args:
        views: of these exits.

    Example:
        >>> trace = ExitTrace().at(0, torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> trace = trace.at(2, torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        >>> trace.exit, trace.last.predictions.tolist(), len(trace.select(torch.tensor([1])))
        (2, [0, 0], 1)
    """

    def __init__(self, views: tuple[ExitView, ...] = ()) -> None:
        self.views = views

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.views[-1].logits) if self.views else 0

    @property
    def last(self) -> ExitView:
        """Where the samples are."""
        return self.views[-1]

    @property
    def exit(self) -> int:
        """The number of the exit where the samples are."""
        return self.views[-1].exit

    def at(self, exit: int, logits: Tensor) -> "ExitTrace":
        """The trace after one more exit."""
        return ExitTrace((*self.views, ExitView(exit, logits)))

    def upto(self, number: int) -> Self:
        """The trace as it was at its `number`-th exit, counted from 0; what is known there is shared."""
        return type(self)(self.views[: number + 1])

    def select(self, index: Tensor) -> "ExitTrace":
        """The samples at those places."""
        return ExitTrace(tuple(view.select(index) for view in self.views))
