"""`gatewise theory advise`."""

import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gatewise.theory.advice import Advice, AdviceRow, Known

__all__ = ["advise"]

_WIDTH = 118
_HEADS = {"likelihood": "By maximum likelihood", "least_squares": "By least squares"}


def advise(
    objective: Annotated[
        str | None, typer.Option("--objective", help="likelihood or least_squares; without it both.")
    ] = None,
    gate: Annotated[str | None, typer.Option("--gate", help="Only this gate, as `gatewise gates` lists it.")] = None,
    experts: Annotated[
        str | None, typer.Option("--experts", help="Only these experts, as `gatewise experts` lists them.")
    ] = None,
    error: Annotated[float, typer.Option("--error", help="The error that samples are counted for.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which gate, which experts, how many samples: one line for each, with what is not identified.

    Exponents are the best that are known; the samples are orders of magnitude.
    """
    from gatewise.theory.advice import advise as ask

    found = ask(objective=objective, gate=gate, experts=experts, error=error)
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if as_json else "\n".join(_text(found)))


def _text(found: "Advice") -> Iterator[str]:
    yield from textwrap.wrap(
        f"Exponent α of the slowest parameter that is identified → samples for an error of {found.error:g}, constants "
        "and logarithms left out (the parameter; how it is known).",
        _WIDTH,
    )
    heads = ("gate: experts", "as many experts as there are", "one expert too many")
    lines = [heads, *(_cells(row, found.error) for row in found.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    last = None
    for row, cells in zip(found.rows, lines[1:], strict=True):
        if row.objective != last:
            last = row.objective
            yield ""
            yield _HEADS[row.objective]
            yield _line(heads, widths)
        yield _line(cells, widths)
        for text in _remarks(row):
            yield from textwrap.wrap(text, _WIDTH, initial_indent="      ", subsequent_indent="        ")
    yield ""
    yield "Theorems and measurements behind a line: gatewise theory rates --gate …"


def _cells(row: "AdviceRow", error: float) -> tuple[str, str, str]:
    return f"{row.gate_text}: {row.experts_text}", _known(row.exact, error), _known(row.over, error)


def _known(known: "Known | None", error: float) -> str:
    if known is None:
        return "not known"
    how = "; ".join(part for part in (known.of, known.known) if part)
    return f"{known.alpha:g} → {known.samples(error):.3g} ({how})"


def _remarks(row: "AdviceRow") -> Iterator[str]:
    if row.lost_exact and row.lost_exact == row.lost:
        yield f"not identified: {row.lost}"
    else:
        if row.lost_exact:
            yield f"not identified with as many: {row.lost_exact}"
        if row.lost:
            yield f"not identified with one too many: {row.lost}"
    if row.note:
        yield row.note


def _line(cells: tuple[str, str, str], widths: list[int]) -> str:
    return ("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))).rstrip()
