"""The Hessian of Σ w ℓ where gate logits or locations are curved in θ: the channels' Jacobians and curvatures.

A row enters by its channels: logits γ, locations h and dispersions s. With Jᵢ = γᵢ + log fᵢ, responsibilities r and
weights π the chain rule gives, dots for derivatives by θ,

    ∇²ℓ = Σᵢ rᵢ J̇ᵢ J̇ᵢᵀ − (Σᵢ rᵢ J̇ᵢ)(Σᵢ rᵢ J̇ᵢ)ᵀ − [the same of γ̇ under π, if normalised]
          + Σᵢ rᵢ (ḣᵢ, ṡᵢ)ᵀ ∇²log fᵢ (ḣᵢ, ṡᵢ) + Σᵢ (rᵢ − πᵢ) γ̈ᵢ + Σᵢ rᵢ (∂ log fᵢ / ∂hᵢ) ḧᵢ

Only gate and experts are differentiated automatically, mixture and family by formula, which is several times as fast
as to differentiate the whole. (Checked against that.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.experts import Experts
from gatewise.fit.channel_gradient import channel_gradient, family_derivatives
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.internal_rows import InternalRows
from gatewise.fit.plain_rows import PlainRows
from gatewise.gates.base import GateLogits
from gatewise.kernels.joint_pass import joint_rows
from gatewise.ops.derivatives import hessian, jacobian
from gatewise.ops.joint_torch import fused_log_mixture
from gatewise.parts.component import Component
from gatewise.parts.parameters import prefixed, within

__all__ = ["CurvedChannels"]

_DISPERSION = "experts.log_scale"


class _Locations(nn.Module):
    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        location, _ = self.experts(x)
        location = location.reshape(*location.shape[:1], self.experts.n_experts, -1)
        return location + offset[:, None, None]


@dataclass(frozen=True)
class _Part:
    """Channels of one kind as a function of those entries of θ that they depend on."""

    channels: Callable[[Tensor], Tensor]
    entries: Tensor
    is_curved: bool

    def values(self, theta: Tensor) -> Tensor:
        with torch.no_grad():
            return self.channels(theta)

    def jacobian(self, theta: Tensor) -> Tensor:
        """First derivatives by the entries, along a last axis."""
        if not len(self.entries):
            return self.values(theta).unsqueeze(-1)[..., :0]
        return jacobian(lambda own: self._at(theta, own), theta[self.entries])

    def curvature(self, theta: Tensor, pull: Tensor) -> Tensor:
        """Σ pull × second derivatives, by pairs of the entries."""

        def pulled(own: Tensor) -> Tensor:
            return torch.where(pull == 0.0, 0.0, pull * self._at(theta, own)).sum()

        return hessian(pulled, theta[self.entries])

    def _at(self, theta: Tensor, own: Tensor) -> Tensor:
        return self.channels(theta.index_put((self.entries,), own))


class _RowChannels:
    """The channels of some rows, and the first derivatives of those that are linear in θ: the same at every θ."""

    def __init__(self, rows: slice, parts: tuple[_Part, _Part, _Part]) -> None:
        self.rows = rows
        self.parts = parts
        self._constant: dict[int, Tensor] = {}

    def jacobians(self, theta: Tensor) -> list[Tensor]:
        """First derivatives of the three channels by their entries."""
        found = []
        for place, part in enumerate(self.parts):
            known = self._constant.get(place)
            if known is None:
                known = part.jacobian(theta)
                if not part.is_curved:
                    self._constant[place] = known
            found.append(known)
        return found


class CurvedChannels(PlainRows):
    """Logits or locations curved in θ, dispersions linear in it: θ ↦ derivatives of Σ w ℓ, the rows' in closed form.

    Value and gradient go from channel to channel by the fused pass.

    Args:
        coordinates: θ to parameters.
        rows: in internal units, in float64 on the CPU.
        n_threads: of a pass over the rows.
    """

    def __init__(self, coordinates: Coordinates, rows: InternalRows, n_threads: int = 1) -> None:
        super().__init__(coordinates, rows, n_threads)
        self._logits, self._locations = GateLogits(self.model.gate), _Locations(self.model.experts)
        self._is_curved = [part.basis(inputs[:1]) is None for part, inputs in self._inputs()]
        self._kept: _RowChannels | None = None

    def __getstate__(self) -> dict[str, object]:
        """Without what is kept: a worker makes its own."""
        return {**vars(self), "_kept": None}

    @torch.no_grad()
    def value(self, theta: np.ndarray) -> float:
        """Σ w ℓ."""
        logits, density = (each.contiguous() for each in self.evaluate(self.point(theta)))
        return float(fused_log_mixture(logits, density, self.weight, self.normalised, self.n_threads))

    def value_and_gradient(self, theta: np.ndarray, responsibilities: Tensor | None = None) -> tuple[float, np.ndarray]:
        """Σ w ℓ, or with responsibilities (n, k) the expected complete log-likelihood, and its gradient by θ."""
        if responsibilities is not None:
            return super().value_and_gradient(theta, responsibilities)
        point = self.point(theta, requires_grad=True)
        channels = self.channels_at(point)
        found = channel_gradient(self.model.family, self.y, *channels, self.weight, self.normalised, self.n_threads)
        slopes = (found.logits, found.location, found.log_scale)
        used = [(channel, slope) for channel, slope in zip(channels, slopes, strict=True) if channel.requires_grad]
        outputs, upstream = zip(*used, strict=True)
        (gradient,) = torch.autograd.grad(outputs, point, upstream)
        return found.value, gradient.numpy()

    def _inputs(self) -> list[tuple[Component, Tensor]]:
        return [(self.model.gate, self.gate_x), (self.model.experts, self.x)]

    def _entries(self, belongs: Callable[[str], bool]) -> Tensor:
        """Where the free entries of some parameters stand in θ."""
        sizes = torch.tensor(self.coordinates.sizes)
        chosen = torch.tensor([belongs(name) for name in self.coordinates.names])
        column = self.coordinates.column[chosen.repeat_interleave(sizes)]
        return column[column >= 0].unique()

    def _rows(self, rows: slice) -> _RowChannels:
        """The channels of some rows; those of the last rows are kept, and most problems ask for all rows always."""
        kept = self._kept
        if kept is None or kept.rows != rows:
            kept = self._kept = _RowChannels(rows, self._parts(rows))
        return kept

    def _parts(self, rows: slice) -> tuple[_Part, _Part, _Part]:
        """Logits (n, k), locations (n, k, m) and dispersions (k, s) of some rows."""
        k, family = self.model.n_experts, self.model.family

        def logits(theta: Tensor) -> Tensor:
            own = prefixed("gate", within("gate", self.named(theta)))
            # What says of a partition which experts are kept stands beside the inputs.
            gate_x = self.gate_x[rows, : self.model.gate.n_features]
            return torch.func.functional_call(self._logits, own, (gate_x,))

        def locations(theta: Tensor) -> Tensor:
            own = prefixed("experts", within("experts", self.named(theta)))
            return torch.func.functional_call(self._locations, own, (self.x[rows], self.offset[rows]))

        def dispersions(theta: Tensor) -> Tensor:
            log_scale = self.named(theta)[_DISPERSION]
            return log_scale.expand(k, *log_scale.shape[1:]).reshape(k, family.n_dispersion)

        return (
            _Part(logits, self._entries(lambda name: name.startswith("gate.")), self._is_curved[0]),
            _Part(
                locations,
                self._entries(lambda name: name.startswith("experts.") and name != _DISPERSION),
                self._is_curved[1],
            ),
            _Part(dispersions, self._entries(lambda name: name == _DISPERSION), False),
        )

    def chunk_hessian(self, theta: Tensor, rows: slice) -> Tensor:
        """The Hessian of Σ w ℓ over some rows by θ, (size, size)."""
        family, weight = self.model.family, self.weight[rows]
        kept = self._rows(rows)
        logits, locations, dispersions = kept.parts
        gate, place, scale = (part.values(theta) for part in kept.parts)
        m = place.shape[2]
        own = (place.squeeze(2) if m == 1 else place, scale.squeeze(1) if family.n_dispersion == 1 else scale)
        value, first, second = family_derivatives(family, self.y[rows], *own)
        passed = joint_rows(gate.numpy(), value.numpy(), self.normalised, self.n_threads)
        prior, share = (torch.from_numpy(part) for part in passed[1:])
        mass = weight.unsqueeze(-1) * share
        # Where a density vanishes its derivatives need not exist, and 0 · ∞ is not 0.
        idle = (mass == 0.0).unsqueeze(-1)
        first = torch.where(idle, 0.0, first)
        second = torch.where(idle.unsqueeze(-1), 0.0, mass[..., None, None] * second)

        by_gate, by_place, by_scale = kept.jacobians(theta)
        joint = theta.new_zeros(*gate.shape, len(theta))
        for part, derivative in (
            (logits, by_gate),
            (locations, (first[..., :m, None] * by_place).sum(2)),
            (dispersions, torch.einsum("rks,ksp->rkp", first[..., m:], by_scale)),
        ):
            joint[..., part.entries] += derivative
        total = _covariance(joint, share, weight)

        def add(one: _Part, other: _Part, block: Tensor) -> None:
            total.index_put_((one.entries.unsqueeze(1), other.entries), block, accumulate=True)

        if self.normalised:
            add(logits, logits, -_covariance(by_gate, prior, weight))
        turned = torch.einsum("rkab,rkbp->rkap", second[..., :m, :m], by_place)
        add(locations, locations, by_place.flatten(0, 2).T @ turned.flatten(0, 2))
        mixed = torch.einsum("rkap,rkas->ksp", by_place, second[..., :m, m:])
        mixed = torch.einsum("ksp,ksq->pq", mixed, by_scale)
        add(locations, dispersions, mixed)
        add(dispersions, locations, mixed.T)
        spread = torch.einsum("kst,ktq->ksq", second[..., m:, m:].sum(0), by_scale)
        add(dispersions, dispersions, torch.einsum("ksp,ksq->pq", by_scale, spread))
        if logits.is_curved and len(logits.entries):
            pull = mass - weight.unsqueeze(-1) * prior if self.normalised else mass
            add(logits, logits, logits.curvature(theta, pull))
        if locations.is_curved and len(locations.entries):
            add(locations, locations, locations.curvature(theta, mass.unsqueeze(-1) * first[..., :m]))
        return total


def _covariance(directions: Tensor, share: Tensor, weight: Tensor) -> Tensor:
    """Σ_r w (Σᵢ shareᵢ vᵢ vᵢᵀ − (Σᵢ shareᵢ vᵢ)(Σᵢ shareᵢ vᵢ)ᵀ) of directions v (n, k, size)."""
    share = share.unsqueeze(-1)
    # Where an expert has no part it may have no direction either.
    directions = torch.where(share == 0.0, 0.0, directions)
    pulled = share * directions
    mean = pulled.sum(1)
    weighted = (weight[:, None, None] * pulled).flatten(0, 1)
    return directions.flatten(0, 1).T @ weighted - mean.T @ (weight.unsqueeze(-1) * mean)
