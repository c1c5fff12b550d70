"""The HTML page on proved rates."""

import math
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go

from gatewise._version import __version__
from gatewise.report.layout import Cell, Grid, Panel, Section
from gatewise.report.palette import MUTED, blank_figure, expert_colour, name_axes
from gatewise.report.theory import TheoryPage
from gatewise.theory.rate_table import rate_table
from gatewise.theory.rates import ProvedRates, RateRow

__all__ = ["rates_page"]

_SAMPLES = np.logspace(2.0, 8.0, 61)


def rates_page(found: ProvedRates, *, other: ProvedRates | None = None, error: float | None = None) -> TheoryPage:
    """The page on what `gatewise.theory.proved_rates` found.

    Args:
        found: what is proved.
        other: what is proved about another gate, to compare samples with.
        error: the error that the samples are for; without it there are none.

    Raises:
        InputError: the error is not between 0 and 1.

    Example:
        >>> from gatewise.theory import proved_rates
        >>> rates = proved_rates(gate="softmax", experts="linear", family="gaussian", true_k=2, fit_k=3)
        >>> page = rates_page(rates)
        >>> page.badge, page.verdict
        ('Slow', 'Slowest by the published bounds: β₁, b at n^(-1/8).')
    """
    badge, severity, verdict = _verdict(found)
    sections = list(_sections(found))
    if error is not None:
        sections.append(_samples(found, other, error))
    fitted = "least squares" if found.family is None else f"{found.family} family"
    numbers = "" if found.setting is None else f"; {found.true_k} true experts, {found.fit_k} fitted"
    arguments = {
        "gate": found.gate,
        "experts": found.experts,
        "family": found.family,
        "objective": found.objective,
        "true_k": found.true_k,
        "fit_k": found.fit_k,
    }
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value is not None)
    return TheoryPage(
        "proved rates",
        f"How fast the parameters of a {found.gate} gate are learned",
        f"{found.experts} experts, {fitted}{numbers}",
        badge,
        severity,
        verdict,
        [
            "A rate is that of the error at one fixed truth, logarithms left out; it is a bound, and the truth may be "
            "faster.",
            *([found.message] if found.message and found.theorems else []),
        ],
        sections,
        [("Gatewise", __version__), ("theorems in the table", str(len(rate_table().theorems)))],
        f"gatewise.theory.proved_rates({given})",
    )


def _verdict(found: ProvedRates) -> tuple[str, str, str]:
    rows = _of_the_fit(found)
    without = [row for row in rows if row.rate.exponent in ("slow", "flat")]
    known = [row for row in rows if row.exponent is not None and not math.isinf(row.exponent)]
    if not rows:
        return "Unknown", "caution", found.message or "Only rates of functions are known."
    if without:
        return "No rate", "severe", f"No polynomial rate for {_names(without)}."
    slowest = max((row.exponent or 0.0 for row in known), default=0.0)
    if len(known) == len(rows) and slowest == 1.0:
        return "Parametric", "good", "Every parameter is learned at n^(-1/2)."
    if len(known) < len(rows):
        unknown = [row for row in rows if row.exponent is None]
        return "Slow", "caution", f"The rates of {_names(unknown)} depend on how many atoms share a cell."
    worst = [row for row in known if row.exponent == slowest]
    return "Slow", "caution", f"Slowest by the published bounds: {_names(worst)} at {worst[0].text}."


def _of_the_fit(found: ProvedRates) -> list[RateRow]:
    """Rates of parameters that the fit itself estimates, not of functions or of what is made of it later."""
    return [row for row in found.rows if row.rate.role != "function" and not row.theorem.estimator]


def _names(rows: list[RateRow]) -> str:
    return ", ".join(dict.fromkeys(row.rate.parameter for row in rows))


