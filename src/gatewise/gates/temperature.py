"""What gates with one temperature have in common: a slope and a bias per expert, and τ, free or fixed."""

import math
from abc import ABC
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates.base import Gate
from gatewise.messages import shown
from gatewise.parts.component import Atoms, true_or_false
from gatewise.parts.parameters import Parameters

if TYPE_CHECKING:
    from sympy import Expr

    from gatewise.parts.formulas import TheoryParameter

__all__ = ["TemperedGate", "positive_temperature", "temperatures"]

_COLDEST, _HOTTEST = 1e-100, 1e100


def positive_temperature(value: float) -> float:
    """The value, if it can be a temperature.

    Raises:
        InputError: it is not positive and finite, or beyond 1e-100 and 1e100, where squares overflow.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not _COLDEST <= value <= _HOTTEST:
        raise InputError(
            f"a temperature must be positive and finite, from {_COLDEST:g} to {_HOTTEST:g}, not {shown(value)}"
        )
    return float(value)


def temperatures(atoms: Atoms) -> np.ndarray:
    """τ of each atom, (k, 1); 1 where the atoms do not say it."""
    return atoms.get("gate_temperature", np.ones(len(atoms["gate_slope"]))).reshape(-1, 1)


class TemperedGate(Gate, ABC):
    """A gate whose logits are divided by one temperature τ = exp(log_temperature).

    Args:
        n_features: d.
        n_experts: k.
        temperature: τ to begin with.
        free_temperature: whether τ is a parameter that is learned. If not, log_temperature is a buffer: saved with the
            state, set by `set_temperature` or a `TemperatureSchedule`, and not touched by an optimiser.

    Raises:
        InputError: the temperature is not positive and finite.
    """

    log_temperature: Tensor
    atom_entries: ClassVar[Mapping[str, str]] = {**Gate.atom_entries, "log_temperature": "log_temperature"}
    loose_options = ("temperature", "free_temperature")

    def __init__(
        self, n_features: int, n_experts: int, temperature: float = 1.0, free_temperature: bool = True
    ) -> None:
        super().__init__(n_features, n_experts)
        self.initial_temperature = positive_temperature(temperature)
        self.free_temperature = true_or_false("free_temperature", free_temperature)
        self.fixed_atoms = () if self.free_temperature else ("gate_temperature",)
        self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))
        # In float64 from the start: rounded to float32, a temperature of 0.1 would stay wrong in a model cast later.
        logarithm = torch.tensor([math.log(self.initial_temperature)], dtype=torch.float64)
        if free_temperature:
            self.log_temperature = nn.Parameter(logarithm.to(self.bias.dtype))
        else:
            self.register_buffer("log_temperature", logarithm)

    def options(self) -> dict[str, Any]:
        """The temperature that the gate was made with, and whether it is free; the present one is in the state."""
        return {"temperature": self.initial_temperature, "free_temperature": self.free_temperature}

    def temperature(self) -> Tensor:
        """The present τ, (1,), in the precision of the parameters."""
        return self.log_temperature.exp().to(self.bias.dtype)

    def temperature_of(self, parameters: Parameters) -> Tensor:
        """τ among these parameters if it is free, else the fixed one, (1,)."""
        if self.free_temperature:
            return parameters["log_temperature"].exp()
        return self.log_temperature.exp().to(parameters["bias"].dtype)

    def set_temperature(self, value: float) -> None:
        """Set τ, the parameter's value if it is free.

        Raises:
            InputError: the value is not positive and finite.
        """
        with torch.no_grad():
            self.log_temperature.fill_(math.log(positive_temperature(value)))

    def temperature_symbols(self) -> "tuple[tuple[TheoryParameter, ...], Expr]":
        """The parameters of formulas that τ is, one or none, and τ in them."""
        from gatewise.gates.scores import number
        from gatewise.parts.expressions import parameter

        if not self.free_temperature:
            return (), number(self.initial_temperature)
        own = parameter("τ", positive=True, atom="gate_temperature")
        return (own,), own.symbol

    def parameters_of(self, atoms: Atoms) -> Parameters:
        """As any gate's, with log τ if that is free."""
        if not self.free_temperature:
            return super().parameters_of(atoms)
        return super().parameters_of({**atoms, "log_temperature": np.log(temperatures(atoms)[:1, 0])})

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,), `gate_slope` β₁ (k, d) and `gate_temperature`, τ for each expert (k,)."""
        return {
            "gate_bias": self.bias.detach().clone(),
            "gate_slope": self.weight.detach().clone(),
            "gate_temperature": self.temperature().detach().repeat(self.n_experts),
        }
