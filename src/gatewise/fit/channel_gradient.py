"""The fused pass with the family in front of it: logits, locations and dispersions in, the gradients by them out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gatewise.families import Family
from gatewise.kernels.joint_pass import joint_pass
from gatewise.model import MixtureOfExperts
from gatewise.ops.channels_torch import channel_derivatives
from gatewise.ops.log_space import log_softmax

__all__ = ["ChannelGradient", "Channels", "channel_gradient", "family_derivatives"]


class Channels(nn.Module):
    """What a row enters the objective by: gate logits, locations and dispersions."""

    def __init__(self, model: MixtureOfExperts) -> None:
        super().__init__()
        self.gate = model.gate
        self.experts = model.experts

    def forward(self, gate_x: Tensor, x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of rows (n, d') and (n, d) with offsets (n,): (n, k), (n, k) or (n, k, m), and the experts' dispersions."""
        location, log_scale = self.experts(x)
        added = offset.reshape(-1, *([1] * (location.ndim - 1)))
        return self.logits(gate_x), location + added, log_scale

    def logits(self, gate_x: Tensor) -> Tensor:
        """The gate's logits (n, k)."""
        return self.gate.logits(gate_x)


@dataclass(frozen=True)
class ChannelGradient:
    """Σ w ℓ and its gradients by the channels.

    Attributes:
        value: Σ w ℓ.
        logits: (n, k).
        location: (n, k) or (n, k, m).
        log_scale: of the shape of the dispersions.
    """

    value: float
    logits: Tensor
    location: Tensor
    log_scale: Tensor


def channel_gradient(
    family: Family,
    y: Tensor,
    logits: Tensor,
    location: Tensor,
    log_scale: Tensor,
    weight: Tensor,
    normalised: bool,
    n_threads: int,
    responsibilities: Tensor | None = None,
) -> ChannelGradient:
    """Σ w ℓ with its gradients by logits, locations and dispersions, in float64 on the CPU.

    With responsibilities r it is the expected complete log-likelihood Σ w Σᵢ rᵢ (log πᵢ + log fᵢ) in place of Σ w ℓ.

    The family's derivatives are in closed form where it has them so, and by automatic differentiation otherwise.

    Args:
        family: of the targets.
        y: targets (n,) or (n, e).
        logits: γ (n, k).
        location: (n, k) or (n, k, m).
        log_scale: dispersions of the experts.
        weight: row weights (n,).
        normalised: whether the weights are the softmax of the logits; if not, exp(γ) as they are.
        n_threads: of the pass over the rows.
        responsibilities: r (n, k); None for those of the mixture.
    """
    location, log_scale = location.detach(), log_scale.detach()

    def rows(density: Tensor) -> tuple[float, Tensor, Tensor]:
        if responsibilities is not None:
            return _expected(logits.detach(), density.detach(), weight, responsibilities, normalised)
        value, by_logits, by_density = joint_pass(
            logits.detach().numpy(), density.detach().numpy(), weight.numpy(), normalised, n_threads
        )
        return value, torch.from_numpy(by_logits), torch.from_numpy(by_density)

    closed = family.closed_derivatives(y, location, log_scale, with_second=False)
    if closed is not None:
        value, by_logits, by_density = rows(closed[0])
        m = family.n_outputs
        by_channels = by_density.unsqueeze(-1) * closed[1]
        by_scale = by_channels[..., m:].sum(0).reshape(log_scale.shape)
        return ChannelGradient(value, by_logits, by_channels[..., :m].reshape(location.shape), by_scale)
    location, log_scale = location.requires_grad_(), log_scale.requires_grad_()
    with torch.enable_grad():
        density = family.log_density(y, location, log_scale)
    value, by_logits, by_density = rows(density)
    by_location, by_scale = torch.autograd.grad(
        density, (location, log_scale), by_density, allow_unused=True, materialize_grads=True
    )
    return ChannelGradient(value, by_logits, by_location, by_scale)


def _expected(
    logits: Tensor, density: Tensor, weight: Tensor, responsibilities: Tensor, normalised: bool
) -> tuple[float, Tensor, Tensor]:
    """Σ w Σᵢ rᵢ (log πᵢ + log fᵢ) with its gradients by logits and log-densities (n, k)."""
    share = weight.unsqueeze(-1) * responsibilities
    log_weights = log_softmax(logits) if normalised else logits
    value = float(torch.where(share > 0.0, share * (log_weights + density), 0.0).sum())
    by_logits = share - share.sum(-1, keepdim=True) * log_weights.exp() if normalised else share
    return value, by_logits, share


def family_derivatives(family: Family, y: Tensor, location: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-density (n, k), first (n, k, c) and second derivatives (n, k, c, c) by each expert's own channels.

    In closed form where the family has them so, and by automatic differentiation otherwise.
    """
    closed = family.closed_derivatives(y, location, log_scale, with_second=True)
    if closed is not None and closed[2] is not None:
        return closed[0], closed[1], closed[2]
    return channel_derivatives(family.log_density, y, location, log_scale)
