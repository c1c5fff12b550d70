"""What the papers ask of gates and experts: families of derivatives that are to be linearly independent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy

from gatewise.parts.expressions import inputs, parameter, rational, vector
from gatewise.parts.formulas import Formula, TheoryParameter
from gatewise.theory.identifiability.atom import AtomFunction, Order, orders_up_to
from gatewise.theory.identifiability.parts import Numbers, Part, formula_part
from gatewise.theory.identifiability.rank import Rank, distinct, examine
from gatewise.theory.identifiability.ridge import ridge
from gatewise.theory.identifiability.sampling import Study

__all__ = ["Condition", "Verdict", "conditions_for", "judge", "own_conditions"]

_ATOMS = 2


@dataclass(frozen=True)
class Condition:
    """One published condition of linear independence.

    Attributes:
        title: what the paper calls it.
        asks: the family of functions, in symbols.
        source: the paper and its place.
        status: "read" if the statement was read in the source's text, "recalled" if it was not and is to be checked
            against the paper, "assumed" if only its gist is known and the family is our reading of it.
        score: "own" for the gate in question, "softmax" for exp(β₁ᵀx), "perturbed" for the perturbed cosine.
        chosen: which derivatives belong to the family, by the roles of their parameters.
        held: parameters of the gate that are 0 in it.
        example: the paper's own example that it says the condition holds for, an expert in d inputs; and its name.
        claims: what the paper says of experts by the kind of expert, "holds", "fails" or "".
    """

    title: str
    asks: str
    source: str
    status: str
    score: str
    chosen: Callable[[tuple[str, ...]], bool]
    held: tuple[str, ...] = ()
    example: tuple[str, Callable[[int], Formula]] | None = None
    claims: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A condition, judged for one combination at parameters drawn at random, for two atoms with different experts.

    Attributes:
        condition: title, family and source of what is asked.
        rank: of the family as it is written, repetitions included.
        n_distinct: how many different functions there are in it.
        claim: what the paper says of this expert: "holds", "fails" or "" if nothing is known.
        example: the name of the paper's own example, "" if there is none.
        example_rank: the example's rank.
        example_distinct: its number of different functions.
    """

    condition: Condition
    rank: Rank
    n_distinct: int
    claim: str
    example: str
    example_rank: Rank | None
    example_distinct: int

    @property
    def literally(self) -> bool:
        """Whether the family as written is independent."""
        return self.rank.rank == self.rank.n_functions

    @property
    def as_set(self) -> bool:
        """Whether its different functions are."""
        return self.rank.rank == self.n_distinct

    @property
    def outcome(self) -> str:
        """The verdict in words."""
        counts = f"rank {self.rank.rank} of {self.rank.n_functions}, {self.n_distinct} different functions"
        if self.literally:
            return f"holds: {counts}"
        if self.as_set:
            return f"holds for the set of different functions, fails as it is written: {counts}"
        return f"fails: {counts}"

    @property
    def remark(self) -> str:
        """What the paper says of this expert and of its own example, where that differs from the literal reading."""
        found = []
        if self.claim and (self.claim == "holds") != self.as_set:
            found.append(f"the paper says that it {self.claim} for such experts")
        elif self.claim:
            found.append(f"the paper says so too ({self.claim})")
        example = self.example_rank
        if example is not None and example.rank < example.n_functions:
            which = (
                "its different functions are independent"
                if example.rank == self.example_distinct
                else f"its {self.example_distinct} different functions are dependent too"
            )
            found.append(
                f"read literally it fails for the paper's own example, {self.example}, with rank {example.rank} of "
                f"{example.n_functions}; {which}"
            )
        return "; ".join(found)


def _any_up_to(highest: int, lowest: int = 0) -> Callable[[tuple[str, ...]], bool]:
    return lambda roles: lowest <= len(roles) <= highest


def _of_expert(roles: tuple[str, ...]) -> bool:
    """∂h, ∂²h and x ∂h, but not h, x h or x² h."""
    return "expert" in roles


def _unit_with_weight(d: int) -> Formula:
    """V GELU(aᵀx), without a bias inside."""
    x, slope, outer = inputs(d), vector("a", d), parameter("v")
    inner = sympy.Add(*(a.symbol * value for a, value in zip(slope, x, strict=True)))
    gelu = inner * (1 + sympy.erf(inner / sympy.sqrt(2))) / 2
    return Formula("v GELU(aᵀx)", x, (*slope, outer), (outer.symbol * gelu,))


def _ridge(activation: str) -> Callable[[int], Formula]:
    return lambda d: ridge(d, activation)


