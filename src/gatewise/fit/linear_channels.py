"""The exact Hessian where gate logits and locations are linear in the parameters: a few weighted cross-products."""

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.module_coordinates import ModuleCoordinates
from gatewise.ops.channels import channel_hessian
from gatewise.ops.channels_torch import channel_derivatives
from gatewise.ops.joint_pass import joint_rows
from gatewise.ops.parameters import within

__all__ = ["LinearChannels"]


class LinearChannels:
    """Logits G Bᵀ and locations Z Aᵀ with B, A and the dispersions linear in θ: θ ↦ the Hessian of Σ w ℓ.

    The Hessian by (B, A, dispersions) comes from the channels' derivatives of log f; the linear map from θ, found once,
    brings it to θ.

    Args:
        coordinates: θ to parameters.
        y: targets in internal units (n,) or (n, e).
        offset: added to the locations (n,).
        weight: row weights (n,).
        gate_basis: G (n, q).
        basis: Z (n, p).
    """

    def __init__(
        self,
        coordinates: ModuleCoordinates,
        y: Tensor,
        offset: Tensor,
        weight: Tensor,
        gate_basis: Tensor,
        basis: Tensor,
    ) -> None:
        self.coordinates = coordinates
        self.model = coordinates.prototype
        self.y, self.weight = y, weight
        self.offset = offset
        self.gate_basis, self.basis = gate_basis.detach(), basis.detach()
        self._gate_design = np.asfortranarray(self.gate_basis.numpy())
        same = gate_basis.shape == basis.shape and bool(torch.equal(gate_basis, basis))
        self._design = self._gate_design if same else np.asfortranarray(self.basis.numpy())
        zero = torch.zeros(coordinates.size, dtype=torch.float64)
        self._map = torch.autograd.functional.jacobian(lambda theta: torch.cat(self._blocks(theta)), zero).numpy()

    def _blocks(self, theta: Tensor) -> list[Tensor]:
        """B, A and the dispersions of all experts, each flattened."""
        named = self.coordinates.parameters(self.coordinates.full(theta))
        gate, experts = within("gate", named), within("experts", named)
        bank = self.model.experts
        dispersion = experts["log_scale"].expand(bank.n_experts, *experts["log_scale"].shape[1:])
        return [
            self.model.gate.coefficients(gate).reshape(-1),
            bank.coefficients(experts).reshape(-1),
            dispersion.reshape(-1),
        ]

    def hessian(self, theta: Tensor) -> np.ndarray:
        """The Hessian of Σ w ℓ by θ, (size, size)."""
        bank, family = self.model.experts, self.model.family
        k, m = bank.n_experts, bank.n_outputs
        with torch.no_grad():
            gate, coefficients, dispersion = self._blocks(theta)
            logits = self.gate_basis @ gate.reshape(k, -1).T
            location = self.basis @ coefficients.reshape(k * m, -1).T
            location = location.reshape(len(location), k, m) if m > 1 else location
            location = location + self.offset.reshape(-1, *([1] * (location.ndim - 1)))
        log_scale = dispersion if family.n_dispersion == 1 else dispersion.reshape(k, -1)
        value, first, second = (
            part.numpy() for part in channel_derivatives(family.log_density, self.y, location, log_scale)
        )
        normalised = not self.model.gate.is_joint
        _, weights, responsibilities = joint_rows(logits.numpy(), value, normalised)
        hessian = channel_hessian(
            self._gate_design,
            self._design,
            self.weight.numpy(),
            weights,
            responsibilities,
            first,
            second,
            n_outputs=m,
            normalised=normalised,
        )
        return self._map.T @ hessian @ self._map
