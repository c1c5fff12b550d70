"""`gatewise datasets`: list, show or export the shipped data sets."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["datasets"]


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A data set to describe, or to write with --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the data set to this CSV file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
) -> None:
    """List the shipped data sets, describe one, or write one to a CSV file."""
    from gatewise import datasets as shipped
    from gatewise.exceptions import InputError
    from gatewise.files import write_file

    if name is None:
        if out is not None:
            raise InputError(f"--out needs the name of a data set: choose one of {', '.join(shipped.names())}")
        for known in shipped.names():
            dataset = shipped.load(known)
            print(f"{known:12}{len(dataset.frame):5} rows  {', '.join(dataset.frame.columns)}")
            print(f"{'':12}{dataset.title}; {dataset.source}")
        return
    dataset = shipped.load(name)
    if out is not None:
        write_file(out, shipped.csv_bytes(name), overwrite=overwrite)
        print(out)
        return
    print(f"{dataset.name}: {dataset.title}")
    print(f"rows: {len(dataset.frame)}; columns: {', '.join(dataset.frame.columns)}")
    print(f"usual fit: gatewise fit {dataset.name} --target {dataset.target} --features {','.join(dataset.features)}")
    print(f"source: {dataset.source}")
    print(f"cite: {dataset.citation}")
    print(f"licence: {dataset.licence_note}")
    print(dataset.note)
