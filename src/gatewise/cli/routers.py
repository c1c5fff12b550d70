"""`gatewise routers`: the routers of networks."""

import json
from typing import Annotated

import typer

__all__ = ["routers"]

routers = typer.Typer(
    name="routers",
    help="Routers of networks: the model types that are known.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@routers.callback()
def _routers() -> None:
    """Routers of networks: the model types that are known."""


@routers.command("list", short_help="List the model types whose routers are known.")
def list_routers(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the model types of transformers whose routers are known: formula, selection, where the bias is kept."""
    from gatewise.nn.known import described

    entries = described()
    if as_json:
        print(json.dumps(entries, ensure_ascii=False, indent=1))
        return
    for entry in entries:
        print(entry["model_type"])
        print(f"  router: {entry['router']}")
        if entry["refused"] is not None:
            print(f"  refused: {entry['refused']}")
            continue
        print(f"  {entry['formula']}")
        print(f"  selection: {entry['selection']}")
        print(f"  correction bias: {entry['correction_bias'] or 'none'}")
        if entry["skipped"] is not None:
            print(f"  read, not swapped: {entry['skipped']}")
