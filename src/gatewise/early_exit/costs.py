"""What it costs to answer at each exit: in multiply-adds, or in milliseconds as measured on this machine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError

__all__ = ["CostTable", "StageTimes", "unprofitable_exits"]

Unit = Literal["multiply-adds", "milliseconds"]


@dataclass(frozen=True)
class StageTimes:
    """How long the parts of a run take for some numbers of samples at once.

    Attributes:
        sizes: the numbers of samples, rising, (S,).
        blocks: (L, S), milliseconds from exit to exit, for all samples together.
        heads: (L, S), pooling and head.
        decisions: (L, S), the policy's decision; 0 at the last exit.
        answers: (L, S), taking the answers of so many samples that leave at the exit.
        staying: (L, S), cutting the batch to so many samples that go on after the exit.
        whole: (1, S), what a batch costs besides: laying out the answers and putting them together.
    """

    sizes: tuple[int, ...]
    blocks: np.ndarray
    heads: np.ndarray
    decisions: np.ndarray
    answers: np.ndarray
    staying: np.ndarray
    whole: np.ndarray

    def at(self, table: np.ndarray, exit: int, count: float) -> float:
        """The time of one part for a number of samples: straight lines between measured ones, and through 0 never."""
        if count == 0:
            return 0.0
        sizes = np.array(self.sizes, dtype=float)
        if len(sizes) > 1 and count > sizes[-1]:
            slope = (table[exit, -1] - table[exit, -2]) / (sizes[-1] - sizes[-2])
            return float(table[exit, -1] + max(slope, 0.0) * (count - sizes[-1]))
        return float(np.interp(count, sizes, table[exit]))


@dataclass(frozen=True)
class CostTable:
    """Costs of one sample: of the blocks up to each exit from the one before, of each head, of each decision.

    Attributes:
        blocks: (L,).
        heads: (L,).
        decisions: (L,), 0 for the last exit, where nothing is decided.
        unit: "multiply-adds" or "milliseconds".
        batch_size: how many samples were together when times were measured.
        times: the measured times by number of samples.

    Example:
        >>> table = CostTable((60.0, 40.0), (2.0, 5.0), (1.0, 0.0))
        >>> table.answer(), table.reference, table.relative([1])
        ((63.0, 108.0), 105.0, (0.6, 1.0))
    """

    blocks: tuple[float, ...]
    heads: tuple[float, ...]
    decisions: tuple[float, ...]
    unit: Unit = "multiply-adds"
    batch_size: int | None = None
    times: StageTimes | None = field(default=None, compare=False)

    @property
    def n_exits(self) -> int:
        """L."""
        return len(self.blocks)

    @property
    def reference(self) -> float:
        """The cost of the network without exits: all blocks and the last head. A relative cost of 1 is this."""
        return sum(self.blocks) + self.heads[-1]

    def answer(self, used: Collection[int] | None = None) -> tuple[float, ...]:
        """The cost (L,) of an answer at each exit: all blocks up to it, and heads and decisions of the exits used.

        Args:
            used: the exits that are evaluated, from 0 on; all by default. An exit itself counts as used for its own
                entry.
        """
        chosen = set(range(self.n_exits)) if used is None else set(used)
        answers, spent = [], 0.0
        for exit in range(self.n_exits):
            spent += self.blocks[exit]
            own = self.heads[exit] + self.decisions[exit]
            answers.append(spent + own)
            spent += own if exit in chosen else 0.0
        return tuple(answers)

    def relative(self, used: Collection[int] | None = None) -> tuple[float, ...]:
        """`answer` in shares of `reference`, (L,)."""
        return tuple(value / self.reference for value in self.answer(used))

    def of(self, exit_index: Tensor, used: Collection[int] | None = None) -> Tensor:
        """The relative cost (n,) of samples that left at those exits, (n,), float64."""
        return torch.tensor(self.relative(used), dtype=torch.float64)[exit_index]

    def with_decisions(self, decisions: Sequence[float]) -> "CostTable":
        """The table with another policy's cost of a decision at each exit, (L − 1,)."""
        return replace(self, decisions=(*decisions, 0.0))

    def predicted_milliseconds(self, exit_index: Tensor, batch_size: int, used: Collection[int] | None = None) -> float:
        """What the measured times say that samples cost together that left at those exits, in their order.

        Each batch runs its stages on as many samples as are left there; between measured numbers of samples times lie
        on a straight line.

        Raises:
            InputError: the table is not of measured times.
        """
        times = self.times
        if times is None:
            raise InputError("these costs were counted, not measured: call model.measure_costs first")
        chosen = sorted(range(self.n_exits) if used is None else {*used, self.n_exits - 1})
        total = 0.0
        for batch in exit_index.split(batch_size):
            present = np.array([int((batch >= exit).sum()) for exit in range(self.n_exits + 1)])
            total += times.at(times.whole, 0, len(batch))
            total += sum(times.at(times.blocks, exit, present[exit]) for exit in range(self.n_exits))
            for place, exit in enumerate(chosen):
                total += times.at(times.heads, exit, present[exit])
                if place < len(chosen) - 1:
                    total += times.at(times.decisions, exit, present[exit])
                    leaving = int((batch == exit).sum())
                    staying = present[exit] - leaving
                    total += times.at(times.answers, exit, leaving)
                    total += times.at(times.staying, exit, staying) if leaving else 0.0
        return total


def unprofitable_exits(fires: Tensor, costs: CostTable, used: Sequence[int]) -> list[int]:
    """The exits, of those used, whose evaluation costs more than they save, the worst first.

    An exit costs head and decision for every sample that reaches it, and saves, for those that leave there, what they
    would spend until the next exit that they would take.

    Args:
        fires: (n, L), true where a sample would leave if it came there; the last column is not looked at.
        costs: the table.
        used: the exits that are evaluated, rising, with the last one.

    Example:
        >>> table = CostTable((10.0, 1.0, 10.0), (1.0, 5.0, 1.0), (0.0, 0.0, 0.0))
        >>> unprofitable_exits(torch.tensor([[True, True, True], [False, True, True]]), table, [0, 1, 2])
        []
        >>> unprofitable_exits(torch.tensor([[False, True, True], [False, False, True]]), table, [0, 1, 2])
        [0]
    """
    leaves = _leaves(fires, used)
    losses = []
    for exit in used[:-1]:
        rest = [other for other in used if other != exit]
        change = float((_spent(costs, _leaves(fires, rest), rest) - _spent(costs, leaves, used)).mean())
        if change < 0.0:
            losses.append((change, exit))
    return [exit for _, exit in sorted(losses)]


def _leaves(fires: Tensor, used: Sequence[int]) -> Tensor:
    chosen = fires[:, list(used)].clone()
    chosen[:, -1] = True
    first = (chosen.cumsum(-1) == 0).sum(-1)
    return torch.tensor(list(used))[first]


def _spent(costs: CostTable, leaves: Tensor, used: Sequence[int]) -> Tensor:
    return torch.tensor(costs.answer(used), dtype=torch.float64)[leaves]
