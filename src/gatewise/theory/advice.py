"""Which gate, which experts, how many samples: the whole table of rates in a few lines, read from `advice.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

__all__ = ["Advice", "AdviceRow", "Known", "advice_table", "advise"]

_OF_TWO = {"1": 1.0, "2": 2.0, "r_bar": 4.0, "r_bar/2": 2.0}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Known(_Table):
    """The slowest exponent among the parameters that are identified, and how it is known.

    Attributes:
        exponent: α of n^(-1/(2α)), with r̄ as r̄(2) = 4 where one expert too many is fitted.
        of: the parameters that have it; empty for all.
        known: "proved" if read in a paper or derived here, "measured", or how far a theorem was read.
    """

    exponent: Literal["1", "2", "r_bar", "r_bar/2"]
    of: str = ""
    known: str

    @property
    def alpha(self) -> float:
        """The exponent as a number."""
        return _OF_TWO[self.exponent]

    def samples(self, error: float) -> float:
        """ε^(-2α), an order of magnitude: constants and logarithms are left out."""
        return error ** (-2.0 * self.alpha)


Place = tuple[str, str, str]


class AdviceRow(_Table):
    """What is known about one gate with one kind of experts, by one objective.

    Attributes:
        gate: its registered name.
        shown_gate: the gate in words, where its name does not say enough.
        experts: their registered name, or "any".
        shown: the experts in words, where their name does not say enough.
        objective: "likelihood" or "least_squares".
        family: the registered family of a likelihood.
        exact: with as many experts as there are; None if not known.
        over: with one expert too many, the tight exponent where one is known; None if not known.
        lost_exact: what is not identified with as many experts as there are.
        lost: what is not identified with one expert too many.
        note: what else to know.
        theorems: rows of the table of proved rates.
        measured_exact: rows of docs/theory/modulus-table.json behind `exact`: case, setting, coordinate.
        measured_over: the same behind `over`.
        lost_rows: the same, flat, behind `lost`.
    """

    gate: str
    shown_gate: str = ""
    experts: str
    shown: str = ""
    objective: Literal["likelihood", "least_squares"]
    family: str | None = None
    exact: Known | None = None
    over: Known | None = None
    lost_exact: str = ""
    lost: str = ""
    note: str = ""
    theorems: list[str] = Field(min_length=1)
    measured_exact: list[Place] = []
    measured_over: list[Place] = []
    lost_rows: list[Place] = []

    @property
    def gate_text(self) -> str:
        """The gate in words."""
        return self.shown_gate or self.gate

    @property
    def experts_text(self) -> str:
        """The experts in words."""
        return self.shown or self.experts


class _File(_Table):
    rows: list[AdviceRow]


@dataclass(frozen=True)
class Advice:
    """Rows of the table for one error.

    Attributes:
        error: ε.
        rows: gates and experts, those with the fewest samples first within an objective.
    """

    error: float
    rows: tuple[AdviceRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "error": self.error,
            "rows": [
                {
                    "gate": row.gate,
                    "gate_text": row.gate_text,
                    "experts": row.experts,
                    "experts_text": row.experts_text,
                    "objective": row.objective,
                    "family": row.family,
                    "as_many": self._known(row.exact, row.lost_exact),
                    "one_too_many": self._known(row.over, row.lost),
                    "note": row.note,
                    "theorems": row.theorems,
                }
                for row in self.rows
            ],
        }

    def _known(self, known: Known | None, lost: str) -> dict[str, Any]:
        found: dict[str, Any] = {"exponent": None, "of": "", "samples": None, "known": "", "not_identified": lost}
        if known is not None:
            found |= {"exponent": known.alpha, "of": known.of, "known": known.known}
            found["samples"] = known.samples(self.error)
        return found


@cache
def advice_table() -> tuple[AdviceRow, ...]:
    """All rows, read once.

    Example:
        >>> advice_table()[0].gate
        'softmax'
    """
    text = resources.files("gatewise.theory").joinpath("advice.toml").read_text(encoding="utf-8")
    return tuple(_File.model_validate(tomllib.loads(text)).rows)


def advise(
    *, objective: str | None = None, gate: str | None = None, experts: str | None = None, error: float = 0.1
) -> Advice:
    """Which gate, which experts, how many samples: the slowest parameter that is identified, and what is not.

    Exponents are the best that are known: derived or measured where that is better than the published bound. Each row
    says how it knows.

    Args:
        objective: "likelihood" or "least_squares"; None for both.
        gate: a gate's registered name; None for all that anything is known about.
        experts: a registered kind of experts; None for all.
        error: ε, between 0 and 1, for the samples ε^(-2α).

    Raises:
        InputError: a name is not in the table, or the error is not between 0 and 1.

    Example:
        >>> for row in advise(objective="least_squares", gate="softmax").rows[:2]:
        ...     print(row.experts_text, row.over.alpha, row.over.known, "| not identified:", row.lost or "–")
        tanh, sigmoid, GELU unit 2.0 quoted, measured | not identified: –
        linear 2.0 measured | not identified: a, b
    """
    if not 0.0 < error < 1.0:
        raise InputError(f"the error must lie between 0 and 1, not {shown(error)}")
    table = advice_table()
    for what, asked, known in (
        ("objective", objective, [row.objective for row in table]),
        ("gate", gate, [row.gate for row in table]),
        ("kind of experts", experts, [row.experts for row in table if row.experts != "any"]),
    ):
        if asked is not None and asked not in known:
            raise InputError(f"nothing is known about the {what} {shown(asked)}: {choose(asked, sorted(set(known)))}")
    rows = [
        row
        for row in table
        if objective in (None, row.objective)
        and gate in (None, row.gate)
        and (experts is None or row.experts in ("any", experts))
    ]
    return Advice(error, tuple(sorted(rows, key=_rank)))


def _rank(row: AdviceRow) -> tuple[bool, bool, bool, float]:
    """The likelihood first; then what is known, identified and fast."""
    known = row.over is not None
    return (
        row.objective != "likelihood",
        not known,
        bool(row.lost),
        row.over.alpha if row.over is not None else 0.0,
    )
