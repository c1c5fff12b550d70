"""From a gate, experts and a family, or least squares, to the dependences among the derivatives of an atom."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import mpmath
import sympy
import torch

from gatewise.exceptions import InputError
from gatewise.experts import Experts, build_experts
from gatewise.families import Family, build_family
from gatewise.gates import GATES, Gate, build_gate
from gatewise.messages import shown
from gatewise.ops.derivatives import differentiable
from gatewise.parts.expressions import formula_of
from gatewise.parts.formulas import FamilyFormula, Formula
from gatewise.theory.global_copies import GlobalCopy, global_copies
from gatewise.theory.identifiability.atom import AtomFunction, orders_up_to, symbols_of
from gatewise.theory.identifiability.automatic import AutomaticExperts, AutomaticFamily, AutomaticGate
from gatewise.theory.identifiability.conditions import conditions_for, judge, own_conditions
from gatewise.theory.identifiability.identities import find_identities
from gatewise.theory.identifiability.known import with_sources
from gatewise.theory.identifiability.parts import Part, family_part, formula_part
from gatewise.theory.identifiability.rank import distinct, examine, null_space
from gatewise.theory.identifiability.result import Identifiability, SpecialPoint
from gatewise.theory.identifiability.ridge import ridge
from gatewise.theory.identifiability.sampling import GUARD_DIGITS, Study
from gatewise.theory.identifiability.squares import Squares, hidden_squares
from gatewise.theory.identifiability.weights import study_weights

__all__ = ["identify"]

_MOST_PARAMETERS = 14
_QUICK = 6
_LEAST_DIGITS = 15
_MOST_DIGITS = 200


@dataclass(frozen=True)
class _Known:
    """A part, its formula if it has one, and what is said about it."""

    part: Part
    formula: Formula | None
    name: str
    kind: str
    note: str


@differentiable()
def identify(
    gate: str | Gate | Formula,
    experts: str | Experts | Formula,
    family: str | Family | None = None,
    *,
    objective: Literal["likelihood", "least_squares"] | None = None,
    n_features: int | None = None,
    gate_options: Mapping[str, Any] | None = None,
    expert_options: Mapping[str, Any] | None = None,
    family_options: Mapping[str, Any] | None = None,
    at: Mapping[str, float] | None = None,
    digits: int = 50,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Identifiability:
    """Which derivatives of an atom's function depend on each other, as identities, and which conditions hold.

    The function is u(x, y; θ) = exp(s(x; β)) f(y | h(x; η), σ) with the score s of the gate, or in least squares
    F(x; θ) = exp(s(x; β)) h(x; η). Its derivatives of order 0, 1 and 2 are taken by all parameters, at parameters drawn
    at random, and sampled at random inputs and targets. The rank is that of a singular value decomposition with
    `digits` digits, for parts that are built in or given as formulas; for a user's own modules derivatives are taken
    by torch, with 15 digits. Dependences are reduced to a basis with few terms each, their coefficients recognised as
    functions of the parameters, and, for formulas, confirmed by algebra.

    The derivatives are those the papers ask to be independent: the strong identifiability of an expert, the
    interaction of gate and expert, location and scale of a family, temperature. What the papers claim stands beside
    what is found; sources and their status are in the result.

    Args:
        gate: a name, a gate, or the score of one atom as a formula.
        experts: a name, a bank, or the location of one expert as a formula; "ridge" is φ(aᵀx + b) with the option
            `activation`, the example of the papers.
        family: a name or a family; None for least squares.
        objective: "likelihood" or "least_squares"; by default what the family says.
        n_features: d; by default that of a part that is given, or 2.
        gate_options: of a gate named by a string.
        expert_options: of experts named by a string.
        family_options: of a family named by a string.
        at: parameters that are held at a value, by their names in the result.
        digits: of formulas.
        seed: of all draws.
        progress: takes a line of text before every step, for an atom with so many parameters that it takes minutes.

    Raises:
        InputError: a name or an option is unknown, sizes differ, family and objective contradict each other, the
            expert has several outputs in least squares, or there are too many parameters.

    Example:
        >>> found = identify("softmax", "linear", "gaussian", n_features=1)
        >>> for identity in found.identities:
        ...     print(identity.text, "|", identity.confirmed)
        ∂²u/∂β₁∂b = ∂u/∂a | sympy
        ∂²u/∂b² = 2 ∂u/∂s | sympy
        ∂²u/∂a∂b = 2 ∂²u/∂β₁∂s | sympy
        >>> found.squares.hidden
        ('b',)
    """
    _check(family, objective, digits)
    d = _size(gate, experts, n_features)
    working = math.floor(digits) + GUARD_DIGITS
    with mpmath.workdps(working):
        own = gate_options or {}
        module = build_gate(gate, d, GATES[gate].n_studied, **own) if isinstance(gate, str) else gate
        score = _gate_part(module, digits)
        density = build_family(family, **(family_options or {})) if isinstance(family, str) else family
        location = _expert_part(experts, d, density, expert_options, digits)
        likelihood, law = _family_part(density, digits)
        symbols = None
        if score.formula is not None and location.formula is not None and (density is None or law is not None):
            symbols = symbols_of(score.formula, location.formula, law)
        atom = AtomFunction(score.part, location.part, likelihood, symbols)
        targets = law if law is not None else likelihood if isinstance(likelihood, AutomaticFamily) else None
        study = Study(atom, d, targets, seed, _pinned(at, atom))
        say = progress if progress is not None and len(atom.parameters) > _QUICK else lambda _: None
        found = _studied(study, module, score, location, density, law, likelihood, digits, say)
    options = {
        "gate_options": gate_options,
        "expert_options": expert_options,
        "family_options": family_options,
        "at": at,
    }
    copies = _copies(module, experts, d, expert_options) if density is None else ()
    return replace(found, call=_call((gate, experts, family), d, options, digits, seed), copies=copies)


def _copies(
    gate: Gate | Formula, experts: str | Experts | Formula, d: int, options: Mapping[str, Any] | None
) -> tuple[GlobalCopy, ...]:
    """Copies far from the truth, for parts that are modules; "ridge" is a network of one unit whose weight is 1."""
    known: tuple[str, ...] = ()
    if experts == "ridge":
        experts = build_experts("feed_forward", d, 1, hidden=1, **{"activation": "tanh", **(options or {})})
        one = torch.ones(1, 1, dtype=torch.float64)
        experts.double().assign_parameters({**experts.own_parameters(), "outer_weight": one})
        known = ("outer_weight",)
    if isinstance(experts, str):
        experts = build_experts(experts, d, 1, **(options or {}))
    if isinstance(gate, Formula) or isinstance(experts, Formula):
        return ()
    return global_copies(gate, experts, known)


def _studied(
    study: Study,
    module: Gate | Formula,
    score: _Known,
    location: _Known,
    density: Family | None,
    law: FamilyFormula | None,
    likelihood: Part | None,
    digits: int,
    say: Callable[[str], None],
) -> Identifiability:
    """The result for parts that fit together."""
    atom = study.atom
    orders = orders_up_to(len(atom.parameters), 2)
    columns = study.columns(orders, study.rows_for(len(orders)), 0, 0)
    where = ", ".join(f"{label} = {float(value):g}" for label, value in study.pinned.items())
    identities, supports = find_identities(study, orders, where, progress=say)
    family = None if density is None else density.name
    is_normalised = not (isinstance(module, Gate) and module.normaliser == "none")
    special = []
    for place, labels in _special(score, location).items():
        if any(label in study.pinned for label in labels):
            continue
        pinned = {**study.pinned, **dict.fromkeys(labels, Fraction(0))}
        there = replace(study, pinned=pinned)
        new, _ = find_identities(there, orders, place, supports, say)
        rank = examine(there.columns(orders, there.rows_for(len(orders)), 0, 0), atom.digits)
        sourced = tuple(with_sources(identity, score.kind, family) for identity in new)
        special.append(SpecialPoint(place, rank, sourced, _squares(there, is_normalised)))
    conditions = conditions_for(score.kind, density is not None, family) or own_conditions(density is not None)
    verdicts = []
    for condition in conditions:
        say(condition.title)
        parts = (score.part, score.formula), (location.part, location.formula), likelihood
        verdicts.append(judge(condition, *parts, study, location.kind, digits))
    say("rank, weights and splits")
    return Identifiability(
        score.name,
        location.name,
        family,
        study.n_features,
        "F = exp(s(x; β)) h(x; η)" if density is None else "u = exp(s(x; β)) f(y | h(x; η), σ)",
        tuple(atom.labels),
        atom.digits,
        examine(columns, atom.digits),
        distinct(columns, atom.digits),
        tuple(with_sources(identity, score.kind, family) for identity in identities),
        tuple(special),
        study_weights(module, score.formula, study.seed) if isinstance(module, Gate) else None,
        _squares(study, is_normalised),
        tuple(verdicts),
        _notes(score, location, law, density, is_normalised),
        "",
    )


def _call(parts: tuple[object, ...], d: int, options: Mapping[str, object], digits: int, seed: int) -> str:
    """The call with these arguments; parts that are objects by their names."""
    written = [repr(part) if isinstance(part, str) else getattr(part, "name", "") for part in parts if part is not None]
    given = [f"{name}={dict(value)!r}" for name, value in options.items() if isinstance(value, Mapping) and value]
    return f"identify({', '.join([*written, f'n_features={d}', *given, f'digits={digits}', f'seed={seed}'])})"


def _squares(study: Study, is_normalised: bool) -> Squares:
    orders = orders_up_to(len(study.atom.parameters), 2)
    rows = study.rows_for(len(orders))
    columns = study.normalised_columns(orders, rows) if is_normalised else study.columns(orders, rows, 0, 0)
    return hidden_squares(null_space(columns, study.atom.digits), orders, study.atom.labels, study.seed)


def _check(family: object, objective: str | None, digits: int) -> None:
    if objective not in (None, "likelihood", "least_squares"):
        raise InputError(f"objective must be 'likelihood' or 'least_squares', not {shown(objective)}")
    if objective == "least_squares" and family is not None:
        raise InputError("least squares has no family: leave out the family, or the objective")
    if objective == "likelihood" and family is None:
        raise InputError("a likelihood needs a family: name one, as family='gaussian'")
    if isinstance(digits, bool) or not isinstance(digits, int) or not _LEAST_DIGITS <= digits <= _MOST_DIGITS:
        raise InputError(f"digits must be a whole number from {_LEAST_DIGITS} to {_MOST_DIGITS}, not {shown(digits)}")


def _size(gate: str | Gate | Formula, experts: str | Experts | Formula, n_features: int | None) -> int:
    for what, part, kinds in (("gate", gate, (str, Gate, Formula)), ("experts", experts, (str, Experts, Formula))):
        if not isinstance(part, kinds):
            raise InputError(f"{what} must be a name, a {kinds[1].__name__} or a Formula, not {shown(part)}")
    sizes = {
        what: len(part.x) if isinstance(part, Formula) else part.n_features
        for what, part in (("gate", gate), ("experts", experts))
        if not isinstance(part, str)
    }
    if n_features is not None:
        if isinstance(n_features, bool) or not isinstance(n_features, int) or n_features < 1:
            raise InputError(f"n_features must be a whole number of at least 1, not {shown(n_features)}")
        if n_features > _MOST_PARAMETERS:
            raise InputError(
                f"n_features is {n_features:,}: an atom has at least as many parameters, and at most "
                f"{_MOST_PARAMETERS} are studied: take fewer features, identities do not depend on their number"
            )
        sizes["n_features"] = n_features
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{what} {size}" for what, size in sizes.items())
        raise InputError(f"gate and experts must see the same inputs, and the numbers of features differ: {listed}")
    return next(iter(sizes.values()), 2)


def _gate_part(gate: Gate | Formula, digits: int) -> _Known:
    formula = gate if isinstance(gate, Formula) else formula_of(gate)
    if formula is not None:
        return _Known(formula_part(formula, digits), formula, formula.name, formula.name, formula.note)
    assert isinstance(gate, Gate)
    part = AutomaticGate(gate)
    return _Known(part, None, gate.name, gate.name, part.note)


def _expert_part(
    experts: str | Experts | Formula, d: int, family: Family | None, options: Mapping[str, Any] | None, digits: int
) -> _Known:
    if experts == "ridge":
        unknown = sorted(set(options or {}) - {"activation"})
        if unknown:
            raise InputError(f"ridge experts have the option activation, not {unknown}")
        experts = ridge(d, **(options or {}))
    m = 1 if family is None else family.n_outputs
    if isinstance(experts, str):
        sizes = {} if family is None else {"n_outputs": m, "n_dispersion": family.n_dispersion}
        experts = build_experts(experts, d, 1, **{**(options or {}), **sizes})
    outputs = len(experts.values) if isinstance(experts, Formula) else experts.n_outputs
    if outputs != m:
        raise InputError(f"the experts have {outputs} outputs, and {m} are needed: build them with n_outputs={m}")
    formula = experts if isinstance(experts, Formula) else formula_of(experts)
    if isinstance(experts, Formula):
        name = kind = experts.name
    else:
        name, kind = experts.title, experts.known_as
    if formula is not None:
        return _Known(formula_part(formula, digits), formula, name, kind, formula.note)
    assert isinstance(experts, Experts)
    return _Known(AutomaticExperts(experts), None, name, kind, "")


def _family_part(family: Family | None, digits: int) -> tuple[Part | None, FamilyFormula | None]:
    if family is None:
        return None, None
    formula = formula_of(family)
    return (AutomaticFamily(family), None) if formula is None else (family_part(formula, digits), formula)


def _pinned(at: Mapping[str, float] | None, atom: AtomFunction) -> dict[str, Fraction]:
    if len(atom.parameters) > _MOST_PARAMETERS:
        raise InputError(
            f"an atom has {len(atom.parameters)} parameters, and at most {_MOST_PARAMETERS} are studied: take fewer "
            "features or hidden units, identities do not depend on their number"
        )
    found = {}
    for label, value in (at or {}).items():
        if label not in atom.labels:
            raise InputError(f"there is no parameter {shown(label)} to hold: an atom has {', '.join(atom.labels)}")
        if not math.isfinite(value):
            raise InputError(f"{label} must be held at a finite number, not {value}")
        found[label] = Fraction(str(value))
    return found


def _special(score: _Known, location: _Known) -> dict[str, tuple[str, ...]]:
    """Points with more identities, by name: the expert without inputs, together with a gate without, and others."""
    gates = {} if score.formula is None else dict(score.formula.special)
    experts = {} if location.formula is None else dict(location.formula.special)
    if "β₁ = 0" in gates:
        own = gates.pop("β₁ = 0")
        return {"β₁ = 0": own, **{f"{name}, β₁ = 0": (*labels, *own) for name, labels in experts.items()}, **gates}
    return {**experts, **gates}


def _notes(
    score: _Known, location: _Known, law: FamilyFormula | None, family: Family | None, is_normalised: bool
) -> tuple[str, ...]:
    notes = [score.note, location.note, "" if law is None else law.note]
    automatic = [known.name for known in (score, location) if known.formula is None]
    if family is not None and law is None:
        automatic.append(family.name)
    if automatic:
        notes.append(
            f"derivatives of {', '.join(automatic)} by torch in double precision: identities are confirmed numerically "
            "only; a Formula has more digits and algebra"
        )
    notes.append(
        "splits: of one of two atoms of a normalised mixture"
        if is_normalised
        else "splits: of one atom of a sum whose weights are not normalised"
    )
    bent = [known.formula for known in (score, location) if known.formula is not None]
    if any(value.has(sympy.Piecewise, sympy.Abs) for formula in bent for value in formula.values):
        notes.append(
            "derivatives are those beside a kink; the kink itself shows splits in another way, of order 3/2 in their "
            "size instead of 2 (our estimate, for relu), which is not counted here"
        )
    return tuple(note for note in notes if note)
