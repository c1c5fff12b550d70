"""Slopes of a study: log(measure) against log(n), with intervals over replicates, beside what others say of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gatewise.exceptions import InputError
from gatewise.study.design import StudyDesign
from gatewise.study.measures import MEASURES
from gatewise.study.slope_fit import LEAST_SIZES, STATISTICS, Estimate, FittedLine, Sample, fit_lines, statistics_of
from gatewise.study.tables import Expected, SlopeRule
from gatewise.study.totals import Totals, chosen, numbers, totals_of

__all__ = ["Points", "Slope", "StudySlopes", "checked_rows", "measures_of", "slopes", "values_by_size"]

FAILED = "FAILED"
_KEY = ("method", "n", "replicate", "status")


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
        lines = [head, *(_line(row, marks) for row in self.slopes)]
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


def slopes(design: StudyDesign, rows: pd.DataFrame, measures: Sequence[str] | None = None) -> StudySlopes:
    """The slope of every measure of every method, for the mean, the median and the trimmed mean of the replicates.

    log s(n) is fitted by a line in log n over the sizes in the design's window, by least squares. Intervals are
    percentiles of a bootstrap that draws the replicates anew at every size; its seed is the design's, so that the same
    rows, in any order, give the same numbers. The line is called curved if the interval of the coefficient of
    (log n − centre)² leaves 0 out: then it is no power of n in that window.

    Args:
        design: of the study.
        rows: one for each replicate, as `Laboratory.run` gives them; FAILED ones are left out.
        measures: which columns; None for all.

    Raises:
        InputError: there are no rows, a column is missing, a task is there twice, or a measure or a method is unknown.

    Example:
        >>> from gatewise.study.design import read_design
        >>> design = read_design("softmax-gaussian-exact").with_plan(sizes=[100, 1000, 10_000], replicates=5)
        >>> rows = pd.DataFrame(
        ...     [
        ...         {"method": "k2", "n": n, "replicate": i, "status": "CONVERGED", "loss.D1": (8.0 + i) * n**-0.5}
        ...         for n in design.all_sizes()
        ...         for i in range(5)
        ...     ]
        ... )
        >>> found = slopes(design, rows).slope("k2", "loss.D1")
        >>> round(found.line.slope.value, 12), found.short
        (-0.5, '3 sizes, 10 needed; 5 replicates at a size, 40 needed')
    """
    rows = checked_rows(design, rows)
    wanted = measures_of(design, rows) if measures is None else list(measures)
    there = measures_of(design, rows)
    if measures is not None and (unknown := [name for name in wanted if name not in there]):
        raise InputError(f"no row has the measure {unknown[0]!r}: there are {', '.join(there) or 'none'}")
    good = chosen(rows, np.array(rows["status"] != FAILED))
    found: list[Slope] = []
    points: list[Points] = []
    for method in design.methods:
        own = chosen(good, np.array(good["method"] == method.name))
        for measure in wanted:
            expected = _expectation(design, method.name, measure)
            values = values_by_size(own, measure, design.slopes)
            if not any(len(each) for each in values.values()) and expected is None:
                continue
            point = _points(method.name, measure, values, own, design.slopes)
            points.append(point)
            found += _slopes_of(point, values, design, expected)
    notes = (
        *_notes(design, rows, there),
        *(note for point in points for note in _left_out(point)),
        *_logarithms(found),
    )
    totals = tuple(
        totals_of(method.name, chosen(rows, np.array(rows["method"] == method.name))) for method in design.methods
    )
    planned = len(design.methods) * len(design.all_sizes()) * design.replicates
    return StudySlopes(design.title, design.slopes, tuple(found), tuple(points), totals, planned, notes)


def checked_rows(design: StudyDesign, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, sorted by method, size and replicate.

    Raises:
        InputError: as `slopes`.
    """
    if missing := [name for name in _KEY if name not in rows.columns]:
        raise InputError(f"the rows have no column {missing[0]!r}: a study's rows have {', '.join(_KEY)} and measures")
    if rows.empty:
        raise InputError("the study has no rows yet: run it first")
    known = {method.name for method in design.methods}
    if strange := sorted(set(rows["method"]) - known):
        raise InputError(f"the rows speak of the method {strange[0]!r}: the design has {', '.join(sorted(known))}")
    seen: set[tuple[Any, ...]] = set()
    for task in zip(rows["method"], rows["n"], rows["replicate"], strict=True):
        if task in seen:
            raise InputError(f"the task {'/'.join(map(str, task))} has two rows: keep one")
        seen.add(task)
    return rows.sort_values(["method", "n", "replicate"], ignore_index=True)


def measures_of(design: StudyDesign, rows: pd.DataFrame) -> list[str]:
    """The measures that the rows have: losses in the design's order, then the others by name."""
    there = [str(name) for name in rows.columns if str(name).startswith(MEASURES) and bool(rows[name].notna().any())]
    losses = [f"loss.{loss.name}" for loss in design.losses]
    return [name for name in losses if name in there] + sorted(name for name in there if name not in losses)


def values_by_size(rows: pd.DataFrame, measure: str, rule: SlopeRule) -> dict[int, np.ndarray]:
    """The finite values of a measure in the window, by size; sizes with rows but no value have an empty array."""
    low, high = rule.low or 0, math.inf if rule.high is None else rule.high
    sizes, values = numbers(rows, "n"), numbers(rows, measure, math.nan)
    inside = [n for n in np.unique(sizes) if low <= n <= high]
    return {int(n): values[(sizes == n) & np.isfinite(values)] for n in inside}


