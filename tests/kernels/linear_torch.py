"""The pass for linear channels on tensors: any device and dtype, derivatives by automatic differentiation."""

import math

import numpy as np
import torch
from torch import Tensor

from gatewise.ops.derivatives import hessian
from gatewise.ops.log_space import log_softmax, logsumexp

__all__ = ["TorchLinearPass", "plain_log_likelihood"]


def plain_log_likelihood(logits: Tensor, location: Tensor, log_scale: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Σ_r w_r ℓ_r by the formula, differentiable to any order.

    Args:
        logits: γ (n, k).
        location: μ (n, k).
        log_scale: log σ (k,).
        y: targets (n,).
        weight: row weights (n,).
    """
    residual = (y.unsqueeze(-1) - location) * torch.exp(-log_scale)
    log_density = -0.5 * residual * residual - log_scale - 0.5 * math.log(2.0 * math.pi)
    return (weight * logsumexp(log_softmax(logits) + log_density)).sum()


class TorchLinearPass:
    """What `LinearPass` computes, from the plain formula in torch.

    Args:
        gate_design: G (q, n), channel-major.
        design: Z (p, n), channel-major.
        y: targets (n,).
        weight: row weights (n,).
        device: torch device.
        dtype: torch dtype.
    """

    def __init__(
        self,
        gate_design: np.ndarray,
        design: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self.gate_design, self.design, self.y, self.weight = (
            torch.as_tensor(array, device=device, dtype=dtype) for array in (gate_design, design, y, weight)
        )

    def __call__(
        self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """The weighted log-likelihood and its gradients by B (k, q), A (k, p) and log σ (k,)."""
        arguments = [self._tensor(array).requires_grad_() for array in (gate_coefficients, coefficients, log_scale)]
        value = self._value(*arguments)
        gradients = torch.autograd.grad(value, arguments)
        gate_gradient, gradient, scale_gradient = (g.cpu().numpy().astype(float) for g in gradients)
        return value.item(), gate_gradient, gradient, scale_gradient

    def hessian(self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """The Hessian by (gate rows 1 … k−1, expert rows, log-scales), the last gate row held fixed."""
        last_row = self._tensor(gate_coefficients[-1:])
        free, k = gate_coefficients[:-1], len(log_scale)
        first, second = free.size, free.size + coefficients.size

        def value(theta: Tensor) -> Tensor:
            gate = torch.cat([theta[:first].reshape(free.shape), last_row])
            return self._value(gate, theta[first:second].reshape(k, -1), theta[second:])

        theta = self._tensor(np.concatenate([free.ravel(), coefficients.ravel(), log_scale]))
        return hessian(value, theta).cpu().numpy().astype(float)

    def responsibilities(
        self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights π and responsibilities r, each (k, n)."""
        gate, expert, scale = (self._tensor(array) for array in (gate_coefficients, coefficients, log_scale))
        log_weights = log_softmax(gate @ self.gate_design, dim=0)
        residual = (self.y - expert @ self.design) * torch.exp(-scale)[:, None]
        joint = log_weights - 0.5 * residual * residual - scale[:, None]
        return log_weights.exp().cpu().numpy().astype(float), log_softmax(joint, dim=0).exp().cpu().numpy().astype(
            float
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, device=self.y.device, dtype=self.y.dtype)

    def _value(self, gate: Tensor, coefficients: Tensor, log_scale: Tensor) -> Tensor:
        logits, location = self.gate_design.T @ gate.T, self.design.T @ coefficients.T
        return plain_log_likelihood(logits, location, log_scale, self.y, self.weight)
