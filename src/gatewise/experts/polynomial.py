"""Experts whose location is a power of an affine function of the inputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.experts.affine import affine_basis, affine_values, at_original_inputs
from gatewise.experts.base import EXPERTS, Experts, OutputChange, expert_quantities, refuse_shift, whole_number
from gatewise.parts.draws import NOISE, Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry

_HIGHEST_POWER = 100


@EXPERTS.register
class PolynomialExperts(Experts):
    """h(x, ηᵢ) = (aᵢᵀx + bᵢ)^p with ηᵢ = (aᵢ, bᵢ).

    These are the polynomial experts of the theory, which are learned slowly under most gates; a polynomial with all
    its coefficients free is `PolynomialBasisExperts`. With p = 1 they are `LinearExperts`. A location of an even power
    is never negative, and (a, b) and (−a, −b) give the same one: the parameters are reported as they are, with
    whichever sign they have.

    New experts have a = 0 and b = 1 (b = 0 if p = 1): where a = 0 and b = 0, all first derivatives of a power p ≥ 2
    vanish and no gradient leads away.

    Args:
        n_features: d.
        n_experts: k.
        shared_scale: one σ for all experts.
        power: p, between 1 and 100.
        n_outputs: m; with m > 1 each output has an a and a b of its own.
        n_dispersion: s.

    Raises:
        InputError: the power is out of range.

    Example:
        >>> import torch
        >>> experts = PolynomialExperts(n_features=2, n_experts=3, power=2)
        >>> experts.location(torch.ones(5, 2)).shape
        torch.Size([5, 3])
    """

    name = "polynomial"
    formula = "(aᵀx + b)^p"
    source = "Nguyen et al. (2024), arXiv:2402.02952; arXiv:2405.13997, Theorem 4"
    affine_equivariant = True

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        shared_scale: bool = False,
        *,
        power: int = 2,
        n_outputs: int = 1,
        n_dispersion: int = 1,
    ) -> None:
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        self.power = whole_number("the power of polynomial experts", power, 1, _HIGHEST_POWER)
        self.output_change: OutputChange = "affine" if power == 1 else "scale"
        outputs = () if n_outputs == 1 else (n_outputs,)
        self.weight = nn.Parameter(torch.zeros(n_experts, *outputs, n_features))
        self.bias = nn.Parameter(torch.full((n_experts, *outputs), 0.0 if power == 1 else 1.0))

    @property
    def known_as(self) -> str:
        """With p = 1 they are linear."""
        return "linear" if self.power == 1 else self.name

    def options(self) -> dict[str, Any]:
        """The power."""
        return {"power": self.power}

    def location(self, x: Tensor) -> Tensor:
        """(aᵀx + b)^p, (…, d) ↦ (…, k), or (…, k, m)."""
        return affine_values(x, self.weight, self.bias) ** self.power

    def basis(self, x: Tensor) -> Tensor | None:
        """(1, x), (…, 1 + d), if p = 1; else None."""
        return affine_basis(x) if self.power == 1 else None

    def coefficients(self, parameters: Parameters) -> Tensor:
        """(b, a), (k, 1 + d) or (k, m, 1 + d), if p = 1.

        Raises:
            InputError: p is not 1.
        """
        return self._affine(parameters) if self.power == 1 else super().coefficients(parameters)

    def start_design(self, x: Tensor) -> Tensor:
        """(1, x), (n, 1 + d), for every p."""
        return affine_basis(x)

    def start(self, x: Tensor, shares: Tensor, coefficients: Tensor | None, draws: Draws) -> Parameters:
        """Near the lines ℓ = φᵀB of the regressions: aᵀx + b regressed on |ℓ|^(1/p), with the sign of ℓ if p is odd."""
        if self.power == 1 or coefficients is None:
            return super().start(x, shares, coefficients, draws)
        design = affine_basis(x)
        location = torch.einsum("np,i...p->ni...", design, coefficients)
        size = location.abs().clamp_min(1e-3) ** (1.0 / self.power)
        root = torch.sign(location) * size if self.power % 2 else size
        found = torch.empty_like(coefficients)
        for i in range(self.n_experts):
            weight = shares[:, i : i + 1].clamp_min(1e-12)
            gram = design.T @ (weight * design) + 1e-9 * weight.sum() * torch.eye(design.shape[1], dtype=x.dtype)
            target = root[:, i].reshape(len(design), -1)
            found[i] = torch.linalg.solve(gram, design.T @ (weight * target)).T.reshape(found[i].shape)
        bias, weight = found[..., 0], found[..., 1:]
        bias = bias + NOISE * draws.normal(bias, of_features=False)
        return {"bias": bias, "weight": weight + NOISE * draws.normal(weight)}

    def _affine(self, parameters: Parameters) -> Tensor:
        return torch.cat([parameters["bias"].unsqueeze(-1), parameters["weight"]], dim=-1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """None for an odd power; for an even one the sign of (a, b), for each expert and output."""
        if self.power % 2:
            return ()
        return tuple(self._sign(expert, output) for expert in range(self.n_experts) for output in range(self.n_outputs))

    def _sign(self, expert: int, output: int) -> Symmetry:
        def act(parameters: Parameters, amount: Tensor) -> Parameters:
            sign = torch.ones_like(parameters["bias"]).reshape(self.n_experts, self.n_outputs)
            sign[expert, output] = -1.0
            sign = sign.reshape(parameters["bias"].shape)
            weight = parameters["weight"] * sign.unsqueeze(-1)
            return {**parameters, "weight": weight, "bias": parameters["bias"] * sign}

        where = f"expert {expert + 1}" + (f", output {output + 1}" if self.n_outputs > 1 else "")
        return Symmetry(
            name="sign",
            sentence=f"a and b of {where} change their signs together: (−z)^{self.power} = z^{self.power}",
            dimension=0,
            act=act,
            kind="discrete",
        )

    def identified(self, parameters: Parameters) -> Tensor:
        """(b, a) of each expert and output, flattened; for an even power up to their common sign."""
        return self._affine(parameters).reshape(-1)

    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """The inner function's intercept and features, expert by expert."""
        return expert_quantities(self.n_experts, outputs, ["(intercept)", *features])

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Inner slopes a / scale, and inner intercepts b − aᵀ(shift / scale)."""
        weight, bias = at_original_inputs(parameters["weight"], parameters["bias"], shift, scale)
        return {**parameters, "weight": weight, "bias": bias}

    def change_output(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Scale^{1/p} · (a, b), with shift + … on b if p = 1.

        Raises:
            InputError: p is not 1 and the shift is not 0.
        """
        if self.n_outputs == 1:
            shift, scale = shift.reshape(()), scale.reshape(())
        root = scale ** (1.0 / self.power)
        weight, bias = root.unsqueeze(-1) * parameters["weight"], root * parameters["bias"]
        if self.power == 1:
            bias = shift + bias
        else:
            refuse_shift(self.name, shift)
        return {**parameters, "weight": weight, "bias": bias}

    def expression(self) -> Formula:
        """The locations (aᵀx + b)^p."""
        from gatewise.experts.locations import by_outputs
        from gatewise.parts.expressions import inputs

        return by_outputs(self.name, self.n_features, inputs(self.n_features), self.n_outputs, lambda z: z**self.power)

    def atoms(self) -> dict[str, Tensor]:
        """`expert_slope` a (k, d) and `expert_intercept` b (k,), with an axis of m outputs before d if m > 1."""
        return {"expert_slope": self.weight.detach().clone(), "expert_intercept": self.bias.detach().clone()}
