"""Experts that are small networks with one hidden layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.experts.affine import affine_basis, affine_values, at_original_inputs
from gatewise.experts.base import EXPERTS, Experts, OutputChange, expert_quantities, refuse_shift, whole_number
from gatewise.experts.hidden_units import (
    HOMOGENEITY,
    POLYNOMIAL_DEGREE,
    REFLECTIONS,
    half_turn,
    mixing,
    reflection,
    scaling,
    swaps,
)
from gatewise.experts.monomials import Monomials
from gatewise.parts.activations import activation as activation_named
from gatewise.parts.component import true_or_false
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula, TheoryParameter
from gatewise.parts.parameters import Parameters, Quantity, Symmetry

_MOST_HIDDEN = 1_000_000
_GOLDEN = 0.6180339887498949
_RIDGE = 1e-3


@EXPERTS.register
class FeedForwardExperts(Experts):
    """h(x, ηᵢ) = Σⱼ vᵢⱼ φ(aᵢⱼᵀx + bᵢⱼ) + cᵢ over H hidden units; c only with `output_bias`.

    With m > 1 outputs all of them share the hidden units, and v and c have one row for each.

    What leaves a location unchanged, at generic parameters and inputs that fill an open set:

    | φ | continuous | discrete, besides the order of the hidden units |
    |---|---|---|
    | relu | (a, b) ↦ s(a, b), v ↦ v/s, s > 0, for each unit | none |
    | gelu, silu | none | none |
    | tanh | none | the sign of (a, b, v) of each unit (Sussmann 1992) |
    | sigmoid | none | with `output_bias`: (a, b, v) ↦ −(a, b, v), c ↦ c + v |
    | cos | none | the sign of (a, b), and (b, v) ↦ (b + π, −v) |
    | cube | (a, b) ↦ s(a, b), v ↦ v/s³ | the sign of (a, b, v) |
    | identity | all that keeps v(a, b) | the sign of (a, b, v) |

    For relu, gelu and silu, φ(z) − φ(−z) = z: units can be reflected only where the linear functions that this adds
    cancel, which generic parameters do not allow. Identity and cube make polynomials of the inputs: their coefficients
    are what is identified, and reported. A cubic in d inputs has C = C(d + 3, 3) of them; where H (d + m), plus m with
    an output bias, exceeds m C, the parameters have further null directions, which are not declared (and one already
    at d = 4, H = 7, m = 1, where the two are equal). A unit that is off, or nowhere bends, on all the data has more
    still: those are properties of the data. The table is theory for tanh; for the others the dimensions were found
    from the rank of the locations' Jacobian at random parameters, and are tested so. Of an activation that a user
    registered nothing is known but that the order of the units does not matter.

    Units whose parameters are zero, or equal to those of another, are singular points. New experts start away from
    them: magnitudes of a between 1/3 and 1 over √d, of b up to 1/6 over √d, and of v between 1/3 and 1 over √H, spread
    by the golden ratio, with c = 0. The experts of a bank differ. At a relu's kink the derivative is taken to be 0.

    Args:
        n_features: d, at least 1.
        n_experts: k.
        shared_scale: one σ for all experts.
        hidden: H.
        activation: φ by name, one that `gatewise.parts.activations` knows.
        output_bias: whether there is a c.
        n_outputs: m.
        n_dispersion: s.

    Raises:
        InputError: there is no feature, the number of hidden units is out of range, or the activation is unknown.

    Example:
        >>> import torch
        >>> experts = FeedForwardExperts(n_features=2, n_experts=3, hidden=4, activation="tanh")
        >>> experts.location(torch.ones(5, 2)).shape
        torch.Size([5, 3])
        >>> experts.inner_weight.shape, experts.outer_weight.shape
        (torch.Size([3, 4, 2]), torch.Size([3, 4]))
    """

    name = "feed_forward"
    formula = "Σⱼ vⱼ φ(aⱼᵀx + bⱼ) + c"
    source = "Nguyen et al. (2024), arXiv:2402.02952, to be checked against the paper; arXiv:2405.13997 has one unit"
    affine_equivariant = True

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        shared_scale: bool = False,
        *,
        hidden: int = 4,
        activation: str = "relu",
        output_bias: bool = False,
        n_outputs: int = 1,
        n_dispersion: int = 1,
    ) -> None:
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        if n_features < 1:
            raise InputError("feed_forward experts need at least one feature: take constant experts")
        self.hidden = whole_number("the number of hidden units", hidden, 1, _MOST_HIDDEN)
        activation_named(activation)
        self.activation = activation
        self.output_bias = true_or_false("output_bias", output_bias)
        self.output_change: OutputChange = "affine" if output_bias else "scale"
        outputs = () if n_outputs == 1 else (n_outputs,)
        inner = _spread((n_experts, hidden, 1 + n_features))
        outer = _spread((n_experts, *outputs, hidden), 0.5)
        self.inner_weight = nn.Parameter(_away_from_zero(inner[..., 1:]) / n_features**0.5)
        self.inner_bias = nn.Parameter(inner[..., 0] / (6.0 * n_features**0.5))
        self.outer_weight = nn.Parameter(_away_from_zero(outer) / hidden**0.5)
        self.outer_bias = nn.Parameter(torch.zeros(n_experts, *outputs)) if output_bias else None
        self.per_expert = tuple(name for name, _ in self.named_parameters() if name != "log_scale")  # pyright: ignore[reportAttributeAccessIssue]

    def kinks(self, parameters: Mapping[str, np.ndarray], rest: np.ndarray) -> Sequence[np.ndarray]:
        """With relu where aᵀx + b = 0 cuts the first axis, unit by unit."""
        if self.activation != "relu":
            return ()
        pairs = zip(
            parameters["inner_weight"].reshape(-1, self.n_features), parameters["inner_bias"].reshape(-1), strict=True
        )
        return [-(bias + rest @ weight[1:]) / weight[0] for weight, bias in pairs]

    def options(self) -> dict[str, Any]:
        """The number of hidden units, the activation's name, and whether there is an output bias."""
        return {"hidden": self.hidden, "activation": self.activation, "output_bias": self.output_bias}

    def location(self, x: Tensor) -> Tensor:
        """Σ v φ(aᵀx + b) + c, (…, d) ↦ (…, k), or (…, k, m)."""
        units = activation_named(self.activation)(affine_values(x, self.inner_weight, self.inner_bias))
        if self.n_outputs == 1:
            location = (units * self.outer_weight).sum(-1)
        else:
            location = torch.einsum("...kh,kmh->...km", units, self.outer_weight)
        return location if self.outer_bias is None else location + self.outer_bias

    def start_design(self, x: Tensor) -> Tensor:
        """(1, x), (n, 1 + d)."""
        return affine_basis(x)

    def start(self, x: Tensor, shares: Tensor, coefficients: Tensor | None, draws: Draws) -> Parameters:
        """Random hidden units that bend at rows of the data; v and c by ridge regression on the lines φᵀB.

        A unit's direction is uniform and its slope ‖a‖ uniform between 0.5 and 2; b puts the bend on a row.
        """
        if coefficients is None:
            return super().start(x, shares, coefficients, draws)
        k, unit = self.n_experts, draws.normal(self.inner_weight.detach())
        slope = unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True).clamp_min(1e-12)
        slope = slope * torch.from_numpy(draws.generator.uniform(0.5, 2.0, size=(k, self.hidden, 1)))
        rows = x[draws.rows((k, self.hidden))]
        bias = -(slope * rows).sum(-1)
        location = torch.einsum("np,i...p->ni...", affine_basis(x), coefficients).reshape(len(x), k, -1)
        units = activation_named(self.activation)(torch.einsum("nd,khd->nkh", x, slope) + bias)
        if self.output_bias:
            units = torch.cat([units, torch.ones_like(units[..., :1])], dim=-1)
        outputs = []
        for i in range(k):
            weight = shares[:, i : i + 1].clamp_min(1e-12)
            ridge = _RIDGE * weight.sum() * torch.eye(units.shape[-1], dtype=x.dtype)
            gram = units[:, i].T @ (weight * units[:, i]) + ridge
            outputs.append(torch.linalg.solve(gram, units[:, i].T @ (weight * location[:, i])).T)
        outer = torch.stack(outputs).reshape(*self.outer_weight.shape[:-1], -1)
        found = {"inner_weight": slope, "inner_bias": bias, "outer_weight": outer[..., : self.hidden]}
        return {**found, "outer_bias": outer[..., self.hidden]} if self.output_bias else found

    def symmetries(self) -> tuple[Symmetry, ...]:
        """The continuous ones first, then a generator of each discrete one, as the table above has them."""
        k, units = self.n_experts, [(i, j) for i in range(self.n_experts) for j in range(self.hidden)]
        found: list[Symmetry] = []
        if self.activation == "identity":
            found.append(mixing(k, self.n_outputs, self.hidden, self.n_features, self.output_bias))
        if self.activation in HOMOGENEITY:
            found.append(scaling(k, self.hidden, HOMOGENEITY[self.activation]))
        found.extend(swaps(k, self.hidden))
        if self.activation in REFLECTIONS:
            sign, constant = REFLECTIONS[self.activation]
            if self.output_bias or not constant:
                found.extend(reflection(i, j, sign, constant) for i, j in units)
        if self.activation == "cos":
            found.extend(half_turn(i, j) for i, j in units)
        return tuple(found)

    def identified(self, parameters: Parameters) -> Tensor:
        """Unit by unit (b, a, v), then c, of each expert, flattened; for a relu (b, a)/‖(b, a)‖ and v ‖(b, a)‖.

        Where the location is a polynomial of x, for identity and cube, its coefficients: constant, then monomials.
        """
        b, a = parameters["inner_bias"].unsqueeze(-1), parameters["inner_weight"]
        v = parameters["outer_weight"].reshape(self.n_experts, self.n_outputs, self.hidden)
        c = None if self.outer_bias is None else parameters["outer_bias"].reshape(self.n_experts, self.n_outputs)
        if self.activation in POLYNOMIAL_DEGREE:
            return self._polynomial(a, b, v, c).reshape(-1)
        inner, outer = torch.cat([b, a], dim=-1), v.mT
        if self.activation == "relu":
            square = (inner * inner).sum(-1, keepdim=True)
            # A unit that is 0 has no direction; this one keeps values and derivatives finite.
            length = torch.where(square > 0.0, square, torch.ones_like(square)).sqrt()
            inner, outer = inner / length, outer * length
        rows = torch.cat([inner, outer], dim=-1).reshape(self.n_experts, -1)
        return (rows if c is None else torch.cat([rows, c], dim=-1)).reshape(-1)

    def _polynomial(self, a: Tensor, b: Tensor, v: Tensor, c: Tensor | None) -> Tensor:
        """Coefficients (k, m, 1 + number of monomials) of Σ v (aᵀx + b)^p + c."""
        power = POLYNOMIAL_DEGREE[self.activation]
        monomials = Monomials(self.n_features, power)
        often = torch.tensor(monomials.multinomials(power), dtype=a.dtype, device=a.device)
        rest = torch.tensor([power - len(factors) for factors in monomials.factors], device=a.device)
        terms = torch.cat([b**power, often * monomials.values(a) * b**rest], dim=-1)
        coefficients = v @ terms
        if c is None:
            return coefficients
        return torch.cat([coefficients[..., :1] + c.unsqueeze(-1), coefficients[..., 1:]], dim=-1)

    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """Named after the unit, "unit 1 x", "unit 1 weight", or after a monomial, expert by expert."""
        if self.activation in POLYNOMIAL_DEGREE:
            monomials = Monomials(self.n_features, POLYNOMIAL_DEGREE[self.activation])
            return expert_quantities(self.n_experts, outputs, ["(intercept)", *monomials.terms(features)])
        inner, outer = ("direction ", "weight × norm") if self.activation == "relu" else ("", "weight")
        terms = [
            term
            for j in range(1, self.hidden + 1)
            for term in (
                *(f"unit {j} {inner}{name}" for name in ("(intercept)", *features)),
                *(f"{output} unit {j} {outer}".strip() for output in outputs),
            )
        ]
        if self.output_bias:
            terms += [f"{output} (intercept)".strip() for output in outputs]
        return expert_quantities(self.n_experts, ("",), terms)

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Inner weights a / scale, and inner biases b − aᵀ(shift / scale)."""
        a, b = at_original_inputs(parameters["inner_weight"], parameters["inner_bias"], shift, scale)
        return {**parameters, "inner_weight": a, "inner_bias": b}

    def change_output(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Scale · v, and shift + scale · c.

        Raises:
            InputError: there is no output bias and the shift is not 0.
        """
        if self.n_outputs == 1:
            shift, scale = shift.reshape(()), scale.reshape(())
        moved = {**parameters, "outer_weight": scale.unsqueeze(-1) * parameters["outer_weight"]}
        if self.output_bias:
            moved["outer_bias"] = shift + scale * parameters["outer_bias"]
        else:
            refuse_shift(f"{self.name} (without output_bias)", shift)
        return moved

    def expression(self) -> Formula | None:
        """The locations Σⱼ vⱼ φ(aⱼᵀx + bⱼ) + c, of a φ that has a formula."""
        from gatewise.experts.locations import affine, input_free, kink
        from gatewise.parts.expressions import ACTIVATIONS, dot, inputs

        function = ACTIVATIONS.get(self.activation)
        if function is None:
            return None
        d, m, hidden = self.n_features, self.n_outputs, self.hidden
        x = inputs(d)
        slopes: list[TheoryParameter] = []
        inner: list[TheoryParameter] = []
        units = []
        for j in range(hidden):
            mark = (j + 1,) if hidden > 1 else ()
            weight = tuple(
                TheoryParameter("a", (*mark, *((i + 1,) if d > 1 else ())), atom="expert_inner_slope", place=(j, i))
                for i in range(d)
            )
            bias = TheoryParameter("b", mark, atom="expert_inner_intercept", place=(j,))
            slopes.extend(weight)
            inner.append(bias)
            units.append(function(affine(weight, bias, x)))
        outer: list[TheoryParameter] = []
        constants: list[TheoryParameter] = []
        values = []
        for output in range(m):
            several = (output + 1,) if m > 1 else ()
            first = (output,) if m > 1 else ()
            own = tuple(
                TheoryParameter(
                    "v", (*several, *((j + 1,) if hidden > 1 else ())), atom="expert_outer_weight", place=(*first, j)
                )
                for j in range(hidden)
            )
            outer.extend(own)
            value = dot(own, units)
            if self.output_bias:
                constants.append(TheoryParameter("c", several, atom="expert_outer_intercept", place=first))
                value = value + constants[-1].symbol
            values.append(value)
        parameters = (*slopes, *inner, *outer, *constants)
        note = kink(self.activation)
        return Formula(self.name, x, parameters, tuple(values), input_free(slopes), note=note)

    def atoms(self) -> dict[str, Tensor]:
        """`expert_inner_slope` a, `expert_inner_intercept` b, `expert_outer_weight` v and `expert_outer_intercept` c.

        Their shapes are (k, H, d), (k, H), (k, H) and (k,); with m > 1 the last two have an axis of m after k.
        """
        atoms = {
            "expert_inner_slope": self.inner_weight,
            "expert_inner_intercept": self.inner_bias,
            "expert_outer_weight": self.outer_weight,
        }
        if self.outer_bias is not None:
            atoms["expert_outer_intercept"] = self.outer_bias
        return {name: value.detach().clone() for name, value in atoms.items()}


def _spread(shape: tuple[int, ...], offset: float = 0.0) -> Tensor:
    """Numbers in (−1, 1) without any order in them, but the same ones always: the multiples of the golden ratio."""
    count = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    return (2.0 * torch.frac(count * _GOLDEN + offset) - 1.0).reshape(shape).to(torch.get_default_dtype())


def _away_from_zero(values: Tensor) -> Tensor:
    """(−1, 1) ↦ magnitudes between 1/3 and 1, signs kept."""
    return (values + 0.5 * torch.where(values < 0.0, -1.0, 1.0)) / 1.5