def _sections(found: ProvedRates) -> Iterator[Section]:
    table = rate_table()
    rows = [
        [
            Cell(row.rate.parameter),
            Cell(row.cell),
            Cell(row.text),
            Cell(row.tight_text or "–", strong=bool(row.tight_text)),
            Cell(row.theorem.loss),
            Cell(f"{table.cite(row.theorem.paper)}, {row.theorem.statement}"),
        ]
        for row in found.rows
    ]
    columns = [
        (name, False)
        for name in ("Parameter", "Atoms in the cell", "Rate as stated", "Known better", "Loss", "Theorem")
    ]
    grids = [Grid("Parameter by parameter.", columns, rows)] if rows else []
    panels = [_figure(found)] if any(row.exponent is not None for row in _of_the_fit(found)) else []
    yield Section("rates", "Rates", "Rates", panels, "" if rows else found.message, grids=grids)

    if found.theorems:
        columns = [(name, False) for name in ("Theorem", "Provided", "How far checked", "Remark")]
        rows = [
            [
                Cell(f"{theorem.id}: {table.cite(theorem.paper)}, {theorem.statement}"),
                Cell(
                    "; ".join(
                        part
                        for part in (
                            ", ".join(f"{name}={value}" for name, value in theorem.gate_options.items()),
                            theorem.gate_condition,
                            theorem.expert_condition,
                            theorem.regime,
                            theorem.condition,
                        )
                        if part
                    )
                    or "–"
                ),
                Cell(theorem.checked),
                Cell(" ".join(part for part in (theorem.claim, theorem.note) if part) or "–"),
            ]
            for theorem in found.theorems
        ]
        yield Section("theorems", "Theorems", "Theorems", [], grids=[Grid("What each rests on.", columns, rows)])
    rows = [
        [
            Cell(theorem.id),
            Cell(finding.parameter),
            Cell("agrees" if finding.agrees else "differs", strong=not finding.agrees),
            Cell(finding.kind),
            Cell(finding.text),
        ]
        for theorem in found.theorems
        for finding in theorem.findings
    ]
    if rows:
        columns = [(name, False) for name in ("Theorem", "Parameter", "Outcome", "By", "What was found")]
        yield Section(
            "findings", "Findings", "What came out when they were checked", [], grids=[Grid("", columns, rows)]
        )
    if found.remedies:
        columns = [(name, False) for name in ("Kind", "What to do", "Source")]
        rows = [[Cell(r.kind), Cell(r.text), Cell(table.cite(r.source))] for r in found.remedies]
        caption = "Where a rate is slower than every polynomial."
        yield Section("remedies", "What helps", "What helps", [], grids=[Grid(caption, columns, rows)])


def _figure(found: ProvedRates) -> Panel:
    """One line for each rate, named by the parameters that have it."""
    figure = blank_figure(height=340)
    by_exponent: dict[float, list[RateRow]] = {}
    for row in _of_the_fit(found):
        if row.exponent is not None:
            by_exponent.setdefault(row.exponent, []).append(row)
    for i, (exponent, rows) in enumerate(sorted(by_exponent.items())):
        slow = math.isinf(exponent)
        heights = 1.0 / np.log(_SAMPLES) if slow else _SAMPLES ** (-0.5 / exponent)
        name = f"{_names(rows)}: {'perhaps 1/log n' if slow else rows[0].text}"
        line = {"color": MUTED if slow else expert_colour(i), "width": 2.5, "dash": "dash" if slow else "solid"}
        figure.add_trace(go.Scatter(x=_SAMPLES.tolist(), y=heights.tolist(), mode="lines", line=line, name=name))
    name_axes(figure, "samples n", "order of the error")
    figure.update_xaxes(type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return Panel("rates-figure", figure, "Orders of the errors, every constant set to 1.")


def _samples(found: ProvedRates, other: ProvedRates | None, error: float) -> Section:
    columns = [("Parameter", False), ("Atoms in the cell", False), ("Theorem", False), ("Samples", True)]
    columns.append(("By the published bound", True))
    pairs = zip(found.sample_sizes(error, tight=True), found.sample_sizes(error), strict=True)
    rows = [
        [Cell(row.rate.parameter), Cell(row.cell), Cell(row.theorem.id), Cell(_count(n)), Cell(_count(bound))]
        for (row, n), (_, bound) in pairs
        if row.rate.role != "function"
    ]
    caption = f"For an error of {error:g}: orders of magnitude, every constant set to 1, no logarithms."
    grids = [Grid(caption, columns, rows)] if rows else []
    if other is not None:
        columns = [
            ("Kind", False),
            (f"{found.gate}: theorem", False),
            ("Samples", True),
            (f"{other.gate}: theorem", False),
            ("Samples", True),
            ("Times as many", True),
        ]
        rows = [
            [
                Cell(row.role),
                Cell(row.this.id),
                Cell(_with_bound(row.samples, row.bound)),
                Cell(row.other.id),
                Cell(_with_bound(row.other_samples, row.other_bound)),
                Cell("–" if row.ratio is None else _count(row.ratio)),
            ]
            for row in found.compare(other, error)
        ]
        if rows:
            caption = (
                f"Against the {other.gate} gate: the worst parameter of each kind, by the best exponents that are "
                "known, with the published bound in brackets where it is larger."
            )
            grids.append(Grid(caption, columns, rows))
    return Section("samples", "Samples", "Samples", [], "" if grids else "No exponents are known.", grids=grids)


def _with_bound(samples: float, bound: float) -> str:
    return _count(samples) if samples == bound else f"{_count(samples)} ({_count(bound)})"


def _count(value: float) -> str:
    return "more than any power of 1/ε" if math.isinf(value) else f"{value:.3g}"
