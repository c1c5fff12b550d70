"""What slopes say: the points they rest on, how each stands to what others say, tables for people and programs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.exceptions import InputError
from gatewise.study.slope_fit import STATISTICS, Estimate, FittedLine
from gatewise.study.tables import Expected, SlopeRule
from gatewise.study.totals import Totals

__all__ = ["Points", "Slope", "StudySlopes"]


@dataclass(frozen=True)
class Points:
    """What the replicates of a method show of a measure, size by size.

    Attributes:
        method: its name.
        measure: its name.
        sizes: rising; only those in the window, with at least 2 values.
        counts: how many replicates have the measure.
        statistics: mean, median and trimmed mean, (sizes, 3).
        quartiles: the first and the third, (sizes, 2).
        without: replicates in which the measure is missing: no cell of that kind, or not finite.
        not_positive: values that are 0 or below: they count in the statistics, but a statistic of 0 has no logarithm.
        scarce: sizes in the window that are left out because they have fewer than 2 values.
    """

    method: str
    measure: str
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    statistics: np.ndarray
    quartiles: np.ndarray
    without: int
    not_positive: int
    scarce: int


@dataclass(frozen=True)
class Slope:
    """The slope of one statistic of a measure of a method.

    Attributes:
        method: its name.
        measure: its name.
        statistic: one of `STATISTICS`.
        line: the line with its intervals; None if there is none.
        reason: why there is none, or "".
        short: why the row does not meet the design's rule, or "".
        zeros: sizes that are left out of the line because the statistic is 0 there.
        is_inconclusive: whether the interval is wider than the design allows.
        expected: what others say; None if nobody does.
    """

    method: str
    measure: str
    statistic: str
    line: FittedLine | None
    reason: str
    short: str
    zeros: int
    is_inconclusive: bool
    expected: Expected | None

    @property
    def counts(self) -> bool:
        """Whether there is a slope that meets the design's rule."""
        return self.line is not None and not self.short

    @property
    def against_proved(self) -> str:
        """How the slope stands to the proved bound, which bounds slowness: an error may shrink faster, not slower.

        "consistent" if the interval covers it, "faster than the bound" or "slower than proved" if it lies on one side,
        "inconclusive" if it is too wide, "no number proved" if what is proved is no number, "no statement", "no slope".
        Factors of log n, which proved rates leave out, can make a slope flatter: √(log n) by about 1/(2 log n).
        """
        if self.expected is None or (self.expected.proved is None and not self.expected.proved_text):
            return "no statement" if self.line is not None else "no slope"
        if self.line is None:
            return "no slope"
        if self.is_inconclusive:
            return "inconclusive"
        if self.expected.proved is None:
            return "no number proved"
        if self.line.slope.is_above(self.expected.proved):
            return "slower than proved"
        return "faster than the bound" if self.line.slope.is_below(self.expected.proved) else "consistent"

    @property
    def against_published(self) -> str:
        """Whether the interval covers the published slope: "agrees", "differs", "inconclusive" or "" for none."""
        return self._against(None if self.expected is None else self.expected.published)

    @property
    def against_modulus(self) -> str:
        """The same for the slope that the measured modulus gives."""
        return self._against(None if self.expected is None else self.expected.modulus)

    def _against(self, value: float | None) -> str:
        if value is None or self.line is None:
            return ""
        if self.is_inconclusive:
            return "inconclusive"
        return "agrees" if self.line.slope.covers(value) else "differs"

    @property
    def outcome(self) -> str:
        """How the slope stands to what others say of it, in a few words; "" if nobody says anything."""
        if self.line is None:
            return f"no slope: {self.reason}"
        if self.is_inconclusive:
            return "inconclusive"
        parts = [] if self.against_proved == "no statement" else [self.against_proved]
        parts += [f"published {self.against_published}"] if self.against_published else []
        parts += [f"modulus {self.against_modulus}"] if self.against_modulus else []
        return ", ".join(parts)

    @property
    def verdict(self) -> str:
        """The outcome, whether the line is curved, and why the row does not count."""
        parts = [self.outcome] if self.outcome else []
        parts += ["curved"] if self.line is not None and self.line.is_curved else []
        parts += [f"does not count: {self.short}"] if self.short else []
        return ", ".join(parts) or "no statement"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        line = self.line
        found: dict[str, Any] = {
            "method": self.method,
            "measure": self.measure,
            "statistic": self.statistic,
            "slope": None if line is None else line.slope.to_dict(),
            "curvature": None if line is None else line.curvature.to_dict(),
            "is_curved": None if line is None else line.is_curved,
            "at_centre": None if line is None else {"n": math.exp(line.centre), **_exponential(line.height).to_dict()},
            "sizes": 0 if line is None else len(line.sizes),
            "low": None if line is None else line.sizes[0],
            "high": None if line is None else line.sizes[-1],
            "resamples_without_line": None if line is None else line.lost,
            "sizes_with_statistic_0": self.zeros,
            "counts": self.counts,
            "reason": self.reason or self.short,
            "is_inconclusive": self.is_inconclusive,
            "expected": None if self.expected is None else self.expected.model_dump(exclude={"measure", "method"}),
            "against_proved": self.against_proved,
            "against_published": self.against_published,
            "against_modulus": self.against_modulus,
            "verdict": self.verdict,
        }
        return found


