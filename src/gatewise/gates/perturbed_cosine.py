"""The perturbed cosine gate: cosines whose norms are enlarged by constants."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.gates.directions import (
    along,
    direction_coordinates,
    direction_scales,
    distinct_rows,
    length,
    reflection,
    shared_shift,
    unit,
)
from gatewise.gates.invariances import anything
from gatewise.gates.starts import direction_start
from gatewise.parts.component import Atoms, Coordinates
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class PerturbedCosineGate(Gate):
    """πᵢ(x) ∝ exp(β₁ᵢᵀx/((‖β₁ᵢ‖ + τ₁)(‖x‖ + τ₂)) + β₀ᵢ) with constants τ₁, τ₂ ≥ 0 that are not learned.

    τ₁ lets the length of β₁ have an effect, which it has not in the cosine gate, and τ₂ that of x. The weights see β₁
    only through vᵢ = β₁ᵢ/(‖β₁ᵢ‖ + τ₁), a point of the open unit ball, and do not change when one vector is added to all
    vᵢ. So with τ₁ > 0 the contrasts vᵢ − vₖ and those of β₀ are identified and nothing else (arXiv:2405.14131 sets one
    bias to zero and no vᵢ). With τ₁ = 0 the vᵢ are unit vectors, and what is said of the cosine gate holds.

    Where a β₁ᵢ or x is zero its score is 0. With τ > 0 the gradient there is that of β₁ᵢ/τ₁ or x/τ₂, and with τ = 0,
    where there is none, it counts as 0. β₁ starts at unit vectors e₁, e₂, … as in the cosine gate.

    Args:
        n_features: d, at least 1.
        n_experts: k.
        tau1: τ₁, added to ‖β₁‖.
        tau2: τ₂, added to ‖x‖.

    Raises:
        InputError: there is no feature, or a τ is negative or not finite.

    Example:
        >>> import torch
        >>> gate = PerturbedCosineGate(n_features=2, n_experts=2, tau1=1.0, tau2=5.0)
        >>> gate.logits(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).detach()
        tensor([[0.1500, 0.2000],
                [0.0000, 0.0000]])
    """

    name = "perturbed_cosine"
    formula = "β₁ᵀx/((‖β₁‖ + τ₁)(‖x‖ + τ₂)) + β₀"
    source = "Nguyen et al. (2024), arXiv:2405.14131"

    def __init__(self, n_features: int, n_experts: int, tau1: float = 0.1, tau2: float = 0.1) -> None:
        super().__init__(n_features, n_experts)
        if n_features < 1:
            raise InputError("the perturbed cosine gate needs a feature: take the softmax gate without")
        for name, value in (("tau1", tau1), ("tau2", tau2)):
            if not (value >= 0.0 and math.isfinite(value)):
                raise InputError(f"{name} must be at least 0 and finite, not {value}")
        self.tau1 = float(tau1)
        self.tau2 = float(tau2)
        self.weight = nn.Parameter(distinct_rows(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def options(self) -> dict[str, Any]:
        """τ₁ and τ₂."""
        return {"tau1": self.tau1, "tau2": self.tau2}

    def logits(self, x: Tensor) -> Tensor:
        """β₁ᵀx/((‖β₁‖ + τ₁)(‖x‖ + τ₂)) + β₀, (…, d) ↦ (…, k)."""
        return self.slope_score(x) + self.bias

    def slope_score(self, x: Tensor) -> Tensor:
        """The logits without β₀, on which the paper's selection of K experts looks, (…, d) ↦ (…, k)."""
        return along(x, _shortened(self.weight, self.tau1), self.tau2)

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Unit vectors as `gates.starts.direction_start` has them; biases 0."""
        direction = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        return {"weight": direction_start(direction, shares, draws), "bias": torch.zeros_like(self.bias.detach())}

    def symmetries(self) -> tuple[Symmetry, ...]:
        """The translations of β₀ and, with τ₁ > 0, of v: 1 + d dimensions; with τ₁ = 0 those of the cosine gate."""
        if self.n_experts == 1:
            return (anything(self),)
        if self.tau1 > 0.0:
            return (translation("bias", 1), _ball_translation(self.n_features, self.tau1))
        found = [translation("bias", 1), direction_scales(self.n_experts)]
        if self.n_features > self.n_experts:
            found.append(shared_shift(self.n_experts, self.n_features))
        elif self.n_features == self.n_experts:
            found.append(reflection())
        return tuple(found)

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """V = β₁/(‖β₁‖ + τ₁)."""
        return direction_coordinates(atoms, self.tau1)

    def _sees_differences(self) -> bool:
        return self.tau1 > 0.0 or self.n_features > self.n_experts

    def identified(self, parameters: Parameters) -> Tensor:
        """(β₀ᵢ − β₀ₖ, vᵢ − vₖ) for i < k; with τ₁ = 0 and d ≤ k the contrasts of β₀ and all vᵢ; flattened."""
        directions, bias = _shortened(parameters["weight"], self.tau1), parameters["bias"].unsqueeze(-1)
        if self.n_experts == 1:
            return bias.reshape(-1)[:0]
        if self._sees_differences():
            return contrasts(torch.cat([bias, directions], dim=-1))
        return torch.cat([contrasts(bias), directions.reshape(-1)])

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """What the entries of `identified` are: "(intercept)", and "direction age" for an entry of v."""
        k, terms = self.n_experts, [f"direction {name}" for name in features]
        if k == 1:
            return []
        if self._sees_differences():
            return contrast_quantities(k, ["(intercept)", *terms])
        experts = [Quantity(f"gate {i}", term) for i in range(1, k + 1) for term in terms]
        return [*contrast_quantities(k, ["(intercept)"]), *experts]

    def expression(self) -> Formula:
        """The score β₁ᵀx/((‖β₁‖ + τ₁)(‖x‖ + τ₂))."""
        from gatewise.gates.scores import BIAS, norm, number, pairs, slope_of
        from gatewise.parts.expressions import dot, inputs, symbols

        x, slope = inputs(self.n_features), slope_of(self.n_features)
        length, away = norm(symbols(slope)) + number(self.tau1), norm(x) + number(self.tau2)
        linear = pairs([entry / length for entry in symbols(slope)], [value / away for value in x])
        return Formula(self.name, x, slope, (dot(slope, x) / (length * away),), {}, linear, "v = β₁/(‖β₁‖ + τ₁)", BIAS)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,) and `gate_slope` β₁ (k, d)."""
        return {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}


