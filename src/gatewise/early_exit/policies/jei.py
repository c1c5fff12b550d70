"""JEI-DNN's policy: a gate at each exit, trained to know when the best exit has come."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from gatewise.early_exit.decoding import Decoding, best_exits, check_decoding, fire_levels
from gatewise.early_exit.gates import ExitGates
from gatewise.early_exit.outputs import ExitLogits
from gatewise.early_exit.policies.base import NEAR, Aim, Policy, Situation
from gatewise.early_exit.policies.search import for_aim
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["JEI", "GateInputs", "TargetLoss", "exit_losses", "fit_gates", "gate_features", "uncertainty"]

GateInputs = Callable[[ExitTrace], Tensor]
"""Makes of the exits that samples have passed what the gate of the last of them reads, (n, F)."""

TargetLoss = Literal["cross_entropy", "zero_one", "probability"]

_MOST_WEIGHT = 5.0


def uncertainty(trace: ExitTrace) -> Tensor:
    """The four uncertainty statistics of the exit itself, (n, 4): the paper's choice."""
    return trace.last.statistics


def exit_losses(outputs: ExitLogits, loss: TargetLoss = "cross_entropy") -> Tensor:
    """The loss (n, L) of each exit from which targets are made.

    "cross_entropy": −log p_y. "zero_one": 1 where the exit is wrong. "probability": 1 − max p where it is right, and 1
    where it is wrong.

    Raises:
        InputError: no such loss.
    """
    if loss not in get_args(TargetLoss):
        raise InputError(f"target_loss must be one of {', '.join(map(repr, get_args(TargetLoss)))}, not {shown(loss)}")
    return _LOSSES[loss](outputs)


_LOSSES: dict[str, Callable[[ExitLogits], Tensor]] = {
    "cross_entropy": ExitLogits.cross_entropies,
    "zero_one": lambda outputs: 1.0 - outputs.correct().to(outputs.logits.dtype),
    "probability": lambda outputs: torch.where(outputs.correct(), 1.0 - outputs.statistics[..., 0], 1.0),
}


def gate_features(outputs: ExitLogits, inputs: GateInputs = uncertainty, used: list[int] | None = None) -> Tensor:
    """What the gates read, (n, L − 1, F); of exits that are not used zeros."""
    exits = list(range(outputs.n_exits)) if used is None else used
    found = {exit: inputs(outputs.trace(exits[: place + 1])) for place, exit in enumerate(exits[:-1])}
    like = next(iter(found.values()), torch.zeros(len(outputs), 4))
    return torch.stack([found.get(exit, torch.zeros_like(like)) for exit in range(outputs.n_exits - 1)], 1)


def fit_gates(
    outputs: ExitLogits,
    costs: Tensor,
    lam: float,
    inputs: GateInputs = uncertainty,
    target_loss: TargetLoss = "cross_entropy",
    positive_weight: bool = False,
    used: list[int] | None = None,
) -> ExitGates:
    """Gates fitted to the end: gate l learns t_l = 1[l ≥ l*], l* = argmin loss_l + λ c_l.

    Args:
        outputs: with classes.
        costs: relative costs (L,).
        lam: λ.
        inputs: what gates read.
        target_loss: see `exit_losses`.
        positive_weight: weight samples that should leave by min(5, those that should not / those whose l* is this
            exit), as the released code does; on our data it made gates too eager.
        used: exits in use; a gate of another never fires.
    """
    n_exits = outputs.n_exits
    exits = torch.tensor(list(range(n_exits)) if used is None else used)
    best = exits[best_exits(exit_losses(outputs, target_loss)[:, exits], costs[exits], lam)]
    targets = torch.arange(n_exits - 1) >= best[:, None]
    weight = None
    if positive_weight:
        exactly = torch.bincount(best, minlength=n_exits)[:-1].double().clamp_min(0.1)
        weight = ((~targets).sum(0).double() / exactly).clamp(0.0, _MOST_WEIGHT)
    features = gate_features(outputs, inputs, exits.tolist())
    return ExitGates(n_exits - 1, features.shape[-1]).fit(features, targets, weight)


class JEI(Policy):
    """Leave at the first exit whose gate says ½ or more (Regol, Chataoui and Coates 2024, arXiv:2310.09163).

    Args:
        n_exits: L.
        gates: fitted.
        lam: the λ for which they were.
        decoding: "cdf", where gates estimate P(l* ≤ l), which is what they are trained on; or "paper", where they are
            taken for the masses.
        inputs: what gates read.
    """

    name: ClassVar[str] = "jei"

    def __init__(
        self,
        n_exits: int,
        gates: ExitGates,
        lam: float,
        decoding: Decoding = "cdf",
        inputs: GateInputs = uncertainty,
    ) -> None:
        super().__init__(n_exits)
        check_decoding(decoding)
        self.gates = gates
        self.lam = lam
        self.decoding: Decoding = decoding
        self.inputs = inputs

    @property
    def setting(self) -> float | None:
        """λ."""
        return self.lam

    def _levels(self, trace: ExitTrace) -> tuple[Tensor, Tensor]:
        places = range(len(trace.views))
        g = [self.gates(trace.views[place].exit, self.inputs(trace.upto(place))).double() for place in places]
        every = torch.stack(g, -1)
        return every, fire_levels(every, self.decoding)[:, -1]

    def margin(self, trace: ExitTrace) -> Tensor:
        """The decoded level − ½."""
        return self._levels(trace)[1] - 0.5

    def near(self, trace: ExitTrace, margin: Tensor) -> Tensor:
        """Where a statistic that moves by 1e-6 may turn the decision."""
        # |dg/ds| ≤ Σ|w|/4σ; a level of the paper's decoding moves with all gates before it.
        exits = [view.exit for view in trace.views]
        slopes = (self.gates.weight[exits].abs() / self.gates.scale[exits]).sum(-1) / 4.0
        slope = float(slopes[-1] if self.decoding == "cdf" else 2.0 * slopes.sum())
        return margin.abs() <= NEAR * max(1.0, slope)

    @classmethod
    def decision_products(cls, n_classes: int, n_features: int) -> float:
        """The statistics and one product for each input."""
        return 4.0 * n_classes + n_features

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, **options: Any) -> Self:
        """Fit gates for λ, the heads being as they are; for a budget λ is looked for."""
        used = list(range(situation.n_exits))
        skipped: list[int] = []
        decoding: Decoding = options.pop("decoding", "cdf")
        check_decoding(decoding)
        inputs: GateInputs = options.get("inputs", uncertainty)

        def make(lam: float) -> Self:
            costs = torch.tensor(situation.costs.relative(used), dtype=torch.float64)
            gates = fit_gates(situation.outputs, costs, lam, used=used, **options)
            policy = cls(situation.n_exits, gates, lam, decoding, inputs)
            policy.skip(skipped)
            return policy

        while True:
            policy = for_aim(make, situation, aim)
            worst = policy.without_unprofitable(situation)
            if not worst:
                return policy
            skipped.append(worst[0])
            used.remove(worst[0])

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """λ, the decoding and the gates."""
        plain, _ = super().state()
        return {**plain, "lam": self.lam, "decoding": self.decoding}, dict(self.gates.state_dict())

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described, with the uncertainty statistics as its gates' inputs."""
        gates = ExitGates(*arrays["weight"].shape)
        gates.load_state_dict(dict(arrays))
        policy = cls(int(plain["n_exits"]), gates, float(plain["lam"]), plain["decoding"])
        policy._restore(plain)
        return policy
