"""Linear channels of a softmax-gated Gaussian mixture: compiled sweeps from the designs on, behind the map from θ."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from gatewise.families import Gaussian
from gatewise.fit.linear_channels import LinearChannels
from gatewise.kernels.curvature import linear_hessian, linear_responsibilities, linear_score_gram
from gatewise.kernels.linear_pass import LinearPass
from gatewise.model import MixtureOfExperts

__all__ = ["GaussianChannels", "has_compiled_sweep"]

# An expert with less than this share of the weight has no rows.
_EMPTY = 1e-8


def has_compiled_sweep(model: MixtureOfExperts) -> bool:
    """Whether value, gradient, Hessian and scores of linear channels are single sweeps: Gaussian, one output, softmax.

    The family itself and none of its kind, whose density could be another one.
    """
    return type(model.family) is Gaussian and model.experts.n_outputs == 1 and not model.gate.is_joint


class GaussianChannels(LinearChannels):
    """θ ↦ (contrasts of the logits' coefficients, locations' coefficients, log σ), linear, and sweeps by these.

    Nothing of the size (n, k) is formed, and no channel leaves its block of rows. Where θ is counted from one
    regression it is these numbers already, but for a scale that all experts share.

    Args:
        arguments: of `LinearChannels`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sweep = self._over_rows()
        k, q, size = self.model.n_experts, self._gate_design.shape[1], self.coordinates.size
        self._shape = (k, q)
        self._is_theta = self.coordinates.origin is not None and not self.model.experts.shared_scale
        if self.coordinates.origin is not None:
            n_scales = self.model.experts.log_scale.numel()
            self._map_to_contrasts = np.eye(size)[np.minimum(np.arange(size - n_scales + k), size - 1)]
            self._contrasts_at_zero = np.zeros(len(self._map_to_contrasts))
        else:
            # The kernels take the last expert's logit for 0.
            self._map_to_contrasts = _contrasts(self._map, k, q)
            self._contrasts_at_zero = _contrasts(self._origin, k, q)

    def __getstate__(self) -> dict[str, object]:
        """Without the sweep, whose arrays are views that would be written once more: a worker makes its own."""
        return {**vars(self), "sweep": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self.sweep = self._over_rows()

    def _over_rows(self) -> LinearPass:
        gate_design, design = self._gate_design.T, self._design.T
        gate_design = design if self._gate_design is self._design else gate_design
        return LinearPass(gate_design, design, self.y.numpy(), self.weight.numpy(), n_threads=self.n_threads)

    def unpack(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """θ ↦ gate (k, q) with a last row of zeros, experts (k, p), log-scales (k,)."""
        k, q = self._shape
        flat = theta if self._is_theta else self._contrasts_at_zero + self._map_to_contrasts @ theta
        gate = np.zeros((k, q))
        gate[:-1] = flat[: (k - 1) * q].reshape(k - 1, q)
        return gate, flat[(k - 1) * q : -k].reshape(k, -1), flat[-k:]

    def pack(self, gate: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """The inverse of `unpack` where θ is counted from one regression; of the gate the contrasts count."""
        scales = log_scale[: self.model.experts.log_scale.numel()]
        return np.concatenate([(gate[:-1] - gate[-1]).ravel(), coefficients.ravel(), scales])

    def value_and_gradient(self, theta: np.ndarray, responsibilities: Tensor | None = None) -> tuple[float, np.ndarray]:
        """Σ w ℓ, or with responsibilities (n, k) the expected complete log-likelihood, and its gradient by θ."""
        if responsibilities is not None:
            return super().value_and_gradient(theta, responsibilities)
        value, gate, coefficients, log_scale = self.sweep(*self.unpack(theta))
        gradient = np.concatenate([gate[:-1].ravel(), coefficients.ravel(), log_scale])
        return value, gradient if self._is_theta else gradient @ self._map_to_contrasts

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of Σ w ℓ by θ, (size, size)."""
        return self._squared(linear_hessian, theta)

    def score_gram(self, theta: np.ndarray) -> np.ndarray:
        """Σ w s sᵀ of the scores, (size, size), without any of them."""
        return self._squared(linear_score_gram, theta)

    def _squared(self, function: Callable[..., np.ndarray], theta: np.ndarray) -> np.ndarray:
        found = function(self.sweep, *self.unpack(theta))
        if self._is_theta:
            return found
        found = self._map_to_contrasts.T @ found @ self._map_to_contrasts
        return 0.5 * (found + found.T)

    def closed_scales(self, theta: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """½ log (Σ s e² / Σ s) of each expert's residuals e; of all experts' together where they share one scale."""
        location = self._channels(theta)[1].numpy()
        squares = (shares * np.square(self.y.numpy()[:, None] - location)).sum(0)
        mass = shares.sum(0)
        if self.model.experts.shared_scale:
            squares, mass = np.full_like(squares, squares.sum()), np.full_like(mass, mass.sum())
        # An expert without rows begins with the spread of all.
        filled = mass > _EMPTY * mass.sum()
        with np.errstate(divide="ignore"):
            return 0.5 * np.log(np.where(filled, squares, squares.sum()) / np.where(filled, mass, mass.sum()))

    def value(self, theta: np.ndarray) -> float:
        """Σ w ℓ."""
        return self.sweep(*self.unpack(theta))[0]

    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The log-densities log p(y | x) of some rows, (rows,)."""
        whole = self.sweep
        arrays = (whole.gate_design[:, rows], whole.design[:, rows], whole.y[rows], whole.weight[rows])
        return linear_responsibilities(LinearPass(*arrays), *self.unpack(theta))[3]

    def _rows(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ℓ (n,), weights π and responsibilities r (n, k)."""
        weights, responsibilities, _, log_prob = linear_responsibilities(self.sweep, *self.unpack(theta))
        return log_prob, weights.T, responsibilities.T


def _contrasts(blocks: np.ndarray, n_experts: int, gate_size: int) -> np.ndarray:
    """The first k q entries relative to the last q of them, which go."""
    last = (n_experts - 1) * gate_size
    reference = np.tile(blocks[last : last + gate_size], (n_experts - 1, *[1] * (blocks.ndim - 1)))
    return np.concatenate([blocks[:last] - reference, blocks[last + gate_size :]])
