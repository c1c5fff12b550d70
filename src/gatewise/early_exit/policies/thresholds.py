"""Policies that hold one score against one threshold: probability, entropy, margin, learned failure prediction."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gatewise.early_exit.gates import ExitGates
from gatewise.early_exit.policies.base import Aim, Policy, Situation
from gatewise.early_exit.trace import N_STATISTICS, ExitTrace
from gatewise.exceptions import InputError

__all__ = ["EntropyThreshold", "FailurePrediction", "MarginThreshold", "MaxProbability", "midpoints"]

_MOST_CANDIDATES = 400


def midpoints(values: Tensor) -> Tensor:
    """Thresholds between neighbouring observed values, rising, with one below and one above all.

    A threshold that is an observed value decides by rounding on the sample that had it.

    Example:
        >>> midpoints(torch.tensor([3.0, 1.0, 1.0])).tolist()
        [0.0, 2.0, 4.0]
    """
    values = values.double().reshape(-1)
    found = torch.unique(values)
    if not len(found):
        raise InputError("there are no samples to choose a threshold from")
    between = (found[:-1] + found[1:]) / 2.0
    return torch.cat([found[:1] - 1.0, between, found[-1:] + 1.0])


class _ScoreThreshold(Policy):
    """Leave at the first exit where a score is at least t, one t for all exits."""

    def __init__(self, n_exits: int, threshold: float = 0.0) -> None:
        super().__init__(n_exits)
        self.threshold = threshold

    @property
    def setting(self) -> float | None:
        """T."""
        return self.threshold

    @abstractmethod
    def score(self, trace: ExitTrace) -> Tensor:
        """(n,), larger where a sample should rather leave."""

    def margin(self, trace: ExitTrace) -> Tensor:
        """Score − t."""
        return self.score(trace).double() - self.threshold

    def learn(self, situation: Situation) -> None:
        """Learn the score, where there is something to learn."""

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> Self:
        """Learn the score and choose t; exits that cost more than they save are left out, and t is chosen again."""
        policy = cls(situation.n_exits, **options)
        policy.learn(situation)
        if aim.setting is not None:
            policy.threshold = aim.setting
        share = aim.share(situation.costs)
        while True:
            if aim.setting is None:
                policy.threshold = _best_threshold(policy, situation, aim.lam, share)
            worst = policy.without_unprofitable(situation)
            if not worst:
                return policy
            policy.skip(worst[:1])

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The threshold."""
        plain, arrays = super().state()
        return {**plain, "threshold": self.threshold}, arrays

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        policy = cls(int(plain["n_exits"]))
        policy.threshold = float(plain["threshold"])
        policy._restore(plain)
        return policy


def _best_threshold(policy: _ScoreThreshold, situation: Situation, lam: float | None, share: float | None) -> float:
    used = policy.used
    if len(used) == 1:
        return policy.threshold
    outputs, costs = situation.outputs, situation.costs
    scores = torch.stack([policy.score(outputs.trace(used[: i + 1])).double() for i in range(len(used) - 1)], -1)
    reached = torch.cummax(scores, -1).values
    exits = torch.tensor(used)
    spent = torch.tensor(costs.relative(used), dtype=torch.float64)[exits]
    candidates = midpoints(scores)

    def place(threshold: Tensor) -> Tensor:
        return (reached < threshold).sum(-1)

    if share is not None:
        # The mean cost does not fall as the threshold rises.
        low, high = 0, len(candidates) - 1
        if float(spent[place(candidates[0])].mean()) > share * (1.0 + 1e-12):
            raise InputError(
                f"the {policy.name} policy costs at least {float(spent[0]):.3g} of the network, and the budget is "
                f"{share:.3g}: give more"
            )
        while low < high:
            middle = (low + high + 1) // 2
            if float(spent[place(candidates[middle])].mean()) <= share:
                low = middle
            else:
                high = middle - 1
        return float(candidates[low])
    if len(candidates) > _MOST_CANDIDATES:
        candidates = candidates[torch.linspace(0, len(candidates) - 1, _MOST_CANDIDATES).round().long()]
    wrong = 1.0 - outputs.correct()[:, exits].double()
    risks = [
        float((wrong.gather(1, where[:, None]).squeeze(1) + (lam or 0.0) * spent[where]).mean())
        for where in map(place, candidates)
    ]
    return float(candidates[risks.index(min(risks))])


class MaxProbability(_ScoreThreshold):
    """Leave at the first exit whose largest probability is at least t: one global threshold.

    Example:
        >>> from gatewise.early_exit.trace import ExitTrace
        >>> MaxProbability(2, 0.9).decide(ExitTrace().at(0, torch.tensor([[3.0, 0.0], [1.0, 0.0]])))[0].tolist()
        [True, False]
    """

    name: ClassVar[str] = "max_prob"

    def score(self, trace: ExitTrace) -> Tensor:
        """The largest probability."""
        return trace.last.confidence


class EntropyThreshold(_ScoreThreshold):
    """Leave at the first exit whose entropy, in nats, is at most −t (BranchyNet, DeeBERT)."""

    name: ClassVar[str] = "entropy"

    def score(self, trace: ExitTrace) -> Tensor:
        """Minus the entropy."""
        return -trace.last.statistics[:, 1]


class MarginThreshold(_ScoreThreshold):
    """Leave at the first exit whose largest probability is at least t above the second."""

    name: ClassVar[str] = "margin"

    def score(self, trace: ExitTrace) -> Tensor:
        """The margin."""
        return trace.last.statistics[:, 2]


class FailurePrediction(_ScoreThreshold):
    """Leave at the first exit whose answer is right with a probability of at least t, as learned for each exit.

    A logistic regression of "this exit is right" on the four statistics of validation data; in the line of what Kubaty
    et al. (arXiv:2508.21495, as recalled) propose in place of calibration.
    """

    name: ClassVar[str] = "failure"

    def __init__(self, n_exits: int, threshold: float = 0.0) -> None:
        super().__init__(n_exits, threshold)
        self.models = ExitGates(n_exits, N_STATISTICS)

    def learn(self, situation: Situation) -> None:
        """Fit the regressions."""
        self.models.fit(situation.outputs.statistics, situation.outputs.correct())

    def score(self, trace: ExitTrace) -> Tensor:
        """The probability of being right."""
        return self.models(trace.exit, trace.last.statistics)

    @classmethod
    def decision_products(cls, n_classes: int, n_features: int) -> float:
        """The statistics and one product each."""
        return 4.0 * n_classes + N_STATISTICS

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The threshold and the regressions."""
        plain, _ = super().state()
        return plain, dict(self.models.state_dict())

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        policy = super().restored(plain, arrays)
        policy.models.load_state_dict(dict(arrays))
        return policy
