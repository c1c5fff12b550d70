"""The sigmoid gate: weights that are logistic functions, normalised or each for itself."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES, Gate, Normaliser
from gatewise.gates.invariances import anything
from gatewise.parts.component import true_or_false
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class SigmoidGate(Gate):
    """πᵢ(x) = σᵢ / Σⱼ σⱼ with σᵢ = 1/(1 + exp(−β₁ᵢᵀx − β₀ᵢ)), or σᵢ itself without normalisation.

    Unnormalised weights need not sum to one: they belong to least squares on Σ σᵢ(x) hᵢ(x), the model of
    arXiv:2405.13997, and not to a likelihood. There an expert that is not needed at an input takes nothing from the
    others. Nothing can be added to all logits without a change, so the slope and the bias of every expert are
    identified in both forms, unless a normalised gate has only one expert.

    Args:
        n_features: d, at least 1 if normalised.
        n_experts: k.
        normalised: whether the weights are divided by their sum.

    Raises:
        InputError: a normalised gate without features; its biases could not be told apart.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 2)
        >>> SigmoidGate(n_features=2, n_experts=4)(x).exp().detach()
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
        >>> SigmoidGate(n_features=2, n_experts=4, normalised=False)(x).exp().detach()
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    name = "sigmoid"
    formula = "log σ(β₁ᵀx + β₀)"
    source = "Nguyen, Ho and Rinaldo (2024), arXiv:2405.13997"
    affine_equivariant = True

    def __init__(self, n_features: int, n_experts: int, normalised: bool = True) -> None:
        super().__init__(n_features, n_experts)
        self.normalised = true_or_false("normalised", normalised)
        if normalised and n_features < 1:
            raise InputError("the normalised sigmoid gate needs a feature: take the softmax gate without")
        self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    @property
    def normaliser(self) -> Normaliser:
        """A softmax of the log σᵢ divides by Σⱼ σⱼ; "none" leaves σᵢ."""
        return "softmax" if self.normalised else "none"

    @property
    def weight_link(self) -> Literal["log", "logit"]:
        """W = 1/(1 + exp(−β₀))."""
        return "logit"

    def options(self) -> dict[str, Any]:
        """Whether the weights are normalised."""
        return {"normalised": self.normalised}

    def logits(self, x: Tensor) -> Tensor:
        """Log σ(β₁ᵀx + β₀), (…, d) ↦ (…, k): exact for large negative arguments too."""
        return logsigmoid(x @ self.weight.T + self.bias)

    def slope_score(self, x: Tensor) -> Tensor:
        """β₁ᵀx, (…, d) ↦ (…, k)."""
        return x @ self.weight.T

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Every expert begins with the weight σᵢ = 1/k: slopes 0 and biases −log(k − 1); σ(2) with one expert."""
        own = self.own_parameters()
        even = -math.log(self.n_experts - 1) if self.n_experts > 1 else 2.0
        return {"weight": torch.zeros_like(own["weight"]), "bias": torch.full_like(own["bias"], even)}

    def symmetries(self) -> tuple[Symmetry, ...]:
        """None, but for a normalised gate with one expert, whose weight is 1."""
        return (anything(self),) if self._is_constant() else ()

    def _is_constant(self) -> bool:
        return self.normalised and self.n_experts == 1

    def identified(self, parameters: Parameters) -> Tensor:
        """(β₀, β₁) of each expert, flattened."""
        both = torch.cat([parameters["bias"].unsqueeze(-1), parameters["weight"]], dim=-1).reshape(-1)
        return both[:0] if self._is_constant() else both

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The intercept and the features, expert by expert."""
        experts = range(1, 1 if self._is_constant() else self.n_experts + 1)
        return [Quantity(f"gate {i}", term) for i in experts for term in ["(intercept)", *features]]

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """β₁ / scale, and β₀ − β₁ᵀ(shift / scale)."""
        weight = parameters["weight"] / scale
        return {"weight": weight, "bias": parameters["bias"] - weight @ shift}

    def expression(self) -> Formula:
        """The score log σ(β₁ᵀx + β₀), bias and all."""
        import sympy

        from gatewise.gates.scores import slope_of
        from gatewise.parts.expressions import dot, inputs, parameter

        x, slope = inputs(self.n_features), slope_of(self.n_features)
        bias = parameter("β₀", atom="gate_bias")
        score = -sympy.log(1 + sympy.exp(-dot(slope, x) - bias.symbol))
        labels = tuple(entry.label for entry in slope)
        return Formula(self.name, x, (*slope, bias), (score,), {"β₁ = 0": labels} if labels else {})

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,) and `gate_slope` β₁ (k, d)."""
        return {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}
