"""Internal and user units of any model whose parts are modules, and the identified quantities of its parameters.

A gate or bank of experts that is equivariant under affine changes of its inputs is fitted on standardised inputs and
reported in the user's units. One that is not gets its standardisation as a layer of the model, or none at all. The
target is standardised where the family and the experts allow it; of regressions it is the residual of the one-expert
fit, from whose parameters those of all experts are then counted.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.entry_names import named_entry
from gatewise.gates import Gate
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import differentiable
from gatewise.parts.parameters import Parameters, Quantity, prefixed, within
from gatewise.parts.standardiser import Standardiser

__all__ = ["Coordinates", "InternalUnits"]


@dataclass(frozen=True)
class InternalUnits:
    """What is done to the rows before a fit, and how it is undone.

    Attributes:
        gate: shift and scale of the gate's inputs (d_gate,) each, or None for none.
        experts: shift and scale of the experts' inputs, or None.
        gate_is_stored: whether the gate's standardisation is a layer of the fitted model.
        experts_is_stored: the same of the experts'.
        target: shift and scale of the target (m,) each, or None.
    """

    gate: tuple[Tensor, Tensor] | None
    experts: tuple[Tensor, Tensor] | None
    gate_is_stored: bool
    experts_is_stored: bool
    target: tuple[Tensor, Tensor] | None


class Coordinates:
    """θ, the free internal parameters, to the identified quantities of gate, experts and dispersions.

    Args:
        prototype: the model, in float64 on the CPU.
        units: what was done to the rows.
        column: for each entry of the full vector the free one that it stands for, −1 if it is held.
        base: the full vector, for what is held.
        has_dispersion: whether the dispersions are quantities of the fit; they are none of least squares.
        origin: the full vector from which parameters are counted, in internal units (N,), or None for 0.
    """

    def __init__(
        self,
        prototype: MixtureOfExperts,
        units: InternalUnits,
        column: np.ndarray,
        base: np.ndarray,
        has_dispersion: bool = True,
        origin: np.ndarray | None = None,
    ) -> None:
        self.prototype = prototype
        self.units = units
        self.column = torch.from_numpy(column)
        self.base = torch.from_numpy(base)
        self.origin = None if origin is None else torch.from_numpy(origin)
        parts = (("gate", prototype.gate), ("experts", prototype.experts))
        named = [(f"{part}.{name}", value.shape) for part, module in parts for name, value in module.named_parameters()]
        self.has_dispersion = has_dispersion and prototype.family.n_dispersion > 0
        self.names = [name for name, _ in named]
        self.shapes = [shape for _, shape in named]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.size = int(column.max(initial=-1)) + 1
        self._all_are_free = np.array_equal(column, np.arange(len(base)))
        gate_entries = sum(size for name, size in zip(self.names, self.sizes, strict=True) if name.startswith("gate."))
        self.n_gate_parameters = int(column[:gate_entries].max(initial=-1)) + 1
        gate = prototype.gate.quantities([str(j) for j in range(prototype.gate.n_features)])
        self.n_gate = len(gate)

    def full(self, theta: Tensor) -> Tensor:
        """All parameters, flattened, from the free ones (size,); differentiable."""
        if self._all_are_free:
            return theta.clone()
        padded = torch.cat([theta, theta.new_zeros(1)])
        return torch.where(self.column >= 0, padded[self.column], self.base.to(theta))

    def parameters(self, full: Tensor) -> Parameters:
        """The full vector as named tensors, "gate.…" and "experts.…"."""
        pieces = zip(self.names, full.split(self.sizes), self.shapes, strict=True)
        return {name: piece.reshape(shape) for name, piece, shape in pieces}

    def flat(self, gate: Parameters, experts: Parameters) -> Tensor:
        """The full vector of a gate's and a bank's parameters."""
        named = {**prefixed("gate", gate), **prefixed("experts", experts)}
        return torch.cat([named[name].reshape(-1) for name in self.names])

    def collapse(self, full: np.ndarray) -> np.ndarray:
        """The free vector of a full one: means over tied entries."""
        column = self.column.numpy()
        kept = column >= 0
        counts = np.bincount(column[kept], minlength=self.size)
        return np.bincount(column[kept], weights=full[kept], minlength=self.size) / counts

    def user_parameters(self, full: Tensor) -> tuple[Parameters, Parameters]:
        """Gate and experts in the user's units, or in those of their stored standardisation."""
        named = self.parameters(full if self.origin is None else full + self.origin)
        gate, experts = within("gate", named), within("experts", named)
        units, model = self.units, self.prototype
        if units.gate is not None and not units.gate_is_stored:
            gate = model.gate.unstandardise(gate, *units.gate)
        if units.experts is not None and not units.experts_is_stored:
            experts = model.experts.unstandardise(experts, *units.experts)
        if units.target is not None:
            shift, scale = units.target
            experts = model.experts.change_output(experts, shift, scale)
            factor = scale.reshape(()) if model.family.event_size == 0 else scale
            experts["log_scale"] = model.family.rescale_dispersion(experts["log_scale"], factor)
        return gate, experts

    def locate(self, model: MixtureOfExperts) -> np.ndarray:
        """The full vector (N,) of a model of the same parts, in internal units: what `build` makes a model of.

        Raises:
            InputError: a fit would store a standardisation that the model does not have.
        """
        units = self.units
        if (units.gate is not None and units.gate_is_stored) or (units.experts is not None and units.experts_is_stored):
            raise InputError(
                "a model to start at has its parameters for the inputs as they are, and this fit standardises the "
                'inputs of a part that is another model on other units: set standardise="off", or fit that model as '
                "the prototype, with the standardisation that it stores"
            )
        gate, experts = self.internal_gate(model.gate), model.experts.own_parameters()
        if units.target is not None:
            shift, scale = units.target
            experts = model.experts.change_output(experts, -shift / scale, 1.0 / scale)
            experts["log_scale"] = self.internal_dispersions(experts["log_scale"])
        if units.experts is not None:
            experts = model.experts.unstandardise(experts, -units.experts[0] / units.experts[1], 1.0 / units.experts[1])
        full = self.flat(gate, experts)
        return (full if self.origin is None else full - self.origin).numpy()

    def internal_gate(self, gate: Gate) -> Parameters:
        """The parameters of a gate of the same kind in the units of the standardised inputs."""
        own, units = gate.own_parameters(), self.units.gate
        return own if units is None else gate.unstandardise(own, -units[0] / units[1], 1.0 / units[1])

    def internal_dispersions(self, log_scale: Tensor) -> Tensor:
        """Dispersions (k,) or (k, s) of the user's units in those of the standardised target."""
        if self.units.target is None:
            return log_scale
        family, scale = self.prototype.family, self.units.target[1]
        return family.rescale_dispersion(log_scale, 1.0 / (scale.reshape(()) if family.event_size == 0 else scale))

    def _estimates(self, theta: Tensor) -> Tensor:
        return self._identified(*self.user_parameters(self.full(theta)))

    def _identified(self, gate: Parameters, experts: Parameters) -> Tensor:
        log_scale = experts.pop("log_scale")
        parts = [self.prototype.gate.identified(gate), self.prototype.experts.identified(experts)]
        if self.has_dispersion:
            parts.append(self.prototype.family.natural_dispersion(log_scale).reshape(-1))
        return torch.cat(parts)

    def estimates(self, theta: np.ndarray) -> np.ndarray:
        """The identified quantities (m,): the gate's, the experts', the dispersions."""
        return self._estimates(torch.from_numpy(theta)).numpy()

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Their derivatives by θ, (m, size)."""
        with differentiable():
            point = torch.from_numpy(theta)
            return torch.autograd.functional.jacobian(self._estimates, point, vectorize=False).numpy()

    def quantities(self, features: Sequence[str], gate_features: Sequence[str], target: str) -> list[Quantity]:
        """What they are, (m,); "z(…)" is a feature as its stored standardisation gives it."""
        model, family = self.prototype, self.prototype.family
        seen = [f"z({name})" for name in features] if self.units.experts_is_stored else list(features)
        gate_seen = [f"z({name})" for name in gate_features] if self.units.gate_is_stored else list(gate_features)
        experts = model.experts
        owners = ["all experts"] if experts.shared_scale else [f"expert {i}" for i in range(1, experts.n_experts + 1)]
        terms = family.dispersion_terms() if self.has_dispersion else []
        return [
            *model.gate.quantities(gate_seen),
            *experts.quantities(seen, family.output_names(target)),
            *(Quantity(owner, term, positive) for owner in owners for term, positive in terms),
        ]

    def along(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """How fast the quantities change along a direction of θ, each in a unit of its own, see `Coordinates`, (m,)."""

        def identified(point: Tensor) -> Tensor:
            named = self.parameters(self.full(point))
            return self._identified(within("gate", named), within("experts", named))

        with differentiable():
            internal = torch.autograd.functional.jacobian(identified, torch.from_numpy(theta), vectorize=False)
        user = self.jacobian(theta)
        own, lengths = (np.linalg.norm(rows, axis=1) for rows in (internal.numpy(), user))
        return np.divide(own, lengths, out=np.zeros_like(own), where=lengths > 0.0) * (user @ direction)

    def entry_names(self, features: Sequence[str], gate_features: Sequence[str]) -> list[str]:
        """The parameter that each entry of θ stands for, the first of several: "gate 1: inner.weight[age]"."""
        parts = {
            "gate": ("gate", self.prototype.gate, gate_features),
            "experts": ("expert", self.prototype.experts, features),
        }
        entries = []
        for full_name, shape in zip(self.names, self.shapes, strict=True):
            part, _, name = full_name.partition(".")
            owner, module, seen = parts[part]
            named = [named_entry(owner, module, name, tuple(shape), index, seen) for index in np.ndindex(*shape)]
            entries += [f"{component}: {term}" for component, term in named]
        column = self.column.tolist()
        return [entries[column.index(j)] for j in range(self.size)]

    def labels(self) -> list[str]:
        """A name for each entry of θ: the first of the parameters that it stands for."""
        entries = [
            f"{name}[{', '.join(map(str, index))}]"
            for name, shape in zip(self.names, self.shapes, strict=True)
            for index in np.ndindex(*shape)
        ]
        column = self.column.tolist()
        return [entries[column.index(j)] for j in range(self.size)]

    def build(self, theta: np.ndarray) -> MixtureOfExperts:
        """A copy of the prototype with these parameters, and with the standardisation of parts that store it."""
        model = copy.deepcopy(self.prototype)
        gate, experts = self.user_parameters(self.full(torch.from_numpy(theta)))
        model.gate.assign_parameters(gate)
        model.experts.assign_parameters(experts)
        if self.units.gate is not None and self.units.gate_is_stored:
            model.gate_scaler = Standardiser(*self.units.gate)
        if self.units.experts is not None and self.units.experts_is_stored:
            model.expert_scaler = Standardiser(*self.units.experts)
        model.requires_grad_(False)
        return model
