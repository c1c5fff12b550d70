"""The softmax gate: weights that are log-linear in the inputs."""

import torch
from torch import Tensor, nn

from gatewise.gates.base import GATES, Gate


@GATES.register
class SoftmaxGate(Gate):
    """πᵢ(x) = exp(β₁ᵢᵀx + β₀ᵢ) / Σⱼ exp(β₁ⱼᵀx + β₀ⱼ).

    The weights do not change when one vector is added to all slopes or one number to all biases: only contrasts
    against a reference expert are identified (Nguyen, Nguyen and Ho 2023, arXiv:2305.03288, Proposition 1). Fits
    set the last expert's slope and bias to zero. With `n_features=0` the weights are constant.

    Args:
        n_features: d, the number of gate inputs; 0 for constant weights.
        n_experts: k.

    Example:
        >>> import torch
        >>> gate = SoftmaxGate(n_features=1, n_experts=2)
        >>> gate(torch.zeros(3, 1)).exp()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000],
                [0.5000, 0.5000]], grad_fn=<ExpBackward0>)
    """

    name = "softmax"
    affine_equivariant = True

    def __init__(self, n_features: int, n_experts: int) -> None:
        super().__init__(n_features, n_experts)
        self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def logits(self, x: Tensor) -> Tensor:
        """β₁ᵀx + β₀, (…, d) ↦ (…, k)."""
        return x @ self.weight.T + self.bias

    def assign(self, coefficients: Tensor) -> None:
        """Set the parameters from (k, 1 + d) coefficients, biases first."""
        with torch.no_grad():
            self.bias.copy_(coefficients[:, 0])
            self.weight.copy_(coefficients[:, 1:])

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,) and `gate_slope` β₁ (k, d)."""
        return {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}
