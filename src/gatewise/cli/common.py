"""What the commands share."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import typer

from gatewise.cli.streams import say
from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["MissingChoice", "as_text", "check_report", "ends_on_interrupt", "parse_options", "split_names"]


class MissingChoice(StrEnum):
    """What to do about missing values."""

    REFUSE = "refuse"
    DROP = "drop"


def as_text(argument: str) -> str:
    r"""An argument as text, whatever the locale: its bytes as UTF-8, and by number what is no UTF-8 either.

    Python keeps bytes that are no text in the locale's encoding as lone surrogates: right for the names of files, but
    no page and no file can hold them, and no column has such a name.

    Example:
        >>> as_text("gr\udcc3\udcb6\udcff.csv")
        'grö\\xff.csv'
    """
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def split_names(texts: Sequence[str]) -> list[str]:
    """The names in options like `--features a,b --features c`; a name with a comma stands in double quotes.

    Raises:
        InputError: a text cannot be split so.
    """
    try:
        return [name.strip() for text in texts for name in next(csv.reader([as_text(text)], skipinitialspace=True), [])]
    except csv.Error as error:
        raise InputError(f"the list of columns cannot be read: {error}; separate names by commas") from None


def parse_options(option: str, texts: Sequence[str] | None) -> dict[str, Any] | None:
    """The values in options like `--gate-option inner=laplace --gate-option n_active=2`, or None if there are none.

    A value is JSON if it can be read so (2, 0.5, true, null, [2, 1], "2"), otherwise text.

    Args:
        option: the option's name, for messages.
        texts: what was given.

    Raises:
        InputError: there is no =, or a name is given twice.

    Example:
        >>> parse_options("--gate-option", ["inner=laplace", "n_active=2", "inner_options={}"])
        {'inner': 'laplace', 'n_active': 2, 'inner_options': {}}
    """
    found: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = as_text(text).partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"{option} must be written as NAME=VALUE, not {shown(text)}")
        if name in found:
            raise InputError(f"{option} gives {shown(name)} twice: give it once")
        found[name] = _value(value.strip())
    return found or None


def _value(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def check_report(report: Path | None, overwrite: bool) -> None:
    """Refuse a page that could not be written, before anything is computed for it.

    Args:
        report: the file, or None where no page is asked for.
        overwrite: whether it may be replaced.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    if report is not None:
        from gatewise.files import check_new_file

        check_new_file(report, overwrite=overwrite)


@contextmanager
def ends_on_interrupt() -> Iterator[None]:
    """Ctrl-C ends the command with the conventional exit code, one line and no output."""
    try:
        yield
    except KeyboardInterrupt:
        say("error: interrupted before there was a result; nothing was written")
        raise typer.Exit(130) from None
