"""The mixture pass on tensors: the plain formula, for any device, dtype and derivative, and the fused one for the CPU.

Both compute Σ_r w_r log Σᵢ πᵢ(x_r) f(y_r | μᵢ, σᵢ) from gate logits and Gaussian locations and log-scales, and agree
to rounding. The fused one runs the compiled block pass once and hands autograd the gradients it found on the way.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.kernels.mixture_pass import BLOCK, mixture_block
from gatewise.ops.log_space import log_softmax, logsumexp

__all__ = ["fused_log_likelihood", "plain_log_likelihood"]


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


class _FusedLogLikelihood(torch.autograd.Function):
    """Σ_r w_r ℓ_r, whose forward pass keeps the gradients of the channels for the backward one."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, location: Tensor, log_scale: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        channels = [tensor.detach().numpy().T for tensor in (logits, location)]
        scale, target, row_weight = (tensor.detach().numpy() for tensor in (log_scale, y, weight))
        n, k = logits.shape
        gradient = np.empty((2, k, n))
        scale_gradient = np.zeros(k)
        buffer = np.empty((5, k, BLOCK))
        log_prob = np.empty(BLOCK)
        total = 0.0
        for low in range(0, n, BLOCK):
            m = min(BLOCK, n - low)
            rows = slice(low, low + m)
            buffer[0, :, :m], buffer[1, :, :m] = channels[0][:, rows], channels[1][:, rows]
            mixture_block(buffer[0], buffer[1], scale, target[rows], m, log_prob, buffer[2], buffer[3], buffer[4])
            weights, responsibilities, residual = buffer[2, :, :m], buffer[3, :, :m], buffer[4, :, :m]
            total += float(row_weight[rows] @ log_prob[:m])
            share = row_weight[rows] * responsibilities
            gradient[0, :, rows] = share - row_weight[rows] * weights
            gradient[1, :, rows] = share * residual * np.exp(-scale)[:, None]
            scale_gradient += (share * (residual * residual - 1.0)).sum(1)
        ctx.save_for_backward(*(torch.from_numpy(array) for array in (gradient[0].T, gradient[1].T, scale_gradient)))
        return torch.tensor(total, dtype=torch.float64)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (upstream,) = grad_outputs
        return (*(upstream * gradient for gradient in ctx.saved_tensors), None, None)


def fused_log_likelihood(logits: Tensor, location: Tensor, log_scale: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The same number as `plain_log_likelihood` and its first derivatives, in one compiled sweep over the rows.

    It needs float64 tensors on the CPU; anything else, and a second derivative, takes the plain path.

    Args:
        logits: γ (n, k).
        location: μ (n, k).
        log_scale: log σ (k,).
        y: targets (n,), not differentiated.
        weight: row weights (n,), not differentiated.

    Raises:
        TypeError: a tensor is not float64 on the CPU.

    Example:
        >>> zero = torch.zeros(3, 2, dtype=torch.float64)
        >>> row = torch.zeros(3, dtype=torch.float64)
        >>> round(fused_log_likelihood(zero, zero, zero[0], row, row + 1).item(), 6)
        -2.756816
    """
    for tensor in (logits, location, log_scale, y, weight):
        if tensor.dtype != torch.float64 or tensor.device.type != "cpu":
            raise TypeError(f"the fused pass needs float64 on the CPU, not {tensor.dtype} on {tensor.device}")
    return _FusedLogLikelihood.apply(logits, location, log_scale, y, weight)