@dataclass(frozen=True)
class StudySlopes:
    """Every slope of a study.

    Attributes:
        title: of the study.
        rule: how slopes were read off.
        slopes: method by method, measure by measure, one for each statistic.
        points: what they rest on, one for each method and measure.
        totals: method by method.
        planned: rows of the finished study.
        notes: what must be known of the numbers.
    """

    title: str
    rule: SlopeRule
    slopes: tuple[Slope, ...]
    points: tuple[Points, ...]
    totals: tuple[Totals, ...]
    planned: int
    notes: tuple[str, ...]

    def slope(self, method: str, measure: str, statistic: str = "mean") -> Slope:
        """One of them.

        Raises:
            InputError: there is none of these names.
        """
        for row in self.slopes:
            if (row.method, row.measure, row.statistic) == (method, measure, statistic):
                return row
        there = ", ".join(f"{each.method} {each.measure}" for each in self.points)
        raise InputError(f"there is no slope of the {statistic} of {measure} of {method}: there are {there}")

    def told(self) -> list[tuple[str, Slope]]:
        """Rows of a table with their statistic; a measure without any slope for one reason is one row, of "all"."""
        found: list[tuple[str, Slope]] = []
        for begin in range(0, len(self.slopes), len(STATISTICS)):
            own = self.slopes[begin : begin + len(STATISTICS)]
            if all(row.line is None for row in own) and len({row.reason for row in own}) == 1:
                found.append(("all", own[0]))
            else:
                found += [(row.statistic, row) for row in own]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "title": self.title,
            "rule": self.rule.model_dump(),
            "planned": self.planned,
            "slopes": [row.to_dict() for row in self.slopes],
            "points": [_points_dict(each) for each in self.points],
            "totals": [each.to_dict() for each in self.totals],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """A table, one line per method, measure and statistic; then the totals and notes."""
        head = ("method", "measure", "statistic", "published", "ours", "proved", "modulus", "verdict")
        texts = list(dict.fromkeys(row.expected.proved_text for row in self.slopes if row.expected is not None))
        marks = {text: f"({place})" for place, text in enumerate(filter(None, texts), start=1)}
        lines = [head, *(_line(statistic, row, marks) for statistic, row in self.told())]
        widths = [max(len(line[place]) for line in lines) for place in range(len(head) - 1)]
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
            for line in lines
        ]
        said = [
            f"{self.title}: slopes of log(measure) against log(n), {100 * self.rule.level:g}% intervals",
            "",
            *table,
        ]
        said += [f"{mark} {text}" for text, mark in marks.items()]
        said += ["", *(each.to_text() for each in self.totals)]
        return "\n".join([*said, *([""] if self.notes else []), *self.notes])


def _line(statistic: str, row: Slope, marks: dict[str, str]) -> tuple[str, ...]:
    """A row of the table; what is proved in words is marked, since words need more room."""
    said = row.expected
    number = None if said is None or said.proved is None else f"{said.proved:.3f}"
    proved = " ".join(filter(None, (number, marks.get(said.proved_text) if said is not None else None)))
    return (
        row.method,
        row.measure,
        statistic,
        "-" if said is None or said.published is None else f"{said.published:.3f}",
        "-" if row.line is None else row.line.slope.to_text(),
        proved or "-",
        "-" if said is None or said.modulus is None else f"{said.modulus:.3f}",
        row.verdict,
    )


def _exponential(height: Estimate) -> Estimate:
    return Estimate(math.exp(height.value), math.exp(height.low), math.exp(height.high))


def _points_dict(points: Points) -> dict[str, Any]:
    return {
        "method": points.method,
        "measure": points.measure,
        "replicates_without_it": points.without,
        "values_not_positive": points.not_positive,
        "sizes_with_fewer_than_2_values": points.scarce,
        "by_size": [
            {
                "n": n,
                "replicates": count,
                **dict(zip(STATISTICS, map(float, statistics), strict=True)),
                "quartiles": [float(low), float(high)],
            }
            for n, count, statistics, (low, high) in zip(
                points.sizes, points.counts, points.statistics, points.quartiles, strict=True
            )
        ],
    }