def _shortened(vectors: Tensor, constant: float) -> Tensor:
    """v/(‖v‖ + constant); the unit vector, with gradient 0 at v = 0, if the constant is 0."""
    return vectors / (length(vectors) + constant) if constant > 0.0 else unit(vectors)


def _ball_translation(n_features: int, tau: float) -> Symmetry:
    """The map vᵢ ↦ vᵢ + t with β = τ v/(1 − ‖v‖)."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        weight = parameters["weight"]
        norm = length(weight)
        point = weight / (norm + tau)
        moved = point + amount
        # 1 − ‖v + t‖² from the norm of β, as 1 − ‖v‖ would lose digits for β much longer than τ.
        inside = tau * (2.0 * norm + tau) / (norm + tau) ** 2 - ((point + moved) * amount).sum(-1, keepdim=True)
        gap = inside / (1.0 + length(moved))
        allowed = gap > 0.0
        moved = tau * moved / torch.where(allowed, gap, torch.ones_like(gap))
        # Outside the unit ball no β belongs to v + t: NaN rather than another gate.
        return {**parameters, "weight": torch.where(allowed, moved, torch.full_like(moved, torch.nan))}

    return Symmetry(
        name="translation",
        sentence=(
            "one vector t is added to v = β/(‖β‖ + τ₁) of every expert, as long as all stay shorter than 1: all logits "
            "rise by the same function tᵀx/(‖x‖ + τ₂)"
        ),
        dimension=n_features,
        act=act,
        kind="translation",
    )
