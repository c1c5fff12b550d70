"""Least squares: by the formula, and faster where logits and locations are linear and a location is a mean.

With weights π = softmax γ, locations h and m = Σᵢ πᵢ hᵢ the derivatives of the regression function by the channels are

    ∂m/∂γⱼ = πⱼ (hⱼ − m),   ∂m/∂hᵢ = πᵢ,
    ∂²m/∂γⱼ∂γₗ = δⱼₗ πⱼ (hⱼ − m) − πⱼ πₗ (hⱼ + hₗ − 2m),   ∂²m/∂γⱼ∂hᵢ = πⱼ (δᵢⱼ − πᵢ),   ∂²m/∂hᵢ∂hₗ = 0

(checked against automatic differentiation). There what belongs to the parameters is made of cross-products of designs.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.coordinates import Coordinates
from gatewise.fit.internal_rows import InternalRows
from gatewise.fit.linear_channels import LinearChannels
from gatewise.fit.plain_rows import PlainRows
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import jacobian
from gatewise.ops.log_space import log_softmax

__all__ = ["SquaredChannels", "SquaredRows", "has_squared_channels"]

# Rows whose derivatives are put together at once: few enough to stay near the processor.
_CHUNK_ROWS = 2048


def has_squared_channels(model: MixtureOfExperts) -> bool:
    """Whether the weights are a softmax of logits, and an expert's location is its mean, one number."""
    if model.gate.normaliser != "softmax" or model.experts.n_outputs != 1:
        return False
    probe = torch.linspace(-2.0, 2.0, model.n_experts, dtype=torch.float64).unsqueeze(0)
    return bool(torch.equal(model.family.mean(probe, model.experts.log_scale.detach()), probe))


class SquaredRows(PlainRows):
    """θ ↦ −½ Σ w ‖y − m‖² with its derivatives, by automatic differentiation, and those of m row by row.

    Args:
        coordinates: θ to parameters.
        rows: in internal units.
        n_threads: of a compiled pass over the rows.
    """

    def mean(self, theta: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
        """The regression function m (n,) or (n, e) at some rows, differentiable."""
        logits, location, log_scale = self.channels_at(theta, rows)
        weights = (log_softmax(logits) if self.model.gate.normaliser == "softmax" else logits).exp()
        means = self.model.family.mean(location, log_scale)
        return (weights.reshape(*weights.shape, *([1] * (means.ndim - 2))) * means).sum(1)

    def total(self, theta: Tensor, rows: slice = slice(None)) -> Tensor:
        """−½ Σ w ‖e‖² over some rows, differentiable to any order."""
        residual = (self.y[rows] - self.mean(theta, rows)).reshape(len(self.y[rows]), -1)
        return -0.5 * (self.weight[rows].unsqueeze(-1) * residual.square()).sum()

    def slopes_and_residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∂m/∂θ (n, e, size) and residuals (n, e)."""
        point = self.point(theta)
        pieces = [jacobian(lambda at, rows=rows: self.mean(at, rows), point) for rows in self.chunks()]
        residual = (self.y - self.mean(point)).detach().cpu().numpy().astype(float)
        n, size = len(residual), len(theta)
        return torch.cat(pieces).cpu().numpy().astype(float).reshape(n, -1, size), residual.reshape(n, -1)

    def gauss_newton(self, theta: np.ndarray) -> np.ndarray:
        """Σ w (∂m/∂θ)(∂m/∂θ)ᵀ."""
        slopes, _ = self.slopes_and_residuals(theta)
        weighted = slopes * self.weight.cpu().numpy()[:, None, None]
        return np.tensordot(weighted, slopes, axes=((0, 1), (0, 1)))

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """eᵀ ∂m/∂θ for each row, (n, size)."""
        slopes, residual = self.slopes_and_residuals(theta)
        return (slopes * residual[:, :, None]).sum(axis=1)

    def score_gram(self, theta: np.ndarray) -> np.ndarray:
        """Σ w s sᵀ of the scores, (size, size)."""
        return PlainRows.score_gram(self, theta)

    @torch.no_grad()
    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """The weights (n, k), normalised where the gate's are not: least squares has no other share of a row."""
        return log_softmax(self.channels_at(self.point(theta))[0]).exp().cpu().numpy().astype(float)

    @torch.no_grad()
    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """m(x) of some rows, (rows,) or (rows, e)."""
        return self.mean(self.point(theta), torch.from_numpy(rows)).cpu().numpy().astype(float)

    @torch.no_grad()
    def densities(self, theta: np.ndarray) -> np.ndarray:
        """−½ ‖y − hᵢ(x)‖², (n, k)."""
        _, location, log_scale = self.channels_at(self.point(theta))
        n, k = len(self.y), self.model.n_experts
        residual = self.y.reshape(n, 1, -1) - self.model.family.mean(location, log_scale).reshape(n, k, -1)
        return -0.5 * residual.square().sum(-1).cpu().numpy().astype(float)


class SquaredChannels(SquaredRows, LinearChannels):
    """The same where logits and locations are linear in θ and a location is a mean.

    Args:
        coordinates: θ to parameters.
        rows: in internal units, in float64 on the CPU.
        n_threads: of a compiled pass over the rows.
    """

    def __init__(self, coordinates: Coordinates, rows: InternalRows, n_threads: int = 1) -> None:
        super().__init__(coordinates, rows, n_threads)
        self._last: tuple[bytes, tuple[np.ndarray, ...]] = b"", ()

    def __getstate__(self) -> dict[str, object]:
        """Without what is kept: a worker makes its own."""
        return {**vars(self), "_last": (b"", ())}

    def value_and_gradient(self, theta: np.ndarray, responsibilities: Tensor | None = None) -> tuple[float, np.ndarray]:
        """−½ Σ w e² and its gradient Σ w e ∂m/∂θ; with responsibilities as `PlainRows`."""
        if responsibilities is not None:
            return PlainRows.value_and_gradient(self, theta, responsibilities)
        pi, _, slopes, residual = self._rows_of_mean(theta)
        weighted = self.weight.numpy() * residual
        by_gate, by_location = (weighted[:, None] * slopes).T @ self._gate_design, (weighted[:, None] * pi).T
        gradient = np.concatenate([by_gate.ravel(), (by_location @ self._design).ravel()])
        return -0.5 * float(weighted @ residual), gradient @ self._map[: len(gradient)]

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """Σ w (e ∂²m/∂θ² − (∂m/∂θ)(∂m/∂θ)ᵀ)."""
        total = self._curvature(theta) - self.gauss_newton(theta)
        return 0.5 * (total + total.T)

    def gauss_newton(self, theta: np.ndarray) -> np.ndarray:
        """Σ w (∂m/∂θ)(∂m/∂θ)ᵀ."""
        size = self._n_coefficients
        gram, weight = np.zeros((size, size)), self.weight.numpy()
        for rows, slopes in self._slopes(self._rows_of_mean(theta)):
            gram += (weight[rows, None] * slopes).T @ slopes
        return self._map[:size].T @ gram @ self._map[:size]

    def slopes_and_residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∂m/∂θ (n, 1, size) and e = y − m (n, 1)."""
        found = self._rows_of_mean(theta)
        slopes = np.vstack([slopes @ self._map[: slopes.shape[1]] for _, slopes in self._slopes(found)])
        return slopes[:, None], found[3][:, None]

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
