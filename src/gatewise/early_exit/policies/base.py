"""What a policy is: at each exit it says which samples leave."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gatewise.early_exit.costs import CostTable, unprofitable_exits
from gatewise.early_exit.outputs import EarlyExitOutput, ExitLogits
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["NEAR", "Aim", "Policy", "Situation"]

NEAR = 1e-6
"""Decisions this close to their threshold are counted: batches of other sizes round differently."""


@dataclass(frozen=True)
class Aim:
    """What a policy is chosen for: exactly one of these is given.

    Attributes:
        lam: the smallest mean of loss + λ · relative cost.
        budget: the best at a mean relative cost of at most this.
        budget_ms: the same in milliseconds a sample, for measured costs.
        setting: the policy's own number: a threshold, a patience, an exit.
    """

    lam: float | None = None
    budget: float | None = None
    budget_ms: float | None = None
    setting: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise InputError(
                "give one of lam, budget, budget_ms and setting, not " + (" and ".join(given) if given else "none")
            )
        value = getattr(self, given[0])
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise InputError(f"{given[0]} must be a number, not {shown(value)}")
        if self.budget is not None and not 0.0 < self.budget <= 1.0:
            raise InputError(
                f"budget is a share of the network's cost, above 0 and at most 1, not {self.budget!r}; in milliseconds "
                "it is budget_ms"
            )
        if self.lam is not None and not 0.0 <= self.lam < float("inf"):
            raise InputError(f"lam must be a number from 0 on, not {self.lam!r}")

    def whole_setting(self) -> int | None:
        """The setting of a policy whose number is a whole one, or None if there is no setting.

        Raises:
            InputError: it is no whole number.
        """
        if self.setting is not None and self.setting != int(self.setting):
            raise InputError(f"the setting of this policy is a whole number, not {self.setting!r}")
        return None if self.setting is None else int(self.setting)

    def share(self, costs: CostTable) -> float | None:
        """The budget as a relative cost, or None if there is none.

        Raises:
            InputError: a budget in milliseconds with costs that are counted, or below the cheapest exit's.
        """
        if self.budget_ms is None:
            return self.budget
        if costs.unit != "milliseconds":
            raise InputError(
                "budget_ms needs measured costs, and these are multiply-adds: call model.measure_costs first, or give "
                "budget as a share"
            )
        cheapest = min(costs.answer([]))
        if not self.budget_ms >= cheapest:
            raise InputError(
                f"the cheapest exit takes {cheapest:.3g} ms a sample, and budget_ms is {self.budget_ms:g}: give more"
            )
        return self.budget_ms / costs.reference


@dataclass(frozen=True)
class Situation:
    """What a policy is fitted to.

    Attributes:
        outputs: of validation data, calibrated if the policy is to be.
        costs: the table.
        seed: of folds.
    """

    outputs: ExitLogits
    costs: CostTable
    seed: int = 0

    @property
    def n_exits(self) -> int:
        """L."""
        return self.costs.n_exits

    def mean_cost(self, exit_index: Tensor, used: Sequence[int]) -> float:
        """The mean relative cost of samples that leave at those exits."""
        return float(self.costs.of(exit_index, used).mean())

    def mean_error(self, exit_index: Tensor) -> float:
        """The share of wrong answers."""
        return 1.0 - float(self.outputs.correct().gather(1, exit_index[:, None]).double().mean())


class Policy(ABC):
    """Says at an exit which samples leave: those whose margin there is at least 0.

    Args:
        n_exits: L.

    Attributes:
        name: by which it is chosen and saved.
        skipped: exits that it does not evaluate.
        remarks: what should be known of it, in sentences.
        needs_labels: whether it only exists where classes are known.
    """

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False

    def __init__(self, n_exits: int) -> None:
        self.n_exits = n_exits
        self.skipped: frozenset[int] = frozenset()
        self.remarks: list[str] = []

    @classmethod
    @abstractmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> "Policy":
        """The policy of this kind for an aim, with what it needs learned from validation data.

        Raises:
            InputError: the aim or an option does not suit the policy, or no setting keeps to the budget.
        """

    @abstractmethod
    def margin(self, trace: ExitTrace) -> Tensor:
        """By how much samples (n,) are above the threshold at the exit where they are; those with ≥ 0 leave."""

    def near(self, trace: ExitTrace, margin: Tensor) -> Tensor:
        """Whether rounding may turn the decisions, (n,)."""
        return margin.abs() <= NEAR

    @property
    def setting(self) -> float | None:
        """The number that moves it along its frontier, for tables."""
        return None

    @property
    def used(self) -> list[int]:
        """The exits that it evaluates, with the last one."""
        return [exit for exit in range(self.n_exits) if exit not in self.skipped]

    @classmethod
    def decision_products(cls, n_classes: int, n_features: int) -> float:
        """Multiply-adds of a decision: by default four for each class, for the statistics.

        Args:
            n_classes: C.
            n_features: how many numbers a gate reads.
        """
        return 4.0 * n_classes

    def decide(self, trace: ExitTrace) -> tuple[Tensor, Tensor]:
        """Who leaves at the exit where they are, and for whom rounding may turn that, (n,) each."""
        margin = self.margin(trace)
        return margin >= 0.0, self.near(trace, margin)

    def fires(self, outputs: ExitLogits) -> tuple[Tensor, Tensor]:
        """Who would leave at each exit, and for whom that is near, (n, L) each; at the last all leave."""
        used = self.used
        fires = torch.zeros(len(outputs), self.n_exits, dtype=torch.bool)
        near = torch.zeros_like(fires)
        fires[:, -1] = True
        for place, exit in enumerate(used[:-1]):
            fires[:, exit], near[:, exit] = self.decide(outputs.trace(used[: place + 1]))
        return fires, near

    def simulate(self, outputs: ExitLogits, costs: CostTable) -> EarlyExitOutput:
        """What a run would do with samples whose logits at all exits are known."""
        fires, near = self.fires(outputs)
        exit_index = (fires.cumsum(-1) == 0).sum(-1)
        passed = torch.arange(self.n_exits) <= exit_index[:, None]
        return EarlyExitOutput(
            outputs.answers(exit_index), exit_index, costs.of(exit_index, self.used), (near & passed).any(-1)
        )

    def without_unprofitable(self, situation: Situation) -> list[int]:
        """Exits that cost more than they save on the validation data, the worst first."""
        return unprofitable_exits(self.fires(situation.outputs)[0], situation.costs, self.used)

    def skip(self, exits: Sequence[int]) -> None:
        """Evaluate these exits no more, and say so."""
        self.skipped = self.skipped | set(exits)
        for exit in exits:
            self.remarks.append(f"exit {exit + 1} costs more than it saves and is not used")

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What it has learned, as plain data and as arrays; `restored` makes it again."""
        return {"n_exits": self.n_exits, "skipped": sorted(self.skipped), "remarks": list(self.remarks)}, {}

    @classmethod
    @abstractmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> "Policy":
        """The policy that `state` described."""

    def _restore(self, plain: Mapping[str, Any]) -> None:
        self.skipped = frozenset(int(exit) for exit in plain["skipped"])
        self.remarks = [str(remark) for remark in plain["remarks"]]
