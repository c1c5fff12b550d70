"""The `gatewise` command: its parts, and how errors and interrupts end it."""

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gatewise import __version__
from gatewise.cli.datasets import datasets
from gatewise.cli.fit import fit
from gatewise.cli.parts import experts, families, gates
from gatewise.cli.predict import predict
from gatewise.cli.study import study
from gatewise.cli.theory import theory
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
        Ctrl-C without a result.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files and columns may hold characters that the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _application(args=None if arguments is None else list(arguments), prog_name="gatewise")
    except GatewiseError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 0
    return 0
