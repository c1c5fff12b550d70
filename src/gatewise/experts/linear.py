"""Experts whose location is linear in the inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatewise.experts.affine import affine_basis, affine_values, at_original_inputs
from gatewise.experts.base import EXPERTS, Experts, expert_quantities
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@EXPERTS.register
class LinearExperts(Experts):
    """h(x, ηᵢ) = aᵢᵀx + bᵢ with ηᵢ = (aᵢ, bᵢ), and a scale σᵢ of each expert's own or one for all.

    Args:
        n_features: d.
        n_experts: k.
        shared_scale: one σ for all experts.

    Example:
        >>> import torch
        >>> experts = LinearExperts(n_features=2, n_experts=3)
        >>> location, log_scale = experts(torch.ones(5, 2))
        >>> location.shape, log_scale.shape
        (torch.Size([5, 3]), torch.Size([3]))
    """

    name = "linear"
    formula = "aᵀx + b"
    source = "Jacobs, Jordan, Nowlan and Hinton (1991); Nguyen, Nguyen and Ho (2023), arXiv:2305.03288"
    affine_equivariant = True
    output_change = "affine"

    def __init__(
        self, n_features: int, n_experts: int, shared_scale: bool = False, *, n_outputs: int = 1, n_dispersion: int = 1
    ) -> None:
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        outputs = () if n_outputs == 1 else (n_outputs,)
        self.weight = nn.Parameter(torch.zeros(n_experts, *outputs, n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts, *outputs))

    def location(self, x: Tensor) -> Tensor:
        """aᵀx + b, (…, d) ↦ (…, k), or (…, k, m)."""
        return affine_values(x, self.weight, self.bias)

    def basis(self, x: Tensor) -> Tensor:
        """(1, x), (…, 1 + d)."""
        return affine_basis(x)

    def coefficients(self, parameters: Parameters) -> Tensor:
        """(b, a), (k, 1 + d) or (k, m, 1 + d)."""
        return torch.cat([parameters["bias"].unsqueeze(-1), parameters["weight"]], dim=-1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """None: a linear function determines its coefficients."""
        return ()

    def identified(self, parameters: Parameters) -> Tensor:
        """(b, a) of each expert and output, flattened."""
        return self.coefficients(parameters).reshape(-1)

    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """The intercept and the features, expert by expert."""
        return expert_quantities(self.n_experts, outputs, ["(intercept)", *features])

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Slopes a / scale, and intercepts b − aᵀ(shift / scale)."""
        weight, bias = at_original_inputs(parameters["weight"], parameters["bias"], shift, scale)
        return {**parameters, "weight": weight, "bias": bias}

    def change_output(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Scale · a, and shift + scale · b."""
        if self.n_outputs == 1:
            shift, scale = shift.reshape(()), scale.reshape(())
        bias = shift + scale * parameters["bias"]
        return {**parameters, "weight": scale.unsqueeze(-1) * parameters["weight"], "bias": bias}

    def assign(self, coefficients: Tensor, log_scale: Tensor) -> None:
        """Set the parameters from (k, [m,] 1 + d) coefficients, intercepts first, and (k,) or (k, s) log-scales."""
        with torch.no_grad():
            self.bias.copy_(coefficients[..., 0])
            self.weight.copy_(coefficients[..., 1:])
            self.log_scale.copy_(log_scale[: len(self.log_scale)])

    def expression(self) -> Formula:
        """The locations aᵀx + b."""
        from gatewise.experts.locations import by_outputs
        from gatewise.parts.expressions import inputs

        return by_outputs(self.name, self.n_features, inputs(self.n_features), self.n_outputs, lambda value: value)

    def atoms(self) -> dict[str, Tensor]:
        """`expert_slope` a (k, d) and `expert_intercept` b (k,)."""
        return {"expert_slope": self.weight.detach().clone(), "expert_intercept": self.bias.detach().clone()}
