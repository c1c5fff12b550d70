"""The `gatewise` command: its parts, and how errors and interrupts end it."""

import errno
import functools
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from gatewise._version import __version__
from gatewise.cli.datasets import datasets
from gatewise.cli.exits import exits
from gatewise.cli.fit import fit
from gatewise.cli.lora import lora
from gatewise.cli.parts import experts, families, gates
from gatewise.cli.predict import predict
from gatewise.cli.routers import routers
from gatewise.cli.streams import flush_output, open_streams, printable_output, say
from gatewise.cli.study import study
from gatewise.cli.theory import theory
from gatewise.cli.words import with_options
from gatewise.exceptions import GatewiseError

__all__ = ["main"]

_application = typer.Typer(
    name="gatewise",
    help="Mixtures of experts, p(y | x) = sum of gate weights times expert densities, fitted at the maximum.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_application.command("fit", short_help="Fit a mixture of experts to a table.")(fit)
_application.command("predict", short_help="Predict with a saved model.")(predict)
_application.command("gates", short_help="List the gates, with formulas and options.")(gates)
_application.command("experts", short_help="List the kinds of experts, with formulas and options.")(experts)
_application.command("families", short_help="List the families, with formulas and options.")(families)
_application.command("datasets", short_help="List the shipped data sets.")(datasets)
_application.add_typer(theory)
_application.add_typer(study)
_application.add_typer(routers)
_application.add_typer(lora)
_application.add_typer(exits)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gatewise {__version__}")
        raise typer.Exit


@_application.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Mixtures of experts, p(y | x) = sum of gate weights times expert densities, fitted at the maximum."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those after the program's name; by default the process's.

    Returns:
        The exit code: 0, 2 for a refused input, option or output (with one line on the standard error), 130 after
        Ctrl-C without a result, 1 where the reader of the output has gone.
    """
    open_streams()
    try:
        code = _run(arguments)
        flush_output()
    except GatewiseError as error:
        say(f"error: {with_options(str(error))}")
        return 2
    except OSError as error:
        # One with a file's name is a defect: commands say themselves what they cannot read or write.
        if error.filename is not None:
            raise
        if error.errno == errno.EPIPE:
            return 1
        say(f"error: the output cannot be written: {(error.strerror or str(error)).lower()}")
        return 2
    return code


@functools.cache
def _command() -> Callable[..., object]:
    """The commands and their options, read from the functions' signatures once a process."""
    return typer.main.get_command(_application)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with printable_output():
            _command()(args=None if arguments is None else list(arguments), prog_name="gatewise")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 0
    return 0
