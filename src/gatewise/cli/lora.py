"""`gatewise lora`: routing among LoRA adapters."""

import typer

from gatewise.cli.lora_evaluate import evaluate
from gatewise.cli.lora_gates import gates
from gatewise.cli.lora_generate import generate

__all__ = ["lora"]

lora = typer.Typer(
    name="lora",
    help="Route among LoRA adapters: train gates, compare routers, generate. Needs gatewise[lora].",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lora.command("gates", short_help="Train the gates of one adapter.")(gates)
lora.command("evaluate", short_help="Compare routers on documents.")(evaluate)
lora.command("generate", short_help="Generate text with routed adapters.")(generate)


@lora.callback()
def _lora() -> None:
    """Route among LoRA adapters: train gates, compare routers, generate. Needs gatewise[lora]."""
