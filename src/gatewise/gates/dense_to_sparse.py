"""The dense-to-sparse gate: a softmax with a temperature."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.gates.invariances import scale
from gatewise.gates.temperature import TemperedGate, temperatures
from gatewise.parts.component import Atoms, Coordinates
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class DenseToSparseGate(TemperedGate):
    """πᵢ(x) = exp((β₁ᵢᵀx + β₀ᵢ)/τ) / Σⱼ exp((β₁ⱼᵀx + β₀ⱼ)/τ) with one temperature τ for all experts.

    A large τ shares an input among all experts, and as τ → 0 the expert with the largest β₁ᵀx + β₀ takes it alone.

    A free τ is not identified: (c β₁, c β₀, c τ) gives the same weights for every c > 0, beside the softmax gate's
    translations. That flat direction is why slopes and temperature are said to be learned slower than at any
    polynomial rate (arXiv:2401.13875; rates recalled, to be checked against the paper). What is identified are the
    contrasts of β₁/τ and β₀/τ, and the class of weights is that of the softmax gate.

    Args:
        n_features: d.
        n_experts: k.
        temperature: τ to begin with.
        free_temperature: whether τ is learned; if not, it is set by `set_temperature` or a `TemperatureSchedule`.

    Raises:
        InputError: the temperature is not positive and finite.

    Example:
        >>> import torch
        >>> gate = DenseToSparseGate(n_features=1, n_experts=2, temperature=0.5, free_temperature=False)
        >>> gate.assign_parameters({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.zeros(2)})
        >>> gate.logits(torch.tensor([[3.0]])).detach()
        tensor([[6., 0.]])
    """

    name = "dense_to_sparse"
    formula = "(β₁ᵀx + β₀)/τ"
    source = "Nie et al. (2021), arXiv:2112.14397; Nguyen, Akbarian and Ho (2024), arXiv:2401.13875"
    affine_equivariant = True

    def logits(self, x: Tensor) -> Tensor:
        """(β₁ᵀx + β₀)/τ, (…, d) ↦ (…, k)."""
        return (x @ self.weight.T + self.bias) / self.temperature()

    def slope_score(self, x: Tensor) -> Tensor:
        """β₁ᵀx/τ, (…, d) ↦ (…, k)."""
        return x @ self.weight.T / self.temperature()

    def basis(self, x: Tensor) -> Tensor | None:
        """(1, x), (…, 1 + d), if the temperature is fixed: with a free one the logits are not linear."""
        if self.free_temperature:
            return None
        return torch.cat([x.new_ones((*x.shape[:-1], 1)), x], dim=-1)

    def coefficients(self, parameters: Parameters) -> Tensor:
        """(β₀, β₁)/τ, (k, 1 + d).

        Raises:
            InputError: the temperature is free.
        """
        if self.free_temperature:
            raise InputError(f"{self.name!r} is not linear in its parameters while the temperature is free: fix it")
        return self._scale_free(parameters)

    def _scale_free(self, parameters: Parameters) -> Tensor:
        both = torch.cat([parameters["bias"].unsqueeze(-1), parameters["weight"]], dim=-1)
        return both / self.temperature_of(parameters)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """The softmax gate's translations, 1 + d dimensions, and with a free temperature the common scale, one more."""
        found = [s for s in (translation("bias", 1), translation("weight", self.n_features)) if s.dimension]
        if self.free_temperature:
            sentence = "slopes, biases and temperature are multiplied by one number, which cancels in (β₁ᵀx + β₀)/τ"
            found.append(scale({"weight": 1.0, "bias": 1.0}, {"log_temperature": 1.0}, sentence))
        return tuple(found)

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """β₁/τ."""
        slope = atoms["gate_slope"].reshape(len(atoms["gate_slope"]), -1)
        return Coordinates({"gate_slope": slope / temperatures(atoms)}, {"gate_slope": "gate_slope/τ"})

    def identified(self, parameters: Parameters) -> Tensor:
        """((β₀ᵢ − β₀ₖ)/τ, (β₁ᵢ − β₁ₖ)/τ) for i < k, flattened."""
        return contrasts(self._scale_free(parameters))

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The intercept and the features, divided by τ, for each contrast with the last expert."""
        return contrast_quantities(self.n_experts, ["(intercept)", *features])

    def expression(self) -> Formula:
        """The score β₁ᵀx/τ."""
        from gatewise.gates.scores import SCALED_BIAS, pairs, slope_of
        from gatewise.parts.expressions import dot, inputs, symbols

        x, slope = inputs(self.n_features), slope_of(self.n_features)
        own, tau = self.temperature_symbols()
        linear = pairs([entry / tau for entry in symbols(slope)], x)
        return Formula(self.name, x, (*slope, *own), (dot(slope, x) / tau,), {}, linear, "v = β₁/τ", SCALED_BIAS)

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """β₁ / scale, β₀ − β₁ᵀ(shift / scale), and the same τ."""
        weight = parameters["weight"] / scale
        return {**parameters, "weight": weight, "bias": parameters["bias"] - weight @ shift}
