"""Data by name: a file of the user's, or one of the shipped data sets."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise import datasets
from gatewise.exceptions import InputError
from gatewise.messages import choose

if TYPE_CHECKING:
    from gatewise.io.tables import Table

__all__ = ["check_source", "open_table", "usual_features"]


def _is_shipped(data: str) -> bool:
    """Whether the name means a shipped data set: a file of that name comes first."""
    return data in datasets.names() and not os.path.exists(data)


def check_source(data: str) -> None:
    """Refuse early, before anything heavy is loaded, a table that is not there.

    Args:
        data: a path or a name.

    Raises:
        InputError: there is neither a file nor a shipped data set of that name.
    """
    if _is_shipped(data) or os.path.lexists(data):
        return
    if Path(data).name == data and "." not in data:
        raise InputError(
            f"there is no file {data} and no data set of that name: "
            f"{choose(data, datasets.names(), 'check the name, or choose one of')}"
        )
    raise InputError(f"there is no file {data}: check its name")


def open_table(data: str, encoding: str | None = None) -> "Table":
    """The table in a CSV or parquet file, or the shipped data set of that name if there is no such file.

    Args:
        data: a path or a name.
        encoding: of a CSV file; see `gatewise.io.read_table`.

    Raises:
        InputError: there is neither, or the file cannot be read as `gatewise.io.read_table` says.

    Example:
        >>> open_table("tone").names
        ['stretchratio', 'tuned']
    """
    check_source(data)
    from gatewise.io.reading import parse_csv, read_table

    if _is_shipped(data):
        return parse_csv(datasets.csv_bytes(data), f"data set {data}")
    return read_table(data, encoding)


def usual_features(data: str, target: str) -> list[str] | None:
    """The usual features of a shipped data set, if `target` is its usual target; otherwise None.

    Args:
        data: as in `open_table`.
        target: the column to explain.

    Example:
        >>> usual_features("co2", "CO2"), usual_features("co2", "GNP")
        (['GNP'], None)
    """
    if not _is_shipped(data):
        return None
    dataset = datasets.load(data)
    return list(dataset.features) if dataset.target == target else None
