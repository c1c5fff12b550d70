"""The top-K gate: only the K experts with the largest scores get weight."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES, Gate
from gatewise.gates.parts import build_part, part_symmetry
from gatewise.messages import shown
from gatewise.ops.derivatives import differentiable
from gatewise.ops.readable import readable
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry, prefixed, within

Selection = Literal["slope", "logit"]


@GATES.register
class TopKGate(Gate):
    """Keeps the logits of the K experts with the largest scores, the others have weight 0.

    The score is the inner gate's logit without the bias, β₁ᵀx (`select_on="slope"`, the form of arXiv:2505.10860,
    Appendix F, for arXiv:2309.13850), or the whole logit. Ties go to the lowest index. The weights jump where
    the selection changes; within a region they are smooth, and derivatives are those of the selected logits.

    With K ≥ 2 the weights of the selected experts determine the same functions of the parameters as the dense gate's,
    as long as the regions share enough experts. With K = 1 all weights are 0 or 1: parameters act only through the
    boundaries between regions, derivatives are 0, and what the score does not use has no effect. The boundaries of an
    inner gate that is linear in its parameters are hyperplanes (in its basis), unchanged by a positive factor common to
    all scores: contrasts of the coefficients over their Euclidean length are reported. Regions that do not touch each
    other pairwise determine less still (with d = 1 and scores β₁x no more than the order of the slopes). Of other inner
    gates no general statement is made with K = 1, and no function is reported as identified.

    Args:
        inner: a dense, normalised gate.
        n_active: K.
        select_on: "slope" or "logit".

    Raises:
        InputError: K is not between 1 and k; `select_on` is unknown, or "slope" where the inner gate has no such score;
            the inner gate is not normalised, is a joint model of the inputs, or is a top-K gate itself.

    Example:
        >>> from gatewise.gates import SoftmaxGate, TopKGate
        >>> inner = SoftmaxGate(n_features=1, n_experts=3)
        >>> inner.assign_parameters({"weight": torch.tensor([[1.0], [2.0], [3.0]]), "bias": torch.zeros(3)})
        >>> gate = TopKGate(inner, n_active=2)
        >>> gate.selection(torch.tensor([[1.0], [-1.0]]))
        tensor([[False,  True,  True],
                [ True,  True, False]])
        >>> gate.logits(torch.tensor([1.0])).detach()
        tensor([-inf, 2., 3.])
    """

    name = "top_k"
    formula = "β₁ᵀx + β₀ if β₁ᵀx is among the K largest, else −∞"
    source = "arXiv:2309.13850; selection without the bias as in arXiv:2505.10860, Appendix F"
    per_expert = ()

    def __init__(self, inner: Gate, n_active: int, select_on: Selection = "slope") -> None:
        super().__init__(inner.n_features, inner.n_experts)
        _check(inner, n_active, select_on)
        self.inner = inner
        self.n_active = n_active
        self.select_on: Selection = select_on
        self.affine_equivariant = inner.affine_equivariant and (self._is_dense or select_on == "logit")

    @classmethod
    def of(
        cls,
        n_features: int,
        n_experts: int,
        *,
        inner: str = "softmax",
        n_active: int = 1,
        select_on: Selection = "slope",
        inner_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A top-K gate around the gate of the name `inner` with these options.

        Raises:
            InputError: an option is unknown or out of range.
        """
        if options:
            raise InputError(
                f"{cls.name!r} cannot take the options {sorted(options)}: it has inner, n_active, select_on and "
                "inner_options"
            )
        return cls(build_part("inner gate", inner, n_features, n_experts, inner_options), n_active, select_on)

    def options(self) -> dict[str, Any]:
        """`inner`, `n_active`, `select_on` and `inner_options`."""
        return {
            "inner": self.inner.name,
            "n_active": self.n_active,
            "select_on": self.select_on,
            "inner_options": self.inner.options(),
        }

    @property
    def own_top_k(self) -> int:
        """K."""
        return self.n_active

    @property
    def selects_on(self) -> str:
        """`select_on`."""
        return self.select_on

    @property
    def dense(self) -> Gate:
        """The inner gate."""
        return self.inner

    def components(self) -> list[tuple[str, Gate, list[tuple[int, ...]]]]:
        """The inner gate's."""
        return [(f"inner.{prefix}", gate, experts) for prefix, gate, experts in self.inner.components()]

    @property
    def most_routing_features(self) -> int | None:
        """The inner gate's."""
        return self.inner.most_routing_features

    @property
    def _is_dense(self) -> bool:
        return self.n_active == self.n_experts

    @property
    def _weights_are_fixed(self) -> bool:
        """Whether the selected expert has weight 1 while others might have been selected."""
        return self.n_active == 1 and not self._is_dense

    def selection_score(self, x: Tensor) -> Tensor:
        """What the selection looks at, (…, d) ↦ (…, k)."""
        return self.inner.slope_score(x) if self.select_on == "slope" else self.inner.logits(x)

    def selection(self, x: Tensor) -> Tensor:
        """Whether each expert is among the K selected, (…, d) ↦ bool (…, k)."""
        score = self.selection_score(x).detach()
        # In float64, where fits differentiate through it by rows, without a look at the values.
        if score.dtype != torch.float64 and readable(score):
            selected = score >= score.topk(self.n_active, -1).values[..., -1:]
            if bool((selected.sum(-1) == self.n_active).all()):
                return selected
        # With ties a stable sort, not `topk`, whose order of them is arbitrary.
        chosen = score.sort(dim=-1, descending=True, stable=True).indices[..., : self.n_active]
        return torch.zeros_like(score, dtype=torch.bool).scatter(-1, chosen, True)

    def selected_only(self) -> tuple[str, ...]:
        """Names of the parameters that do not move the weights but by the selection: all with K = 1 < k, else none."""
        return tuple(self.own_parameters()) if self._weights_are_fixed else ()

    def logits(self, x: Tensor) -> Tensor:
        """The inner gate's logits of the selected experts, −∞ for the others, (…, d) ↦ (…, k)."""
        return self.inner.logits(x).masked_fill(~self.selection(x), -torch.inf)

    def slope_score(self, x: Tensor) -> Tensor:
        """The inner gate's, (…, d) ↦ (…, k), for all experts.

        Raises:
            InputError: the inner gate has none.
        """
        return self.inner.slope_score(x)

    def place(self, direction: Tensor, point: Tensor) -> None:
        """As the inner gate does."""
        self.inner.place(direction, point)

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """As the inner gate does; where that has a slope and a bias, 4 times their regression on s / Σ s instead.

        Scores that follow the responsibilities select as these would; weights that follow them need not.
        """
        inner = self.inner.start(x, shares, draws)
        basis = self.inner.basis(x)
        return prefixed("inner", inner if basis is None else _linear_scores(inner, basis, x, shares))

    def allows(self, order: Sequence[int]) -> bool:
        """Whether the inner gate allows the order."""
        return self.inner.allows(order)

    def permute(self, parameters: Parameters, order: Sequence[int]) -> Parameters:
        """Parameters whose expert i is the old expert order[i].

        Raises:
            InputError: the inner gate does not allow the order.
        """
        return prefixed("inner", self.inner.permute(within("inner", parameters), order))

    def sorted_order(self, key: np.ndarray) -> list[int]:
        """The inner gate's."""
        return self.inner.sorted_order(key)

    def _unused_by_score(self) -> Parameters:
        """The parameters that do not occur in the selection score."""
        with differentiable():
            copy = deepcopy(self).requires_grad_(True)
            parameters = dict(copy.named_parameters())
            score = copy.selection_score(_one_input(self.inner)).sum()
            gradients = torch.autograd.grad(score, list(parameters.values()), allow_unused=True)
        pairs = zip(parameters.items(), gradients, strict=True)
        return {name: value.detach() for (name, value), gradient in pairs if gradient is None}

    @property
    def _score_is_linear(self) -> bool:
        return self.inner.basis(_one_input(self.inner)) is not None

    def symmetries(self) -> tuple[Symmetry, ...]:
        """The inner gate's; with K = 1 also what the score does not use, and a factor common to all linear scores."""
        own = tuple(part_symmetry("inner", "inner gate", symmetry) for symmetry in self.inner.symmetries())
        if not self._weights_are_fixed:
            return own
        unused = self._unused_by_score()
        found = [symmetry for symmetry in own if not _moves_only(symmetry, unused, self.own_parameters())]
        if unused:
            found.append(_no_effect(unused))
        if self._score_is_linear:
            found.append(_score_scale(tuple(unused)))
        return tuple(found)

    def _boundary_terms(self) -> list[bool]:
        """For each of the inner gate's identified functions whether it moves the boundaries with K = 1."""
        terms = [quantity.term for quantity in self.inner.quantities([str(j) for j in range(self.n_features)])]
        return [self._score_is_linear and (self.select_on == "logit" or term != "(intercept)") for term in terms]

    def identified(self, parameters: Parameters) -> Tensor:
        """The inner gate's; with K = 1 contrasts of a linear score's coefficients over their Euclidean length."""
        values = self.inner.identified(within("inner", parameters))
        if not self._weights_are_fixed:
            return values
        kept = values[torch.tensor(self._boundary_terms(), dtype=torch.bool, device=values.device)]
        square = kept.square().sum()
        # All scores alike: no boundary, and no direction to report.
        return kept / torch.where(square == 0.0, 1.0, square).sqrt()

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The inner gate's; with K = 1 those of a linear score, without intercepts if the score has none."""
        every = self.inner.quantities(features)
        if not self._weights_are_fixed:
            return every
        return [quantity for quantity, kept in zip(every, self._boundary_terms(), strict=True) if kept]

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """The inner gate's.

        Raises:
            InputError: the inner gate is not affine equivariant, or the selection leaves out the bias, which a shift
                of x changes.
        """
        if not self.affine_equivariant:
            return super().unstandardise(parameters, shift, scale)
        return prefixed("inner", self.inner.unstandardise(within("inner", parameters), shift, scale))

    def expression(self) -> Formula | None:
        """The inner gate's, which it is inside a region of the selection."""
        from gatewise.parts.expressions import formula_of

        inner = formula_of(self.inner)
        if inner is None:
            return None
        note = f"inside a region of the selection, where it is the {inner.name} gate. {inner.note}".strip()
        return replace(inner, name=self.name, note=note)

    def atoms(self) -> dict[str, Tensor]:
        """The inner gate's."""
        return self.inner.atoms()


