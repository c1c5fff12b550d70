"""Renderings of a summary: text, Markdown, HTML and JSON, all from the same tables; LaTeX has a file of its own."""

import json
import math
import textwrap
from html import escape
from typing import Any

from gatewise.inference.page import Page
from gatewise.inference.rounding import Cells, Table, aligned, cells
from gatewise.ops.printable import COMMANDS

__all__ = ["html", "json_text", "markdown", "text"]

_WIDTH = 100


def text(page: Page) -> str:
    """Plain text of at most 100 columns, names permitting."""
    parts = [page.title, ""]
    for sentence in [f"Status: {page.status}. {page.findings[0]}", *page.findings[1:]]:
        parts.append(textwrap.fill(sentence, _WIDTH, subsequent_indent="  "))
    for table in page.tables:
        parts += ["", table.heading, _text_table(table)]
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
    for table in page.tables:
        found = cells(table)
        parts += ["", f"**{table.heading}**", "", _markdown_row(found.header), _markdown_row(_rules(found))]
        parts += [_markdown_row(row) for row in found.rows]
    for heading, sentences in page.remarks:
        parts += ["", f"**{heading}**", "", *(f"- {_pipe(sentence)}" for sentence in sentences)]
    return "\n".join([*parts, "", page.footnote, ""])


def html(page: Page) -> str:
    """An HTML fragment of tables."""
    parts = [f"<h3>{escape(page.title)}</h3>", f"<p>Status: <strong>{page.status}</strong></p>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in page.findings]
    for table in page.tables:
        found = cells(table)
        head = "".join(f"<th>{escape(cell)}</th>" for cell in found.header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in found.rows)
        parts.append(
            f"<table><caption>{escape(table.heading)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    for heading, sentences in page.remarks:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        parts.append(f"<p>{escape(heading)}</p><ul>{items}</ul>")
    return "\n".join([*parts, f"<p>{escape(page.footnote)}</p>"])


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


def _text_table(table: Table) -> str:
    found = cells(table)
    lines: list[list[str]] = []
    for j, (name, number) in enumerate(zip(found.header, found.numeric, strict=True)):
        column = [row[j] for row in found.rows]
        column = [name, *(aligned(column) if number else column)]
        width = max(map(len, column))
        lines.append([cell.rjust(width) if number else cell.ljust(width) for cell in column])
    return "\n".join("  " + "  ".join(row).rstrip() for row in zip(*lines, strict=True))


def _rules(table: Cells) -> list[str]:
    return ["---:" if numeric else "---" for numeric in table.numeric]


def _pipe(cell: str) -> str:
    return " ".join(escape(cell, quote=False).replace("|", "\\|").split())


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(_pipe(cell) for cell in cells) + " |"
