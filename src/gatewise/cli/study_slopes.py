"""`gatewise study slopes`, `report` and `compare`: what the rows of a study say."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.common import as_text, ends_on_interrupt, split_names

__all__ = ["compare_studies", "report", "show_slopes"]

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Measures = Annotated[
    list[str] | None,
    typer.Option("--measures", metavar="A,B,…", help="Only these measures, with commas or repeated; all by default."),
]


def show_slopes(folder: Folder, measures: Measures = None, as_json: AsJson = False) -> None:
    """Estimate how fast each measure shrinks: slopes of log(measure) against log(n), with intervals.

    Each stands beside the published slope, the proved bound and the slope that a measured modulus gives, as the design
    states them. A slope whose interval is too wide is inconclusive; a measure that is no power of n is called curved.
    """
    from gatewise.study.slopes import slopes
    from gatewise.study.store import Store

    with ends_on_interrupt():
        store = Store.open(folder)
        found = slopes(store.design, store.rows(), _names(measures))
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if as_json else found.to_text())


def report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; report.html in the folder by default.")
    ] = None,
    measures: Measures = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page if it exists.")] = False,
) -> None:
    """Write an HTML page: log-log plots, slopes, failures, timing and the design.

    The page is one file and loads nothing. Its plots can be saved as PNG or SVG with the buttons above them.
    """
    from gatewise.files import check_new_file
    from gatewise.report.study import study_page
    from gatewise.report.theory import write_theory
    from gatewise.study.slopes import slopes
    from gatewise.study.store import Store

    store = Store.open(folder)
    path = folder / "report.html" if out is None else out
    # What would be refused at the end is refused before the bootstrap.
    check_new_file(path, overwrite=overwrite)
    with ends_on_interrupt():
        rows = store.rows()
        found = slopes(store.design, rows, _names(measures))
        made = {name: store.manifest[name] for name in ("created", "versions", "machine") if name in store.manifest}
        page = study_page(store.design, rows, found, name=as_text(str(folder)), versions=made)
    write_theory(path, page, overwrite=overwrite)
    print(path)


def compare_studies(
    first: Annotated[Path, typer.Argument(metavar="A", help="The folder of a study.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another, or the same for two of its methods.")],
    first_method: Annotated[
        str | None, typer.Option("--first-method", metavar="NAME", help="Which method of A; by default those of B too.")
    ] = None,
    second_method: Annotated[str | None, typer.Option("--second-method", metavar="NAME", help="Which of B.")] = None,
    measures: Measures = None,
    as_json: AsJson = False,
) -> None:
    """Compare two studies, or two methods of one: differences of slopes, and ratios of measures by size.

    Where both have the same truth, inputs and seed their data sets are the same, and they are compared pair by pair.
    """
    from gatewise.study.compare import compare
    from gatewise.study.store import Store

    with ends_on_interrupt():
        one = Store.open(first)
        same = first.resolve() == second.resolve()
        other = one if same else Store.open(second)
        rows = one.rows()
        found = compare(
            (one.design, rows),
            (other.design, rows if same else other.rows()),
            first_method=first_method,
            second_method=second_method,
            measures=_names(measures),
        )
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if as_json else found.to_text())


def _names(texts: list[str] | None) -> list[str] | None:
    return split_names(texts) if texts else None
