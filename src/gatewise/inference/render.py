"""Renderings of a summary: text, Markdown, HTML, LaTeX and JSON, all from the same tables."""

import json
import math
import textwrap
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from gatewise.ops.printable import COMMANDS, printable

__all__ = ["Page", "html", "json_text", "latex", "markdown", "text"]

_WIDTH = 100
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "∞": r"$\infty$",
}


@dataclass(frozen=True)
class Page:
    """What every rendering shows, in the order of reading: names and numbers, not yet text.

    Attributes:
        title: what was fitted, in a line.
        status: the code of the status.
        findings: one sentence each, the status's own first.
        tables: headings and tables.
        remarks: headings with sentences, to stand after the tables.
        footnote: rows, starts, seed and priors, in a line.
    """

    title: str
    status: str
    findings: list[str]
    tables: list[tuple[str, pd.DataFrame]]
    remarks: list[tuple[str, list[str]]]
    footnote: str


def text(page: Page) -> str:
    """Plain text of at most 100 columns, names permitting."""
    parts = [page.title, ""]
    for sentence in [f"Status: {page.status}. {page.findings[0]}", *page.findings[1:]]:
        parts.append(textwrap.fill(sentence, _WIDTH, subsequent_indent="  "))
    for heading, table in page.tables:
        parts += ["", heading, _text_table(table)]
    for heading, sentences in page.remarks:
        parts += ["", heading]
        parts += [
            textwrap.fill(sentence, _WIDTH, initial_indent="  ", subsequent_indent="    ") for sentence in sentences
        ]
    return "\n".join([*parts, "", page.footnote])


def markdown(page: Page) -> str:
    """Markdown with pipe tables."""
    parts = [f"**{_pipe(page.title)}**", "", f"Status: **{page.status}**"]
    for sentence in page.findings:
        parts += ["", _pipe(sentence)]
    for heading, table in page.tables:
        header, *rows = _cells(table)
        parts += ["", f"**{heading}**", "", _markdown_row(header), _markdown_row(_rules(table))]
        parts += [_markdown_row(row) for row in rows]
    for heading, sentences in page.remarks:
        parts += ["", f"**{heading}**", "", *(f"- {_pipe(sentence)}" for sentence in sentences)]
    return "\n".join([*parts, "", page.footnote, ""])


def html(page: Page) -> str:
    """An HTML fragment of tables."""
    parts = [f"<h3>{escape(page.title)}</h3>", f"<p>Status: <strong>{page.status}</strong></p>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in page.findings]
    for heading, table in page.tables:
        header, *rows = _cells(table)
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(
            f"<table><caption>{escape(heading)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    for heading, sentences in page.remarks:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        parts.append(f"<p>{escape(heading)}</p><ul>{items}</ul>")
    return "\n".join([*parts, f"<p>{escape(page.footnote)}</p>"])


def latex(page: Page) -> str:
    """Tabulars for the booktabs package."""
    parts = [f"% {' '.join(page.title.split())}"]
    for heading, table in page.tables:
        header, *rows = _cells(table)
        columns = "".join("r" if numeric else "l" for numeric in _numeric(table))
        parts += [f"% {heading}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(header), r"\midrule"]
        parts += [*(_latex_row(row) for row in rows), r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(parts)


def json_text(content: dict[str, Any]) -> str:
    """One JSON object; NaN and infinities become null."""
    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, indent=1)
    return COMMANDS.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(column: str, value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0.0 else "-∞"
    if math.isnan(value):
        return "–"
    if column == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if column in ("z", "effective rows"):
        return f"{value:.2f}"
    if column in ("mixture", "one expert"):
        if float(value).is_integer() and abs(value) < 1e6:
            return f"{value:.0f}"
        return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.5g}"
    return f"{value:#.5g}".removesuffix(".") if 1e-4 <= abs(value) < 1e5 or value == 0.0 else f"{value:.5g}"


def _numeric(table: pd.DataFrame) -> list[bool]:
    return [bool(pd.api.types.is_numeric_dtype(table[column])) for column in table.columns]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """Header and rows as strings."""
    columns: list[list[str]] = []
    for name, numeric in zip(table.columns, _numeric(table), strict=True):
        whole = pd.api.types.is_integer_dtype(table[name])
        shown = [str(v) if whole or not numeric else _number(str(name), float(v)) for v in table[name]]
        columns.append([printable(cell) for cell in shown])
    return [[str(name) for name in table.columns], *(list(row) for row in zip(*columns, strict=True))]


def _text_table(table: pd.DataFrame) -> str:
    rows = _cells(table)
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    numeric = _numeric(table)
    lines = []
    for row in rows:
        cells = [c.rjust(w) if number else c.ljust(w) for c, w, number in zip(row, widths, numeric, strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _rules(table: pd.DataFrame) -> list[str]:
    return ["---:" if numeric else "---" for numeric in _numeric(table)]


def _pipe(cell: str) -> str:
    return " ".join(escape(cell, quote=False).replace("|", "\\|").split())


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(_pipe(cell) for cell in cells) + " |"


def _latex_row(cells: list[str]) -> str:
    escaped = ("".join(_LATEX_ESCAPES.get(c, c) for c in " ".join(cell.split())) for cell in cells)
    return " & ".join(escaped) + r" \\"
