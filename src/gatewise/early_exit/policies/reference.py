"""Points of reference: one exit for all, and the exit that someone who knows the answer would take."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gatewise.early_exit.costs import CostTable
from gatewise.early_exit.outputs import EarlyExitOutput, ExitLogits
from gatewise.early_exit.policies.base import Aim, Policy, Situation
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError

__all__ = ["FixedExit", "Oracle"]


class FixedExit(Policy):
    """Everybody leaves at one exit; no other is evaluated, and nothing is decided.

    Example:
        >>> FixedExit(4, 1).used
        [1, 3]
    """

    name: ClassVar[str] = "fixed"

    def __init__(self, n_exits: int, exit: int = 0) -> None:
        super().__init__(n_exits)
        if not 0 <= exit < n_exits:
            raise InputError(f"there are exits 0 to {n_exits - 1}, not {exit}")
        self.exit = exit
        self.skipped = frozenset(range(n_exits - 1)) - {exit}

    @property
    def setting(self) -> float | None:
        """The exit."""
        return float(self.exit)

    def margin(self, trace: ExitTrace) -> Tensor:
        """1: all leave."""
        return torch.ones(len(trace))

    @classmethod
    def decision_products(cls, n_classes: int, n_features: int) -> float:
        """Nothing is decided."""
        return 0.0

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> Self:
        """The exit of that number, or the most exact one within the budget, or the best by λ."""
        if (setting := aim.whole_setting()) is not None:
            return cls(situation.n_exits, setting)
        every = [cls(situation.n_exits, exit) for exit in range(situation.n_exits)]
        n = len(situation.outputs)
        leaves = [torch.full((n,), policy.exit) for policy in every]
        costs = [situation.costs.relative([])[policy.exit] for policy in every]
        share = aim.share(situation.costs)
        lam = aim.lam or 0.0
        risks = [
            situation.mean_error(each) + lam * cost if share is None or cost <= share + 1e-12 else float("inf")
            for each, cost in zip(leaves, costs, strict=True)
        ]
        if min(risks) == float("inf"):
            raise InputError(f"the cheapest exit costs {min(costs):.3g} of the network, and the budget is {share:.3g}")
        return every[risks.index(min(risks))]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The exit."""
        plain, arrays = super().state()
        return {**plain, "exit": self.exit}, arrays

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        policy = cls(int(plain["n_exits"]), int(plain["exit"]))
        policy._restore(plain)
        return policy


class Oracle(Policy):
    """Leave at the first exit that is right; where none is, at the first: nobody can be as good for less.

    It needs the classes, so that it can be simulated and not run.
    """

    name: ClassVar[str] = "oracle"
    needs_labels: ClassVar[bool] = True

    def margin(self, trace: ExitTrace) -> Tensor:
        """Unknown without the classes.

        Raises:
            InputError: always.
        """
        raise InputError("the oracle knows the answers: it can be simulated on data with classes, not run")

    def simulate(self, outputs: ExitLogits, costs: CostTable) -> EarlyExitOutput:
        """The first exit that is right."""
        correct = outputs.correct()
        first = (correct.cumsum(-1) == 0).sum(-1)
        exit_index = torch.where(correct.any(-1), first, torch.zeros_like(first))
        nobody = torch.zeros(len(outputs), dtype=torch.bool)
        return EarlyExitOutput(outputs.answers(exit_index), exit_index, costs.of(exit_index), nobody)

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> Self:
        """There is nothing to choose."""
        return cls(situation.n_exits)

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        return cls(int(plain["n_exits"]))