_SMOOTH = tuple((f"ridge {name}", "holds") for name in ("tanh", "sigmoid", "gelu"))
_POLYNOMIALS = tuple((name, "fails") for name in ("linear", "polynomial", "ridge cube", "ridge identity"))
_RELU = (("ridge relu", "holds"),)

_SOFTMAX = Condition(
    "strong identifiability",
    "{x^ν ∂^γh/∂η^γ (x, ηⱼ) : 0 ≤ |ν| + |γ| ≤ 2}",
    "arXiv:2405.14124, Definition 4.2 with σ = 0, which is read; as the condition of arXiv:2402.02952 and "
    "arXiv:2503.03213 recalled, to be checked against the papers",
    "recalled",
    "softmax",
    _any_up_to(2),
    ("β₁",),
    ("tanh(aᵀx + b)", _ridge("tanh")),
    (*_SMOOTH, *_POLYNOMIALS, ("constant", "fails")),
)
_SIGMOID_1 = Condition(
    "strong identifiability, first class",
    "{∂F/∂β₁^γ₁∂η^γ₂ (x, 0, β₀ⱼ, ηⱼ) : 1 ≤ |γ₁| + |γ₂| ≤ 2}",
    "arXiv:2405.13997, Definition 1",
    "read",
    "own",
    lambda roles: 1 <= len(roles) <= 2 and "bias" not in roles,
    ("β₁",),
    ("GELU(aᵀx + b)", _ridge("gelu")),
    (("ridge gelu", "holds"), *_RELU, *_POLYNOMIALS, ("constant", "fails")),
)
_SIGMOID_2 = Condition(
    "weak identifiability",
    "{∂F/∂β₁, ∂F/∂β₀, ∂F/∂η (x, β₁ⱼ, β₀ⱼ, ηⱼ)}, the second class of strong identifiability too",
    "arXiv:2405.13997, Definitions 1 and 2",
    "read",
    "own",
    _any_up_to(1, 1),
    (),
    ("GELU(aᵀx + b)", _ridge("gelu")),
    (("ridge gelu", "holds"), *_RELU, ("linear", "holds"), ("polynomial", "holds"), ("ridge identity", "holds")),
)
_COSINE = Condition(
    "strong identifiability",
    "{∂H/∂β₁^α₁∂η^α₂ (x, β₁ⱼ, ηⱼ) : 0 ≤ |α₁| + |α₂| ≤ 2}, H with the perturbed score",
    "arXiv:2405.14131 (first version), Definition 1",
    "read",
    "perturbed",
    _any_up_to(2),
    (),
    ("tanh(aᵀx + b)", _ridge("tanh")),
    (("ridge tanh", "holds"), *_RELU, ("polynomial", "holds"), ("ridge cube", "holds"), ("linear", "fails")),
)
_COSINE_WEAK = Condition(
    "weak identifiability",
    "{∂H/∂β₁^α₁∂η^α₂ (x, β₁ⱼ, ηⱼ) : 0 ≤ |α₁| + |α₂| ≤ 1}, H with the perturbed score",
    "arXiv:2405.14131 (first version), Definition 2",
    "read",
    "perturbed",
    _any_up_to(1),
    (),
    ("tanh(aᵀx + b)", _ridge("tanh")),
    (
        *(("ridge tanh", "holds"), *_RELU, ("polynomial", "holds"), ("ridge cube", "holds"), ("linear", "holds")),
        *(("ridge identity", "holds"), ("constant", "fails")),
    ),
)
_TEMPERATURE = Condition(
    "algebraic independence of router and expert",
    "{derivatives of exp(π(x, β₁)/τ) h by (β₁, τ, η), 0 ≤ order ≤ 2}",
    "arXiv:2503.03213, recalled, to be checked against the paper",
    "recalled",
    "own",
    _any_up_to(2),
)
_ACTIVATION = tuple(
    Condition(
        f"{name}-order independence of the activation",
        f"{{derivatives by (β₁, τ, η, σ), 0 ≤ order ≤ {order}}}",
        "arXiv:2401.13875: only its abstract was at hand, the family is our reading, to be checked against the paper",
        "assumed",
        "own",
        _any_up_to(order),
    )
    for name, order in (("first", 1), ("second", 2))
)
_LIKELIHOOD = Condition(
    "strong identifiability, likelihood",
    "{∂h/∂η, ∂²h/∂η∂η, x ∂h/∂η (x, ηⱼ)}",
    "arXiv:2505.10860, Definition 1 (routed experts)",
    "read",
    "softmax",
    _of_expert,
    ("β₁",),
    ("v GELU(aᵀx)", _unit_with_weight),
    (("linear", "fails"),),
)


