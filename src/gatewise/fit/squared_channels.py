"""Least squares where logits and locations are linear in the parameters and a location is a mean: no tape is kept.

With weights π = softmax γ, locations h and m = Σᵢ πᵢ hᵢ the derivatives of the regression function by the channels are

    ∂m/∂γⱼ = πⱼ (hⱼ − m),   ∂m/∂hᵢ = πᵢ,
    ∂²m/∂γⱼ∂γₗ = δⱼₗ πⱼ (hⱼ − m) − πⱼ πₗ (hⱼ + hₗ − 2m),   ∂²m/∂γⱼ∂hᵢ = πⱼ (δᵢⱼ − πᵢ),   ∂²m/∂hᵢ∂hₗ = 0

(checked against automatic differentiation). What belongs to the parameters is made of cross-products of the designs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from gatewise.fit.linear_channels import LinearChannels
from gatewise.model import MixtureOfExperts

__all__ = ["SquaredChannels", "has_squared_channels"]

# Rows whose derivatives are put together at once: few enough to stay near the processor.
_CHUNK_ROWS = 2048


def has_squared_channels(model: MixtureOfExperts) -> bool:
    """Whether the weights are a softmax of logits, and an expert's location is its mean, one number."""
    if model.gate.normaliser != "softmax" or model.experts.n_outputs != 1:
        return False
    probe = torch.linspace(-2.0, 2.0, model.n_experts, dtype=torch.float64).unsqueeze(0)
    return bool(torch.equal(model.family.mean(probe, model.experts.log_scale.detach()), probe))


class SquaredChannels(LinearChannels):
    """θ ↦ −½ Σ w (y − m)² with its derivatives, and those of m row by row.

    Args:
        arguments: of `LinearChannels`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._last: tuple[bytes, tuple[np.ndarray, ...]] = b"", ()

    def __getstate__(self) -> dict[str, object]:
        """Without what is kept: a worker makes its own."""
        return {**vars(self), "_last": (b"", ())}

    def value_and_gradient(self, theta: np.ndarray, responsibilities: object = None) -> tuple[float, np.ndarray]:
        """−½ Σ w e² and its gradient Σ w e ∂m/∂θ."""
        pi, _, slopes, residual = self._rows_of_mean(theta)
        weighted = self.weight.numpy() * residual
        by_gate, by_location = (weighted[:, None] * slopes).T @ self._gate_design, (weighted[:, None] * pi).T
        gradient = np.concatenate([by_gate.ravel(), (by_location @ self._design).ravel()])
        return -0.5 * float(weighted @ residual), gradient @ self._map[: len(gradient)]

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """Σ w (e ∂²m/∂θ² − (∂m/∂θ)(∂m/∂θ)ᵀ)."""
        return self._curvature(theta) - self.gauss_newton(theta)

    def gauss_newton(self, theta: np.ndarray) -> np.ndarray:
        """Σ w (∂m/∂θ)(∂m/∂θ)ᵀ."""
        size = self._n_coefficients
        gram, weight = np.zeros((size, size)), self.weight.numpy()
        for rows, slopes in self._slopes(self._rows_of_mean(theta)):
            gram += (weight[rows, None] * slopes).T @ slopes
        return self._map[:size].T @ gram @ self._map[:size]

    def slopes_and_residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∂m/∂θ (n, size) and e = y − m (n,)."""
        found = self._rows_of_mean(theta)
        return np.vstack([slopes @ self._map[: slopes.shape[1]] for _, slopes in self._slopes(found)]), found[3]

    @property
    def _n_coefficients(self) -> int:
        """Those of gate and experts; the dispersions, which come after them, have no part in m."""
        return self.model.n_experts * (self._gate_design.shape[1] + self._design.shape[1])

    def _rows_of_mean(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        """π, h − m and π (h − m), each (n, k), and e (n,); those of the last θ are kept for the next derivative."""
        key = theta.tobytes()
        if key != self._last[0]:
            logits, location, _ = (channel.numpy() for channel in self._channels(theta))
            pi = np.exp(logits - logits.max(1, keepdims=True))
            pi /= pi.sum(1, keepdims=True)
            mean = (pi * location).sum(1)
            away = location - mean[:, None]
            self._last = key, (pi, away, pi * away, self.y.numpy() - mean)
        return self._last[1]

    def _slopes(self, found: tuple[np.ndarray, ...]) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows at a time, ∂m by the coefficients of gate and experts."""
        pi, _, by_logits, _ = found
        for low in range(0, len(pi), _CHUNK_ROWS):
            rows = slice(low, low + _CHUNK_ROWS)
            gate = by_logits[rows, :, None] * self._gate_design[rows, None, :]
            experts = pi[rows, :, None] * self._design[rows, None, :]
            yield rows, np.concatenate([gate.reshape(len(gate), -1), experts.reshape(len(experts), -1)], axis=1)

    def _curvature(self, theta: np.ndarray) -> np.ndarray:
        """Σ w e ∂²m/∂θ²."""
        pi, away, by_logits, residual = self._rows_of_mean(theta)
        k, q, p = pi.shape[1], self._gate_design.shape[1], self._design.shape[1]
        pull = self.weight.numpy() * residual
        gates, mixed = np.zeros((k, q, k, q)), np.zeros((k, q, k, p))
        for j in range(k):
            for other in range(k):
                pair = -pi[:, j] * pi[:, other] * (away[:, j] + away[:, other])
                pair += by_logits[:, j] if j == other else 0.0
                gates[j, :, other] = self._gate_design.T @ ((pull * pair)[:, None] * self._gate_design)
                cross = pi[:, j] * ((j == other) - pi[:, other])
                mixed[j, :, other] = self._gate_design.T @ ((pull * cross)[:, None] * self._design)
        total = np.zeros((k * (q + p), k * (q + p)))
        total[: k * q, : k * q] = gates.reshape(k * q, k * q)
        total[: k * q, k * q :] = mixed.reshape(k * q, k * p)
        total[k * q :, : k * q] = total[: k * q, k * q :].T
        return self._map[: len(total)].T @ total @ self._map[: len(total)]
