"""The parameters that are weights of atoms: in a cell they are a mass and shares, not displacements.

Weights of atoms in one cell may be divided in any way without changing the mixture. Their shares are therefore bounded,
not small, and what is small is the displacement of the cell's logarithmic mass.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from gatewise.gates import Gate

__all__ = ["WeightBlock", "weight_blocks"]

_PROBES = 7


@dataclass(frozen=True)
class WeightBlock:
    """One vector of weights.

    Attributes:
        name: the gate's parameter.
        atoms: the atoms that each of its entries multiplies, by the experts' numbers.
        link: "log" if an entry is unit · log weight + constant, "logit" if it is log(weight/(1 − weight)).
        unit: the temperature by which the gate divides its logits, else 1.
    """

    name: str
    atoms: tuple[tuple[int, ...], ...]
    link: Literal["log", "logit"] = "log"
    unit: float = 1.0

    def weight(self, value: np.ndarray) -> np.ndarray:
        """Log-weights of the parameter's entries."""
        return value / self.unit if self.link == "log" else -np.log1p(np.exp(-value))

    def value(self, log_weight: np.ndarray) -> np.ndarray:
        """The inverse of `weight`."""
        return self.unit * log_weight if self.link == "log" else log_weight - np.log(-np.expm1(log_weight))

    def slope(self, log_weight: np.ndarray) -> np.ndarray:
        """The derivative of `value`."""
        return np.full(len(log_weight), self.unit) if self.link == "log" else -1 / np.expm1(log_weight)


def weight_blocks(gate: Gate) -> list[WeightBlock]:
    """All vectors of weights of a gate.

    Those of a gate of one's own are found by what they do: an entry adds a constant to its own logit and to no other
    (up to what is added to all).

    Example:
        >>> from gatewise.gates import SoftmaxGate
        >>> weight_blocks(SoftmaxGate(n_features=1, n_experts=2).double())
        [WeightBlock(name='bias', atoms=((0,), (1,)), link='log', unit=1.0)]
    """
    return [block for prefix, part, atoms in gate.components() for block in _blocks(part, prefix, tuple(atoms))]


def _blocks(gate: Gate, prefix: str, atoms: tuple[tuple[int, ...], ...]) -> list[WeightBlock]:
    """Those of a flat gate."""
    if gate.weight_link == "logit":
        return [WeightBlock(f"{prefix}bias", atoms, link="logit")]
    found = []
    for name, value in gate.own_parameters().items():
        if value.shape == (gate.n_experts,) and gate.n_experts > 1:
            unit = _additive(gate, name)
            if unit is not None:
                found.append(WeightBlock(f"{prefix}{name}", atoms, unit=unit))
    return found


def _additive(gate: Gate, name: str) -> float | None:
    """1/c if entry i of the parameter adds c times itself to logit i alone, up to a function in all logits."""
    own = gate.own_parameters()
    x = torch.linspace(-0.9, 1.1, _PROBES * gate.n_features, dtype=torch.float64).reshape(_PROBES, gate.n_features)

    def logits(value: Tensor) -> Tensor:
        return functional_call(gate, {**own, name: value}, (x,))

    change = jacrev(logits)(own[name])
    contrast = change - change[:, -1:]
    factor = float(contrast[0, 0, 0])
    expected = torch.eye(gate.n_experts, dtype=torch.float64) - torch.eye(gate.n_experts, dtype=torch.float64)[-1:]
    if factor == 0.0 or not torch.allclose(contrast, (factor * expected).expand_as(contrast), rtol=1e-10, atol=1e-12):
        return None
    return 1.0 / factor