def _points(method: str, measure: str, values: dict[int, np.ndarray], rows: pd.DataFrame, rule: SlopeRule) -> Points:
    used = {n: here for n, here in values.items() if len(here) >= 2}
    in_window = int(np.isin(numbers(rows, "n"), list(values)).sum())
    return Points(
        method,
        measure,
        tuple(used),
        tuple(len(here) for here in used.values()),
        np.array([statistics_of(np.sort(here), rule.trim)[0] for here in used.values()]).reshape(-1, 3),
        np.array([np.quantile(here, [0.25, 0.75]) for here in used.values()]).reshape(-1, 2),
        in_window - sum(len(here) for here in values.values()),
        sum(int((here <= 0.0).sum()) for here in values.values()),
        len(values) - len(used),
    )


def _slopes_of(
    points: Points, values: dict[int, np.ndarray], design: StudyDesign, expected: Expected | None
) -> Iterator[Slope]:
    rule = design.slopes
    lines: list[FittedLine | None] = [None] * 3
    if len(points.sizes) >= LEAST_SIZES:
        samples = [Sample(n, values[n][:, None]) for n in points.sizes]
        lines = fit_lines(samples, rule.trim, rule.resamples, rule.level, design.seed)
    counts = dict(zip(points.sizes, points.counts, strict=True))
    for place, (statistic, line) in enumerate(zip(STATISTICS, lines, strict=True)):
        zeros = int((points.statistics[:, place] <= 0.0).sum())
        usable = len(points.sizes) - zeros
        reason = ""
        if line is None:
            scarce = f", {points.scarce} with fewer than 2 values" if points.scarce else ""
            reason = (
                f"{usable} usable sizes, {LEAST_SIZES} needed"
                + scarce
                + (f", {zeros} with a {statistic} of 0" * bool(zeros))
                if usable < LEAST_SIZES
                else f"the {statistic} of too many resamples is 0"
            )
        yield Slope(
            points.method,
            points.measure,
            statistic,
            line,
            reason,
            "" if line is None else _short(line, counts, rule),
            zeros,
            line is not None and line.slope.half_width > rule.widest,
            expected,
        )


def _short(line: FittedLine, counts: dict[int, int], rule: SlopeRule) -> str:
    """Why a row does not meet the design's rule."""
    least = min(counts[n] for n in line.sizes)
    found = []
    if len(line.sizes) < rule.sizes:
        found.append(f"{len(line.sizes)} sizes, {rule.sizes} needed")
    if line.decades < rule.decades - 1e-9:
        found.append(f"{line.decades:.2f} decades, {rule.decades:g} needed")
    if least < rule.replicates:
        found.append(f"{least} replicates at a size, {rule.replicates} needed")
    return "; ".join(found)


def _expectation(design: StudyDesign, method: str, measure: str) -> Expected | None:
    """What is said about a measure of a method: by rows about this method first, then by those about every method."""
    said = [row for row in design.expected if row.measure == measure and row.method in (method, None)]
    if not said:
        return None
    merged: dict[str, Any] = {"measure": measure, "method": method}
    for row in sorted(said, key=lambda row: row.method is None):
        for kind in ("published", "proved", "modulus"):
            if kind in merged:
                continue
            own = {name: value for name, value in row.model_dump().items() if name.startswith(kind)}
            if own[kind] is not None or own.get(f"{kind}_text"):
                merged |= own
    return Expected.model_validate(merged)


def _notes(design: StudyDesign, rows: pd.DataFrame, there: Sequence[str]) -> Iterator[str]:
    planned = len(design.methods) * len(design.all_sizes()) * design.replicates
    if len(rows) != planned:
        yield f"The study has {len(rows)} of {planned} rows."
    rule = design.slopes
    if rule.low is not None or rule.high is not None:
        ends = (
            f"{'the smallest' if rule.low is None else rule.low} to {'the largest' if rule.high is None else rule.high}"
        )
        yield f"Lines go through sizes from {ends}."
    for name in dict.fromkeys(row.measure for row in design.expected):
        if name not in there:
            yield f"The design expects something of {name}, which no row has."


def _left_out(points: Points) -> Iterator[str]:
    """What of a measure does not enter its lines as everything else does."""
    name = f"{points.method} {points.measure}"
    if points.without:
        yield f"{name}: {points.without} replicates have no such value, {sum(points.counts)} are used."
    if points.scarce:
        yield f"{name}: {points.scarce} sizes with fewer than 2 values are left out."
    if points.not_positive:
        yield f"{name}: {points.not_positive} values are 0; where a statistic is 0 its size is left out of the line."


def _logarithms(found: Sequence[Slope]) -> Iterator[str]:
    """What a factor that rates leave out does to a slope, if one is flatter than proved."""
    slower = [row.line for row in found if row.line is not None and row.against_proved == "slower than proved"]
    if slower:
        most = max(_slope_of_root_log(line.sizes) for line in slower)
        yield (
            "Slower than proved: proved slopes leave out factors of log n; one of √(log n) makes a line through these "
            f"sizes flatter by up to {most:.3f}."
        )


def _slope_of_root_log(sizes: Sequence[int]) -> float:
    """The slope of the line through log √(log n)."""
    x = np.log(np.asarray(sizes, dtype=float))
    return float(np.polyfit(x - x.mean(), 0.5 * np.log(x), 1)[0])


def _line(row: Slope, marks: dict[str, str]) -> tuple[str, ...]:
    """A row of the table; what is proved in words is marked, since words need more room."""
    said = row.expected
    number = None if said is None or said.proved is None else f"{said.proved:.3f}"
    proved = " ".join(filter(None, (number, marks.get(said.proved_text) if said is not None else None)))
    return (
        row.method,
        row.measure,
        row.statistic,
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
