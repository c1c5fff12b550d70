"""Two studies, or two methods of one, beside each other: differences of slopes, and ratios of losses by size."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.study.design import StudyDesign
from gatewise.study.slope_fit import (
    LEAST_SIZES,
    STATISTICS,
    Estimate,
    Lines,
    Sample,
    estimate_of,
    generator_of_resamples,
    resampled,
    statistics_of,
    through,
)
from gatewise.study.slopes import FAILED, checked_rows, measures_of
from gatewise.study.tables import SlopeRule
from gatewise.study.totals import chosen, numbers

__all__ = ["Difference", "Ratio", "StudyComparison", "compare", "shared_data"]

_DATA = ("seed", "n_features", "covariates", "truth")
"""What decides on the data sets of a study, with the size and the replicate."""

_SHOWN_RATIOS = 5


@dataclass(frozen=True)
class Difference:
    """The slope of the first side less that of the second.

    Attributes:
        methods: the first and the second.
        measure: its name.
        statistic: one of `STATISTICS`.
        slopes: of both sides, over the sizes that are compared; None without a difference.
        value: the difference; None if there is none.
        sizes: of each side, through which its line goes.
        widest: a half-width above this is inconclusive.
        reason: why there is no difference, or "".
    """

    methods: tuple[str, str]
    measure: str
    statistic: str
    slopes: tuple[Estimate, Estimate] | None
    value: Estimate | None
    sizes: tuple[int, int]
    widest: float
    reason: str

    @property
    def verdict(self) -> str:
        """Which side's measure shrinks faster, if the interval leaves 0 out."""
        if self.value is None:
            return f"no difference: {self.reason}"
        if self.value.is_below(0.0):
            return "the first shrinks faster"
        if self.value.is_above(0.0):
            return "the second shrinks faster"
        return "inconclusive" if self.value.half_width > self.widest else "no difference seen"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "methods": list(self.methods),
            "measure": self.measure,
            "statistic": self.statistic,
            "slopes": None if self.slopes is None else [each.to_dict() for each in self.slopes],
            "difference": None if self.value is None else self.value.to_dict(),
            "sizes": list(self.sizes),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Ratio:
    """A statistic of the first side over that of the second, on the same data sets of one size.

    Attributes:
        methods: the first and the second.
        measure: its name.
        statistic: one of `STATISTICS`.
        n: the size.
        pairs: data sets in which both sides have the measure.
        value: the ratio, with the interval of a bootstrap over pairs; None if the second is 0.
    """

    methods: tuple[str, str]
    measure: str
    statistic: str
    n: int
    pairs: int
    value: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "methods": list(self.methods),
            "measure": self.measure,
            "statistic": self.statistic,
            "n": self.n,
            "pairs": self.pairs,
            "ratio": None if self.value is None else self.value.to_dict(),
        }


