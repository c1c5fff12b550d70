"""What a gate is: x ↦ log π(x)."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gatewise.ops.log_space import log_softmax
from gatewise.ops.registry import Registry


class Gate(nn.Module, ABC):
    """A gate turns inputs (…, d) into log-weights log π (…, k): logits and a normaliser.

    Attributes:
        n_features: d, the length of an input.
        n_experts: k, the number of weights.
        affine_equivariant: whether every affine change of x can be undone by a change of the parameters. If it
            cannot, fitting must not standardise the inputs silently.
    """

    name: ClassVar[str]
    affine_equivariant: ClassVar[bool]

    def __init__(self, n_features: int, n_experts: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_experts = n_experts

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Unnormalised log-weights, (…, d) ↦ (…, k)."""

    def forward(self, x: Tensor) -> Tensor:
        """Log-weights log π(x), (…, d) ↦ (…, k): the logits normalised by a softmax."""
        return log_softmax(self.logits(x))

    @abstractmethod
    def atoms(self) -> dict[str, Tensor]:
        """The gate's part of the mixing measure, one leading axis of length k per entry."""

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return f"n_features={self.n_features}, n_experts={self.n_experts}"


GATES: Registry[type[Gate]] = Registry("gate")
