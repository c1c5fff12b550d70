"""What `identify` finds, as data and as text."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from gatewise.theory.global_copies import GlobalCopy, copies_text
from gatewise.theory.identifiability.conditions import Verdict
from gatewise.theory.identifiability.identities import Identity, grouped
from gatewise.theory.identifiability.rank import Rank
from gatewise.theory.identifiability.squares import Squares
from gatewise.theory.identifiability.weights import Weights

__all__ = ["Identifiability", "SpecialPoint"]

_WIDTH = 100


@dataclass(frozen=True)
class SpecialPoint:
    """A point where experts or gate do without the inputs, or lie otherwise at an edge.

    Attributes:
        where: the point, "a = 0".
        rank: of the derivatives there.
        identities: those that hold there beside the general ones.
        squares: which splits of atoms are hidden there.
    """

    where: str
    rank: Rank
    identities: tuple[Identity, ...]
    squares: Squares


@dataclass(frozen=True)
class Identifiability:
    """The dependences among the derivatives of one atom, and what they mean for the published conditions.

    Attributes:
        gate: its name.
        experts: their name.
        family: its name, or None in least squares.
        n_features: d.
        function: the function of an atom, as a formula.
        parameters: by which derivatives are taken.
        digits: to how many decimal digits the derivatives are right: about 50 from formulas, 15 from torch.
        rank: of all derivatives of order 0, 1 and 2 at parameters drawn at random.
        n_distinct: how many of these functions are different.
        identities: a sparse basis of the dependences among them.
        special: points where there are more.
        weights: what the gate's weights determine, all experts together.
        squares: which splits of atoms no derivative up to order 2 sees.
        conditions: the published conditions, and the same question for this combination.
        notes: on parameters and on what was left out.
        call: the Python that gives this result again.
        copies: in least squares, ways in which mixtures far from a truth are the same function; none are looked for
            where a part is a formula, or with a likelihood.
    """

    gate: str
    experts: str
    family: str | None
    n_features: int
    function: str
    parameters: tuple[str, ...]
    digits: int
    rank: Rank
    n_distinct: int
    identities: tuple[Identity, ...]
    special: tuple[SpecialPoint, ...]
    weights: Weights | None
    squares: Squares
    conditions: tuple[Verdict, ...]
    notes: tuple[str, ...]
    call: str
    copies: tuple[GlobalCopy, ...] = ()

    @property
    def dependences(self) -> tuple[Identity, ...]:
        """The identities beyond repetitions of the same function."""
        return tuple(identity for identity in self.identities if identity.kind != "same function")

    def find(self, *derivatives: tuple[str, ...]) -> Identity | None:
        """The identity, general or at a special point, whose terms are just these derivatives; None if there is none.

        Args:
            *derivatives: for each term the labels of the parameters, () for the function itself.
        """
        wanted = {tuple(sorted(one)) for one in derivatives}
        every = [*self.identities, *(identity for point in self.special for identity in point.identities)]
        for identity in every:
            if {tuple(sorted(one)) for one in identity.derivatives} == wanted:
                return identity
        return None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        found = asdict(self)
        found["rank"] = _rank(self.rank)
        found["squares"] = _squares(self.squares)
        found["special"] = [
            {
                "where": point.where,
                "rank": _rank(point.rank),
                "identities": [asdict(identity) for identity in point.identities],
                "squares": _squares(point.squares),
            }
            for point in self.special
        ]
        if self.weights is not None:
            found["weights"]["null"] = self.weights.null
        found["conditions"] = [
            {
                "title": verdict.condition.title,
                "asks": verdict.condition.asks,
                "source": verdict.condition.source,
                "status": verdict.condition.status,
                "literally": verdict.literally,
                "as_set": verdict.as_set,
                "rank": _rank(verdict.rank),
                "n_distinct": verdict.n_distinct,
                "outcome": verdict.outcome,
                "claim": verdict.claim,
                "example": verdict.example,
                "remark": verdict.remark,
            }
            for verdict in self.conditions
        ]
        return found

    @property
    def title(self) -> str:
        """The combination in words."""
        with_what = "in least squares" if self.family is None else f"with the {self.family} family"
        return f"{self.gate} gate, {self.experts} experts, {with_what}"

    def text(self) -> str:
        """The findings as lines of text."""
        lines = [f"{self.title}, d = {self.n_features}", self.function, ""]
        lines += _wrapped(f"Derivatives of order 0, 1, 2 by {', '.join(self.parameters)}: {self.rank.sentence}")
        lines += _wrapped(f"{self.n_distinct} different functions among them")
        lines += _identities(self.identities, "Identities", "Identities: none")
        for point in self.special:
            rank = point.rank.sentence
            lines += _identities(
                point.identities, f"At {point.where} also: {rank}", f"At {point.where} no others: {rank}"
            )
            lines += _wrapped(point.squares.sentence, "  ")
        lines += ["", "Splits of an atom (ours, not published)", *_wrapped(self.squares.sentence, "  ")]
        if self.copies:
            lines += ["", *copies_text(self.copies, _WIDTH)]
        if self.weights is not None:
            lines += ["", *_weights(self.weights)]
        lines += ["", "Conditions"]
        for verdict in self.conditions:
            lines += _wrapped(f"{verdict.condition.title}: {verdict.outcome}", "  ")
            lines += _wrapped(verdict.condition.asks, "    ")
            lines += _wrapped(f"{verdict.condition.source} ({verdict.condition.status})", "    ")
            if verdict.remark:
                lines += _wrapped(verdict.remark, "    ")
        lines += ["", *(line for note in self.notes for line in _wrapped(f"Note: {note}"))]
        return "\n".join(lines).rstrip() + "\n"

    def __str__(self) -> str:
        return self.text()


def _wrapped(text: str, before: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=before, subsequent_indent=before + "  ", break_on_hyphens=False
    ) or [before]


def _identities(identities: tuple[Identity, ...], title: str, without: str) -> list[str]:
    if not identities:
        return ["", *_wrapped(without)]
    lines = ["", *_wrapped(title)]
    for identity in grouped(identities):
        remarks = [identity.kind, identity.confirmed if identity.confirmed == "sympy" else "numerical"]
        if identity.alike:
            remarks.append(f"and {identity.alike} alike")
        lines.append(f"  {identity.text}   [{', '.join(remarks)}]")
        if identity.source:
            lines.extend(_wrapped(identity.source, "      "))
    return lines


def _weights(weights: Weights) -> list[str]:
    head = (
        f"Weights of {weights.n_experts} experts: {weights.n_parameters} parameters, {weights.null} null directions "
        f"({weights.gap})"
    )
    lines = _wrapped(head)
    if weights.translation is not None:
        lines += _wrapped(f"{weights.translation.text} [{weights.translation.confirmed}]", "  ")
    for sentence, dimension in weights.declared:
        lines += _wrapped(f"{dimension}  {sentence}", "  ")
    if weights.further:
        lines += _wrapped(f"{weights.further}  explained by no declared symmetry", "  ")
    if weights.broken:
        lines += _wrapped(f"{weights.broken}  declared, but the weights do change along them", "  ")
    return lines


def _rank(rank: Rank) -> dict[str, Any]:
    return {**asdict(rank), "is_clear": rank.is_clear, "sentence": rank.sentence}


def _squares(squares: Squares) -> dict[str, Any]:
    return {**asdict(squares), "sentence": squares.sentence}
