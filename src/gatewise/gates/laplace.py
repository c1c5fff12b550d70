"""The Laplace gate: weights that fall with the distance from a centre."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.gates.base import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.gates.invariances import anything
from gatewise.gates.starts import shared_means
from gatewise.ops.distance import distance
from gatewise.parts.draws import NOISE, Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class LaplaceGate(Gate):
    """πᵢ(x) = exp(−‖Wᵢ − x‖ + βᵢ) / Σⱼ exp(−‖Wⱼ − x‖ + βⱼ) with the Euclidean norm.

    ‖Wᵢ − x‖ − ‖Wⱼ − x‖ is at most ‖Wᵢ − Wⱼ‖, so the ratio of two weights stays within exp(βᵢ − βⱼ ± ‖Wᵢ − Wⱼ‖) however
    far x is. At x = W the norm has no derivative: the gradient there is 0, the subgradient of smallest norm; elsewhere
    all derivatives exist. Distances are in the units of x, so the gate keeps its form under shifts and rotations of x,
    but not under a change of units: standardised inputs are another model.

    One number may be added to all β. The centres are identified where inputs lie around them. With d = 1 and all inputs
    on one side of Wᵢ, −|Wᵢ − x| is ±(x − Wᵢ): there Wᵢ acts like a bias, and only βᵢ ∓ Wᵢ is determined; this is no
    symmetry, as inputs on the other side would show it, but a further null direction of such data.

    Args:
        n_features: d.
        n_experts: k.

    Example:
        >>> import torch
        >>> gate = LaplaceGate(n_features=2, n_experts=2)
        >>> gate.assign_parameters({"centre": torch.tensor([[0.0, 0.0], [3.0, 4.0]]), "bias": torch.tensor([0.0, 5.0])})
        >>> gate.logits(torch.zeros(2)).detach()
        tensor([0., 0.])
    """

    name = "laplace"
    formula = "−‖W − x‖ + β"
    source = "Han, Nguyen, Harris, Ho and Saria (2024), arXiv:2402.03226"
    per_expert = ("centre", "bias")

    def __init__(self, n_features: int, n_experts: int) -> None:
        super().__init__(n_features, n_experts)
        self.centre = nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def logits(self, x: Tensor) -> Tensor:
        """−‖W − x‖ + β, (…, d) ↦ (…, k)."""
        return self.slope_score(x) + self.bias

    def slope_score(self, x: Tensor) -> Tensor:
        """−‖W − x‖, (…, d) ↦ (…, k): the logits without the bias. See `ops.distance` for what is computed."""
        return -distance(x, self.centre)

    def place(self, direction: Tensor, point: Tensor) -> None:
        """The centres are at the points."""
        self.assign_parameters({**self.own_parameters(), "centre": point})

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Centres at the means of each expert's inputs, Σ s x / Σ s, with a little noise; biases 0."""
        own = self.own_parameters()
        centre = shared_means(x, shares) + NOISE * draws.normal(own["centre"])
        return {"centre": centre, "bias": torch.zeros_like(own["bias"])}

    def kinks(self, parameters: Mapping[str, np.ndarray], rest: np.ndarray) -> Sequence[np.ndarray]:
        """With one input the centres; with more the norm bends at a point only, which no grid meets."""
        return list(parameters["centre"][:, 0]) if self.n_features == 1 else ()

    def symmetries(self) -> tuple[Symmetry, ...]:
        """One number added to all biases; a single expert's parameters have no effect at all."""
        if self.n_experts == 1:
            return (anything(self),)
        return (translation("bias", 1),)

    def identified(self, parameters: Parameters) -> Tensor:
        """The centres (k, d), flattened, and βᵢ − βₖ for i < k; nothing with one expert."""
        if self.n_experts == 1:
            return contrasts(parameters["bias"])
        return torch.cat([parameters["centre"].reshape(-1), contrasts(parameters["bias"])])

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The centres in the units of x, and one intercept for each contrast with the last expert."""
        k = self.n_experts
        centres = [Quantity(f"gate {i}", feature) for i in range(1, k + 1) for feature in features] if k > 1 else []
        return [*centres, *contrast_quantities(k, ["(intercept)"])]

    def expression(self) -> Formula:
        """The score −‖x − W‖."""
        from gatewise.gates.scores import BIAS, norm
        from gatewise.parts.expressions import inputs, symbols, vector

        x, centre = inputs(self.n_features), vector("W", self.n_features, "gate_centre")
        away = [value - entry for entry, value in zip(symbols(centre), x, strict=True)]
        return Formula(self.name, x, centre, (-norm(away),), note=BIAS)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β (k,) and `gate_centre` W (k, d)."""
        return {"gate_bias": self.bias.detach().clone(), "gate_centre": self.centre.detach().clone()}
