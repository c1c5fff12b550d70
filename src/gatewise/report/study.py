"""The HTML page on a rate study: slopes beside what others say of them, figures, failures, timing, the design."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gatewise._version import __version__
from gatewise.report.layout import Cell, Grid, Section
from gatewise.report.palette import expert_colour
from gatewise.report.study_figures import measure_panel, seconds_panel
from gatewise.report.theory import TheoryPage
from gatewise.study.design import StudyDesign
from gatewise.study.slope_fit import LEAST_SIZES
from gatewise.study.slopes import Slope, StudySlopes
from gatewise.study.totals import chosen, numbers

__all__ = ["study_page"]

_SPOILT_KEYS = 20
_TIMED_SIZES = 12
_PARTS = (
    ("loss.", "losses", "Losses", "Losses"),
    ("exact.", "exact", "Exact cells", "Parameters of atoms that are alone in their cell"),
    ("over.", "over", "Shared cells", "Parameters of atoms that share a cell"),
    ("weighted.", "weighted", "Weighted", "Parameters of atoms that share a cell, weighted as in the first loss"),
)


def study_page(
    design: StudyDesign,
    rows: pd.DataFrame,
    found: StudySlopes,
    *,
    name: str = "DIR",
    versions: Mapping[str, Any] | None = None,
) -> TheoryPage:
    """The page on a study; `gatewise.report.theory.write_theory` writes it.

    Args:
        design: the study.
        rows: its rows.
        found: its slopes.
        name: the study's folder, for the call that gives the same.
        versions: further names and values for the section on reproducibility: programs, machine.

    Example:
        >>> from gatewise.study.design import read_design
        >>> from gatewise.study.slopes import slopes
        >>> design = read_design("softmax-gaussian-exact").with_plan(sizes=[100, 1000, 10_000], replicates=5)
        >>> rows = pd.DataFrame(
        ...     [
        ...         {"method": "k2", "n": n, "replicate": i, "status": "TIGHT", "loss.D1": (8.0 + i) * n**-0.5}
        ...         for n in design.all_sizes()
        ...         for i in range(5)
        ...     ]
        ... )
        >>> page = study_page(design, rows, slopes(design, rows))
        >>> page.badge, [section.short for section in page.sections]
        ('Too little', ['Slopes', 'Losses', 'Fits', 'Time', 'Design'])
    """
    badge, severity, verdict = _verdict(found)
    sections = [
        _slopes_section(found),
        *_figure_sections(found),
        _fits(rows, found),
        _time(design, rows),
        _design_section(design),
    ]
    sizes = design.all_sizes()
    return TheoryPage(
        "rate study",
        design.title,
        f"{len(sizes)} {'size' if len(sizes) == 1 else 'sizes'} from {sizes[0]:,} to {sizes[-1]:,}, "
        f"{design.replicates} replicates; {design.paper or 'a design of its own'}",
        badge,
        severity,
        verdict,
        list(_remarks(found)),
        sections,
        [
            ("Gatewise", __version__),
            ("digest of the design", design.digest()),
            ("seed", str(design.seed)),
            *((each, _shown(value)) for each, value in (versions or {}).items()),
        ],
        "from gatewise.study.slopes import slopes\nfrom gatewise.study.store import Store\n\n"
        f"store = Store.open({name!r})\nprint(slopes(store.design, store.rows()).to_text())",
    )


def _verdict(found: StudySlopes) -> tuple[str, str, str]:
    """Badge, severity and sentence; only slopes that meet the design's rule speak."""
    counting = [row for row in found.slopes if row.counts]
    outcomes = Counter(row.against_proved for row in counting)
    compared = {name: count for name, count in outcomes.items() if name not in ("no statement", "no number proved")}
    said = ", ".join(f"{name} {count}" for name, count in sorted(compared.items()))
    many = f"{len(counting)} of {len(found.slopes)} slopes have enough sizes, decades and replicates to count."
    if not counting:
        return "Too little", "caution", many
    if outcomes["slower than proved"]:
        return "Slower than proved", "severe", f"{many} Against proved bounds: {said}."
    if outcomes["inconclusive"] or any(row.is_inconclusive for row in counting):
        wide = sum(row.is_inconclusive for row in counting)
        against = f" Against proved bounds: {said}." if said else ""
        return "Partly inconclusive", "caution", f"{many} {wide} of them are inconclusive.{against}"
    if said:
        return "Consistent", "good", f"{many} Against proved bounds: {said}."
    return "Measured", "good", f"{many} Nothing is proved of them in the design."


