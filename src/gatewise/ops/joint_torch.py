"""The mixture of any family on tensors: the plain formula for any device, dtype and derivative, and the fused one.

Both take gate logits and log-densities and agree to rounding. The fused one runs the compiled pass once, on the CPU in
float64, and hands autograd the gradients it found on the way.
"""

from typing import Any

import torch
from torch import Tensor

from gatewise.kernels.joint_pass import joint_pass
from gatewise.ops.log_space import log_softmax, logsumexp

__all__ = ["fused_log_mixture", "log_mixture_rows", "plain_log_mixture"]


def log_mixture_rows(logits: Tensor, log_density: Tensor, normalised: bool = True) -> Tensor:
    """ℓ of each row, (…, k) ↦ (…): log Σᵢ exp(γᵢ + lᵢ), less log Σᵢ exp γᵢ if normalised.

    Example:
        >>> log_mixture_rows(torch.zeros(1, 2), torch.tensor([[0.1, 0.3]]).log()).exp()
        tensor([0.2000])
    """
    return logsumexp((log_softmax(logits) if normalised else logits) + log_density)


def plain_log_mixture(logits: Tensor, log_density: Tensor, weight: Tensor, normalised: bool = True) -> Tensor:
    """Σ_r w_r ℓ_r by the formula, differentiable to any order; a row of weight 0 adds nothing.

    Args:
        logits: γ (n, k).
        log_density: l (n, k).
        weight: row weights (n,).
        normalised: whether the weights are the softmax of the logits; if not, exp(γ) as they are.
    """
    rows = log_mixture_rows(logits, log_density, normalised)
    return (weight * torch.where(weight == 0.0, torch.zeros_like(rows), rows)).sum()


class _FusedLogMixture(torch.autograd.Function):
    """Σ_r w_r ℓ_r, whose forward pass keeps the gradients for the backward one."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, log_density: Tensor, weight: Tensor, normalised: bool, n_threads: int
    ) -> Tensor:
        gate, density, row_weight = (tensor.detach().numpy() for tensor in (logits, log_density, weight))
        value, *gradients = joint_pass(gate, density, row_weight, normalised, n_threads)
        ctx.normalised = normalised
        ctx.save_for_backward(logits, log_density, weight, *(torch.from_numpy(gradient) for gradient in gradients))
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (upstream,) = grad_outputs
        logits, log_density, weight, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradients will be differentiated in turn, so they have to be functions of the inputs, not numbers.
            share = weight.unsqueeze(-1) * log_softmax(logits + log_density).exp()
            prior = weight.unsqueeze(-1) * log_softmax(logits).exp()
            gradients = [share - prior if ctx.normalised else share, share]
        elif upstream.item() == 1.0:
            # The objective itself, not a multiple of it: one sweep over memory less.
            return (*gradients, None, None, None)
        return (*(upstream * gradient for gradient in gradients), None, None, None)


def fused_log_mixture(
    logits: Tensor, log_density: Tensor, weight: Tensor, normalised: bool = True, n_threads: int = 1
) -> Tensor:
    """The same number as `plain_log_mixture` and its first derivatives, in one compiled sweep over the rows.

    It needs float64 tensors on the CPU. Second derivatives are right too, and cost what those of the plain one cost.

    Args:
        logits: γ (n, k).
        log_density: l (n, k).
        weight: row weights (n,), not differentiated.
        normalised: whether the weights are the softmax of the logits; if not, exp(γ) as they are.
        n_threads: how many threads share the rows; the result does not depend on it.

    Raises:
        TypeError: a tensor is not float64 on the CPU.
        InputError: the shapes do not fit together.

    Example:
        >>> zero = torch.zeros(1, 2, dtype=torch.float64)
        >>> log_density = torch.tensor([[0.1, 0.3]], dtype=torch.float64).log()
        >>> fused_log_mixture(zero, log_density, zero[:, 0] + 1.0).exp()
        tensor(0.2000, dtype=torch.float64)
    """
    for tensor in (logits, log_density, weight):
        if tensor.dtype != torch.float64 or tensor.device.type != "cpu":
            raise TypeError(f"the fused pass needs float64 on the CPU, not {tensor.dtype} on {tensor.device}")
    return _FusedLogMixture.apply(logits, log_density, weight, normalised, n_threads)
