"""Leave when several exits in a row agree."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gatewise.early_exit.policies.base import NEAR, Aim, Policy, Situation
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError

__all__ = ["Patience"]


class Patience(Policy):
    """Leave at the first exit where the last k + 1 exits predict the same class (PABEE: Zhou et al. 2020).

    Every exit has to be evaluated, so that none is left out.

    Example:
        >>> trace = ExitTrace().at(0, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> trace = trace.at(1, torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> Patience(3, 1).decide(trace)[0].tolist()
        [True, False]
    """

    name: ClassVar[str] = "patience"

    def __init__(self, n_exits: int, patience: int = 1) -> None:
        super().__init__(n_exits)
        if not 1 <= patience < n_exits:
            raise InputError(f"patience must lie between 1 and {n_exits - 1} with {n_exits} exits, not {patience}")
        self.patience = patience

    @property
    def setting(self) -> float | None:
        """K."""
        return float(self.patience)

    def margin(self, trace: ExitTrace) -> Tensor:
        """½ where the last k + 1 predictions agree, −½ elsewhere."""
        now = trace.last.predictions
        if len(trace.views) <= self.patience:
            return torch.full((len(now),), -0.5)
        before = [view.predictions == now for view in trace.views[-1 - self.patience : -1]]
        return torch.stack(before).all(0).float() - 0.5

    def near(self, trace: ExitTrace, margin: Tensor) -> Tensor:
        """Where one of the predictions is a tie of two classes."""
        recent = trace.views[-1 - self.patience :]
        return torch.stack([view.statistics[:, 2] <= NEAR for view in recent]).any(0)

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> Self:
        """Choose k: there are L − 1 of them."""
        if (setting := aim.whole_setting()) is not None:
            return cls(situation.n_exits, setting)
        if situation.n_exits < 2:
            raise InputError("patience needs two exits or more")
        every = [cls(situation.n_exits, k) for k in range(1, situation.n_exits)]
        leaves = [policy.simulate(situation.outputs, situation.costs).exit_index for policy in every]
        costs = [situation.mean_cost(each, every[0].used) for each in leaves]
        share = aim.share(situation.costs)
        if share is None:
            risks = [
                situation.mean_error(each) + (aim.lam or 0.0) * cost for each, cost in zip(leaves, costs, strict=True)
            ]
            return every[risks.index(min(risks))]
        within = [policy for policy, cost in zip(every, costs, strict=True) if cost <= share]
        if not within:
            raise InputError(
                f"patience costs at least {min(costs):.3g} of the network here, and the budget is {share:.3g}: give "
                "more, or take another policy"
            )
        return within[-1]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """K."""
        plain, arrays = super().state()
        return {**plain, "patience": self.patience}, arrays

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        policy = cls(int(plain["n_exits"]), int(plain["patience"]))
        policy._restore(plain)
        return policy