def _remarks(found: StudySlopes) -> Iterator[str]:
    if failed := sum(each.failed for each in found.totals):
        yield f"{failed} rows failed and are left out."
    if below := sum(each.below_truth for each in found.totals):
        yield f"{below} fits ended below the truth's objective; they are in the numbers."
    curved = [row for row in found.slopes if row.line is not None and row.line.is_curved]
    if curved:
        yield (
            f"{len(curved)} of {len(found.slopes)} lines are curved: their measures are no powers of n in this window, "
            "and their slopes are those of the window only."
        )
    yield from found.notes


def _slopes_section(found: StudySlopes) -> Section:
    rule = found.rule
    caption = (
        f"Slopes of log(measure) against log(n) with {100 * rule.level:g}% intervals of {rule.resamples} bootstrap "
        "resamples of the replicates at every size. A proved rate bounds slowness, up to factors of log n: a slope may "
        f"be steeper. An interval wider than ±{rule.widest:g} is inconclusive. The trimmed mean leaves out "
        f"{100 * rule.trim:g}% at each end."
    )
    columns = [("Method", False), ("Measure", False), ("Statistic", False), ("Published", True), ("Ours", True)]
    columns += [("Proved", True), ("Modulus", True), ("Outcome", False)]
    rows = [
        [
            *_names(found, row, statistic),
            Cell(_stated(row, "published")),
            Cell("–" if row.line is None else row.line.slope.to_text(), strong=row.counts and not row.is_inconclusive),
            Cell("in words" if _is_in_words(row) else _stated(row, "proved")),
            Cell(_stated(row, "modulus")),
            Cell(row.outcome or "–", strong=row.counts and row.against_proved == "slower than proved"),
        ]
        for statistic, row in found.told()
    ]
    grids = [Grid(caption, columns, rows)]
    caption = (
        "What they rest on. The curvature is the coefficient of (log n − centre)²: where its interval leaves 0 out the "
        f"measure is no power of n in this window. A row counts with {rule.sizes} sizes over {rule.decades:g} decades "
        f"and {rule.replicates} replicates at each."
    )
    columns = [("Method", False), ("Measure", False), ("Statistic", False), ("Curvature", True), ("Sizes", True)]
    columns += [("From", True), ("To", True), ("Counts", False)]
    rows = [
        [
            *_names(found, row, row.statistic),
            Cell(row.line.curvature.to_text(), strong=row.line.is_curved),
            Cell(f"{len(row.line.sizes):,}"),
            Cell(f"{row.line.sizes[0]:,}"),
            Cell(f"{row.line.sizes[-1]:,}"),
            Cell("yes" if row.counts else f"no: {row.short}"),
        ]
        for row in found.slopes
        if row.line is not None
    ]
    if rows:
        grids.append(Grid(caption, columns, rows))
    if sources := list(_sources(found)):
        columns = [("Measure", False), ("Method", False), ("Slope", False), ("Value", False), ("Source", False)]
        grids.append(Grid("Where the others' slopes come from.", columns, sources))
    return Section("slopes", "Slopes", "Slopes", [], grids=grids)


def _names(found: StudySlopes, row: Slope, statistic: str) -> list[Cell]:
    methods = list(dict.fromkeys(each.method for each in found.points))
    return [Cell(row.method, colour=expert_colour(methods.index(row.method))), Cell(row.measure), Cell(statistic)]


def _is_in_words(row: Slope) -> bool:
    return row.expected is not None and row.expected.proved is None and bool(row.expected.proved_text)


def _stated(row: Slope, kind: str) -> str:
    """A number that others give, or what they say instead of one."""
    if row.expected is None:
        return "–"
    value = getattr(row.expected, kind)
    if value is not None:
        return f"{value:.3f}"
    return (row.expected.proved_text if kind == "proved" else "") or "–"


def _sources(found: StudySlopes) -> Iterator[list[Cell]]:
    for row in found.slopes:
        if row.expected is None or row.statistic != found.slopes[0].statistic:
            continue
        for kind in ("published", "proved", "modulus"):
            if (value := _stated(row, kind)) != "–":
                source = getattr(row.expected, f"{kind}_source")
                yield [Cell(row.measure), Cell(row.method), Cell(kind), Cell(value), Cell(source or "–")]


def _figure_sections(found: StudySlopes) -> Iterator[Section]:
    measures = list(dict.fromkeys(each.measure for each in found.points if len(each.sizes) >= LEAST_SIZES))
    for prefix, identifier, short, heading in _PARTS:
        own = [measure for measure in measures if measure.startswith(prefix)]
        panels = [measure_panel(found, measure, f"{identifier}-{i}") for i, measure in enumerate(own, start=1)]
        if panels:
            note = "" if prefix == "loss." else "The largest distance of each from its true value, without weights."
            yield Section(identifier, short, heading, panels, note)


