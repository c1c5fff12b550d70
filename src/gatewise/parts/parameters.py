"""What is said about parameters: their names as quantities, and the symmetries that leave a model unchanged.

A parameter set is a dictionary of tensors under the names of `nn.Module.named_parameters`. Gates and experts describe
themselves by pure, differentiable functions of such dictionaries, never by changing themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gatewise.ops.derivatives import differentiable

__all__ = ["Kind", "Parameters", "Quantity", "Symmetry", "prefixed", "within"]

Kind = Literal["translation", "scale", "discrete", "free", "orbit"]
"""What a symmetry is to a loss between mixing measures, which must not see what the model does not determine.

A translation adds one vector to coordinates of all atoms, a scale is divided out of them (`Component.coordinates`), a
discrete symmetry makes finitely many copies, signs and exchanges; parameters that are free have no effect at all. Of
any other, an orbit, the nearest point is searched.
"""

Parameters = dict[str, Tensor]
"""Tensors by parameter name."""


@dataclass(frozen=True)
class Quantity:
    """One identified number: what a row of a parameter table is about.

    Attributes:
        component: which part of the model, "gate 1 vs 2" or "expert 1".
        term: which of its numbers, a feature's name, "(intercept)" or "scale".
        positive: whether it is positive by nature: its interval is taken on the logarithm, and 0 is no hypothesis.
    """

    component: str
    term: str
    positive: bool = False


@dataclass(frozen=True)
class Symmetry:
    """A group acting on parameters, (parameters, t) ↦ parameters, without any effect on the gate or the experts.

    Attributes:
        name: "translation", "scale", "sign", …
        sentence: what it does and why nothing changes, with a formula, for a reader of a report.
        dimension: the number of real coordinates of t; 0 for a discrete symmetry.
        act: the action. For a continuous one act(p, 0) = p and it is differentiable in t near 0; for a discrete one
            t is empty and the action is one generator, which is not the identity.
        pins: the parameter (k, …) whose last row act(p, −last row) brings to 0, or None.
        settles: p ↦ the t for which act(p, t) is the orbit's representative; None where there is none to prefer.
        kind: what it is to a loss, see `Kind`.
    """

    name: str
    sentence: str
    dimension: int
    act: Callable[[Parameters, Tensor], Parameters]
    pins: str | None = None
    settles: Callable[[Parameters], Tensor] | None = None
    kind: Kind = "orbit"

    def settling(self, parameters: Parameters) -> Tensor | None:
        """The t that takes the point to its orbit's representative, or None if all of the orbit are as good."""
        if self.settles is not None:
            return self.settles(parameters)
        return None if self.pins is None else -parameters[self.pins][-1].reshape(-1)

    def tangents(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Where the orbit leaves the point: rows ∂ act / ∂t at t = 0, (dimension, number of parameters)."""
        names = list(parameters)
        like = next(iter(parameters.values()))

        def flat(amount: Tensor) -> Tensor:
            moved = self.act(dict(parameters), amount)
            return torch.cat([moved[name].reshape(-1) for name in names])

        with differentiable():
            zero = torch.zeros(self.dimension, dtype=like.dtype, device=like.device)
            return torch.autograd.functional.jacobian(flat, zero, vectorize=False).T


def within(prefix: str, parameters: Mapping[str, Tensor]) -> Parameters:
    """The parameters of the part that stands under `prefix`, with the prefix taken off their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in parameters.items() if name.startswith(start)}


def prefixed(prefix: str, parameters: Mapping[str, Tensor]) -> Parameters:
    """The inverse of `within`."""
    return {f"{prefix}.{name}": value for name, value in parameters.items()}
