"""`gatewise theory`: what is proved and measured about how fast each parameter can be learned."""

import typer

from gatewise.cli.theory_advise import advise
from gatewise.cli.theory_identify import identify
from gatewise.cli.theory_modulus import modulus
from gatewise.cli.theory_rates import r_bar, rates

__all__ = ["theory"]

theory = typer.Typer(
    name="theory",
    help="How fast each parameter can be learned: proved rates, identifiability, measured moduli.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
theory.command("advise", short_help="Which gate, which experts, how many samples.")(advise)
theory.command("rates", short_help="Proved rates of a kind of model.")(rates)
theory.command("r-bar", short_help="How far the atoms of one cell can cancel each other.")(r_bar)
theory.command("identify", short_help="Which derivatives depend on each other, and which conditions hold.")(identify)
theory.command("modulus", short_help="Measure how slowly each parameter shows in the distance.")(modulus)


@theory.callback()
def _theory() -> None:
    """How fast each parameter can be learned: proved rates, identifiability, measured moduli."""
