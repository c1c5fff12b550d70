"""A threshold for each exit, so that the shares of samples that leave are a geometric series."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gatewise.early_exit.policies.base import Aim, Policy, Situation
from gatewise.early_exit.policies.thresholds import midpoints
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError
from gatewise.nn.arguments import positive

__all__ = ["GeometricBudgets"]

_FLATTEST = 12.0
_STEPS = 40
_GRID = 41


class GeometricBudgets(Policy):
    """Leave at exit l if the largest probability is at least t_l; on validation data a share ∝ ρ^l leaves there.

    MSDNet's budgeted classification (Huang et al. 2018, arXiv:1703.09844, as recalled) with the largest probability in
    the place of the largest logit.

    Example:
        >>> policy = GeometricBudgets(3, torch.tensor([0.9, 0.5]))
        >>> policy.decide(ExitTrace().at(1, torch.tensor([[1.0, 0.0]])))[0].tolist()
        [True]
    """

    name: ClassVar[str] = "geometric"

    def __init__(self, n_exits: int, thresholds: Tensor | None = None, ratio: float = 1.0) -> None:
        super().__init__(n_exits)
        self.thresholds = torch.full((n_exits - 1,), 2.0, dtype=torch.float64) if thresholds is None else thresholds
        self.ratio = ratio

    @property
    def setting(self) -> float | None:
        """ρ."""
        return self.ratio

    def margin(self, trace: ExitTrace) -> Tensor:
        """The largest probability − t_l."""
        return trace.last.confidence.double() - self.thresholds[trace.exit]

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> Self:
        """Choose ρ, and from it the thresholds, exit by exit among those who are left."""
        policy = cls(situation.n_exits, **options)
        share = aim.share(situation.costs)
        while True:
            policy._choose(situation, aim, share)
            worst = policy.without_unprofitable(situation)
            if not worst:
                return policy
            policy.skip(worst[:1])

    def _choose(self, situation: Situation, aim: Aim, share: float | None) -> None:
        if aim.setting is not None:
            positive("the setting of geometric budgets, the ratio of shares,", aim.setting)
            self._split(situation, aim.setting)
            return
        if share is None:
            ratios = torch.exp(torch.linspace(-_FLATTEST / 3, _FLATTEST / 3, _GRID)).tolist()
            risks = []
            for ratio in ratios:
                leaves = self._split(situation, ratio)
                risks.append(situation.mean_error(leaves) + (aim.lam or 0.0) * situation.mean_cost(leaves, self.used))
            self._split(situation, ratios[risks.index(min(risks))])
            return
        low, high = -_FLATTEST, _FLATTEST
        cheapest = situation.mean_cost(self._split(situation, float(torch.tensor(low).exp())), self.used)
        if cheapest > share:
            raise InputError(
                f"geometric budgets cost at least {cheapest:.3g} of the network, and the budget is {share:.3g}"
            )
        for _ in range(_STEPS):
            middle = (low + high) / 2.0
            leaves = self._split(situation, float(torch.tensor(middle).exp()))
            low, high = (middle, high) if situation.mean_cost(leaves, self.used) <= share else (low, middle)
        self._split(situation, float(torch.tensor(low).exp()))

    def _split(self, situation: Situation, ratio: float) -> Tensor:
        """Set the thresholds for ρ, and say where the validation samples leave."""
        self.ratio = ratio
        used = self.used
        shares = torch.tensor(ratio, dtype=torch.float64) ** torch.arange(len(used), dtype=torch.float64)
        shares = shares / shares.sum()
        n = len(situation.outputs)
        leaves = torch.full((n,), used[-1])
        left = torch.ones(n, dtype=torch.bool)
        for place, exit in enumerate(used[:-1]):
            scores = situation.outputs.view(exit).confidence.double()
            rest = float(shares[place:].sum())
            wanted = round(int(left.sum()) * float(shares[place]) / rest) if rest > 0.0 else 0
            self.thresholds[exit] = _threshold_for(scores[left], wanted)
            leaving = left & (scores >= self.thresholds[exit])
            leaves[leaving] = exit
            left &= ~leaving
        return leaves

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """ρ and the thresholds."""
        plain, _ = super().state()
        return {**plain, "ratio": self.ratio}, {"thresholds": self.thresholds}

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        policy = cls(int(plain["n_exits"]), arrays["thresholds"], float(plain["ratio"]))
        policy._restore(plain)
        return policy


def _threshold_for(scores: Tensor, wanted: int) -> float:
    """The midpoint above which there are about so many scores; equal ones stay together."""
    if not len(scores):
        return 2.0
    edges = midpoints(scores)
    above = len(scores) - torch.searchsorted(scores.sort().values, edges)
    return float(edges[(above - wanted).abs().argmin()])
