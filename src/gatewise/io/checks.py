"""What is refused before anything heavy is loaded."""

import os
from numbers import Real
from pathlib import Path

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["check_level", "check_table_name"]


def check_level(level: float) -> None:
    """Refuse a level that is not the probability of an interval.

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.
    """
    if not (isinstance(level, Real) and 0.0 < level < 1.0):
        raise InputError(f"the level of an interval must lie strictly between 0 and 1, not {shown(level)}")


def check_table_name(path: str | os.PathLike[str]) -> None:
    """Refuse a file name that does not say which kind of table it is.

    Raises:
        InputError: the name ends neither in .csv nor in .parquet.
    """
    if Path(path).suffix not in (".csv", ".parquet"):
        raise InputError(f"cannot tell the format of {shown(str(path))}: let the name end in .csv or .parquet")
