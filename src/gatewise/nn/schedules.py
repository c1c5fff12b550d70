"""A number of experts that falls while a network is trained: from a dense mixture to a sparse one."""

import math
from dataclasses import replace
from typing import Any

from gatewise.exceptions import InputError
from gatewise.nn.arguments import whole
from gatewise.nn.router import Router

__all__ = ["TopKSchedule"]


class TopKSchedule:
    """Takes K of a router's selection from `start` to `end` in a number of steps, and leaves it there.

    After t steps K is start · (end/start)ˢ with s = min(t, steps)/steps, rounded up: it is halved in equal times. With
    all experts at first every one of them learns from every token before they specialise (dense-to-sparse, Nie et al.
    2021, arXiv:2112.14397; the paper lowers a threshold on the weights, this a number). Beside it a
    `gatewise.gates.TemperatureSchedule` can sharpen the weights of a gate with a temperature.

    Args:
        router: a router, whose selection is replaced at each step.
        end: K after `steps` steps. With 1 and weights divided by their sum (the default) all weights end at 1, and the
            gate has no gradient any more: use renormalise="none" then.
        steps: how many calls of `step` it takes.
        start: K at the beginning; if None all experts, or as many as a sparse gate gives weight to.

    Attributes:
        n_steps: how many steps have been taken.

    Raises:
        InputError: there are no steps, a K is not between 1 and the number of experts, or does not fit the selection.

    Example:
        >>> from gatewise.gates import SoftmaxGate
        >>> router = Router(SoftmaxGate(n_features=4, n_experts=8))
        >>> schedule = TopKSchedule(router, end=2, steps=2)
        >>> for _ in range(3):
        ...     print(router.selection.top_k, end=" ")
        ...     schedule.step()
        8 4 2
    """

    def __init__(self, router: Router, end: int, steps: int, start: int | None = None) -> None:
        if not isinstance(router, Router):
            raise InputError(f"pass a router, of a layer layer.router, not a {type(router).__name__}")
        most = router.gate.own_top_k or router.n_experts
        self.router = router
        self.start = most if start is None else start
        self.end = end
        self.steps = steps
        self.n_steps = 0
        self._check()
        self._set()

    def _check(self) -> None:
        whole("steps", self.steps)
        whole("n_steps", self.n_steps, least=0)
        for k in (self.end, self.start):
            self.router.check(replace(self.router.selection, top_k=k))

    def top_k_at(self, step: int) -> int:
        """K after `step` steps."""
        share = min(step, self.steps) / self.steps
        # Less than the rounding of the powers: 8 · (1/4)^½ is 4, not 5.
        return math.ceil(self.start ** (1.0 - share) * self.end**share - 1e-9)

    def _set(self) -> None:
        self.router.selection = replace(self.router.selection, top_k=self.top_k_at(self.n_steps))

    def step(self) -> None:
        """Take one step: call it once per update or epoch, after the optimiser's."""
        self.n_steps += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` continues."""
        return {"start": self.start, "end": self.end, "steps": self.steps, "n_steps": self.n_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            InputError: an entry is missing, unknown or not what it may be; then nothing changes.
        """
        if set(state) != set(self.state_dict()):
            raise InputError(f"a schedule's state has {sorted(self.state_dict())}, not {sorted(state)}")
        before = self.state_dict()
        vars(self).update(state)
        try:
            self._check()
        except InputError:
            vars(self).update(before)
            raise
        self._set()