def _fits(rows: pd.DataFrame, found: StudySlopes) -> Section:
    columns = [("Method", False), ("Rows", True), ("Statuses", False), ("Failed", True), ("Below the truth", True)]
    columns += [("Outside the box", True), ("Attempts", True), ("Started again", True), ("Processor seconds", True)]
    table = [
        [
            Cell(each.method),
            Cell(f"{each.rows:,}"),
            Cell(", ".join(f"{count:,} {name}" for name, count in each.statuses.items()) or "none"),
            Cell(f"{each.failed:,}"),
            Cell(f"{each.below_truth:,}"),
            Cell(f"{each.outside_box:,}"),
            Cell(f"{each.attempts:,}"),
            Cell(f"{each.started_again:,}"),
            Cell(f"{each.seconds:,.1f}"),
        ]
        for each in found.totals
    ]
    grids = [Grid(f"What became of the fits: {len(rows):,} of {found.planned:,} rows.", columns, table)]
    errors = [
        [Cell(each.method), Cell(text), Cell(f"{count:,}")] for each in found.totals for text, count in each.errors
    ]
    if errors:
        columns = [("Method", False), ("Error", False), ("Rows", True)]
        grids.append(Grid("The most frequent errors of each method.", columns, errors))
    if spoilt := list(_spoilt(rows)):
        shown = [[Cell(key), Cell(status), Cell(what)] for key, status, what in spoilt[:_SPOILT_KEYS]]
        caption = f"Rows to look at, {len(shown)} of {len(spoilt)}; `gatewise study replay` runs one again."
        grids.append(Grid(caption, [("Key", False), ("Status", False), ("What", False)], shown))
    return Section("fits", "Fits", "Fits", [], grids=grids)


def _spoilt(rows: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Rows that failed, ended below the truth or left the box, the worst kinds first."""
    failed = np.array(rows["status"] == "FAILED")
    below, outside = numbers(rows, "below_truth") > 0, numbers(rows, "outside_box") > 0
    parts = zip(rows["method"], rows["n"], rows["replicate"], strict=True)
    keys = ["/".join(map(str, key)) for key in parts]
    for mask, what in ((failed, "failed"), (below, "below the truth"), (outside & ~below, "outside the box")):
        for place in np.flatnonzero(mask):
            yield keys[place], str(rows["status"].iloc[int(place)]), what


def _time(design: StudyDesign, rows: pd.DataFrame) -> Section:
    methods = [method.name for method in design.methods]
    sizes = np.unique(numbers(rows, "n"))
    some = sizes[np.unique(np.linspace(0, len(sizes) - 1, _TIMED_SIZES).round().astype(int))]
    columns = [("Method", False), ("n", True), ("Rows", True), ("Median", True), ("Longest", True), ("All", True)]
    table = []
    for method in methods:
        own = chosen(rows, np.array(rows["method"] == method))
        at, seconds = numbers(own, "n"), numbers(own, "seconds")
        for n in some[np.isin(some, at)]:
            here = seconds[at == n]
            table.append(
                [
                    Cell(method),
                    Cell(f"{int(n):,}"),
                    Cell(f"{len(here):,}"),
                    Cell(f"{np.median(here):.3g}"),
                    Cell(f"{here.max():.3g}"),
                    Cell(f"{here.sum():.4g}"),
                ]
            )
    caption = f"Processor seconds by method and size, {len(some)} of {len(sizes)} sizes."
    total = float(numbers(rows, "seconds").sum())
    note = (
        f"All tasks took {total:,.1f} processor seconds. A task runs in one thread and covers simulation, all starts "
        "and the measures."
    )
    panels = [seconds_panel(rows, methods, "seconds")]
    return Section("time", "Time", "Time", panels, note, grids=[Grid(caption, columns, table)])


def _design_section(design: StudyDesign) -> Section:
    table = design.model_dump(
        mode="json", exclude={"title", "notes", "expected", "provenance", "slopes"}, exclude_defaults=True
    )
    rows: list[list[Cell]] = []
    for name, value in table.items():
        parts: Sequence[Any] = value if name in ("methods", "losses") else [value]
        rows += [[Cell(name), Cell(_shown(part))] for part in parts]
    grids = [Grid("The design, without what is at its default.", [("Key", False), ("Value", False)], rows)]
    if design.provenance:
        columns = [("Item", False), ("The paper", False), ("Its code", False), ("Here", False), ("Status", False)]
        cells = [
            [Cell(row.item), Cell(row.paper or "–"), Cell(row.code or "–"), Cell(row.chosen), Cell(row.status)]
            for row in design.provenance
        ]
        grids.append(Grid("Where its values come from.", columns, cells))
    return Section("design", "Design", "The design", [], design.notes, grids=grids)


def _shown(value: Any) -> str:
    """A value as text: tables as names and values, the rest as JSON."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {_shown(part)}" for name, part in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
