"""`gatewise theory`: what is proved and measured about how fast each parameter can be learned."""

import typer

__all__ = ["theory"]

theory = typer.Typer(
    name="theory",
    help="How fast each parameter can be learned: proved rates, identifiability, measured moduli.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@theory.callback()
def _theory() -> None:
    """How fast each parameter can be learned: proved rates, identifiability, measured moduli."""