@dataclass(frozen=True)
class StudyComparison:
    """What two sides have in common, and how they differ.

    Attributes:
        titles: of both studies.
        level: of the intervals.
        is_paired: whether both fitted the same data sets, so that replicates are compared pair by pair.
        differences: of slopes.
        ratios: by size; none if the data sets are not the same.
        notes: what must be known of the numbers.
    """

    titles: tuple[str, str]
    level: float
    is_paired: bool
    differences: tuple[Difference, ...]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "titles": list(self.titles),
            "level": self.level,
            "is_paired": self.is_paired,
            "differences": [each.to_dict() for each in self.differences],
            "ratios": [each.to_dict() for each in self.ratios],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Tables of differences and of some ratios, and the notes."""
        lines = [f"first: {self.titles[0]}", f"second: {self.titles[1]}", f"{100 * self.level:g}% intervals", ""]
        head = ("methods", "measure", "statistic", "first", "second", "difference", "verdict")
        lines += _table([head, *(_difference_line(each) for each in self.differences)])
        if self.ratios:
            shown = list(_spread(self.ratios))
            lines += ["", *_table([("methods", "measure", "statistic", "n", "pairs", "first/second"), *shown])]
            if len(shown) < len(self.ratios):
                lines.append(f"{len(shown)} of {len(self.ratios)} ratios.")
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])


def compare(
    first: tuple[StudyDesign, pd.DataFrame],
    second: tuple[StudyDesign, pd.DataFrame],
    *,
    first_method: str | None = None,
    second_method: str | None = None,
    measures: Sequence[str] | None = None,
) -> StudyComparison:
    """Slopes of two studies, or of two methods of one, beside each other.

    If both have the same truth, inputs and seed, their data sets are the same, and the bootstrap draws pairs of fits to
    one data set. Otherwise the sides are drawn independently of each other. The rule of slopes is the first design's;
    each side keeps its own window.

    Args:
        first: a design and its rows.
        second: another, or the same.
        first_method: which method of the first; None for those that both have, or the only one.
        second_method: the same for the second.
        measures: which; None for all that both have.

    Raises:
        InputError: the rows cannot be used, it is not clear which methods are meant, both sides are the same, or they
            have no measure in common.

    Example:
        >>> from gatewise.study.design import read_design
        >>> design = read_design("softmax-gaussian-exact").with_plan(sizes=[100, 1000, 10_000], replicates=5)
        >>> slow, fast = (
        ...     pd.DataFrame(
        ...         [
        ...             {"method": "k2", "n": n, "replicate": i, "status": "TIGHT", "loss.D1": (8.0 + i) * n**-power}
        ...             for n in design.all_sizes()
        ...             for i in range(5)
        ...         ]
        ...     )
        ...     for power in (0.25, 0.5)
        ... )
        >>> found = compare((design, slow), (design, fast))
        >>> found.is_paired, found.differences[0].value.to_text(), found.differences[0].verdict
        (True, '0.250 [0.250, 0.250]', 'the second shrinks faster')
    """
    designs = (first[0], second[0])
    rows = tuple(checked_rows(*each) for each in (first, second))
    pairs = _method_pairs(designs, first_method, second_method)
    if first[1] is second[1] and all(one == other for one, other in pairs):
        raise InputError(f"both sides are the method {shown(pairs[0][0])} of one study: name two different methods")
    common = [name for name in measures_of(designs[0], rows[0]) if name in measures_of(designs[1], rows[1])]
    if measures is not None and (unknown := [name for name in measures if name not in common]):
        raise InputError(f"the sides do not both have {shown(unknown[0])}: in common are {', '.join(common) or 'none'}")
    if not common:
        raise InputError(
            "the two sides have no measure in common: give the same name to losses that are to be compared"
        )
    apart = shared_data(*designs)
    differences: list[Difference] = []
    ratios: list[Ratio] = []
    for methods in pairs:
        own = [
            chosen(each, np.array((each["method"] == name) & (each["status"] != FAILED)))
            for each, name in zip(rows, methods, strict=True)
        ]
        for measure in common if measures is None else measures:
            if apart:
                differences += _independent(designs, own, methods, measure)
            else:
                found = _paired(designs, own, methods, measure)
                differences += found[0]
                ratios += found[1]
    notes = tuple(_notes(designs, apart, common if measures is None else measures))
    titles = (designs[0].title, designs[1].title)
    return StudyComparison(titles, designs[0].slopes.level, not apart, tuple(differences), tuple(ratios), notes)


def shared_data(first: StudyDesign, second: StudyDesign) -> list[str]:
    """Which of the keys that decide on data sets differ between two designs; none if they share their data sets."""
    one, other = first.model_dump(mode="json"), second.model_dump(mode="json")
    return [key for key in _DATA if json.dumps(one[key], sort_keys=True) != json.dumps(other[key], sort_keys=True)]


def _method_pairs(
    designs: tuple[StudyDesign, StudyDesign], first: str | None, second: str | None
) -> list[tuple[str, str]]:
    names = [[method.name for method in design.methods] for design in designs]
    if first is not None:
        designs[0].method(first)
    if second is not None:
        designs[1].method(second)
    if first is not None or second is not None:
        # A side that is not named has one method only, or that of the same name.
        one = first or (names[0][0] if len(names[0]) == 1 else second)
        other = second or (names[1][0] if len(names[1]) == 1 else first)
        if one in names[0] and other in names[1]:
            return [(str(one), str(other))]
    elif both := [name for name in names[0] if name in names[1]]:
        return [(name, name) for name in both]
    elif len(names[0]) == len(names[1]) == 1:
        return [(names[0][0], names[1][0])]
    raise InputError(
        f"say which methods to compare: the first has {', '.join(names[0])}, the second {', '.join(names[1])}"
    )


def _windowed(rows: pd.DataFrame, measure: str, rule: SlopeRule) -> dict[int, dict[int, float]]:
    """The finite values of a measure by size and replicate."""
    found: dict[int, dict[int, float]] = {}
    columns = (numbers(rows, "n"), numbers(rows, "replicate"), numbers(rows, measure, math.nan))
    for n, replicate, value in zip(*columns, strict=True):
        if (rule.low or 0) <= n <= (math.inf if rule.high is None else rule.high) and math.isfinite(value):
            found.setdefault(int(n), {})[int(replicate)] = float(value)
    return found


def _paired(
    designs: tuple[StudyDesign, StudyDesign], rows: Sequence[pd.DataFrame], methods: tuple[str, str], measure: str
) -> tuple[list[Difference], list[Ratio]]:
    rule, seed = designs[0].slopes, designs[0].seed
    one, other = (_windowed(each, measure, design.slopes) for each, design in zip(rows, designs, strict=True))
    samples = []
    for n in sorted(set(one) & set(other)):
        both = sorted(set(one[n]) & set(other[n]))
        if len(both) >= 2:
            samples.append(Sample(n, np.array([[one[n][i], other[n][i]] for i in both])).sorted())
    if not samples:
        return list(_without(methods, measure, rule, "no size has two pairs")), []
    centre, reach = through([sample.n for sample in samples])
    observed, drawn = Lines((1, 2, 3), centre, reach), Lines((rule.resamples, 2, 3), centre, reach)
    sizes = np.zeros(3, dtype=int)
    ratios: list[Ratio] = []
    for sample in samples:
        here = np.stack([statistics_of(column, rule.trim)[0] for column in sample.values.T])[None]
        draws = resampled(sample, rule.trim, rule.resamples, generator_of_resamples(seed, sample.n))
        used = np.asarray((here > 0.0).all(axis=1, keepdims=True))
        observed.add(sample.n, here, used)
        drawn.add(sample.n, draws, used)
        sizes += used[0, 0]
        for place, statistic in enumerate(STATISTICS):
            value = _quotient(here[:, 0, place], here[:, 1, place])
            spread = _quotient(draws[:, 0, place], draws[:, 1, place])
            estimate = estimate_of(float(value[0]), spread, rule.level)
            ratios.append(Ratio(methods, measure, statistic, sample.n, len(sample.values), estimate))
    values, spreads = observed.coefficients()[1][0], drawn.coefficients()[1]
    used_sizes = [(int(count), int(count)) for count in sizes]
    return list(_differences(methods, measure, rule, values, spreads, used_sizes)), ratios


def _independent(
    designs: tuple[StudyDesign, StudyDesign], rows: Sequence[pd.DataFrame], methods: tuple[str, str], measure: str
) -> Iterator[Difference]:
    rule = designs[0].slopes
    values, spreads, sizes = [], [], []
    for stream, (each, design) in enumerate(zip(rows, designs, strict=True)):
        found = _windowed(each, measure, design.slopes)
        samples = [Sample(n, np.array([list(here.values())]).T).sorted() for n, here in sorted(found.items())]
        samples = [sample for sample in samples if len(sample.values) >= 2]
        if not samples:
            yield from _without(methods, measure, rule, f"no size of the {('first', 'second')[stream]} has two values")
            return
        centre, reach = through([sample.n for sample in samples])
        observed, drawn = Lines((1, 3), centre, reach), Lines((rule.resamples, 3), centre, reach)
        count = np.zeros(3, dtype=int)
        for sample in samples:
            here = statistics_of(sample.values[:, 0], rule.trim)
            positive = here > 0.0
            generator = generator_of_resamples(designs[0].seed, sample.n, 1 + stream)
            observed.add(sample.n, here, positive)
            drawn.add(sample.n, resampled(sample, rule.trim, rule.resamples, generator)[:, 0], positive)
            count += positive[0]
        values.append(observed.coefficients()[1][0])
        spreads.append(drawn.coefficients()[1])
        sizes.append(count)
    counts = [(int(one), int(other)) for one, other in zip(*sizes, strict=True)]
    yield from _differences(methods, measure, rule, np.stack(values), np.stack(spreads, axis=1), counts)


def _differences(
    methods: tuple[str, str],
    measure: str,
    rule: SlopeRule,
    values: np.ndarray,
    spreads: np.ndarray,
    sizes: Sequence[tuple[int, int]],
) -> Iterator[Difference]:
    """Differences from slopes (2, 3) and those of resamples (b, 2, 3)."""
    for place, statistic in enumerate(STATISTICS):
        one, other = (estimate_of(float(values[i, place]), spreads[:, i, place], rule.level) for i in (0, 1))
        spread = spreads[:, 0, place] - spreads[:, 1, place]
        gap = estimate_of(float(values[0, place] - values[1, place]), spread, rule.level)
        there = one is not None and other is not None and gap is not None
        reason = ""
        if not there:
            few = min(sizes[place])
            reason = f"{few} usable sizes, {LEAST_SIZES} needed"
            if few >= LEAST_SIZES:
                reason = f"the {statistic} of too many resamples is 0"
        slopes = (one, other) if one is not None and other is not None and gap is not None else None
        yield Difference(methods, measure, statistic, slopes, gap if there else None, sizes[place], rule.widest, reason)


def _without(methods: tuple[str, str], measure: str, rule: SlopeRule, reason: str) -> Iterator[Difference]:
    for statistic in STATISTICS:
        yield Difference(methods, measure, statistic, None, None, (0, 0), rule.widest, reason)


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0.0)


def _notes(designs: tuple[StudyDesign, StudyDesign], apart: Sequence[str], measures: Sequence[str]) -> Iterator[str]:
    if apart:
        yield (
            f"Not paired: the studies differ in {', '.join(apart)}, so that their data sets are not the same; the "
            "sides are drawn independently."
        )
    else:
        yield "Paired: both sides are fitted to the same data sets, and pairs are drawn."
    one, other = (design.slopes for design in designs)
    if differing := [
        name for name in ("trim", "level", "resamples", "widest") if getattr(one, name) != getattr(other, name)
    ]:
        yield f"The designs differ in slopes.{', slopes.'.join(differing)}: the first's are used."
    tables = [{loss.name: loss for loss in design.losses} for design in designs]
    for name in measures:
        loss = name.removeprefix("loss.")
        if name.startswith("loss.") and tables[0].get(loss) != tables[1].get(loss):
            yield f"{name} is not the same loss in both designs."
    if designs[0].losses[0] != designs[1].losses[0] and not all(name.startswith("loss.") for name in measures):
        yield "Distances of parameters are in the cells of another first loss in each design."


def _difference_line(row: Difference) -> tuple[str, ...]:
    one, other = ("-", "-") if row.slopes is None else (each.to_text() for each in row.slopes)
    gap = "-" if row.value is None else row.value.to_text()
    return (_both(row.methods), row.measure, row.statistic, one, other, gap, row.verdict)


def _spread(ratios: Sequence[Ratio]) -> Iterator[tuple[str, ...]]:
    """Of each measure and statistic the ratios at a few sizes between the smallest and the largest."""
    groups: dict[tuple[Any, ...], list[Ratio]] = {}
    for row in ratios:
        groups.setdefault((row.methods, row.measure, row.statistic), []).append(row)
    for rows in groups.values():
        places = np.unique(np.linspace(0, len(rows) - 1, _SHOWN_RATIOS).round().astype(int))
        for row in (rows[place] for place in places):
            value = "-" if row.value is None else row.value.to_text(".3g")
            yield (_both(row.methods), row.measure, row.statistic, str(row.n), str(row.pairs), value)


def _both(methods: tuple[str, str]) -> str:
    return methods[0] if methods[0] == methods[1] else f"{methods[0]} / {methods[1]}"


def _table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
