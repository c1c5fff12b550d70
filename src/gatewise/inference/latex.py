"""A summary as LaTeX tables for an article: booktabs, captions, labels, notes, and no wider than its page."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gatewise.exceptions import InputError
from gatewise.inference.latex_text import FALLBACK, breakable, escaped, mathematics, width
from gatewise.inference.page import Page
from gatewise.inference.rounding import MISSING, Table, cells

__all__ = ["COLUMNS", "latex"]

COLUMNS = ("estimate", "standard_error", "z", "p", "interval")
"""The columns that the table of parameters can have."""

# The text width of the article class at 10 points with one column, in points, less a little.
_PAGE = 343.0
_GAP = 12.0
# Small letters are wider for their height.
_SIZES = (("", 1.0), (r"\small ", 0.93), (r"\footnotesize ", 0.86))
_NARROWEST = 90.0
_INDENT = 10.0
# Rows of a table, with its caption and its notes, on a page of the article class.
_LINES = 42
_NOTE_LINE = 95
_CAPTION_LINE = 75
_WAITING = 15
# Of the rows above the notes.
_FEWEST = 8
_HEADERS = {"estimate": "Estimate", "std. error": "Std. error", "z": "$z$", "p": "$p$"}


@dataclass(frozen=True)
class _Block:
    """Rows under a heading of their own: texts of cells as they will be printed, the first the row's name."""

    heading: str
    rows: list[list[str]]


@dataclass(frozen=True)
class _Column:
    """A column of numbers: what stands above it, and above it together with its right neighbour."""

    header: str
    shared: str = ""


@dataclass(frozen=True)
class _Layout:
    """How a table fits its page.

    Attributes:
        columns: that of names first.
        size: the command for the size of the letters.
        scale: their width as a share of that at 10 points.
        room: what the page leaves for the names, in points, if one of them is too long for a line; None otherwise.
        indent: of names under headings, in points.
    """

    columns: list[_Column]
    size: str
    scale: float
    room: float | None
    indent: float

    def lines(self, block: _Block) -> list[int]:
        """How many lines each row takes, the heading counted with the first."""
        counts = [self._lines(row[0], self.room) for row in block.rows]
        if block.heading and counts:
            counts[0] += self._lines(block.heading, _PAGE / 2.0)
        return counts

    def _lines(self, text: str, room: float | None) -> int:
        # A word more in every other line: they end where words end.
        return 1 if room is None else math.ceil(1.2 * self.scale * width(text) / max(room - 2.0 * _INDENT, 1.0))


def latex(page: Page, caption: str | None, label: str, columns: Sequence[str]) -> str:
    r"""Floating tables for an article: parameters, experts, criteria, and whatever else the page has.

    Args:
        page: what is shown.
        caption: of the tables; None for the page's title.
        label: of the first table, of the others with their names behind it.
        columns: of the table of parameters, among `COLUMNS`, in the order of reading.

    Raises:
        InputError: there is no such column, one is given twice, or the label is none that LaTeX has.
    """
    _check(label, columns)
    order = ("parameters", "experts", "fit", "boundary")
    tables = sorted(page.tables, key=lambda table: order.index(table.name))
    parts = [r"% \usepackage{booktabs}", f"% {' '.join(page.title.split())}"]
    floats: list[str] = []
    for table in tables:
        notes = _notes(page, table)
        own = f"{breakable(caption or page.title)}. {breakable(table.heading)}."
        place = label if table is tables[0] else f"{label}-{table.name}"
        floats += _floats(table, own, place, notes, columns)
    # LaTeX keeps a limited number of floats waiting for a page.
    for place in range(_WAITING, len(floats), _WAITING):
        floats[place] = "\\clearpage\n" + floats[place]
    text = "\n".join(floats)
    if r"\gatewiseletter" in text:
        parts.append(FALLBACK)
    return "\n".join([*parts, text])


def _check(label: str, columns: Sequence[str]) -> None:
    if not re.fullmatch(r"[^\\{}%#~^$&\s]+", label):
        raise InputError(f"the label is {label!r}: LaTeX has labels of letters, digits and signs like - : . only")
    for number, column in enumerate(columns):
        if column not in COLUMNS:
            raise InputError(f"the table of parameters has no column {column!r}: choose among {', '.join(COLUMNS)}")
        if column in columns[:number]:
            raise InputError(f"the column {column!r} is given twice: give it once")
    if not columns:
        raise InputError(f"a table needs a column: choose among {', '.join(COLUMNS)}")


