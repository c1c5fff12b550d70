"""Slopes of a study: log(measure) against log(n), with intervals over replicates, beside what others say of them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.study.design import StudyDesign
from gatewise.study.measures import MEASURES
from gatewise.study.slope_fit import LEAST_SIZES, STATISTICS, FittedLine, Sample, fit_lines, statistics_of
from gatewise.study.slope_table import Points, Slope, StudySlopes
from gatewise.study.tables import Expected, SlopeRule
from gatewise.study.totals import chosen, numbers, totals_of

__all__ = ["Points", "Slope", "StudySlopes", "checked_rows", "measures_of", "slopes", "values_by_size"]

FAILED = "FAILED"
_KEY = ("method", "n", "replicate", "status")


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
        (-0.5, '3 sizes, 10 needed; 0 sizes with 40 replicates, 10 needed')
    """
    rows = checked_rows(design, rows)
    wanted = measures_of(design, rows) if measures is None else list(measures)
    there = measures_of(design, rows)
    if measures is not None and (unknown := [name for name in wanted if name not in there]):
        raise InputError(f"no row has the measure {shown(unknown[0])}: there are {', '.join(there) or 'none'}")
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
        *_left_out(points),
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
        raise InputError(
            f"the rows have no column {shown(missing[0])}: a study's rows have {', '.join(_KEY)} and measures"
        )
    if rows.empty:
        raise InputError("the study has no rows yet: run it first")
    known = {method.name for method in design.methods}
    if strange := sorted(set(rows["method"]) - known):
        raise InputError(f"the rows speak of the method {shown(strange[0])}: the design has {', '.join(sorted(known))}")
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
    """Why a row does not meet the design's rule: so many sizes, over so many decades, with so many replicates each."""
    enough = [n for n in line.sizes if counts[n] >= rule.replicates]
    found = []
    if len(line.sizes) < rule.sizes:
        found.append(f"{len(line.sizes)} sizes, {rule.sizes} needed")
    if line.decades < rule.decades - 1e-9:
        found.append(f"{line.decades:.2f} decades, {rule.decades:g} needed")
    if len(enough) < min(rule.sizes, len(line.sizes)):
        found.append(f"{len(enough)} sizes with {rule.replicates} replicates, {rule.sizes} needed")
    elif not found and math.log10(enough[-1] / enough[0]) < rule.decades - 1e-9:
        found.append(f"sizes with {rule.replicates} replicates do not span {rule.decades:g} decades")
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


def _left_out(points: Sequence[Points]) -> Iterator[str]:
    """What of measures does not enter their lines as everything else does, measures of one fate together."""
    said: dict[tuple[str, str], list[str]] = {}
    for each in points:
        texts = []
        if each.without:
            texts.append(f"{each.without} replicates have no such value, {sum(each.counts)} are used.")
        if each.scarce:
            texts.append(f"{each.scarce} sizes with fewer than 2 values are left out.")
        if each.not_positive:
            texts.append(f"{each.not_positive} values are 0; where a statistic is 0 its size is left out of the line.")
        for text in texts:
            said.setdefault((each.method, text), []).append(each.measure)
    for (method, text), measures in said.items():
        yield f"{method} {', '.join(measures)}: {text}"


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
