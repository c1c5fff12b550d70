"""Experts that do not look at the inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatewise.experts.base import EXPERTS, Experts, expert_quantities
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@EXPERTS.register
class ConstantExperts(Experts):
    """h(x, ηᵢ) = bᵢ: with a gate on x this is a mixture whose weights alone depend on the inputs.

    Args:
        n_features: d, the length of the inputs that are ignored.
        n_experts: k.
        shared_scale: one σ for all experts.

    Example:
        >>> import torch
        >>> ConstantExperts(n_features=2, n_experts=3).location(torch.ones(5, 2)).shape
        torch.Size([5, 3])
    """

    name = "constant"
    formula = "b"
    source = "input-independent experts: Nguyen et al. (2024), arXiv:2405.13997"
    affine_equivariant = True
    output_change = "affine"
    per_expert = ("bias",)

    def __init__(
        self, n_features: int, n_experts: int, shared_scale: bool = False, *, n_outputs: int = 1, n_dispersion: int = 1
    ) -> None:
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        self.bias = nn.Parameter(torch.zeros(n_experts, *(() if n_outputs == 1 else (n_outputs,))))

    def location(self, x: Tensor) -> Tensor:
        """B for every input, (…, d) ↦ (…, k), or (…, k, m)."""
        return self.bias.expand(*x.shape[:-1], *self.bias.shape)

    def basis(self, x: Tensor) -> Tensor:
        """A one, (…, 1)."""
        return x.new_ones((*x.shape[:-1], 1))

    def coefficients(self, parameters: Parameters) -> Tensor:
        """B, (k, 1) or (k, m, 1)."""
        return parameters["bias"].unsqueeze(-1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """None."""
        return ()

    def identified(self, parameters: Parameters) -> Tensor:
        """B of each expert and output, flattened."""
        return parameters["bias"].reshape(-1)

    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """One intercept for each expert and output."""
        return expert_quantities(self.n_experts, outputs, ["(intercept)"])

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """The same parameters."""
        return parameters

    def change_output(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Shift + scale · b."""
        if self.n_outputs == 1:
            shift, scale = shift.reshape(()), scale.reshape(())
        return {**parameters, "bias": shift + scale * parameters["bias"]}

    def assign(self, coefficients: Tensor, log_scale: Tensor) -> None:
        """Set the parameters from (k, 1) or (k, m, 1) intercepts and (k,) or (k, s) log-scales."""
        with torch.no_grad():
            self.bias.copy_(coefficients[..., 0])
            self.log_scale.copy_(log_scale[: len(self.log_scale)])

    def expression(self) -> Formula:
        """The locations b."""
        from gatewise.experts.locations import by_outputs

        return by_outputs(self.name, self.n_features, (), self.n_outputs, lambda value: value)

    def atoms(self) -> dict[str, Tensor]:
        """`expert_intercept` b (k,)."""
        return {"expert_intercept": self.bias.detach().clone()}
