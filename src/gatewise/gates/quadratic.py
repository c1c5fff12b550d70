"""The quadratic gate: weights whose logarithms are quadratic in the inputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.gates.base import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.gates.quadratic_forms import from_matrix, isometric, monomial_names, monomials, n_monomials, to_matrix
from gatewise.parts.component import Atoms, Coordinates, true_or_false
from gatewise.parts.formulas import Formula, TheoryParameter
from gatewise.parts.parameters import Parameters, Quantity, Symmetry


@GATES.register
class QuadraticGate(Gate):
    """πᵢ(x) ∝ exp(xᵀAᵢx + bᵢᵀx + cᵢ) with symmetric Aᵢ, or exp(xᵀAᵢx + cᵢ) in the monomial form.

    A is stored as the coefficients of the monomials xᵢxⱼ with i ≤ j, so a product's coefficient is 2Aᵢⱼ. As in a
    softmax gate only contrasts against a reference expert are identified. The polynomial form is the same model after a
    shift and a change of units of x; the monomial form is so after a change of units only, because a shift of x makes
    linear terms.

    Args:
        n_features: d.
        n_experts: k.
        monomial: whether to leave out the linear terms.

    Example:
        >>> import torch
        >>> gate = QuadraticGate(n_features=2, n_experts=2)
        >>> gate.basis(torch.tensor([2.0, 3.0]))
        tensor([1., 2., 3., 4., 6., 9.])
        >>> [quantity.term for quantity in gate.quantities(["x", "z"])]
        ['(intercept)', 'x', 'z', 'x²', 'x*z', 'z²']
    """

    name = "quadratic"
    formula = "xᵀAx + bᵀx + c"
    source = "arXiv:2410.11222 (polynomial and monomial quadratic gates, its abstract)"
    per_expert = ("bias", "weight", "quadratic")

    def __init__(self, n_features: int, n_experts: int, monomial: bool = False) -> None:
        super().__init__(n_features, n_experts)
        self.monomial = true_or_false("monomial", monomial)
        self.affine_equivariant = not monomial
        self.bias = nn.Parameter(torch.zeros(n_experts))
        if not monomial:
            self.weight = nn.Parameter(torch.zeros(n_experts, n_features))
        self.quadratic = nn.Parameter(torch.zeros(n_experts, n_monomials(n_features)))

    @property
    def most_routing_features(self) -> int | None:
        """64: there are d² numbers for each expert."""
        return 64

    def logits(self, x: Tensor) -> Tensor:
        """xᵀAx + bᵀx + c, (…, d) ↦ (…, k)."""
        return self.slope_score(x) + self.bias

    def place(self, direction: Tensor, point: Tensor) -> None:
        """The slopes; without linear terms the square of the slope's product with x, of the slope's length."""
        if not self.monomial:
            return super().place(direction, point)
        length = direction.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(direction.dtype).tiny)
        square = from_matrix(direction.unsqueeze(-1) * (direction / length).unsqueeze(-2))
        return self.assign_parameters({**self.own_parameters(), "quadratic": square})

    def slope_score(self, x: Tensor) -> Tensor:
        """xᵀAx + bᵀx, (…, d) ↦ (…, k): the logits without the constant."""
        curved = monomials(x) @ self.quadratic.T
        return curved if self.monomial else curved + x @ self.weight.T

    def options(self) -> dict[str, Any]:
        """`monomial`."""
        return {"monomial": self.monomial}

    def basis(self, x: Tensor) -> Tensor:
        """(1, x, xᵢxⱼ for i ≤ j), (…, 1 + d + d(d + 1)/2), or without x in the monomial form."""
        one = x.new_ones((*x.shape[:-1], 1))
        return torch.cat([one, monomials(x)] if self.monomial else [one, x, monomials(x)], dim=-1)

    def coefficients(self, parameters: Parameters) -> Tensor:
        """(c, b, coefficients of the monomials), (k, 1 + d + d(d + 1)/2), or without b in the monomial form."""
        linear = [] if self.monomial else [parameters["weight"]]
        return torch.cat([parameters["bias"].unsqueeze(-1), *linear, parameters["quadratic"]], dim=-1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """One quadratic function added to all logits: 1 + d + d(d + 1)/2 dimensions, 1 + d(d + 1)/2 if monomial."""
        linear = [] if self.monomial else [translation("weight", self.n_features)]
        every = (translation("bias", 1), *linear, translation("quadratic", n_monomials(self.n_features)))
        return tuple(symmetry for symmetry in every if symmetry.dimension)

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """The entries, A with its Frobenius norm."""
        found = super().coordinates(atoms)
        return isometric(found, "gate_quadratic") if "gate_quadratic" in atoms else found

    def identified(self, parameters: Parameters) -> Tensor:
        """Contrasts of `coefficients` against the last expert, flattened."""
        return contrasts(self.coefficients(parameters))

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The intercept, the features, their squares and their products for each contrast with the last expert."""
        linear = [] if self.monomial else features
        return contrast_quantities(self.n_experts, ["(intercept)", *linear, *monomial_names(features)])

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """A / (scale scaleᵀ), b / scale − 2A′ shift and c − (b / scale)ᵀ shift + shiftᵀ A′ shift, A′ the new A.

        Raises:
            InputError: the gate is of the monomial form.
        """
        if self.monomial:
            return super().unstandardise(parameters, shift, scale)
        quadratic = parameters["quadratic"] / monomials(scale)
        bent = to_matrix(quadratic, self.n_features) @ shift
        linear = parameters["weight"] / scale
        return {
            "bias": parameters["bias"] - linear @ shift + bent @ shift,
            "weight": linear - 2.0 * bent,
            "quadratic": quadratic,
        }

    def expression(self) -> Formula:
        """The score xᵀAx + b₁ᵀx."""
        import sympy

        from gatewise.gates.scores import pairs
        from gatewise.parts.expressions import dot, inputs, symbols, vector

        d = self.n_features
        x = inputs(d)
        linear = () if self.monomial else vector("b₁", d, "gate_slope")
        score = dot(linear, x) if linear else sympy.Integer(0)
        curved = []
        for i in range(d):
            for j in range(i, d):
                entry = TheoryParameter("A", (i + 1, j + 1) if d > 1 else (), False, "gate_quadratic", (i, j))
                curved.append(entry)
                score = score + (1 if i == j else 2) * entry.symbol * x[i] * x[j]
        note = "the constant c is left out: it is the weight of an atom; A is symmetric, b₁ is the gate's slope"
        own = (*linear, *curved)
        both = pairs(symbols(own), [sympy.diff(score, symbol) for symbol in symbols(own)])
        return Formula(self.name, x, own, (score,), {}, both, "v = A" if self.monomial else "v = (b₁, A)", note)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_bias` c (k,), `gate_slope` b (k, d) unless monomial, and `gate_quadratic` A (k, d, d)."""
        linear = {} if self.monomial else {"gate_slope": self.weight.detach().clone()}
        matrix = to_matrix(self.quadratic.detach(), self.n_features)
        return {"gate_bias": self.bias.detach().clone(), **linear, "gate_quadratic": matrix}