def _notes(page: Page, table: Table) -> list[str]:
    """What stands below a table: the status always, and below the parameters everything that qualifies them."""
    status = rf"\emph{{Status of the fit:}} {escaped(page.status)}."
    if table.name != "parameters":
        return [status]
    sentences = [rf"{status} {breakable(page.findings[0])}", *(breakable(sentence) for sentence in page.findings[1:])]
    for heading, remarks in page.remarks:
        sentences.append(rf"\emph{{{breakable(heading)}:}} {' '.join(breakable(remark) for remark in remarks)}")
    return [*sentences, rf"\emph{{Basis:}} {breakable(page.basis)}", breakable(page.footnote) + "."]


def _floats(table: Table, caption: str, label: str, notes: list[str], chosen: Sequence[str]) -> Iterator[str]:
    """The table, in as many floats as its rows need; the last has the notes, the others the status."""
    columns, blocks = _contents(table, chosen)
    layout = _layout(columns, blocks)
    room = _LINES - 4 - len(caption) // _CAPTION_LINE
    below = sum(1 + len(note) // _NOTE_LINE for note in notes)
    parts = _pages(blocks, layout, room - 2, max(room - below, _FEWEST))
    for number, part in enumerate(parts, start=1):
        yield _float(
            layout,
            part,
            f"{caption} Part {number} of {len(parts)}." if len(parts) > 1 else caption,
            label if number == 1 else f"{label}-{number}",
            notes if number == len(parts) else notes[:1],
        )


def _pages(blocks: list[_Block], layout: _Layout, room: int, last: int) -> list[list[_Block]]:
    """Blocks in groups of at most `room` lines, the last group of at most `last`; a block is split if it must be."""
    left = [
        (block.heading, row, lines)
        for block in blocks
        for row, lines in zip(block.rows, layout.lines(block), strict=True)
    ]
    pages: list[list[_Block]] = []
    while left:
        end = len(left)
        if sum(lines for _, _, lines in left) > last:
            taken = itertools.accumulate(lines for _, _, lines in left)
            # Something stays for the page of the notes.
            end = max(min(sum(lines <= room for lines in taken), len(left) - 1), 1)
            borders = [
                place for place in range(1, end + 1) if place < len(left) and left[place][0] != left[place - 1][0]
            ]
            end = borders[-1] if borders else end
        groups = itertools.groupby(left[:end], key=lambda entry: entry[0])
        pages.append([_Block(heading, [row for _, row, _ in entries]) for heading, entries in groups])
        left = left[end:]
    return pages


def _contents(table: Table, chosen: Sequence[str]) -> tuple[list[_Column], list[_Block]]:
    """A table's columns, that of names first, and its rows in blocks of one component each."""
    found = cells(table)
    by_name = {name: [row[place] for row in found.rows] for place, name in enumerate(found.header)}
    components = by_name.pop("component", None)
    first = next(name for name in by_name if name != "held")
    names = by_name.pop(first)
    naming = _Column("" if first == "term" else first.capitalize())
    if table.name == "parameters":
        columns, numbers = _parameter_columns(by_name, chosen)
    else:
        columns = [_Column(_HEADERS.get(name, breakable(name.capitalize()))) for name in by_name]
        numbers = list(by_name.values())
    printed = [_padded([mathematics(cell) for cell in column]) for column in numbers]
    rows = [[name, *row] for name, row in zip(names, zip(*printed, strict=True), strict=True)]
    if components is None:
        return [naming, *columns], [_Block("", rows)]
    groups: dict[str, list[list[str]]] = {}
    for component, row in zip(components, rows, strict=True):
        groups.setdefault(component, []).append(row)
    return [naming, *columns], [_Block(component, own) for component, own in groups.items()]


def _parameter_columns(by_name: dict[str, list[str]], chosen: Sequence[str]) -> tuple[list[_Column], list[list[str]]]:
    held = by_name.get("held", [""] * len(by_name["estimate"]))
    by_name["std. error"] = [mark or error for mark, error in zip(held, by_name["std. error"], strict=True)]
    lower, upper = (name for name in by_name if name.startswith(("lower ", "upper ")))
    columns: list[_Column] = []
    numbers: list[list[str]] = []
    for name in chosen:
        if name == "interval":
            level = escaped(lower.removeprefix("lower ")).replace(" ", r"\,")
            columns += [_Column("from", f"{level} interval"), _Column("to", f"{level} interval")]
            numbers += [by_name[lower], by_name[upper]]
        else:
            own = "std. error" if name == "standard_error" else name
            columns.append(_Column(_HEADERS[own]))
            numbers.append(by_name[own])
    return columns, numbers


def _padded(column: list[str]) -> list[str]:
    """Numbers with invisible digits behind them, so that their points stand below each other."""
    plain = [re.fullmatch(r"\$(-?\d+)(?:\.(\d+))?\$", cell) for cell in column]
    longest = max((len(found[2] or "") for found in plain if found), default=0)
    padded = []
    for cell, found in zip(column, plain, strict=True):
        missing = longest - len(found[2] or "") if found else 0
        invisible = ("" if found is None or found[2] else ".") + "0" * missing
        padded.append(rf"{cell[:-1]}\phantom{{{invisible}}}$" if missing else cell)
    return padded


def _layout(columns: list[_Column], blocks: list[_Block]) -> _Layout:
    """The largest letters with which the table fits its page, and what is left for the names."""
    rows = [row for block in blocks for row in block.rows]
    indent = _INDENT if any(block.heading for block in blocks) else 0.0
    numbers = sum(
        _GAP + max(_printed_width(text) for text in (column.header, *(row[place] for row in rows)))
        for place, column in enumerate(columns)
        if place
    )
    gaps = _GAP * (len(columns) - 1)
    names = indent + max(width(row[0]) for row in rows)
    rooms = [(size, scale, _PAGE - gaps - scale * (numbers - gaps)) for size, scale in _SIZES]
    for size, scale, room in rooms:
        if scale * names <= room:
            return _Layout(columns, size, scale, None, indent)
    size, scale, room = next((found for found in rooms if found[-1] >= _NARROWEST), rooms[-1])
    return _Layout(columns, size, scale, max(room, 20.0), indent)


def _float(layout: _Layout, blocks: list[_Block], caption: str, label: str, notes: list[str]) -> str:
    broken, columns = layout.room is not None, layout.columns
    # A name that is too long is broken in a column of a fixed width.
    names = rf"p{{{layout.room:.0f}pt}}" if broken else "l"
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\smallskip",
        rf"{{{layout.size}\begin{{tabular}}{{@{{}}{names}{'r' * (len(columns) - 1)}@{{}}}}",
        r"\toprule",
        *_head(columns),
        r"\midrule",
    ]
    for number, block in enumerate(blocks):
        if block.heading:
            if number:
                lines.append(r"\addlinespace")
            lines.append(_heading(block.heading, len(columns)))
        for name, *numbers in block.rows:
            indent = rf"\hspace{{{layout.indent:.0f}pt}}" if layout.indent else ""
            hanging = rf"\raggedright\hangindent={2.0 * _INDENT:.0f}pt "
            shown = f"{hanging}{indent}{breakable(name)}" if broken else f"{indent}{escaped(name)}"
            lines.append(" & ".join([shown, *numbers]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}\par}", r"\smallskip"]
    lines += [r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
    return "\n".join([*lines, *(note + r"\par" for note in notes), r"\end{minipage}", r"\end{table}", ""])


def _heading(text: str, n_columns: int) -> str:
    if width(text) <= _PAGE / 2.0:
        return rf"\multicolumn{{{n_columns}}}{{@{{}}l}}{{\textit{{{escaped(text)}}}}} \\"
    return (
        rf"\multicolumn{{{n_columns}}}{{@{{}}p{{{_PAGE / 2.0:.0f}pt}}}}{{\raggedright\textit{{{breakable(text)}}}}} \\"
    )


def _head(columns: list[_Column]) -> list[str]:
    """The line of headers, and above it those that two columns share."""
    below = " & ".join(column.header for column in columns) + r" \\"
    if not any(column.shared for column in columns):
        return [below]
    above, rules, place = [], [], 0
    while place < len(columns):
        shared = columns[place].shared
        above.append(rf"\multicolumn{{2}}{{c}}{{{shared}}}" if shared else "")
        if shared:
            rules.append(rf"\cmidrule(lr){{{place + 1}-{place + 2}}}")
        place += 2 if shared else 1
    return [" & ".join(above) + r" \\", *rules, below]


def _printed_width(cell: str) -> float:
    """About how wide a number's cell or a header is, without its commands."""
    if cell == "--" or cell == MISSING:
        return width("–")
    invisible = re.sub(r"\\phantom\{([.0]*)\}", r"\1", cell)
    power = re.fullmatch(r"\$(.*)\\times10\^\{(-?\d+)\}\$", invisible)
    if power is None:
        return width(re.sub(r"\\,|[$\\]", "", invisible).replace("-", "+"))
    return width(power[1].replace("-", "+")) + 22.3 + 0.9 * width(power[2].replace("-", "+"))
