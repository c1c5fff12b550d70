"""What the commands share."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import typer

__all__ = ["MissingChoice", "ends_on_interrupt", "split_names"]


class MissingChoice(StrEnum):
    """What to do about missing values."""

    REFUSE = "refuse"
    DROP = "drop"


def split_names(texts: Sequence[str]) -> list[str]:
    """The names in options like `--features a,b --features c`; a name with a comma stands in double quotes."""
    return [name.strip() for text in texts for name in next(csv.reader([text], skipinitialspace=True), [])]


@contextmanager
def ends_on_interrupt() -> Iterator[None]:
    """Ctrl-C ends the command with the conventional exit code, one line and no output."""
    try:
        yield
    except KeyboardInterrupt:
        print("error: interrupted before there was a result; nothing was written", file=sys.stderr)
        raise typer.Exit(130) from None
