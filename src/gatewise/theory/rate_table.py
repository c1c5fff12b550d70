"""The table of proved rates as data: what a row holds, and how it is read from `proved_rates.toml`.

`gatewise.theory.rates` asks it questions.
"""

import tomllib
from functools import cache
from importlib import resources
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "Exponent",
    "Finding",
    "Paper",
    "Rate",
    "RateTable",
    "Remedy",
    "Role",
    "Theorem",
    "r_bar_value",
    "rate_table",
]

Exponent = Literal["1", "2", "r_bar", "r_bar/2", "slow", "flat"]
TightBy = Literal["derived", "measured"]
Role = Literal["function", "weights", "gate", "slope", "intercept", "expert", "scale"]
Setting = Literal["exact", "over"]
Read = Literal["read", "read, first version", "quoted", "abstract", "summary", "recalled", "expected", "derived here"]

_READ = {
    "read": "the formula is copied from the full text",
    "read, first version": "the formula is copied from that version's full text",
    "quoted": "the formula is copied from a later paper that quotes it; to be checked against the paper",
    "abstract": "only the abstract was at hand; to be checked against the paper",
    "summary": "only a summary was at hand; to be checked against the paper",
    "recalled": "from memory; to be checked against the paper",
    "expected": "by analogy, not read anywhere; to be checked against the paper",
    "derived here": "",
}


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(_Row):
    """A paper: its arXiv number and what it is about."""

    arxiv: str
    subject: str


class Remedy(_Row):
    """What helps where a rate is slow.

    Attributes:
        kind: "modified gate", "activation", "perturbation", "other expert", …
        text: what to do, and why it helps.
        gate: a gate to use instead, by its registered name.
        gate_options: that gate's options.
        experts: experts to use instead, by their registered name.
        source: key of the paper that shows it.
    """

    kind: str
    text: str
    gate: str | None = None
    gate_options: dict[str, Any] = Field(default_factory=dict)
    experts: str | None = None
    source: str


class Rate(_Row):
    """How fast one parameter is learned: an error of order n^(-1/(2α)), logarithms left out.

    Attributes:
        parameter: its symbol in the paper.
        role: what it does; two gates are compared role by role.
        cell: whether the true atom is approximated by "one" fitted atom, by "many", or "every" one of them.
        exponent: α, a number, r̄(m) or r̄(m)/2 with m the fitted atoms in the cell; "slow" if no α bounds it, "flat" if
            the parameter is not identified.
        tight: the exponent that is known instead of the stated one, if one is: smaller where the bound is not the best
            possible, larger or "flat" where the statement does not hold.
        tight_by: how it is known, by a derivation in docs/theory/findings.md or by a measured modulus.
    """

    parameter: str
    role: Role
    cell: Literal["one", "many", "every"]
    exponent: Exponent
    tight: Exponent | None = None
    tight_by: TightBy | None = None

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        if (self.tight is None) != (self.tight_by is None):
            raise ValueError(f"{self.parameter}: tight and tight_by go together")
        if self.tight == self.exponent:
            raise ValueError(f"{self.parameter}: a tight exponent differs from the stated one")
        return self


class Finding(_Row):
    """What Gatewise found when it checked a theorem.

    Attributes:
        kind: "modulus", a measured exponent; "algebra", a derivation; "witness", an exact example.
        parameter: the parameters it is about.
        agrees: whether it agrees with the theorem, or with the rate that the theorem's loss states.
        text: what was found.
        measured: rows of docs/theory/modulus-table.json that a modulus rests on: case, setting, coordinate.
    """

    kind: Literal["modulus", "algebra", "witness"]
    parameter: str
    agrees: bool
    text: str
    measured: list[tuple[str, str, str]] = Field(default_factory=list)


