"""What a bank of experts is: x ↦ the parameters of k distributions."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from gatewise.ops.registry import Registry


class Experts(nn.Module, ABC):
    """A bank of k experts turns inputs (…, d) into locations (…, k) and owns the scales of the family.

    Attributes:
        n_features: d, the length of an input.
        n_experts: k.
        shared_scale: whether one scale serves all experts.
        log_scale: log σ, shape (k,) or, shared, (1,).
    """

    name: ClassVar[str]
    affine_equivariant: ClassVar[bool]

    def __init__(self, n_features: int, n_experts: int, shared_scale: bool = False) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_experts = n_experts
        self.shared_scale = shared_scale
        self.log_scale = nn.Parameter(torch.zeros(1 if shared_scale else n_experts))

    @abstractmethod
    def location(self, x: Tensor) -> Tensor:
        """Locations h(x, ηᵢ), (…, d) ↦ (…, k)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Locations (…, k) and log-scales (k,) of the k distributions at x (…, d)."""
        return self.location(x), self.log_scale.expand(self.n_experts)

    @abstractmethod
    def atoms(self) -> dict[str, Tensor]:
        """The experts' part of the mixing measure, one leading axis of length k per entry."""

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return f"n_features={self.n_features}, n_experts={self.n_experts}, shared_scale={self.shared_scale}"


EXPERTS: Registry[type[Experts]] = Registry("expert")
