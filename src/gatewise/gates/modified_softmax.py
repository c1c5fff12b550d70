"""The modified softmax gate: weights that are log-linear in a function of each input."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.gates.base import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.parts.activations import activation
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class ModifiedSoftmaxGate(Gate):
    """πᵢ(x) = exp(β₁ᵢᵀM(x) + β₀ᵢ) / Σⱼ exp(β₁ⱼᵀM(x) + β₀ⱼ) with one function M applied to each coordinate of x.

    The plain softmax gate shares derivatives with experts that are linear in x, which can slow the learning of both
    down. An M for which the products xᵖ M(x)^q, 0 ≤ |p| + |q| ≤ 2, are linearly independent undoes that; the sigmoid,
    tanh, cos and powers from the cube on are the examples (arXiv:2310.14188; the exact condition and list are
    recalled, to be checked against the paper). An affine M, "identity" for one, brings back the plain gate.

    Only contrasts against a reference expert are identified, as in the plain gate. Units matter: tanh of metres is not
    tanh of feet, so the gate is not equivariant under affine changes of x.

    Args:
        n_features: d.
        n_experts: k.
        transform: the name of M: "sigmoid", "tanh", "cos", "cube" or another registered activation.

    Raises:
        InputError: there is no such activation.

    Example:
        >>> import torch
        >>> gate = ModifiedSoftmaxGate(n_features=1, n_experts=2, transform="cube")
        >>> gate.assign_parameters({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.zeros(2)})
        >>> gate.logits(torch.tensor([[2.0]])).detach()
        tensor([[8., 0.]])
    """

    name = "modified_softmax"
    formula = "β₁ᵀM(x) + β₀"
    source = "Nguyen, Akbarian, Nguyen and Ho (2024), arXiv:2310.14188"

    def __init__(self, n_features: int, n_experts: int, transform: str = "tanh") -> None:
        super().__init__(n_features, n_experts)
        self.transform = transform
        activation(transform)
        self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def _transformed(self, x: Tensor) -> Tensor:
        return activation(self.transform)(x)

    def options(self) -> dict[str, Any]:
        """The name of M."""
        return {"transform": self.transform}

    def logits(self, x: Tensor) -> Tensor:
        """β₁ᵀM(x) + β₀, (…, d) ↦ (…, k)."""
        return self.slope_score(x) + self.bias

    def slope_score(self, x: Tensor) -> Tensor:
        """β₁ᵀM(x), (…, d) ↦ (…, k)."""
        return self._transformed(x) @ self.weight.T

    def basis(self, x: Tensor) -> Tensor:
        """(1, M(x)), (…, 1 + d)."""
        return torch.cat([x.new_ones((*x.shape[:-1], 1)), self._transformed(x)], dim=-1)

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
        """The intercept and M of each feature, "tanh(age)", for each contrast with the last expert."""
        return contrast_quantities(self.n_experts, ["(intercept)", *(f"{self.transform}({name})" for name in features)])

    def expression(self) -> Formula | None:
        """The score β₁ᵀM(x), of an M that has a formula."""
        from gatewise.gates.scores import BIAS, pairs, slope_of
        from gatewise.parts.expressions import ACTIVATIONS, dot, inputs, symbols

        function = ACTIVATIONS.get(self.transform)
        if function is None:
            return None
        x, slope = inputs(self.n_features), slope_of(self.n_features)
        bent = [function(value) for value in x]
        return Formula(self.name, x, slope, (dot(slope, bent),), {}, pairs(symbols(slope), bent), "v = β₁", BIAS)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,) and `gate_slope` β₁ (k, d)."""
        return {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}