class Theorem(_Row):
    """A statement on rates, for one kind of model.

    Attributes:
        id: its name in this table.
        paper: key of the paper, or "here".
        also: papers that state it again.
        statement: number of the theorem there, as far as known.
        estimator: what is estimated with, if not the maximum of the likelihood or of least squares itself.
        gates: registered names of the gates.
        gate_options: options that the gate must have.
        gate_condition: what else the gate must fulfil.
        top_k: holds inside a top-K gate as well.
        experts: registered names of the experts, or "any".
        expert_condition: what else the experts must fulfil.
        objective: "likelihood", "least_squares", or "any" if not known.
        families: registered names of the families; empty for least squares.
        settings: "exact" for as many fitted experts as true ones, "over" for more.
        regime: for which truths.
        condition: what the fit must fulfil.
        loss: the loss, or the distance of the functions, that the theorem bounds.
        read: where the statement was read.
        note: what else to know.
        claim: what is stated, where no exponents are known to us.
        rates: parameter by parameter.
        findings: what came out when Gatewise checked it.
        remedies: keys of what helps if rates are slow.
    """

    id: str
    paper: str
    also: list[str] = Field(default_factory=list)
    statement: str
    estimator: str = ""
    gates: list[str]
    gate_options: dict[str, Any] = Field(default_factory=dict)
    gate_condition: str = ""
    top_k: bool = False
    experts: list[str]
    expert_condition: str = ""
    objective: Literal["likelihood", "least_squares", "any"]
    families: list[str] = Field(default_factory=list)
    settings: list[Setting]
    regime: str = ""
    condition: str = ""
    loss: str
    read: Read
    note: str = ""
    claim: str = ""
    rates: list[Rate] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)
    remedies: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if bool(self.rates) == bool(self.claim):
            raise ValueError(f"{self.id}: give rates, or a claim where none are known")
        if (self.objective == "likelihood") != bool(self.families):
            raise ValueError(f"{self.id}: families belong to the likelihood")
        if self.slow and not self.remedies:
            raise ValueError(f"{self.id}: a slow rate needs a remedy")
        return self

    @property
    def slow(self) -> bool:
        """Whether some parameter has no polynomial rate, by the theorem or by what is known better."""
        return any(
            "slow" in (rate.exponent, rate.tight) or "flat" in (rate.exponent, rate.tight) for rate in self.rates
        )

    @property
    def checked(self) -> str:
        """How far Gatewise has checked it, in one line."""
        parts = [": ".join(part for part in (self.read, _READ[self.read]) if part)]
        for agrees, verb in ((True, "agrees"), (False, "differs")):
            for kind in ("modulus", "algebra", "witness"):
                about = [f.parameter for f in self.findings if f.kind == kind and f.agrees == agrees]
                if about:
                    parts.append(f"{kind} {verb} ({', '.join(dict.fromkeys(about))})")
        return "; ".join(parts)


class RateTable(_Row):
    """Everything in `proved_rates.toml`: papers, remedies, theorems."""

    papers: dict[str, Paper]
    remedies: dict[str, Remedy]
    theorems: list[Theorem]

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> Self:
        ids = [theorem.id for theorem in self.theorems]
        if len(set(ids)) < len(ids):
            raise ValueError("two theorems have one id")
        cited = {remedy.source for remedy in self.remedies.values()}
        for theorem in self.theorems:
            cited |= {theorem.paper, *theorem.also} - {"here"}
            if unknown := set(theorem.remedies) - set(self.remedies):
                raise ValueError(f"{theorem.id}: unknown remedies {unknown}")
        if unknown := cited - set(self.papers):
            raise ValueError(f"unknown papers {unknown}")
        return self

    def cite(self, paper: str) -> str:
        """How a paper is cited: its arXiv number, or "Gatewise" for what was derived here."""
        return "Gatewise" if paper == "here" else f"arXiv:{self.papers[paper].arxiv}"


def r_bar_value(m: int) -> int:
    """r̄(m) = 2m, for m of at least 2; `gatewise.theory.r_bar` has the evidence, and takes symbolic algebra to check it.

    Example:
        >>> from gatewise.theory import r_bar
        >>> [r_bar_value(m) == r_bar(m).value for m in (2, 3, 4)]
        [True, True, True]
    """
    return 2 * m


@cache
def rate_table() -> RateTable:
    """The table, read once.

    Example:
        >>> table = rate_table()
        >>> theorem = next(t for t in table.theorems if t.id == "cosine-exact")
        >>> table.cite(theorem.paper), theorem.statement, theorem.slow
        ('arXiv:2405.14131', 'Theorem 2', True)
    """
    text = resources.files("gatewise.theory").joinpath("proved_rates.toml").read_text(encoding="utf-8")
    return RateTable.model_validate(tomllib.loads(text))
