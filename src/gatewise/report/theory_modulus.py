"""The HTML page on measured moduli."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from gatewise._version import __version__
from gatewise.model import MixtureOfExperts
from gatewise.report.layout import Cell, Grid, Panel, Section
from gatewise.report.palette import MUTED, blank_figure, expert_colour, expert_dash, label, name_axes
from gatewise.report.theory import TheoryPage
from gatewise.theory.modulus.case import Case, Expected, compare
from gatewise.theory.modulus.design import ModulusDesign
from gatewise.theory.modulus.result import CoordinateModulus, ModulusResult

__all__ = ["MeasuredGroup", "case_page", "modulus_page"]

_AGAINST = ("flat where a rate is proved", "slower than proved")
_UNSETTLED = ("not settled", "not measured")
_QUIET = ("agrees", "no statement")


@dataclass(frozen=True)
class MeasuredGroup:
    """Moduli that belong together: one truth, one design, one list of coordinates.

    Attributes:
        title: of the allocation or of what is known.
        result: what `gatewise.theory.modulus` found.
        design: what was fixed before.
        expected: what the literature says, one for each row of the result; empty if nothing was compared.
    """

    title: str
    result: ModulusResult
    design: ModulusDesign
    expected: Sequence[Expected] = ()


@dataclass(frozen=True)
class _Line:
    """One measured coordinate: a row of a result, or what is left of it when its symmetries are settled.

    Attributes:
        row: the measurement.
        name: what figures and tables call it.
        place: its number in the group, for its colour.
        statement: what the literature says about it.
        outcome: how the measurement stands to that.
        is_settled: whether declared symmetries are settled.
        floor_ratio: distances below this multiple of the rounding floor are not used.
    """

    row: CoordinateModulus
    name: str
    place: int
    statement: Expected | None
    outcome: str
    is_settled: bool
    floor_ratio: float

    @property
    def used(self) -> list[int]:
        """Places of the distances that the exponent may rest on."""
        if self.row.is_flat or math.isnan(self.row.exponent):
            return []
        return [i for i, above in enumerate(self.row.above_floor) if above > self.floor_ratio]

    @property
    def floor(self) -> float | None:
        """What rounding leaves of a distance that is zero, if the row tells."""
        pairs = zip(self.row.distances, self.row.above_floor, strict=True)
        return next((distance / above for distance, above in pairs if above > 0.0), None)


def case_page(case: Case, results: Sequence[ModulusResult], name: str) -> TheoryPage:
    """The page on a case, with one result for each of its groups.

    Args:
        case: what was measured.
        results: in the order of the case's groups.
        name: the case's name or file, for the call that gives the same.
    """
    groups = [
        MeasuredGroup(group.title, result, case.design_of(group), group.rows)
        for group, result in zip(case.groups, results, strict=True)
    ]
    call = (
        "from gatewise.theory.modulus.case import read_case, run_group\n\n"
        f"case = read_case({name!r})\n"
        "results = [run_group(case, group) for group in case.groups]"
    )
    return modulus_page(case.title, case.truth(), groups, call)


def modulus_page(title: str, truth: MixtureOfExperts, groups: Sequence[MeasuredGroup], call: str = "") -> TheoryPage:
    """The page on what `gatewise.theory.modulus` found.

    Args:
        title: of the page.
        truth: the true mixture.
        groups: what was measured of it.
        call: the Python that gives the same.

    Example:
        >>> import torch
        >>> from gatewise.theory import modulus
        >>> from gatewise.theory.modulus import Search, Window
        >>> truth = MixtureOfExperts.build("softmax", "linear", "gaussian", n_features=1, n_experts=2).double()
        >>> truth.gate.assign(torch.tensor([[0.5, 1.0], [0.0, 0.0]]))
        >>> truth.experts.assign(torch.tensor([[1.0, -1.5], [-1.0, 1.0]]), torch.log(torch.tensor([0.7, 0.8])))
        >>> design = ModulusDesign(
        ...     distance="l2", window=Window(largest=0.1, smallest=0.01), search=Search(starts=1)
        ... )
        >>> found = modulus(truth, parameters=["experts.weight[0,0]"], design=design)
        >>> page = modulus_page("An example", truth, [MeasuredGroup("exact", found, design)])
        >>> page.badge, page.severity
        ('Measured', 'good')
    """
    lines = [list(_lines(group)) for group in groups]
    badge, severity, verdict = _verdict([line for own in lines for line in own])
    sections = [
        _section(place, group, own) for place, (group, own) in enumerate(zip(groups, lines, strict=True), start=1)
    ]
    return TheoryPage(
        "local modulus",
        title,
        f"The least distance when one parameter is displaced by δ; {truth.gate.name} gate, {truth.experts.name} "
        f"experts, {truth.family.name} family; {truth.n_experts} true experts, d = {truth.experts.n_features}",
        badge,
        severity,
        verdict,
        list(_remarks(groups, lines)),
        [*sections, _truth(truth)],
        [("Gatewise", __version__), *_designs(groups)],
        call,
    )


def _lines(group: MeasuredGroup) -> Iterator[_Line]:
    statements: list[Expected | None] = [*group.expected] if group.expected else [None] * len(group.result.rows)
    ratio = group.design.extrapolation.floor_ratio
    for place, (row, statement) in enumerate(zip(group.result, statements, strict=True)):
        about_rest = statement is not None and statement.modulo and row.modulo is not None
        pairs = [(row, None if about_rest else statement), (row.modulo, statement if about_rest else None)]
        for shown, said in pairs:
            if shown is not None:
                is_settled = shown is not row
                outcome = compare(said or Expected(parameter=row.name), row if said is not None else shown)
                name = f"{row.name} modulo symmetries" if is_settled else row.name
                yield _Line(shown, name, place, said, outcome, is_settled, ratio)


def _verdict(lines: Sequence[_Line]) -> tuple[str, str, str]:
    outcomes = Counter(line.outcome for line in lines if line.statement is not None and line.outcome != "no statement")
    unsettled = [line for line in lines if line.outcome in _UNSETTLED]
    flat = [line for line in lines if line.row.is_flat and not line.is_settled]
    known = [line for line in lines if not line.row.is_flat and line not in unsettled]
    said = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.items())
    sentences = [f"Against {sum(outcomes.values())} statements of the literature: {said}."] if outcomes else []
    if flat:
        sentences.append(f"Flat: {_names(flat)}.")
    if known:
        slowest = max(known, key=lambda line: line.row.exponent)
        sentences.append(
            f"Slowest exponent: {slowest.row.exponent:.3f} of {slowest.name}, which is then learned at "
            f"{slowest.row.rate}."
        )
    if unsettled:
        sentences.append(f"Not settled: {_names(unsettled)}.")
    text = " ".join(sentences)
    if any(outcomes[outcome] for outcome in _AGAINST):
        return "Differs", "severe", text
    if unsettled:
        return "Not settled", "caution", text
    if set(outcomes) - {"agrees"}:
        return "Differs", "caution", text
    if outcomes:
        return "Agrees", "good", text
    return ("Flat", "caution", text) if flat else ("Measured", "good", text)


def _names(lines: Sequence[_Line]) -> str:
    return ", ".join(dict.fromkeys(line.name for line in lines))


def _remarks(groups: Sequence[MeasuredGroup], lines: Sequence[Sequence[_Line]]) -> Iterator[str]:
    yield (
        "Every distance is that of a mixture that was found, and so an upper bound of the minimum: an exponent that "
        "agrees with algebra and scaling is well supported, not proved."
    )
    for text in dict.fromkeys(found.text for group in groups for found in group.result.copies):
        yield f"A copy of the truth far from it, {text}."
    for group, own in zip(groups, lines, strict=True):
        for line in own:
            if line.statement is None or line.outcome in _QUIET:
                continue
            note = f" {line.statement.note}" if line.statement.note else ""
            yield (
                f"{group.title}, {line.name}: {line.outcome}; proved {_proved(line.statement)}, measured "
                f"{line.row.verdict()}.{note}"
            )
        if not all(line.row.is_exact for line in own):
            yield f"{group.title}: some operations have no 80-bit form here, and the rounding floor is that of doubles."


def _section(place: int, group: MeasuredGroup, lines: Sequence[_Line]) -> Section:
    panels = [_distances_figure(place, group, lines)] if any(line.row.deltas for line in lines) else []
    if any(line.used for line in lines):
        panels.append(_scaled_figure(place, lines))
    cells = dict.fromkeys(line.row.cells for line in lines)
    note = "; ".join(f"fitted atoms stand by the true atoms {', '.join(map(str, cell))}" for cell in cells)
    grids = [_exponents(lines), _evidence(lines), _distances(lines), *_witnesses(lines), *_null_directions(group)]
    return Section(
        f"group-{place}",
        group.title,
        group.title,
        panels,
        f"{note[:1].upper()}{note[1:]}, counted from 0.",
        grids=grids,
    )


def _distances_figure(place: int, group: MeasuredGroup, lines: Sequence[_Line]) -> Panel:
    """Distances as marks, hollow where they are too near to rounding, and the power that was read off."""
    figure = blank_figure(height=380)
    for line in lines:
        row, colour = line.row, expert_colour(line.place)
        used = set(line.used)
        dash = "dot" if line.is_settled else expert_dash(line.place)
        figure.add_trace(
            go.Scatter(
                x=list(row.deltas),
                y=[distance if distance > 0.0 else None for distance in row.distances],
                mode="lines+markers",
                name=label(line.name),
                line={"color": colour, "width": 2, "dash": dash},
                marker={
                    "color": colour,
                    "size": 8,
                    "symbol": ["circle" if i in used else "circle-open" for i in range(len(row.deltas))],
                },
            )
        )
        if used:
            last = max(used)
            ends = [row.deltas[0], row.deltas[last]]
            heights = [row.distances[last] * (end / row.deltas[last]) ** row.exponent for end in ends]
            power = {"color": colour, "width": 1, "dash": "dash"}
            figure.add_trace(
                go.Scatter(x=ends, y=heights, mode="lines", line=power, showlegend=False, hoverinfo="skip")
            )
    floors = [line.floor for line in lines if line.floor is not None]
    if floors:
        deltas = [delta for line in lines for delta in line.row.deltas]
        ends = [max(deltas), min(deltas)]
        ratio = group.design.extrapolation.floor_ratio
        for factor, name, dash in ((1.0, "rounding floor", "solid"), (ratio, f"{ratio:g} floors", "dot")):
            line_style = {"color": MUTED, "width": 1.2, "dash": dash}
            height = factor * max(floors)
            figure.add_trace(go.Scatter(x=ends, y=[height, height], mode="lines", line=line_style, name=name))
    name_axes(figure, "displacement δ", "least distance w(δ)")
    figure.update_xaxes(type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(type="log", exponentformat="power")
    return Panel(
        f"distances-{place}",
        figure,
        "The least distance at each displacement, and dashed the power of δ read off; hollow marks were not used.",
    )


def _scaled_figure(place: int, lines: Sequence[_Line]) -> Panel:
    figure = blank_figure(height=380)
    for line in lines:
        used = line.used
        if not used:
            continue
        scaled, colour = line.row.scaled, expert_colour(line.place)
        figure.add_trace(
            go.Scatter(
                x=[line.row.deltas[i] for i in used],
                y=[scaled[i] / scaled[used[-1]] for i in used],
                mode="lines+markers",
                name=label(line.name),
                line={"color": colour, "width": 2, "dash": "dot" if line.is_settled else expert_dash(line.place)},
                marker={"color": colour, "size": 8},
            )
        )
    name_axes(figure, "displacement δ", "w/δ^α over its last value")
    figure.update_xaxes(type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(type="log")
    return Panel(f"scaled-{place}", figure, "w(δ)/δ^α: it levels off where the exponent α is the right one.")


def _exponents(lines: Sequence[_Line]) -> Grid:
    columns = [(name, False) for name in ("Coordinate", "Exponent", "Rate", "Proved", "Outcome", "Source")]
    rows = [
        [
            Cell(line.name, colour=expert_colour(line.place), depth=int(line.is_settled)),
            Cell(line.row.verdict()),
            Cell(line.outcome if line.outcome in _UNSETTLED else line.row.rate),
            Cell(_proved(line.statement)),
            Cell(line.outcome, strong=line.outcome not in _QUIET),
            Cell("–" if line.statement is None else line.statement.source or "–"),
        ]
        for line in lines
    ]
    caption = (
        "An exponent α, with its band, means that the parameter is learned at n^(-1/(2α)). What is proved is an "
        'exponent too, as a bound, or "no power" where the literature says slower than every polynomial.'
    )
    return Grid(caption, columns, rows)


def _evidence(lines: Sequence[_Line]) -> Grid:
    columns = [("Coordinate", False), ("Last slope", True), ("w over floor", True), ("On a finer grid", True)]
    columns += [("Flags", False), ("Held", False)]
    rows = []
    for line in lines:
        row, used = line.row, line.used
        slope = row.slopes[used[-1] - 1] if used and used[-1] else math.nan
        least = row.above_floor[used[-1]] if used else min(row.above_floor, default=math.nan)
        rows.append(
            [
                Cell(line.name, depth=int(line.is_settled)),
                Cell(_number(slope, ".3f")),
                Cell(_number(least, ".0e")),
                Cell("–" if not used or math.isnan(row.quadrature) else f"within {row.quadrature:.0e}"),
                Cell("; ".join(row.flags) or "none"),
                Cell(", ".join(row.held) or "–"),
            ]
        )
    caption = (
        "What the exponents rest on: the slope and how far w is above rounding at the smallest displacement that was "
        "used, or the least w where none was; the largest relative change of w on a finer grid; what speaks against "
        "the number; which coordinates stay at the truth."
    )
    return Grid(caption, columns, rows)


def _distances(lines: Sequence[_Line]) -> Grid:
    columns = [("Coordinate", False), *((name, True) for name in ("δ", "w(δ)", "Slope", "w/δ^α", "w over floor"))]
    rows = []
    for line in lines:
        row, used = line.row, set(line.used)
        for i, delta in enumerate(row.deltas):
            rows.append(
                [
                    Cell(line.name, depth=int(line.is_settled)),
                    Cell(f"{'+' if row.signs[i] > 0 else '−'}{delta:.3g}"),
                    Cell(f"{row.distances[i]:.4g}"),
                    Cell(_number(row.slopes[i - 1], ".3f") if i and row.slopes else "–"),
                    Cell(_number(row.scaled[i], ".4g") if i in used else "–"),
                    Cell(f"{row.above_floor[i]:.1e}"),
                ]
            )
    caption = (
        "Distance by distance: the sign is that of the displacement at which the least was found, the slope is that of "
        "log w between this δ and the one before it."
    )
    return Grid(caption, columns, rows)


def _witnesses(lines: Sequence[_Line]) -> Iterator[Grid]:
    found = [(line, line.row.witness) for line in lines if line.row.witness is not None]
    if not found:
        return
    columns = [("Coordinate", False), ("δ", True), ("Distance", True), ("On a finer grid", True)]
    columns += [("Why", False), ("The mixture, as displacements from the truth", False)]
    rows = [
        [
            Cell(line.name),
            Cell(f"{witness.delta:.3g}"),
            Cell(f"{witness.distance:.1e}"),
            Cell(f"{witness.finer:.1e}"),
            Cell(
                "; ".join(f"{name}: {text}" for name, text in zip(witness.symmetries, witness.sentences, strict=True))
                or ("given as a copy, and verified" if witness.is_given else "found by the search, declared by nobody")
            ),
            Cell(_sum(witness.displacement)),
        ]
        for line, witness in found
        if witness is not None
    ]
    yield Grid("Witnesses: mixtures that are not the truth, at a distance that is rounding.", columns, rows)


def _null_directions(group: MeasuredGroup) -> Iterator[Grid]:
    if group.result.null_directions:
        rows = [
            [Cell(str(place)), Cell(_sum(direction))]
            for place, direction in enumerate(group.result.null_directions, start=1)
        ]
        caption = (
            "Null directions: at the truth the distance does not change along them to first order, and no declared "
            "symmetry explains them."
        )
        yield Grid(caption, [("Number", False), ("Direction", False)], rows)


def _truth(truth: MixtureOfExperts) -> Section:
    rows = [
        [Cell(f"{part}.{name}"), Cell(json.dumps(value.detach().tolist()))]
        for part, module in (("gate", truth.gate), ("experts", truth.experts))
        for name, value in module.own_parameters().items()
    ]
    options = [
        f"{part} {json.dumps(module.options())}"
        for part, module in (("gate", truth.gate), ("experts", truth.experts))
        if module.options()
    ]
    caption = "; ".join(["Parameters of the true mixture", *options]) + "."
    grid = Grid(caption, [("Parameter", False), ("Value", False)], rows)
    return Section("truth", "Truth", "The truth", [], grids=[grid])


def _designs(groups: Sequence[MeasuredGroup]) -> Iterator[tuple[str, str]]:
    """What was fixed before: that of the first group, and where another differs from it."""
    first = groups[0].design.model_dump() if groups else {}
    for name, table in first.items():
        yield name, _table(table)
    for group in groups[1:]:
        for name, table in group.design.model_dump().items():
            if table != first[name]:
                yield f"{name} ({group.title})", _table(table)


def _table(value: object) -> str:
    return ", ".join(f"{name} = {item}" for name, item in value.items()) if isinstance(value, dict) else str(value)


def _proved(statement: Expected | None) -> str:
    if statement is None or statement.proved is None:
        return "–"
    return "no power" if statement.proved == "flat" else f"{statement.proved:g}"


def _sum(terms: dict[str, float]) -> str:
    return " ".join(f"{value:+.6g} {name}" for name, value in terms.items())


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
