"""HTML pages on findings of the theory: any of them as a page, and the page on identities."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gatewise._version import __version__
from gatewise.files import write_file
from gatewise.report.layout import Cell, Grid, Panel, Section
from gatewise.report.palette import MUTED, blank_figure, expert_colour, name_axes
from gatewise.report.rendering import rendered

# Every page is made with this module, and sympy is needed for one of them.
if TYPE_CHECKING:
    from gatewise.theory.identifiability import Identifiability, Identity

__all__ = ["TheoryPage", "identity_page", "render_theory", "write_theory"]


@dataclass(frozen=True)
class TheoryPage:
    """What stands on a page.

    Attributes:
        kicker: what kind of finding it is, "identities".
        title: of the page.
        subtitle: what was asked.
        badge: the finding in a word or two.
        severity: "good", "caution" or "severe", for its colour.
        verdict: the finding in a sentence.
        remarks: what else must not be overlooked.
        sections: figures and tables.
        reproducibility: names and values.
        call: the Python that gives the same.
    """

    kicker: str
    title: str
    subtitle: str
    badge: str
    severity: str
    verdict: str
    remarks: Sequence[str]
    sections: Sequence[Section]
    reproducibility: Sequence[tuple[str, str]]
    call: str


def render_theory(page: TheoryPage) -> str:
    """The page as HTML: one file with its styles and scripts, and a policy that forbids every request.

    Everything in it is escaped. The same finding gives the same text.
    """
    has_figures = any(section.panels for section in page.sections)
    return rendered(
        "theory.html",
        version=__version__,
        page=page,
        has_figures=has_figures,
        plotly=Markup(get_plotlyjs()) if has_figures else "",
    )


def write_theory(path: str | os.PathLike[str], page: TheoryPage, *, overwrite: bool = False) -> None:
    """Write the page as one HTML file, whole or not at all.

    Args:
        path: the file to write; its folder must exist.
        page: what stands on it.
        overwrite: whether a file that exists may be replaced.

    Raises:
        OutputError: the file cannot be written, or exists; it is then untouched.
    """
    write_file(path, render_theory(page).encode("utf-8"), overwrite=overwrite)


def identity_page(found: "Identifiability") -> TheoryPage:
    """The page on what `gatewise.theory.identify` found.

    Example:
        >>> from gatewise.theory import identify
        >>> page = identity_page(identify("softmax", "linear", "gaussian", n_features=1))
        >>> page.badge, [section.short for section in page.sections]
        ('Hidden splits', ['Identities', 'Rank', 'Conditions', 'Weights'])
    """
    squares = found.squares
    badge = {True: "Splits seen", False: "Hidden splits", None: "Undecided"}[squares.seen]
    severity = {True: "good", False: "caution", None: "caution"}[squares.seen]
    beyond = len(found.dependences)
    counts = (
        f"{found.rank.n_functions} derivatives of order 0, 1 and 2, {found.n_distinct} of them different, of rank "
        f"{found.rank.rank}: {beyond} {'dependence' if beyond == 1 else 'dependences'} beyond repetitions."
    )
    remarks = [counts, *(f"{verdict.condition.title}: {verdict.outcome}" for verdict in found.conditions)]
    remarks += [f"A copy of a truth far from it, {copy.text}." for copy in found.copies]
    if not found.rank.is_clear:
        remarks.insert(0, found.rank.sentence)
    sections = [_identities(found), _rank(found), _conditions(found)]
    if found.weights is not None:
        sections.append(_weights(found))
    return TheoryPage(
        "identities",
        found.title[0].upper() + found.title[1:],
        f"{found.function}, derivatives by {', '.join(found.parameters)}; d = {found.n_features}",
        badge,
        severity,
        f"{_capital(squares.sentence)}. This criterion is ours, not a published one.",
        remarks,
        sections,
        [("Gatewise", __version__), ("digits", str(found.digits)), *(("note", note) for note in found.notes)],
        f"gatewise.theory.{found.call}",
    )


def _rows(identities: "Sequence[Identity]") -> list[list[Cell]]:
    from gatewise.theory.identifiability.identities import grouped

    return [
        [
            Cell(identity.text),
            Cell(identity.kind + (f" and {identity.alike} alike" if identity.alike else "")),
            Cell("by algebra" if identity.confirmed == "sympy" else "numerically"),
            Cell(f"{identity.residual:.0e}"),
            Cell(identity.source),
        ]
        for identity in grouped(identities)
    ]


def _identities(found: "Identifiability") -> Section:
    columns = [("Identity", False), ("Kind", False), ("Confirmed", False), ("Residual", True), ("Source", False)]
    caption = (
        "At all parameters. The residual is |Σ terms| / Σ |terms| at samples that were not used to find it."
        if found.identities
        else "At all parameters: none."
    )
    grids = [Grid(caption, columns, _rows(found.identities))] if found.identities else []
    notes = [] if grids else [caption]
    for point in found.special:
        text = f"At {point.where} {'also' if point.identities else 'no others'}: {point.rank.sentence}."
        text = f"{text} {_capital(point.squares.sentence)}."
        if point.identities:
            grids.append(Grid(text, columns, _rows(point.identities)))
        else:
            notes.append(text)
    return Section("identities", "Identities", "Identities", [], " ".join(notes), grids=grids)


def _rank(found: "Identifiability") -> Section:
    values = np.array(found.rank.singular_values)
    floor = 10.0 ** (-found.digits - 20)
    figure = blank_figure(height=300)
    kept = np.arange(len(values)) < found.rank.rank
    for chosen, colour, name in ((kept, expert_colour(0), "kept"), (~kept, MUTED, "counts as 0")):
        places = np.flatnonzero(chosen)
        marker = {"color": colour, "size": 8}
        heights = np.log10(np.maximum(values[places], floor)).tolist()
        figure.add_trace(go.Scatter(x=(places + 1).tolist(), y=heights, mode="markers", marker=marker, name=name))
    name_axes(figure, "number", "log₁₀ of the singular value")
    panel = Panel("singular-values", figure, "Singular values of the derivatives as unit columns; zeros are left out.")
    return Section("rank", "Rank", "Rank", [panel], _capital(found.rank.sentence) + ".")


def _conditions(found: "Identifiability") -> Section:
    columns = [("Condition", False), ("Found", False), ("Remark", False), ("Source", False)]
    rows = [
        [
            Cell(f"{verdict.condition.title}: {verdict.condition.asks}"),
            Cell(verdict.outcome),
            Cell(verdict.remark),
            Cell(f"{verdict.condition.source} ({verdict.condition.status})"),
        ]
        for verdict in found.conditions
    ]
    caption = "For two atoms with different experts, at parameters drawn at random."
    return Section("conditions", "Conditions", "Conditions", [], grids=[Grid(caption, columns, rows)])


def _weights(found: "Identifiability") -> Section:
    weights = found.weights
    if weights is None:
        raise ValueError("there are no weights of a single formula")
    rows = [[Cell(str(dimension)), Cell(sentence)] for sentence, dimension in weights.declared]
    if weights.translation is not None:
        rows.append([Cell(str(weights.translation.dimension)), Cell(f"by algebra: {weights.translation.text}")])
    if weights.further:
        rows.append([Cell(str(weights.further)), Cell("explained by no declared symmetry", strong=True)])
    if weights.broken:
        rows.append([Cell(str(weights.broken)), Cell("declared, but the weights change along them", strong=True)])
    caption = (
        f"{weights.n_experts} experts: {weights.n_parameters} parameters of the gate, {weights.null} directions in "
        f"which no weight changes; {weights.gap}."
    )
    grids = [Grid(caption, [("Dimensions", False), ("What", False)], rows)] if rows else []
    return Section("weights", "Weights", "Weights of all experts", [], "" if rows else caption, grids=grids)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
