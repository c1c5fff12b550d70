"""The softmax gate: weights that are log-linear in the inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatewise.gates.base import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


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
    formula = "β₁ᵀx + β₀"
    source = "Jordan and Jacobs (1994); Nguyen, Nguyen and Ho (2023), arXiv:2305.03288"
    affine_equivariant = True

    def __init__(self, n_features: int, n_experts: int) -> None:
        super().__init__(n_features, n_experts)
        self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def logits(self, x: Tensor) -> Tensor:
        """β₁ᵀx + β₀, (…, d) ↦ (…, k)."""
        return x @ self.weight.T + self.bias

    def slope_score(self, x: Tensor) -> Tensor:
        """β₁ᵀx, (…, d) ↦ (…, k)."""
        return x @ self.weight.T

    def basis(self, x: Tensor) -> Tensor:
        """(1, x), (…, 1 + d)."""
        return torch.cat([x.new_ones((*x.shape[:-1], 1)), x], dim=-1)

    def coefficients(self, parameters: Parameters) -> Tensor:
        """(β₀, β₁), (k, 1 + d)."""
        return torch.cat([parameters["bias"].unsqueeze(-1), parameters["weight"]], dim=-1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """One vector added to all slopes and one number to all biases: 1 + d dimensions."""
        return tuple(s for s in (translation("bias", 1), translation("weight", self.n_features)) if s.dimension)

    def identified(self, parameters: Parameters) -> Tensor:
        """(β₀ᵢ − β₀ₖ, β₁ᵢ − β₁ₖ) for i < k, flattened."""
        return contrasts(self.coefficients(parameters))

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The intercept and the features for each contrast with the last expert."""
        return contrast_quantities(self.n_experts, ["(intercept)", *features])

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """β₁ / scale, and β₀ − β₁ᵀ(shift / scale)."""
        weight = parameters["weight"] / scale
        return {"weight": weight, "bias": parameters["bias"] - weight @ shift}

    def assign(self, coefficients: Tensor) -> None:
        """Set the parameters from (k, 1 + d) coefficients, biases first."""
        with torch.no_grad():
            self.bias.copy_(coefficients[:, 0])
            self.weight.copy_(coefficients[:, 1:])

    def expression(self) -> Formula:
        """The score β₁ᵀx."""
        from gatewise.gates.scores import BIAS, pairs, slope_of
        from gatewise.parts.expressions import dot, inputs, symbols

        x, slope = inputs(self.n_features), slope_of(self.n_features)
        return Formula(self.name, x, slope, (dot(slope, x),), {}, pairs(symbols(slope), x), "v = β₁", BIAS)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,) and `gate_slope` β₁ (k, d)."""
        return {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}