def conditions_for(gate: str, is_likelihood: bool, family: str | None) -> list[Condition]:
    """The published conditions that name a gate, for least squares or a likelihood."""
    if not is_likelihood:
        return {
            "softmax": [_SOFTMAX],
            "hierarchical": [_SOFTMAX],
            "top_k": [_SOFTMAX],
            "sigmoid": [_SIGMOID_1, _SIGMOID_2],
            "cosine": [_COSINE, _COSINE_WEAK],
            "perturbed_cosine": [_COSINE, _COSINE_WEAK],
            "dense_to_sparse": [_SOFTMAX, _TEMPERATURE],
            "activation_dense_to_sparse": [_TEMPERATURE],
        }.get(gate, [])
    found = [_LIKELIHOOD] if family == "gaussian" and gate in {"softmax", "top_k"} else []
    return [*found, *(_ACTIVATION if gate == "activation_dense_to_sparse" else ())]


def own_conditions(is_likelihood: bool) -> list[Condition]:
    """The same question put to a combination that no published condition names: are its own derivatives independent?"""
    name = "u" if is_likelihood else "F"
    return [
        Condition(
            f"independence at order {order}",
            f"{{derivatives of {name} by all parameters, 0 ≤ order ≤ {order}}}",
            "ours, after the definitions of the papers",
            "own",
            "own",
            _any_up_to(order),
        )
        for order in (1, 2)
    ]


def judge(
    condition: Condition,
    gate: tuple[Part, Formula | None],
    expert: tuple[Part, Formula | None],
    family: Part | None,
    study: Study,
    kind: str,
    digits: int,
) -> Verdict:
    """A condition for one combination.

    Args:
        condition: what is asked.
        gate: of the combination, and its formula if it has one.
        expert: likewise.
        family: of the combination, or None.
        study: of the combination: number of inputs, targets and seed.
        kind: of the expert, as the claims name them.
        digits: of formulas.
    """
    d = study.n_features
    score = _score(condition, gate, d, digits)
    uses_family = family if condition.score == "own" else None
    columns, own = _family_of(condition, score, expert[0], uses_family, study)
    rank, different = examine(columns, own), distinct(columns, own)
    example_rank, example_distinct, example = None, 0, ""
    if condition.example is not None:
        example, make = condition.example
        formula = make(d)
        example_rank, example_distinct = rank, different
        if formula.name != kind:
            shown, precise = _family_of(condition, score, formula_part(formula, digits), None, study)
            example_rank, example_distinct = examine(shown, precise), distinct(shown, precise)
    claim = dict(condition.claims).get(kind, "")
    return Verdict(condition, rank, different, claim, example, example_rank, example_distinct)


def _score(condition: Condition, gate: tuple[Part, Formula | None], d: int, digits: int) -> Part:
    if condition.score == "own":
        return gate[0]
    x, slope = inputs(d), vector("β₁", d)
    if condition.score == "softmax":
        value = sympy.Add(*(entry.symbol * one for entry, one in zip(slope, x, strict=True)))
        return formula_part(Formula("softmax", x, slope, (value,)), digits)
    own = gate[1]
    if own is not None and own.name == "perturbed_cosine":
        return gate[0]
    length = sympy.sqrt(sympy.Add(*(entry.symbol**2 for entry in slope)))
    away = sympy.sqrt(sympy.Add(*(one**2 for one in x)))
    constant = rational("0.1")
    above = sympy.Add(*(entry.symbol * one for entry, one in zip(slope, x, strict=True)))
    value = above / ((length + constant) * (away + constant))
    return formula_part(Formula("perturbed_cosine", x, slope, (value,)), digits)


def _family_of(
    condition: Condition, score: Part, expert: Part, family: Part | None, study: Study
) -> tuple[Numbers, int]:
    """The functions of two atoms as columns, and the digits they are right to."""
    atom = AtomFunction(score, expert, family, None)
    held = [own for own, role in zip(atom.parameters, atom.roles, strict=True) if role == "gate"]
    pinned = {own.label: Fraction(0) for own in held if own.name in condition.held}
    own = Study(
        atom, study.n_features, None if family is None else study.targets, study.seed, {**study.pinned, **pinned}
    )
    orders = _chosen(condition, atom.parameters, atom.roles)
    rows = own.rows_for(_ATOMS * len(orders))
    x, y = own.samples(rows, 0)
    blocks = [atom.columns(orders, x, y, own.point(number)) for number in range(_ATOMS)]
    return np.concatenate(blocks, axis=1), atom.digits


def _chosen(condition: Condition, parameters: Sequence[TheoryParameter], roles: Sequence[str]) -> list[Order]:
    named = ["bias" if own.name == "β₀" else role for own, role in zip(parameters, roles, strict=True)]
    return [o for o in orders_up_to(len(parameters), 2) if condition.chosen(tuple(named[place] for place in o))]
