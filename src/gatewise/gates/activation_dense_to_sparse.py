"""The activation dense-to-sparse gate: a temperature, and a function applied to each expert's score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.gates.invariances import anything, exchange, scale
from gatewise.gates.temperature import TemperedGate, temperatures
from gatewise.parts import activations
from gatewise.parts.component import Atoms, Coordinates
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry

# What is known of the built-in activations σ. Of any other nothing is assumed.
# σ(cz) = c^degree σ(z) for c > 0.
_DEGREE = {"identity": 1.0, "relu": 1.0, "cube": 3.0}
# σ(z) + σ(−z) is constant.
_ODD = frozenset({"identity", "tanh", "sigmoid", "cube"})
# σ(−z) = σ(z).
_EVEN = frozenset({"cos"})


@GATES.register
class ActivationDenseToSparseGate(TemperedGate):
    """πᵢ(x) ∝ exp((σ(β₁ᵢᵀx) + β₀ᵢ)/τ) with one temperature τ and one function σ, which sees the score without bias.

    A bounded σ that is no power, as the tanh, ends the trade between slopes and temperature that makes the
    dense-to-sparse gate hard to learn (arXiv:2401.13875; the formula and the rates are recalled, to be checked against
    the paper). With σ homogeneous of degree p, "identity", "relu" (1) and "cube" (3), the trade is still there:
    (c^(1/p) β₁, c β₀, c τ) gives the same weights.

    What is identified depends on σ. In general: the slopes of every expert, the contrasts of the biases and, if it is
    free, τ. With a homogeneous σ: β₁/τ^(1/p) of every expert and the contrasts of β₀/τ; with the identity only the
    contrasts of β₁/τ. With one input a homogeneous σ leaves the contrasts of its slopes on the two half-lines.
    Up to signs: (β₁₁, β₁₂) and (−β₁₂, −β₁₁) are the same gate for k = 2 if σ(z) + σ(−z) is constant, and with the
    cosine each β₁ᵢ and −β₁ᵢ are. With k = 1 nothing is identified. There is no bias inside σ, so a shift of x cannot be
    undone: the gate is not affine equivariant. At the initial β₁ = 0 the slopes of "cube", "relu" and "cos" have the
    gradient 0 (for the kink of "relu" by choice): a fit has to start elsewhere.

    Args:
        n_features: d, at least 1.
        n_experts: k.
        activation: the name of σ: "tanh", "sigmoid", "gelu" or another registered one.
        temperature: τ to begin with.
        free_temperature: whether τ is learned; if not, it is set by `set_temperature` or a `TemperatureSchedule`.

    Raises:
        InputError: there is no such activation, no feature, or the temperature is not positive and finite.

    Example:
        >>> import torch
        >>> gate = ActivationDenseToSparseGate(1, 2, activation="relu", temperature=0.5, free_temperature=False)
        >>> gate.assign_parameters({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])})
        >>> gate.logits(torch.tensor([[3.0]])).detach()
        tensor([[6., 2.]])
    """

    name = "activation_dense_to_sparse"
    formula = "(σ(β₁ᵀx) + β₀)/τ"
    source = "Nguyen, Akbarian and Ho (2024), arXiv:2401.13875"

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        activation: str = "tanh",
        temperature: float = 1.0,
        free_temperature: bool = True,
    ) -> None:
        super().__init__(n_features, n_experts, temperature, free_temperature)
        if n_features < 1:
            raise InputError("the activation dense-to-sparse gate needs a feature: take the softmax gate without")
        self.activation = activation
        activations.activation(activation)
        self._degree = _DEGREE.get(activation)

    def _function(self, score: Tensor) -> Tensor:
        return activations.activation(self.activation)(score)

    def options(self) -> dict[str, Any]:
        """The name of σ, and the temperature's options."""
        return {"activation": self.activation, **super().options()}

    def logits(self, x: Tensor) -> Tensor:
        """(σ(β₁ᵀx) + β₀)/τ, (…, d) ↦ (…, k)."""
        return (self._function(x @ self.weight.T) + self.bias) / self.temperature()

    def slope_score(self, x: Tensor) -> Tensor:
        """σ(β₁ᵀx)/τ, (…, d) ↦ (…, k)."""
        return self._function(x @ self.weight.T) / self.temperature()

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Slopes from N(0, 1/4), as some σ have no slope at 0; biases 0, and τ as it is."""
        own = self.own_parameters()
        return {**own, "weight": 0.5 * draws.normal(own["weight"]), "bias": torch.zeros_like(own["bias"])}

    def symmetries(self) -> tuple[Symmetry, ...]:
        """The translation of the biases, and what σ adds to it.

        A homogeneous σ has the common scale, if τ is free; the identity a translation of the slopes, the cube of one
        input one of their cubes, and "relu" of one input one of the slopes while these all have the same sign.
        """
        if self.n_experts == 1:
            return (anything(self),)
        found = [translation("bias", 1)]
        if self.activation == "identity":
            found.append(translation("weight", self.n_features))
        elif self.activation == "cube" and self.n_features == 1:
            found.append(_translation_of_cubes())
        elif self.activation == "relu" and self.n_features == 1 and _one_sign(self.weight.detach()):
            found.append(_translation_of_rays())
        if self._degree is not None and self.free_temperature:
            power = "c" if self._degree == 1.0 else "c^(1/3)"
            sentence = f"({power} β₁, c β₀, c τ) for c > 0: c cancels in (σ(β₁ᵀx) + β₀)/τ, because σ is homogeneous"
            found.append(scale({"weight": 1.0 / self._degree, "bias": 1.0}, {"log_temperature": 1.0}, sentence))
        continuous = self.activation == "identity" or (self.activation == "cube" and self.n_features == 1)
        if self.n_experts == 2 and self.activation in _ODD and not continuous:
            found.append(exchange("σ(−β₁₂ᵀx) − σ(−β₁₁ᵀx) = σ(β₁₁ᵀx) − σ(β₁₂ᵀx), as σ(z) + σ(−z) is constant"))
        if self.activation in _EVEN:
            found += [_sign(i) for i in range(self.n_experts)]
        return tuple(found)

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """A homogeneous σ: β₁/τ^(1/p); with one input σ of β₁ on the half-lines over τ. Any other: β₁ and τ."""
        if self._degree is None:
            return super().coordinates(atoms)
        slope, temperature = atoms["gate_slope"].reshape(len(atoms["gate_slope"]), -1), temperatures(atoms)
        if self.activation == "relu" and slope.shape[1] == 1:
            halves = np.concatenate([np.maximum(slope, 0.0), np.minimum(slope, 0.0)], axis=1) / temperature
            return Coordinates({"gate_slope": halves}, {"gate_slope": "half-line slopes/τ"})
        if self.activation == "cube" and slope.shape[1] == 1:
            return Coordinates({"gate_slope": slope**3 / temperature}, {"gate_slope": "gate_slope³/τ"})
        label = "gate_slope/τ" if self._degree == 1.0 else "gate_slope/τ^(1/3)"
        return Coordinates({"gate_slope": slope / temperature ** (1.0 / self._degree)}, {"gate_slope": label})

    def identified(self, parameters: Parameters) -> Tensor:
        """What the class's description says, contrasts first, then experts, then τ, (q,)."""
        if self.n_experts == 1:
            return parameters["bias"][:0]
        weight, bias = parameters["weight"], parameters["bias"].unsqueeze(-1)
        if self._degree is None:
            temperature = [parameters["log_temperature"].exp()] if self.free_temperature else []
            return torch.cat([contrasts(bias), weight.reshape(-1), *temperature])
        temperature = self.temperature_of(parameters)
        if self.n_features == 1 or self.activation == "identity":
            slopes = [self._function(side * weight) for side in self._sides()]
            return contrasts(torch.cat([bias, *slopes], dim=-1) / temperature)
        return torch.cat([contrasts(bias / temperature), (weight / temperature ** (1.0 / self._degree)).reshape(-1)])

    def _sides(self) -> tuple[float, ...]:
        """The half-lines of one input on which a homogeneous σ has slopes of their own."""
        return (1.0,) if self.activation in _ODD else (1.0, -1.0)

    def expression(self) -> Formula | None:
        """The score σ(β₁ᵀx)/τ, of a σ that has a formula."""
        from gatewise.gates.scores import SCALED_BIAS, slope_of
        from gatewise.parts.expressions import ACTIVATIONS, dot, inputs

        function = ACTIVATIONS.get(self.activation)
        if function is None:
            return None
        x, slope = inputs(self.n_features), slope_of(self.n_features)
        own, tau = self.temperature_symbols()
        return Formula(self.name, x, (*slope, *own), (function(dot(slope, x)) / tau,), note=SCALED_BIAS)

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """What the entries of `identified` are, with the temperature as "temperature" of the "gate".

        A term of a homogeneous σ is divided by the power of τ that makes it scale-free. With one input, "age > 0" and
        "age < 0" are the slopes on the half-lines, and "age³" the coefficient of the cube.
        """
        k = self.n_experts
        if k == 1:
            return []
        if self._degree is not None and (self.n_features == 1 or self.activation == "identity"):
            terms = {"identity": list(features), "cube": [f"{features[0]}³"]}
            half_lines = [f"{features[0]} > 0", f"{features[0]} < 0"]
            return contrast_quantities(k, ["(intercept)", *terms.get(self.activation, half_lines)])
        found = contrast_quantities(k, ["(intercept)"])
        found += [Quantity(f"gate {i}", term) for i in range(1, k + 1) for term in features]
        if self._degree is None and self.free_temperature:
            found.append(Quantity("gate", "temperature", positive=True))
        return found


