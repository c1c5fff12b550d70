"""A run in which samples leave."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatewise.early_exit.counting import Evaluate
from gatewise.early_exit.inputs import n_rows
from gatewise.early_exit.outputs import EarlyExitOutput
from gatewise.early_exit.policies import Policy
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError, NonFiniteWarning

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["Answers", "infer"]


class Answers:
    """Who has left a batch with which answer, and who is still there.

    Args:
        model: the model.
        n: samples of the batch.
    """

    def __init__(self, model: "EarlyExitModel", n: int) -> None:
        self.model, self.n = model, n
        self.exit_index = torch.full((n,), model.n_exits - 1)
        self.near = torch.zeros(n, dtype=torch.bool)
        self.trace, self.places = ExitTrace(), torch.arange(n)
        self.parts: list[Tensor] = []
        self.whose: list[Tensor] = []

    def at(self, exit: int, logits: Tensor) -> None:
        """Those who are left come to an exit."""
        self.trace = self.trace.at(exit, self.model.calibrated(exit, logits))

    def decide(self, policy: Policy) -> tuple[Tensor, Tensor]:
        """Who leaves, (n,), and their places among those who are left."""
        fires, close = policy.decide(self.trace)
        if bool(close.any()):
            self.near[self.places[close]] = True
        return fires, fires.nonzero().squeeze(1)

    def leave(self, leaving: Tensor) -> None:
        """Take the answers of those at these places."""
        who = self.places.index_select(0, leaving)
        self.exit_index[who] = self.trace.exit
        self.parts.append(self.trace.last.logits.index_select(0, leaving))
        self.whose.append(who)

    def stay(self, fires: Tensor) -> Tensor:
        """Go on with the others, and say who they are."""
        keep = (~fires).nonzero().squeeze(1)
        if len(keep):
            self.trace, self.places = self.trace.select(keep), self.places.index_select(0, keep)
        return keep

    def end(self) -> None:
        """All who are left have their answer."""
        self.parts.append(self.trace.last.logits)
        self.whose.append(self.places)

    def output(self, policy: Policy) -> EarlyExitOutput:
        """The answers in the batch's order."""
        if len(self.parts) == 1:
            # All in one place, as a single sample always is, and then in the batch's order.
            logits = self.parts[0]
        else:
            logits = torch.empty(self.n, self.model.n_classes, dtype=self.parts[0].dtype)
            for who, part in zip(self.whose, self.parts, strict=True):
                logits[who] = part
        costs = self.model.costs_of(type(policy))
        return EarlyExitOutput(logits, self.exit_index, costs.of(self.exit_index, policy.used), self.near)


def infer(model: "EarlyExitModel", policy: Policy, inputs: Any) -> EarlyExitOutput:
    """See `EarlyExitModel.infer`."""
    if policy.needs_labels:
        raise InputError(f"the {policy.name} policy knows the answers: simulate it on data with classes")
    answers, last = Answers(model, n_rows(inputs)), model.n_exits - 1

    def at_exit(exit: int, evaluate: Evaluate) -> Tensor | None:
        if exit in policy.skipped:
            return None
        answers.at(exit, evaluate()[0])
        if exit == last:
            answers.end()
            return None
        fires, leaving = answers.decide(policy)
        if not len(leaving):
            return None
        answers.leave(leaving)
        return answers.stay(fires)

    model.walk(inputs, at_exit)
    output = answers.output(policy)
    if not bool((finite := output.is_finite).all()):
        lost = (~finite).nonzero().flatten().tolist()
        warnings.warn(
            f"the answers of {len(lost)} of {len(output.logits)} samples are NaN or infinite, the first is sample "
            f"{lost[0]}: look at its inputs, or at the range of the backbone's type",
            NonFiniteWarning,
            stacklevel=4,
        )
    return output
