"""Experts whose location is linear in the inputs."""

import torch
from torch import Tensor, nn

from gatewise.experts.base import EXPERTS, Experts


@EXPERTS.register
class LinearExperts(Experts):
    """h(x, ηᵢ) = aᵢᵀx + bᵢ with ηᵢ = (aᵢ, bᵢ), and a scale σᵢ of each expert's own or one for all.

    Args:
        n_features: d.
        n_experts: k.
        shared_scale: one σ for all experts.

    Example:
        >>> import torch
        >>> experts = LinearExperts(n_features=2, n_experts=3)
        >>> location, log_scale = experts(torch.ones(5, 2))
        >>> location.shape, log_scale.shape
        (torch.Size([5, 3]), torch.Size([3]))
    """

    name = "linear"
    affine_equivariant = True

    def __init__(self, n_features: int, n_experts: int, shared_scale: bool = False) -> None:
        super().__init__(n_features, n_experts, shared_scale)
        self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def location(self, x: Tensor) -> Tensor:
        """aᵀx + b, (…, d) ↦ (…, k)."""
        return x @ self.weight.T + self.bias

    def assign(self, coefficients: Tensor, log_scale: Tensor) -> None:
        """Set the parameters from (k, 1 + d) coefficients, intercepts first, and (k,) log-scales."""
        with torch.no_grad():
            self.bias.copy_(coefficients[:, 0])
            self.weight.copy_(coefficients[:, 1:])
            self.log_scale.copy_(log_scale[: len(self.log_scale)])

    def atoms(self) -> dict[str, Tensor]:
        """`expert_slope` a (k, d) and `expert_intercept` b (k,)."""
        return {"expert_slope": self.weight.detach().clone(), "expert_intercept": self.bias.detach().clone()}
