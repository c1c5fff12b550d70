"""A probe: the same tokens through a model again and again, to see how its choices change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.measures import selection_change
from gatewise.nn.readers import RouterReader
from gatewise.nn.routing import Routing
from gatewise.nn.tallies import Series
from gatewise.nn.watching import Call, unwatched, watch

__all__ = ["Probe", "ProbedText", "evaluating", "run_probe"]

MOST_SHOWN = 512
"""Of how many tokens of a text the experts are kept."""


@dataclass(frozen=True)
class ProbedText:
    """A text and the experts of its tokens.

    Attributes:
        tokens: what stands in the text, one after the other; at most 512.
        experts: for each router (n, K), in the order of the weights.
    """

    tokens: tuple[str, ...]
    experts: Mapping[str, Tensor]


class Probe:
    """Remembers the experts of some tokens, and how much they have changed since they were last asked for.

    Attributes:
        changes: for each router, over time, the sum of changes and their number.
        text: the text that was probed last, or None.
    """

    def __init__(self) -> None:
        self.changes: dict[str, Series] = {}
        self.text: ProbedText | None = None
        self._before: dict[str, Tensor] = {}

    def compare(self, step: int, experts: Mapping[str, Tensor]) -> dict[str, float]:
        """Change of each router since the last time, none the first time.

        Args:
            step: when it was.
            experts: (T, K) of each router.

        Raises:
            InputError: there are other tokens than the last time.
        """
        for name, indices in experts.items():
            before = self._before.get(name)
            if before is not None and len(before) != len(indices):
                raise InputError(
                    f"the probe has {len(indices)} tokens, and {len(before)} the last time: changes are those of the "
                    "same tokens; pass the same ones, or reset=True"
                )
        found = {}
        for name, indices in experts.items():
            before = self._before.get(name)
            if before is not None:
                found[name] = selection_change(before, indices)
                value = torch.tensor([found[name], 1.0], dtype=torch.float64)
                self.changes.setdefault(name, Series()).add(step, value)
            self._before[name] = indices
        return found

    def last(self, name: str) -> float | None:
        """The mean change of a router over the last moment of its series; None where it has not been seen twice."""
        moments = list(self.changes.get(name, ()))
        return float(moments[-1].value[0] / moments[-1].value[1]) if moments else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode and has no gradients; each module's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def run_probe(
    model: nn.Module, readers: Mapping[str, RouterReader], inputs: Any, kept: Callable[[Call], Routing]
) -> dict[str, Tensor]:
    """The experts (T, K) of each router that is called, in the order of the weights, of one call that nobody counts.

    Args:
        model: it is called in evaluation mode, without gradients.
        readers: of its routers.
        inputs: keyword arguments as a mapping, positional ones as a tuple or list, or one argument.
        kept: gives of each call the tokens that count.
    """
    found: dict[str, list[Tensor]] = {}
    watches = []
    for name, reader in readers.items():

        def keep(call: Call, name: str = name) -> None:
            routing = kept(call)
            order = routing.weights.argsort(dim=-1, descending=True, stable=True)
            found.setdefault(name, []).append(routing.indices.gather(-1, order).cpu())

        watches.append(watch(reader, keep, probes=True))
    try:
        with unwatched(), evaluating(model):
            if isinstance(inputs, Mapping):
                model(**inputs)
            elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
                model(*inputs)
            else:
                model(inputs)
    finally:
        for each in watches:
            each.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}