def _linear_scores(parameters: Parameters, basis: Tensor, x: Tensor, shares: Tensor) -> Parameters:
    """Coefficients of the least-squares fit of the responsibilities on the gate's basis, times 4."""
    if not {"weight", "bias"} <= set(parameters):
        return parameters
    weight = shares.sum(-1, keepdim=True)
    target = shares / weight.clamp_min(1e-300)
    gram = basis.T @ (weight * basis) + 1e-9 * weight.sum() * torch.eye(basis.shape[1], dtype=x.dtype)
    found = 4.0 * torch.linalg.solve(gram, basis.T @ (weight * target)).T
    size = parameters["weight"].shape[-1]
    return {**parameters, "bias": found[:, 0], "weight": found[:, 1 : 1 + size]}


def _one_input(gate: Gate) -> Tensor:
    """An input of zeros in the precision of the gate's parameters."""
    x = torch.zeros(1, gate.n_features)
    return next((x.to(value) for value in gate.own_parameters().values()), x)


def _moves_only(symmetry: Symmetry, names: Parameters, parameters: Parameters) -> bool:
    """Whether the symmetry leaves all parameters but those of these names as they are, at a point without zeros."""
    point = {
        name: 1.0 + torch.arange(value.numel()).to(value).reshape(value.shape) for name, value in parameters.items()
    }
    like = next(iter(point.values()))
    moved = symmetry.act(point, torch.ones(symmetry.dimension, dtype=like.dtype, device=like.device))
    return all(torch.equal(moved[name], point[name]) for name in point if name not in names)


