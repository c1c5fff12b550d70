"""The command's standard output and error: closed, full, or with an encoding that lacks a character."""

import io
import os
import sys
from contextlib import AbstractContextManager, redirect_stdout, suppress
from typing import Any, TextIO, cast

from gatewise.ops.printable import printable

__all__ = ["flush_output", "open_streams", "printable_output", "say"]


def open_streams() -> None:
    """Give the process the standard streams that it was started without; what is written there is lost.

    Otherwise the next file that is opened would have the number of such a stream.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        # Names of files and columns may hold characters that the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Printable:
    """A stream that writes what would drive the terminal in a readable form."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def printable_output() -> AbstractContextManager[object]:
    """Within the block the standard output takes no commands to a terminal."""
    return redirect_stdout(cast(TextIO, _Printable(sys.stdout)))


def flush_output() -> None:
    """Write what is still buffered, so that a full disk is noticed while it can be said.

    Raises:
        OSError: it cannot be written; it is then dropped, and is not tried again when the process ends.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        raise


def say(sentence: str) -> None:
    """One line on the standard error, if it takes one."""
    with suppress(OSError, ValueError):
        print(printable(" ".join(sentence.split())), file=sys.stderr, flush=True)