def _one_sign(weight: Tensor) -> bool:
    return bool((weight > 0.0).all() or (weight < 0.0).all())


def _translation_of_cubes() -> Symmetry:
    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        cubes = parameters["weight"] ** 3 + amount
        return {**parameters, "weight": cubes.sign() * cubes.abs() ** (1.0 / 3.0)}

    sentence = "one number is added to β₁³ of every expert: with one input all logits rise by the same multiple of x³"
    return Symmetry(name="translation", sentence=sentence, dimension=1, act=act, kind="translation")


def _translation_of_rays() -> Symmetry:
    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        weight = parameters["weight"] + amount
        # Beyond a change of sign the symmetry ends: NaN rather than another gate.
        same = (weight * parameters["weight"] > 0.0).all()
        return {**parameters, "weight": torch.where(same, weight, torch.full_like(weight, torch.nan))}

    sentence = (
        "one number is added to the slopes, which have all the same sign: with one input all logits rise by the same "
        "multiple of x on one half-line and are constant on the other"
    )
    return Symmetry(name="translation", sentence=sentence, dimension=1, act=act, kind="translation")


def _sign(expert: int) -> Symmetry:
    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        weight = parameters["weight"]
        signs = torch.ones_like(weight[:, :1])
        signs[expert] = -1.0
        return {**parameters, "weight": signs * weight}

    sentence = f"β₁ of expert {expert + 1} changes its sign, of which an even σ(β₁ᵀx) takes no notice"
    return Symmetry(name="sign", sentence=sentence, dimension=0, act=act, kind="discrete")
