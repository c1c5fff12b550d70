"""Experts that do not look at the inputs."""

import torch
from torch import Tensor, nn

from gatewise.experts.base import EXPERTS, Experts


@EXPERTS.register
class ConstantExperts(Experts):
    """h(x, ηᵢ) = bᵢ: with a gate on x this is a mixture whose weights alone depend on the inputs.

    Args:
        n_features: d, the length of the inputs that are ignored.
        n_experts: k.
        shared_scale: one σ for all experts.

    Example:
        >>> import torch
        >>> ConstantExperts(n_features=2, n_experts=3).location(torch.ones(5, 2)).shape
        torch.Size([5, 3])
    """

    name = "constant"
    affine_equivariant = True

    def __init__(self, n_features: int, n_experts: int, shared_scale: bool = False) -> None:
        super().__init__(n_features, n_experts, shared_scale)
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def location(self, x: Tensor) -> Tensor:
        """B for every input, (…, d) ↦ (…, k)."""
        return self.bias.expand(*x.shape[:-1], self.n_experts)

    def assign(self, coefficients: Tensor, log_scale: Tensor) -> None:
        """Set the parameters from (k, 1) intercepts and (k,) log-scales."""
        with torch.no_grad():
            self.bias.copy_(coefficients[:, 0])
            self.log_scale.copy_(log_scale[: len(self.log_scale)])

    def atoms(self) -> dict[str, Tensor]:
        """`expert_intercept` b (k,)."""
        return {"expert_intercept": self.bias.detach().clone()}
