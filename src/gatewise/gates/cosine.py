"""The cosine gate: weights that see only the directions of inputs and experts."""

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
    reflection,
    shared_shift,
    unit,
)
from gatewise.gates.invariances import anything, scale
from gatewise.gates.starts import direction_start
from gatewise.gates.temperature import positive_temperature
from gatewise.parts.component import Atoms, Coordinates
from gatewise.parts.draws import NOISE, Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class CosineGate(Gate):
    """πᵢ(x) ∝ exp(β₁ᵢᵀx/(‖β₁ᵢ‖‖x‖) + β₀ᵢ): the cosine of the angle between the input and each expert, plus a bias.

    Neither the length of x nor that of β₁ has an effect. With one input, d = 1, the cosine is sign(x) times sign(β₁).
    A fixed temperature τ divides the cosine and not the bias (arXiv:2405.14131 has none). With a projection, as in
    XMoE (arXiv:2204.09179), x is first multiplied by a learned matrix P, (p, d), and β₁ has p entries.

    With uᵢ = β₁ᵢ/‖β₁ᵢ‖, what is identified are the contrasts of β₀, because no difference of cosines is constant in x
    (for d > 1), and the directions uᵢ, if k ≥ d, or else their differences uᵢ − uₖ: if there are more inputs than
    experts, then one vector can be added to all uᵢ in d − k dimensions such that they stay unit vectors. If d = k, a
    reflection of all directions gives the same gate too. With a projection all that is said of d holds for p, and P
    can be rotated and reflected together with β₁, and multiplied by a number. Then identified are
    Pᵀuᵢ/‖P‖, or their differences, and the metric PᵀP/‖P‖², with ‖P‖² the sum of all squares. These are more numbers
    than there are degrees of freedom, so their covariance is singular. All this is for linearly independent uᵢ.

    Where x, Px or β₁ᵢ is zero there is no angle: the cosine counts as 0 and has the gradient 0. β₁ therefore starts
    at unit vectors e₁, e₂, … and, when these are used up, at other fixed directions; P starts at the first rows of the
    identity.

    Args:
        n_features: d, at least 1.
        n_experts: k.
        temperature: a fixed τ, or None for none.
        projection: p, from 2 to d, or None for no projection. With p = 1 the gate would be piecewise constant.

    Raises:
        InputError: there is no feature, the temperature is not positive and finite, or p is out of range.

    Example:
        >>> import torch
        >>> gate = CosineGate(n_features=2, n_experts=2)
        >>> gate.logits(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).detach()
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """

    name = "cosine"
    formula = "β₁ᵀx/(‖β₁‖‖x‖) + β₀"
    source = "Nguyen et al. (2024), arXiv:2405.14131; with a projection Chi et al. (2022), arXiv:2204.09179"

    def __init__(
        self, n_features: int, n_experts: int, temperature: float | None = None, projection: int | None = None
    ) -> None:
        super().__init__(n_features, n_experts)
        if n_features < 1:
            raise InputError("the cosine gate needs a feature: take the softmax gate without")
        if projection is not None and not 2 <= projection <= n_features:
            raise InputError(f"a projection must have from 2 to {n_features} dimensions, not {projection}")
        self.fixed_temperature = None if temperature is None else positive_temperature(temperature)
        self.projection = projection
        self.n_dimensions = projection or n_features
        self.weight = nn.Parameter(distinct_rows(n_experts, self.n_dimensions))
        self.bias = nn.Parameter(torch.zeros(n_experts))
        if projection is not None:
            self.projection_matrix = nn.Parameter(torch.eye(projection, n_features))

    def options(self) -> dict[str, Any]:
        """The temperature and the dimension of the projection."""
        return {"temperature": self.fixed_temperature, "projection": self.projection}

    def logits(self, x: Tensor) -> Tensor:
        """Cosine/τ + β₀, (…, d) ↦ (…, k)."""
        return self.slope_score(x) + self.bias

    def slope_score(self, x: Tensor) -> Tensor:
        """Cosine/τ, on which the paper's selection of K experts looks, (…, d) ↦ (…, k)."""
        if self.projection is not None:
            x = x @ self.projection_matrix.T
        cosine = along(x, unit(self.weight))
        return cosine if self.fixed_temperature is None else cosine / self.fixed_temperature

    def place(self, direction: Tensor, point: Tensor) -> None:
        """The directions; with a projection P what P makes of them."""
        if self.projection is not None:
            direction = direction @ self.projection_matrix.detach().T
        super().place(direction, point)

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Directions as `gates.starts.direction_start` has them, after a projection with noise; biases 0."""
        own = self.own_parameters()
        direction = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        if self.projection is not None:
            present = own["projection_matrix"]
            # The first columns, which a new gate projects on, are the first in canonical order.
            first = torch.equal(present, torch.eye(*present.shape, dtype=present.dtype))
            present = draws.placed(present) if first else present
            own["projection_matrix"] = present + NOISE * draws.normal(present)
            direction = direction @ own["projection_matrix"].T
        weight = direction_start(direction, shares, draws, of_features=self.projection is None)
        return {**own, "weight": weight, "bias": torch.zeros_like(own["bias"])}

    def symmetries(self) -> tuple[Symmetry, ...]:
        """The biases' translation, k scales, max(d − k, 0) shifts of all directions, and what a projection adds."""
        if self.n_experts == 1:
            return (anything(self),)
        found = [translation("bias", 1), direction_scales(self.n_experts)]
        if self.n_dimensions > self.n_experts:
            found.append(shared_shift(self.n_experts, self.n_dimensions))
        elif self.n_dimensions == self.n_experts:
            found.append(reflection())
        if self.projection is not None:
            sentence = "the projection is multiplied by a positive number: only the direction of Px counts"
            found += [_rotation(self.projection), _mirror(), scale({"projection_matrix": 1.0}, {}, sentence)]
        return tuple(found)

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """β₁/‖β₁‖.

        Raises:
            InputError: there is a projection.
        """
        if "gate_projection" in atoms:
            raise InputError(
                "the cosine gate has a projection: no loss is known for it; write the measure with the directions "
                "Pᵀβ₁/‖β₁‖ as `gate_slope`"
            )
        return direction_coordinates(atoms)

    def identified(self, parameters: Parameters) -> Tensor:
        """Contrasts of β₀; the directions, or their contrasts if d > k; the metric of a projection; flattened, (q,)."""
        directions, bias = unit(parameters["weight"]), parameters["bias"].unsqueeze(-1)
        if self.n_experts == 1:
            return bias.reshape(-1)[:0]
        metric = bias.new_empty(0)
        if self.projection is not None:
            matrix = parameters["projection_matrix"]
            matrix = matrix / (matrix * matrix).sum().sqrt()
            directions = directions @ matrix
            rows, columns = torch.triu_indices(self.n_features, self.n_features)
            metric = (matrix.T @ matrix)[rows, columns]
        if self.n_dimensions > self.n_experts:
            return torch.cat([contrasts(torch.cat([bias, directions], dim=-1)), metric])
        return torch.cat([contrasts(bias), directions.reshape(-1), metric])

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """What the entries of `identified` are: terms "(intercept)", "direction age" and "metric age, income"."""
        k = self.n_experts
        if k == 1:
            return []
        terms = [f"direction {name}" for name in features]
        if self.n_dimensions > k:
            found = contrast_quantities(k, ["(intercept)", *terms])
        else:
            found = contrast_quantities(k, ["(intercept)"])
            found += [Quantity(f"gate {i}", term) for i in range(1, k + 1) for term in terms]
        if self.projection is not None:
            pairs = [(first, second) for i, first in enumerate(features) for second in features[i:]]
            found += [Quantity("gate", f"metric {first}, {second}") for first, second in pairs]
        return found

    def expression(self) -> Formula | None:
        """The cosine over τ; none with a projection."""
        from gatewise.gates.scores import BIAS, norm, number, pairs, slope_of
        from gatewise.parts.expressions import dot, inputs, symbols

        if self.projection is not None:
            return None
        x, slope = inputs(self.n_features), slope_of(self.n_features)
        length, away = norm(symbols(slope)), norm(x)
        divisor = number(1.0 if self.fixed_temperature is None else self.fixed_temperature)
        score = dot(slope, x) / (length * away) / divisor
        linear = pairs([entry / length for entry in symbols(slope)], [value / (away * divisor) for value in x])
        return Formula(self.name, x, slope, (score,), {}, linear, "v = β₁/‖β₁‖", BIAS)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` β₀ (k,), `gate_slope` β₁ (k, d or p) and, with a projection, `gate_projection` (k, p, d)."""
        found = {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}
        if self.projection is not None:
            found["gate_projection"] = self.projection_matrix.detach().repeat(self.n_experts, 1, 1)
        return found


def _rotation(n_dimensions: int) -> Symmetry:
    """β₁ᵢ ↦ Rβ₁ᵢ and P ↦ RP with R the exponential of an antisymmetric matrix."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        rows, columns = torch.triu_indices(n_dimensions, n_dimensions, offset=1)
        upper = amount.new_zeros(n_dimensions, n_dimensions).index_put((rows, columns), amount)
        turn = torch.linalg.matrix_exp(upper - upper.T)
        weight, matrix = parameters["weight"] @ turn.T, turn @ parameters["projection_matrix"]
        return {**parameters, "weight": weight, "projection_matrix": matrix}

    return Symmetry(
        name="rotation",
        sentence="β of every expert and the projection are rotated together: angles stay what they are",
        dimension=n_dimensions * (n_dimensions - 1) // 2,
        act=act,
    )


def _mirror() -> Symmetry:
    """The first coordinate of the projected space changes its sign, in β₁ and in P."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        weight, matrix = parameters["weight"], parameters["projection_matrix"]
        return {
            **parameters,
            "weight": torch.cat([-weight[:, :1], weight[:, 1:]], dim=1),
            "projection_matrix": torch.cat([-matrix[:1], matrix[1:]]),
        }

    return Symmetry(
        name="sign",
        sentence="the first coordinate of β of every expert and of the projection change their sign: angles stay",
        dimension=0,
        act=act,
        kind="discrete",
    )
