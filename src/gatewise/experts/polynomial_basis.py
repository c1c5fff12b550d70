"""Experts whose location is any polynomial of the inputs up to a degree."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.experts.affine import affine_basis, affine_values
from gatewise.experts.base import EXPERTS, Experts, expert_quantities, whole_number
from gatewise.experts.monomials import Monomials, count_monomials
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry

_MOST_MONOMIALS = 10_000


@EXPERTS.register
class PolynomialBasisExperts(Experts):
    """h(x, ηᵢ) = bᵢ + Σ_α aᵢ_α x^α over all monomials with 1 ≤ |α| ≤ degree: linear in the parameters.

    The monomials stand by degree and then in the order of the inputs: x, z, x², x·z, z². With degree 1 these are
    `LinearExperts`. Their number is C(d + degree, degree), with the constant.

    Powers of inputs far from 0 nearly cancel: at a high degree, a location in such inputs has fewer digits than the
    same one in standardised inputs, whatever the coefficients' own precision.

    Args:
        n_features: d.
        n_experts: k.
        shared_scale: one σ for all experts.
        degree: the highest total degree, at least 1.
        n_outputs: m.
        n_dispersion: s.

    Raises:
        InputError: the degree is out of range, or there would be more than 10,000 monomials.

    Example:
        >>> experts = PolynomialBasisExperts(n_features=2, n_experts=1, degree=2)
        >>> [quantity.term for quantity in experts.quantities(["x", "z"])]
        ['(intercept)', 'x', 'z', 'x²', 'x*z', 'z²']
    """

    name = "polynomial_basis"
    formula = "b + Σ_α a_α x^α, |α| ≤ degree"
    source = "polynomial regression within experts; linear in its parameters"
    affine_equivariant = True
    output_change = "affine"

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        shared_scale: bool = False,
        *,
        degree: int = 2,
        n_outputs: int = 1,
        n_dispersion: int = 1,
    ) -> None:
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        self.degree = whole_number("the degree of polynomial_basis experts", degree, 1, _MOST_MONOMIALS)
        if n_features > _MOST_MONOMIALS or count_monomials(n_features, degree) >= _MOST_MONOMIALS:
            raise InputError(
                f"polynomials of degree {degree} in {n_features} inputs have C({n_features + degree}, {degree}) "
                f"monomials, more than {_MOST_MONOMIALS:,}: take a lower degree or fewer features"
            )
        self.monomials = Monomials(n_features, degree)
        outputs = () if n_outputs == 1 else (n_outputs,)
        self.weight = nn.Parameter(torch.zeros(n_experts, *outputs, len(self.monomials)))
        self.bias = nn.Parameter(torch.zeros(n_experts, *outputs))

    def options(self) -> dict[str, Any]:
        """The degree."""
        return {"degree": self.degree}

    def location(self, x: Tensor) -> Tensor:
        """B + Σ a x^α, (…, d) ↦ (…, k), or (…, k, m)."""
        return affine_values(self.monomials.values(x), self.weight, self.bias)

    def basis(self, x: Tensor) -> Tensor:
        """1 and the monomials, (…, q) with q = C(d + degree, degree)."""
        return affine_basis(self.monomials.values(x))

    def coefficients(self, parameters: Parameters) -> Tensor:
        """(b, a), (k, q) or (k, m, q)."""
        return torch.cat([parameters["bias"].unsqueeze(-1), parameters["weight"]], dim=-1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """None: a polynomial determines its coefficients."""
        return ()

    def identified(self, parameters: Parameters) -> Tensor:
        """(b, a) of each expert and output, flattened."""
        return self.coefficients(parameters).reshape(-1)

    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """The intercept and the monomials, "x²*z", expert by expert."""
        return expert_quantities(self.n_experts, outputs, ["(intercept)", *self.monomials.terms(features)])

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """The coefficients after expanding every power of (x − shift)/scale; linear in them."""
        coefficients = self.monomials.at_original_inputs(self.coefficients(parameters), shift, scale)
        return {**parameters, "weight": coefficients[..., 1:], "bias": coefficients[..., 0]}

    def change_output(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Scale · a, and shift + scale · b."""
        if self.n_outputs == 1:
            shift, scale = shift.reshape(()), scale.reshape(())
        bias = shift + scale * parameters["bias"]
        return {**parameters, "weight": scale.unsqueeze(-1) * parameters["weight"], "bias": bias}

    def assign(self, coefficients: Tensor, log_scale: Tensor) -> None:
        """Set the parameters from (k, q) or (k, m, q) coefficients, intercepts first, and (k,) or (k, s) log-scales."""
        with torch.no_grad():
            self.bias.copy_(coefficients[..., 0])
            self.weight.copy_(coefficients[..., 1:])
            self.log_scale.copy_(log_scale[: len(self.log_scale)])

    def expression(self) -> Formula:
        """The locations Σ aⱼ tⱼ(x) + b over the monomials t."""
        import sympy

        from gatewise.experts.locations import by_outputs
        from gatewise.parts.expressions import inputs

        x = inputs(self.n_features)
        terms = [sympy.Mul(*(x[j] for j in factors)) for factors in self.monomials.factors]
        return by_outputs(self.name, self.n_features, terms, self.n_outputs, lambda value: value)

    def atoms(self) -> dict[str, Tensor]:
        """`expert_slope` a (k, q − 1) by monomial and `expert_intercept` b (k,), with an axis of m outputs if m > 1."""
        return {"expert_slope": self.weight.detach().clone(), "expert_intercept": self.bias.detach().clone()}