def _no_effect(unused: Parameters) -> Symmetry:
    """Anything may be added to the parameters of these names: one dimension for each of their entries."""
    shapes = {name: value.shape for name, value in unused.items()}
    sizes = [shape.numel() for shape in shapes.values()]

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        parts = dict(zip(shapes, amount.split(sizes), strict=True))
        return {**parameters, **{name: parameters[name] + parts[name].reshape(shape) for name, shape in shapes.items()}}

    names = ", ".join(f"`{name}`" for name in shapes)
    return Symmetry(
        name="no effect",
        sentence=f"the one selected expert has the weight 1, and the score that selects it does not use {names}",
        dimension=sum(sizes),
        act=act,
        kind="free",
    )


def _score_scale(unused: tuple[str, ...]) -> Symmetry:
    """A positive factor of all parameters that a linear score uses."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        factor = amount.exp()
        return {name: value if name in unused else value * factor for name, value in parameters.items()}

    return Symmetry(
        name="scale",
        sentence="all parameters of the score are multiplied by one positive number: the largest stays the largest",
        dimension=1,
        act=act,
        kind="scale",
    )


def _check(inner: Gate, n_active: int, select_on: str) -> None:
    """Refuse what a top-K gate cannot wrap.

    Raises:
        InputError: K, the selection or the inner gate does not fit.
    """
    if isinstance(n_active, bool) or not isinstance(n_active, int) or not 1 <= n_active <= inner.n_experts:
        raise InputError(f"n_active must be a whole number between 1 and {inner.n_experts}, not {shown(n_active)}")
    if inner.normaliser != "softmax":
        raise InputError(f"the inner gate {inner.name!r} is not normalised: leaving out logits needs a softmax")
    if inner.is_joint:
        raise InputError(f"the inner gate {inner.name!r} is a joint model of the inputs: use its conditional form")
    if inner.own_top_k is not None:
        raise InputError(f"the inner gate {inner.name!r} keeps {inner.own_top_k} experts already: wrap a dense gate")
    if select_on not in ("slope", "logit"):
        raise InputError(f"select_on must be 'slope' or 'logit', not {shown(select_on)}")
    if select_on == "slope":
        try:
            inner.slope_score(_one_input(inner))
        except InputError as error:
            raise InputError(f"{error}: select_on='logit'") from None
