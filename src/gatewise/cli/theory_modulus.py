"""`gatewise theory modulus`."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatewise.cli.common import as_text, check_report, ends_on_interrupt
from gatewise.exceptions import InputError

if TYPE_CHECKING:
    from gatewise.theory.modulus.case import Expected
    from gatewise.theory.modulus.result import ModulusResult

__all__ = ["modulus"]


def modulus(
    case: Annotated[
        str | None,
        typer.Argument(metavar="[CASE|FILE.toml]", help="A case of the library (see --list), or a file with one."),
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="List the cases of the library.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Worker processes.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Keep every finished coordinate and the pictures here; take up what is there."
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML page.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --report if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the local modulus: the exponent of the least distance when one parameter is displaced.

    An exponent α means that the parameter is learned at n^(-1/(2α)). "Faster than the bound" says that the published
    rate is slower than what was measured; "flat" that the distance vanishes along a whole curve.
    """
    from gatewise.theory.modulus.case import case_names, compare, read_case, run_group

    if list_cases:
        titles = {name: read_case(name).title for name in case_names()}
        width = max(map(len, titles))
        shown = [f"{name:{width}}  {title}" for name, title in titles.items()]
        print(json.dumps(titles, ensure_ascii=False, indent=1) if as_json else "\n".join(shown))
        return
    if case is None:
        raise InputError("say which case: one of `gatewise theory modulus --list`, or a TOML file")
    found = read_case(case)
    check_report(report, overwrite)
    answer, results = [], []
    with ends_on_interrupt():
        for place, group in enumerate(found.groups):
            result = run_group(found, group, jobs=jobs, out=None if out is None else out / "rows")
            results.append(result)
            verdicts = [compare(expected, row) for expected, row in zip(group.rows, result, strict=True)]
            answer.append(
                {
                    "group": group.title,
                    "cells": group.cells,
                    "held": group.hold,
                    "expected": [row.model_dump() for row in group.rows],
                    "verdicts": verdicts,
                    **result.to_dict(),
                }
            )
            if not as_json:
                said = list(_said(group.rows, verdicts))
                print(f"{found.title}: {group.title}", *_lines(result), *said, sep="\n", end="\n\n")
            if out is not None:
                _draw(result, out / f"{place + 1}.html")
    if report is not None:
        from gatewise.report.theory import write_theory
        from gatewise.report.theory_modulus import case_page

        write_theory(report, case_page(found, results, as_text(case)), overwrite=overwrite)
    if as_json:
        print(json.dumps({"title": found.title, "groups": answer}, ensure_ascii=False, indent=1))
    else:
        if out is not None:
            print(f"written: {out}")
        if report is not None:
            print(report)


def _lines(result: "ModulusResult") -> list[str]:
    found = result.to_text().splitlines()
    for direction in result.null_directions:
        terms = " ".join(f"{value:+.3f} {name}" for name, value in direction.items())
        found.append(f"a null direction that no declared symmetry explains: {terms}")
    return found


def _said(rows: "Sequence[Expected]", verdicts: Sequence[str]) -> Iterator[str]:
    """What is proved of each coordinate, as the case has it, and how the measurement stands to it."""
    for row, verdict in zip(rows, verdicts, strict=True):
        if row.proved is None:
            continue
        proved = "no power of n" if row.proved == "flat" else f"exponent {row.proved:g}"
        modulo = " modulo its symmetries" if row.modulo else ""
        yield f"proved of {row.parameter}{modulo}: {proved}: {verdict} ({row.source})"
        if row.note and verdict != "agrees":
            yield from textwrap.wrap(row.note, 118, initial_indent="  ", subsequent_indent="  ")


def _draw(result: "ModulusResult", path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(result.figure().to_html(include_plotlyjs=True), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
