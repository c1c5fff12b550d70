"""`gatewise study`: simulation studies of rates."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.study_slopes import compare_studies, report, show_slopes
from gatewise.messages import shown

__all__ = ["study"]

study = typer.Typer(
    name="study",
    help="Rate studies: simulate, fit, measure the loss, estimate the slope.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@study.callback()
def _study() -> None:
    """Rate studies: simulate, fit, measure the loss, estimate the slope."""


@study.command("list", short_help="List the studies of the catalogue.")
def list_studies(as_json: AsJson = False) -> None:
    """List the studies that come with the library: the published simulations, and what they reproduce."""
    from gatewise.study import catalogue, read_design

    designs = {name: read_design(name) for name in catalogue()}
    if as_json:
        listed = {name: {"title": design.title, "paper": design.paper} for name, design in designs.items()}
        print(json.dumps(listed, ensure_ascii=False, indent=1))
        return
    width = max(map(len, designs))
    for name, design in designs.items():
        fits = len(design.all_sizes()) * design.replicates * len(design.methods)
        print(f"{name:{width}}  {design.title} ({fits:,} fits)")


@study.command("show", short_help="Print a study's design.")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A study of the catalogue, or a TOML file.")],
    as_json: AsJson = False,
) -> None:
    """Print a design: as TOML with its comments and sources, or as JSON with every default filled in."""
    from gatewise.study import read_design
    from gatewise.study.design import text_of

    design = read_design(name)
    if as_json:
        print(json.dumps(design.model_dump(mode="json"), ensure_ascii=False, indent=1))
    else:
        print(text_of(name), end="")


@study.command("new", short_help="Begin a design of your own.")
def new(
    path: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The file to be written.")],
    like: Annotated[
        str, typer.Option("--like", metavar="NAME", help="The study of the catalogue to begin from.")
    ] = "softmax-gaussian-exact",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a copy of a study of the catalogue to a file, to be changed into one of your own."""
    from gatewise.files import write_file
    from gatewise.study import read_design
    from gatewise.study.design import text_of

    read_design(like)
    write_file(path, text_of(like).encode(), overwrite=overwrite)
    print(f"written: {path}; change it, then run `gatewise study run {path} --out DIR`")


@study.command("run", short_help="Run a study, or go on with one.")
def run(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A study of the catalogue, or a TOML file.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the rows are kept; taken up if it is there.")
    ],
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Worker processes; -1 for one on each core.")] = 1,
    sizes: Annotated[
        list[str] | None, typer.Option("--sizes", metavar="N,N,…", help="Other sample sizes, with commas or repeated.")
    ] = None,
    replicates: Annotated[
        int | None, typer.Option("--replicates", min=1, metavar="R", help="Other replicates.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="S", help="Another seed.")] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDR", help="A Dask scheduler, such as tcp://host:8786.")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option("--max-time", metavar="T", help="Begin nothing new after this time: 90, 20m, 8h.")
    ] = None,
) -> None:
    """Simulate and fit what has no row yet; the same command goes on after any interruption.

    Ctrl-C lets the batches in flight end and stores them. Rows do not depend on the number of workers.
    """
    from gatewise.study import Store, read_design, run_study
    from gatewise.study.progress import live_progress, span

    design = read_design(name).with_plan(_numbers(sizes), replicates, seed)
    limit = _seconds(max_time)
    store = Store.create(out, design)
    outcome = run_study(store, jobs=jobs, scheduler=scheduler, max_time=limit, progress=live_progress())
    failed = f" ({outcome.failed} failed)" if outcome.failed else ""
    print(
        f"{outcome.reason}: {outcome.added} rows{failed} in {span(outcome.seconds)}, {outcome.remaining} left in {out}"
    )
    if outcome.reason != "finished":
        print("the same command goes on from here", file=sys.stderr)
    if outcome.reason == "interrupted":
        raise typer.Exit(130)


@study.command("status", short_help="How far a study is.")
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say how many tasks have rows, how they ended, and what lies in quarantine."""
    from gatewise.study import Store, study_status

    found = study_status(Store.open(folder))
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
        return
    print(f"{found.title}\n{found.rows} of {found.tasks} tasks have rows")
    for name, method in found.methods.items():
        statuses = ", ".join(f"{count} {status}" for status, count in method.statuses.items())
        print(
            f"{name}: {statuses or 'nothing yet'}; {method.below_truth} below the truth, "
            f"{method.outside_box} outside the box, {method.seconds:.1f} s"
        )
    if found.quarantined:
        print(f"in quarantine: {', '.join(found.quarantined)}; their tasks run again with the next `study run`")


@study.command("replay", short_help="Run one task again and compare bits.")
def replay(
    folder: Folder,
    key: Annotated[str, typer.Argument(metavar="KEY", help="METHOD/N/REPLICATE, as in the column key.")],
    as_json: AsJson = False,
) -> None:
    """Run the task of a key again from its seeds, and compare every number bit by bit; exit code 1 if one differs."""
    from gatewise.study import Store
    from gatewise.study.replay import replay as run_again

    found = run_again(Store.open(folder), key)
    if as_json:
        differences = {name: list(map(str, pair)) for name, pair in found.differences.items()}
        print(json.dumps({"key": key, "same": found.same, "differences": differences}, indent=1))
    elif found.same:
        print(f"{key}: the same bits")
    else:
        print(f"{key}: {len(found.differences)} columns differ")
        for name, (stored, again) in found.differences.items():
            print(f"  {name}: stored {stored!r}, now {again!r}")
    if not found.same:
        raise typer.Exit(1)


study.command("slopes", short_help="Slopes, with intervals, beside what is published and proved.")(show_slopes)
study.command("report", short_help="Write an HTML page.")(report)
study.command("compare", short_help="Compare two studies, or two methods of one.")(compare_studies)


def _numbers(texts: list[str] | None) -> list[int] | None:
    from gatewise.exceptions import InputError

    if not texts:
        return None
    try:
        return [int(part) for text in texts for part in text.split(",")]
    except ValueError:
        raise InputError(f"--sizes must be whole numbers separated by commas, not {shown(', '.join(texts))}") from None


def _seconds(text: str | None) -> float | None:
    from gatewise.exceptions import InputError

    if text is None:
        return None
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    number = text[:-1] if factor is not None else text
    try:
        seconds = float(number) * (factor or 1.0)
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds < float("inf"):
        raise InputError(f"--max-time must be a time such as 90, 20m or 8h, not {shown(text)}")
    return seconds
