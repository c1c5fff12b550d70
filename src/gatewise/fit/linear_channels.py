"""Derivatives where gate logits and locations are linear in the parameters: a few weighted cross-products."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.channel_gradient import channel_gradient, family_derivatives
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.internal_rows import InternalRows
from gatewise.fit.plain_rows import PlainRows
from gatewise.kernels.channels import channel_hessian
from gatewise.kernels.joint_pass import joint_rows
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import jacobian
from gatewise.parts.parameters import within

__all__ = ["LinearChannels", "designs"]

# Rows whose scores are put together at once: few enough to stay near the processor.
_CHUNK_ROWS = 2048


def designs(model: MixtureOfExperts, gate_x: Tensor, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What logits and locations are linear in, (n, q) and (n, p) by columns; one array if they are equal."""
    gate_basis, basis = model.gate.basis(gate_x), model.experts.basis(x)
    assert gate_basis is not None
    assert basis is not None
    design = np.asfortranarray(basis.detach().numpy())
    if gate_basis.shape == basis.shape and bool(torch.equal(gate_basis, basis)):
        return design, design
    return np.asfortranarray(gate_basis.detach().numpy()), design


class LinearChannels(PlainRows):
    """Logits G Bᵀ and locations Z Aᵀ with B, A and the dispersions linear in θ: θ ↦ derivatives of Σ w ℓ.

    Those by (B, A, dispersions) come from the channels' own; the linear map from θ, found once, brings them to θ.

    Args:
        coordinates: θ to parameters.
        rows: in internal units, in float64 on the CPU.
        n_threads: of a pass over the rows.
    """

    has_linear_channels = True

    def __init__(self, coordinates: Coordinates, rows: InternalRows, n_threads: int = 1) -> None:
        super().__init__(coordinates, rows, n_threads)
        self._added = self.offset.numpy() if bool(self.offset.any()) else None
        self._gate_design, self._design = rows.designs or designs(self.model, self.gate_x, self.x)

    @cached_property
    def _map(self) -> np.ndarray:
        """The derivatives of (B, A, dispersions), flattened, by θ."""
        return jacobian(self._flat_blocks, torch.zeros(self.coordinates.size, dtype=torch.float64)).numpy()

    @cached_property
    def _origin(self) -> np.ndarray:
        """(B, A, dispersions) where θ is 0."""
        return self._flat_blocks(torch.zeros(self.coordinates.size, dtype=torch.float64)).numpy()

    def _flat_blocks(self, theta: Tensor) -> Tensor:
        """B, A and the dispersions of all experts, flattened one after the other."""
        named = self.named(theta)
        gate, experts = within("gate", named), within("experts", named)
        bank = self.model.experts
        dispersion = experts["log_scale"].expand(bank.n_experts, *experts["log_scale"].shape[1:])
        blocks = (self.model.gate.coefficients(gate), bank.coefficients(experts), dispersion)
        return torch.cat([block.reshape(-1) for block in blocks])

    def _channels(self, theta: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, k), locations (n, k) or (n, k, m), dispersions (k,) or (k, s)."""
        bank, family = self.model.experts, self.model.family
        k, m = bank.n_experts, bank.n_outputs
        q, p = self._gate_design.shape[1], self._design.shape[1]
        gate, coefficients, dispersion = np.split(self._origin + self._map @ theta, [k * q, k * q + k * m * p])
        logits = self._gate_design @ gate.reshape(k, q).T
        location = self._design @ coefficients.reshape(k * m, p).T
        if self._added is not None:
            location += self._added[:, None]
        log_scale = dispersion if family.n_dispersion == 1 else dispersion.reshape(k, -1)
        location = location if m == 1 else location.reshape(-1, k, m)
        return torch.from_numpy(logits), torch.from_numpy(location), torch.from_numpy(log_scale)

    def value_and_gradient(self, theta: np.ndarray, responsibilities: Tensor | None = None) -> tuple[float, np.ndarray]:
        """Σ w ℓ, or with responsibilities (n, k) the expected complete log-likelihood, and its gradient by θ."""
        logits, location, log_scale = self._channels(theta)
        family, normalised, n_threads = self.model.family, self.normalised, self.n_threads
        found = channel_gradient(
            family, self.y, logits, location, log_scale, self.weight, normalised, n_threads, responsibilities
        )
        by_logits, by_location = found.logits.numpy(), found.location.numpy().reshape(len(logits), -1)
        blocks = (by_logits.T @ self._gate_design, by_location.T @ self._design, found.log_scale.numpy())
        return found.value, self._map.T @ np.concatenate([block.reshape(-1) for block in blocks])

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of Σ w ℓ by θ, (size, size)."""
        weights, responsibilities, first, second = self._derivatives(theta)
        hessian = channel_hessian(
            self._gate_design,
            self._design,
            self.weight.numpy(),
            weights,
            responsibilities,
            first,
            second,
            n_outputs=self.model.experts.n_outputs,
            normalised=self.normalised,
        )
        hessian = self._map.T @ hessian @ self._map
        return 0.5 * (hessian + hessian.T)

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """The gradient of each row's ℓ by θ, (n, size)."""
        return np.vstack([chunk @ self._map for _, chunk in self._score_chunks(theta)])

    def score_gram(self, theta: np.ndarray) -> np.ndarray:
        """Σ w s sᵀ of the scores, (size, size), without all of them at once."""
        size = len(self._origin)
        weight, gram = self.weight.numpy(), np.zeros((size, size))
        for rows, chunk in self._score_chunks(theta):
            gram += (chunk.T * weight[rows]) @ chunk
        return self._map.T @ gram @ self._map

    def _score_chunks(self, theta: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows at a time, the gradients of their ℓ by (B, A, dispersions)."""
        weights, responsibilities, first, _ = self._derivatives(theta)
        m = self.model.experts.n_outputs
        for low in range(0, len(responsibilities), _CHUNK_ROWS):
            rows = slice(low, low + _CHUNK_ROWS)
            share = responsibilities[rows]
            by_logits = share - weights[rows] if self.normalised else share
            # Where an expert has no part its derivatives need not exist.
            own = share[..., None] * np.where(share[..., None] == 0.0, 0.0, first[rows])
            blocks = (
                by_logits[:, :, None] * self._gate_design[rows, None, :],
                own[:, :, :m, None] * self._design[rows, None, None, :],
                own[:, :, m:],
            )
            yield rows, np.hstack([block.reshape(len(share), -1) for block in blocks])

    def value(self, theta: np.ndarray) -> float:
        """Σ w ℓ."""
        log_prob = self._rows(theta)[0]
        weight = self.weight.numpy()
        return float((weight * np.where(weight == 0.0, 0.0, log_prob)).sum())

    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """Responsibilities r (n, k)."""
        return self._rows(theta)[2]

    def _rows(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ℓ (n,), weights π and responsibilities r (n, k)."""
        logits, location, log_scale = self._channels(theta)
        closed = self.model.family.closed_derivatives(self.y, location, log_scale, with_second=False)
        density = self.model.family.log_density(self.y, location, log_scale) if closed is None else closed[0]
        return joint_rows(logits.numpy(), density.numpy(), self.normalised, self.n_threads)

    def _derivatives(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weights π and responsibilities r (n, k), and the family's derivatives (n, k, c) and (n, k, c, c)."""
        logits, location, log_scale = self._channels(theta)
        value, first, second = (
            part.numpy() for part in family_derivatives(self.model.family, self.y, location, log_scale)
        )
        _, weights, responsibilities = joint_rows(logits.numpy(), value, self.normalised, self.n_threads)
        return weights, responsibilities, first, second
