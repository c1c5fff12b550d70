"""A temperature that falls, or rises, while a gate is trained."""

import math
from typing import Any, Literal, get_args

from gatewise.exceptions import InputError
from gatewise.gates.temperature import TemperedGate, positive_temperature
from gatewise.messages import choose, shown

__all__ = ["ScheduleShape", "TemperatureSchedule"]

ScheduleShape = Literal["exponential", "linear", "cosine"]


class TemperatureSchedule:
    """Takes the fixed temperature of a gate from `start` to `end` in a number of steps, and leaves it there.

    With s = min(t, steps)/steps, the temperature after t steps is
    start · (end/start)ˢ (exponential), start + (end − start) s (linear), or
    end + (start − end) (1 + cos πs)/2 (cosine). Making the schedule sets the gate's temperature to `start`.

    Args:
        gate: a gate with a fixed temperature.
        start: τ at the beginning.
        end: τ after `steps` steps.
        steps: how many calls of `step` it takes.
        shape: "exponential", "linear" or "cosine".

    Attributes:
        n_steps: how many steps have been taken.

    Raises:
        InputError: the gate's temperature is free or it has none, a temperature is not positive and finite, there are
            no steps, or the shape is unknown.

    Example:
        >>> from gatewise.gates import DenseToSparseGate
        >>> gate = DenseToSparseGate(n_features=2, n_experts=4, free_temperature=False)
        >>> schedule = TemperatureSchedule(gate, start=2.0, end=0.5, steps=2)
        >>> for _ in range(3):
        ...     schedule.step()
        ...     print(round(gate.temperature().item(), 6))
        1.0
        0.5
        0.5
    """

    def __init__(
        self, gate: TemperedGate, start: float, end: float, steps: int, shape: ScheduleShape = "exponential"
    ) -> None:
        if not isinstance(gate, TemperedGate):
            raise InputError(
                f"{type(gate).__name__} has no temperature that can be set: pass a dense-to-sparse gate, which of a "
                "layer is layer.router.gate"
            )
        if gate.free_temperature:
            raise InputError("the gate's temperature is learned: make the gate with free_temperature=False")
        if steps < 1:
            raise InputError(f"a schedule needs at least one step, not {steps}")
        if shape not in get_args(ScheduleShape):
            raise InputError(f"unknown shape {shown(shape)}: {choose(shape, get_args(ScheduleShape))}")
        self.gate = gate
        self.start = positive_temperature(start)
        self.end = positive_temperature(end)
        self.steps = steps
        self.shape: ScheduleShape = shape
        self.n_steps = 0
        gate.set_temperature(self.temperature_at(0))

    def temperature_at(self, step: int) -> float:
        """The temperature after `step` steps."""
        share = min(step, self.steps) / self.steps
        if self.shape == "exponential":
            return math.exp((1.0 - share) * math.log(self.start) + share * math.log(self.end))
        if self.shape == "linear":
            return (1.0 - share) * self.start + share * self.end
        return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * share)) / 2.0

    def step(self) -> None:
        """Take one step: call it once per update or epoch, after the optimiser's."""
        self.n_steps += 1
        self.gate.set_temperature(self.temperature_at(self.n_steps))

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` continues."""
        return {
            "start": self.start,
            "end": self.end,
            "steps": self.steps,
            "shape": self.shape,
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, and set the gate's temperature accordingly.

        Raises:
            InputError: an entry is missing or unknown.
        """
        if set(state) != set(self.state_dict()):
            raise InputError(f"a schedule's state has {sorted(self.state_dict())}, not {sorted(state)}")
        for name, value in state.items():
            setattr(self, name, value)
        self.gate.set_temperature(self.temperature_at(self.n_steps))
