"""The Gaussian gate: weights by Bayes' rule from a Gaussian mixture of the inputs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.gates.quadratic import QuadraticGate
from gatewise.gates.quadratic_forms import from_matrix, isometric, monomial_names, n_monomials, to_matrix
from gatewise.gates.starts import shared_means
from gatewise.messages import shown
from gatewise.ops.log_space import log_softmax
from gatewise.parts.component import Atoms, Coordinates, true_or_false
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula, TheoryParameter
from gatewise.parts.parameters import Parameters, Quantity, Symmetry
from gatewise.parts.spread import Spread

Covariance = Literal["full", "diagonal"]


@GATES.register
class GaussianGate(Gate):
    """πᵢ(x) ∝ πᵢ N(x; cᵢ, Γᵢ): the posterior weights of a Gaussian mixture of the inputs.

    Γ = LLᵀ with L lower triangular and exp(`log_diagonal`) on its diagonal, and π is the softmax of `log_weight`; the
    logits are exactly log πᵢ + log N(x; cᵢ, Γᵢ). In the *joint* model these are densities of x, p(x, y) is fitted, and
    c and Γ are identified. In the *conditional* model only the weights at given x count: they are those of a quadratic
    gate with matrix −Γᵢ⁻¹/2, slope Γᵢ⁻¹cᵢ and constant log πᵢ + log N(0; cᵢ, Γᵢ), and do not change when one quadratic
    function of x is added to all logits, 1 + d + d(d + 1)/2 dimensions (1 + 2d with diagonal covariances); contrasts of
    those coefficients are identified.

    Args:
        n_features: d.
        n_experts: k.
        joint: whether the logits are fitted as a density of x together with the expert.
        covariance: "full", or "diagonal" for inputs that are independent within each expert.

    Raises:
        InputError: `covariance` is neither of the two.

    Example:
        >>> import torch
        >>> gate = GaussianGate(n_features=1, n_experts=2)
        >>> centre = torch.tensor([[-1.0], [1.0]])
        >>> gate.assign_parameters({**gate.own_parameters(), "centre": centre})
        >>> gate(torch.zeros(1)).exp().detach()
        tensor([0.5000, 0.5000])
    """

    name = "gaussian"
    formula = "log π + log N(x; c, Γ)"
    source = "Xu, Jordan and Hinton (1995); arXiv:2305.07572 (statement recalled, to be checked against the paper)"
    affine_equivariant = True
    per_expert = ("log_weight", "centre", "log_diagonal", "lower")

    def __init__(self, n_features: int, n_experts: int, joint: bool = True, covariance: Covariance = "full") -> None:
        super().__init__(n_features, n_experts)
        if covariance not in ("full", "diagonal"):
            raise InputError(f"covariance must be 'full' or 'diagonal', not {shown(covariance)}")
        self.joint = true_or_false("joint", joint)
        self.covariance: Covariance = covariance
        self.log_weight = nn.Parameter(torch.zeros(n_experts))
        self.centre = nn.Parameter(torch.zeros(n_experts, n_features))
        self.log_diagonal = nn.Parameter(torch.zeros(n_experts, n_features))
        if covariance == "full":
            self.lower = nn.Parameter(torch.zeros(n_experts, n_features * (n_features - 1) // 2))

    @property
    def is_joint(self) -> bool:
        """Whether the joint model of inputs and target is fitted: `joint`."""
        return self.joint

    @property
    def spread(self) -> Spread | None:
        """Joint: the standard deviation of the inputs in the narrowest direction. Weights alone have a bound."""
        if not self.joint or self.n_features == 0:
            return None
        name = "standard deviation of the inputs in some direction"
        return Spread("log_diagonal", self.n_features, name, "standard deviation there", factor=self._factor)

    def _diagonal_square(self, x: Tensor) -> Tensor:
        """Σⱼ ((xⱼ − cᵢⱼ)/sᵢⱼ)²: in float64 from the differences, otherwise from two products as in `ops.distance`."""
        if x.dtype == torch.float64:
            return ((x.unsqueeze(-2) - self.centre) * torch.exp(-self.log_diagonal)).square().sum(-1)
        precision, middle = torch.exp(-2.0 * self.log_diagonal), self.centre.mean(0)
        away, other = x - middle, self.centre - middle
        square = away.square() @ precision.T - 2.0 * (away @ (other * precision).T)
        return (square + (other.square() * precision).sum(-1)).clamp_min(0.0)

    @property
    def most_routing_features(self) -> int | None:
        """64 with full covariances, of which each has d² numbers; no limit with diagonal ones."""
        return 64 if self.covariance == "full" else None

    def logits(self, x: Tensor) -> Tensor:
        """Log πᵢ + log N(x; cᵢ, Γᵢ), (…, d) ↦ (…, k)."""
        if self.covariance == "diagonal":
            square = self._diagonal_square(x)
        else:
            factor = self._factor({"log_diagonal": self.log_diagonal, "lower": self.lower})
            # One solve per expert for all inputs at once: (k, d, number of inputs).
            away = x.reshape(math.prod(x.shape[:-1]), self.n_features).T - self.centre.unsqueeze(-1)
            residual = torch.linalg.solve_triangular(factor, away, upper=False)
            square = residual.square().sum(-2).T.reshape(*x.shape[:-1], self.n_experts)
        constant = -self.log_diagonal.sum(-1) - 0.5 * self.n_features * math.log(2.0 * math.pi)
        return log_softmax(self.log_weight) + constant - 0.5 * square

    def options(self) -> dict[str, Any]:
        """`joint` and `covariance`."""
        return {"joint": self.joint, "covariance": self.covariance}

    def _factor(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """L, (k, d, d)."""
        d = self.n_features
        diagonal = parameters["log_diagonal"].exp()
        if self.covariance == "diagonal":
            return torch.diag_embed(diagonal)
        entries = torch.cat([diagonal, parameters["lower"], torch.zeros_like(diagonal[:, :1])], dim=-1)
        row, column = torch.tril_indices(d, d, offset=-1)
        place = torch.full((d, d), entries.shape[-1] - 1)
        place[torch.arange(d), torch.arange(d)] = torch.arange(d)
        place[row, column] = d + torch.arange(len(row))
        return entries[:, place]

    def _from_factor(self, factor: Tensor) -> Parameters:
        """`log_diagonal`, and `lower` of a full covariance, of L (k, d, d) with a positive diagonal."""
        log_diagonal = factor.diagonal(dim1=-2, dim2=-1).log()
        if self.covariance == "diagonal":
            return {"log_diagonal": log_diagonal}
        row, column = torch.tril_indices(self.n_features, self.n_features, offset=-1)
        return {"log_diagonal": log_diagonal, "lower": factor[:, row, column]}

    def _natural(self, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
        """Constant (k,), slope Λc (k, d) and precision Λ = Γ⁻¹ (k, d, d) of the logits, up to a common constant."""
        factor = self._factor(parameters)
        identity = torch.eye(self.n_features, dtype=factor.dtype, device=factor.device).expand_as(factor)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        precision = inverse.mT @ inverse
        slope = (precision @ parameters["centre"].unsqueeze(-1)).squeeze(-1)
        half = 0.5 * (slope * parameters["centre"]).sum(-1)
        return parameters["log_weight"] - half - parameters["log_diagonal"].sum(-1), slope, precision

    def place(self, direction: Tensor, point: Tensor) -> None:
        """The centres are at the points."""
        self.assign_parameters({**self.own_parameters(), "centre": point})

    def reduced(self) -> Gate:
        """Joint: itself. Conditional: the quadratic gate with the logits log π + log N(x; c, Γ), up to a constant.

        Only differences of the log-densities count there, so centres and covariances are not determined.
        """
        if self.joint:
            return self
        atoms = {name: value.double().numpy() for name, value in self.atoms().items()}
        covariance, centre = atoms["gate_covariance"], atoms["gate_centre"]
        precision = np.linalg.inv(covariance)
        slope = (precision @ centre[..., None])[..., 0]
        bias = atoms["gate_log_weight"] - 0.5 * (slope * centre).sum(-1) - 0.5 * np.linalg.slogdet(covariance)[1]
        # A common number of all logits has no effect; this one keeps exponentials finite.
        values = {"bias": bias - bias.max(), "weight": slope}
        gate = QuadraticGate(self.n_features, self.n_experts).double()
        quadratic = from_matrix(torch.from_numpy(-0.5 * precision))
        gate.assign_parameters({**{n: torch.from_numpy(v) for n, v in values.items()}, "quadratic": quadratic})
        return gate

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Shares, means and covariances of each expert's inputs: the M-step of a Gaussian mixture.

        The covariance of an expert with S = Σ s rows is drawn to the identity by d/(d + S), so that it has an inverse.
        """
        d = self.n_features
        centre = shared_means(x, shares)
        total = shares.sum(0).clamp_min(1e-12)
        factors = []
        for i in range(self.n_experts):
            away = x - centre[i]
            covariance = away.T @ (shares[:, i : i + 1] * away) / total[i]
            few = d / (d + float(total[i]))
            covariance = (1.0 - few) * covariance + (few + 1e-6) * torch.eye(d, dtype=x.dtype)
            factors.append(torch.linalg.cholesky(covariance))
        factor = torch.stack(factors)
        if self.covariance == "full":
            shape = self._from_factor(factor)
        else:
            shape = {"log_diagonal": 0.5 * (factor @ factor.mT).diagonal(dim1=-2, dim2=-1).log()}
        return {"log_weight": (total / total.sum()).log(), "centre": centre, **shape}

    def draw_inputs(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """N inputs (n, d): a component with the weights π, then N(c, Γ), of the joint form.

        Raises:
            InputError: the gate is conditional.
        """
        if not self.joint:
            return super().draw_inputs(n, generator)
        atoms = {name: value.double().numpy() for name, value in self.atoms().items()}
        weights = np.exp(atoms["gate_log_weight"] - atoms["gate_log_weight"].max())
        chosen = generator.choice(self.n_experts, size=n, p=weights / weights.sum())
        roots = np.linalg.cholesky(atoms["gate_covariance"])
        noise = generator.normal(size=(n, self.n_features))
        return atoms["gate_centre"][chosen] + np.einsum("nij,nj->ni", roots[chosen], noise)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Joint: one number added to all `log_weight`. Conditional: one quadratic function added to all logits."""
        d = self.n_features
        if self.joint or d == 0:
            return (translation("log_weight", 1),)
        diagonal = self.covariance == "diagonal"
        dimension = 1 + d + (d if diagonal else n_monomials(d))

        def act(parameters: Parameters, amount: Tensor) -> Parameters:
            constant, slope, precision = self._natural(parameters)
            matrix = torch.diag_embed(amount[1 + d :]) if diagonal else to_matrix(amount[1 + d :], d)
            # An eigenvalue of a precision is at least 1 / tr Γ: what is added stays below, for any amount.
            spread = self._factor(parameters).square().sum((-2, -1)).max()
            precision = precision + matrix / (spread * torch.sqrt(1.0 + matrix.square().sum()))
            slope = slope + amount[1 : 1 + d]
            factor = torch.linalg.cholesky(torch.linalg.inv(precision))
            centre = (factor @ (factor.mT @ slope.unsqueeze(-1))).squeeze(-1)
            shape = self._from_factor(factor)
            half = 0.5 * (slope * centre).sum(-1)
            log_weight = constant + amount[0] + half + shape["log_diagonal"].sum(-1)
            return {**parameters, "log_weight": log_weight, "centre": centre, **shape}

        sentence = (
            "one quadratic function of x is added to all logits: every Γ⁻¹ changes by the same matrix, every Γ⁻¹c by "
            "the same vector, and `log_weight` with them; π does not change"
        )
        return (Symmetry("common quadratic function", sentence, dimension, act),)

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """The entries, Γ with its Frobenius norm."""
        found = super().coordinates(atoms)
        return isometric(found, "gate_covariance") if "gate_covariance" in atoms else found

    def identified(self, parameters: Parameters) -> Tensor:
        """Contrasts of log π, then c, variances and covariances of each expert; conditional: contrasts of the logits.

        The logits' coefficients are the constant, Γ⁻¹c, and those of the monomials: −Γ⁻¹ⱼⱼ/2 for squares and −Γ⁻¹ⱼₗ for
        products, which a diagonal covariance does not have.
        """
        diagonal = self.covariance == "diagonal"
        if self.joint:
            factor = self._factor(parameters)
            covariance = factor @ factor.mT
            row, column = torch.triu_indices(self.n_features, self.n_features, offset=1)
            off = [] if diagonal else [covariance[:, row, column]]
            shape = torch.cat([parameters["centre"], covariance.diagonal(dim1=-2, dim2=-1), *off], dim=-1)
            return torch.cat([contrasts(parameters["log_weight"]), shape.reshape(-1)])
        constant, slope, precision = self._natural(parameters)
        curved = -0.5 * (precision.diagonal(dim1=-2, dim2=-1) if diagonal else from_matrix(precision))
        return contrasts(torch.cat([constant.unsqueeze(-1), slope, curved], dim=-1))

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """Joint: "log weight" contrasts, then each centre and covariance; conditional: those of a quadratic gate."""
        full = self.covariance == "full"
        if not self.joint:
            curved = monomial_names(features) if full else [f"{feature}²" for feature in features]
            return contrast_quantities(self.n_experts, ["(intercept)", *features, *curved])
        pairs = [f"{a} {b}" for j, a in enumerate(features) for b in features[j + 1 :]] if full else []
        shapes: list[Quantity] = []
        for expert in (f"gate {i}" for i in range(1, self.n_experts + 1)):
            shapes += [Quantity(expert, feature) for feature in features]
            shapes += [Quantity(expert, f"variance {feature}", positive=True) for feature in features]
            shapes += [Quantity(expert, f"covariance {pair}") for pair in pairs]
        return [*contrast_quantities(self.n_experts, ["log weight"]), *shapes]

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Centres shift + scale · c and covariances scale Γ scale, so that the joint density becomes that of x."""
        sign = torch.diag_embed(torch.sign(scale))
        # The factor's diagonal stays positive where a column's sign is turned.
        factor = scale.unsqueeze(-1) * self._factor(parameters) @ sign
        return {**parameters, "centre": shift + scale * parameters["centre"], **self._from_factor(factor)}

    def expression(self) -> Formula | None:
        """The score log N(x; c, Γ) without its constant; none for full covariances of more than three inputs."""
        import sympy

        from gatewise.parts.expressions import inputs, vector

        d = self.n_features
        full = self.covariance == "full"
        if full and d > 3:
            return None
        x, centre = inputs(d), vector("c", d, "gate_centre")
        shape: dict[tuple[int, int], TheoryParameter] = {}
        for i in range(d):
            for j in range(i, d if full else i + 1):
                index = (i + 1, j + 1) if d > 1 else ()
                # The covariances are drawn small beside the variances, so that the determinant is positive.
                shape[i, j] = TheoryParameter("Γ", index, i == j, "gate_covariance", (i, j), 1 if i == j else 8)
        zero = sympy.Integer(0)
        matrix = sympy.Matrix(
            d, d, lambda i, j: shape[min(i, j), max(i, j)].symbol if (min(i, j), max(i, j)) in shape else zero
        )
        away = sympy.Matrix([value - entry.symbol for entry, value in zip(centre, x, strict=True)])
        determinant = matrix.det() if d else sympy.Integer(1)
        square = (away.T * matrix.adjugate() * away)[0, 0] / determinant if d else zero
        score = -square / 2 - sympy.log(determinant) / 2
        special = {"c = 0": tuple(entry.label for entry in centre)} if d else {}
        note = "log π is left out: it is the weight of an atom; a factor (2π)^(−d/2) too"
        return Formula(self.name, x, (*centre, *shape.values()), (score,), special, note=note)

    def atoms(self) -> dict[str, Tensor]:
        """`gate_log_weight` log π (k,), `gate_centre` c (k, d) and `gate_covariance` Γ (k, d, d)."""
        parameters = self.own_parameters()
        factor = self._factor(parameters)
        return {
            "gate_log_weight": log_softmax(parameters["log_weight"]),
            "gate_centre": parameters["centre"].clone(),
            "gate_covariance": factor @ factor.mT,
        }
