"""`gatewise routers`: the routers of networks."""

import json
from typing import Annotated

import typer

from gatewise.cli.routers_bench import bench
from gatewise.cli.routers_inspect import inspect
from gatewise.cli.routers_upcycle import upcycle
from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

__all__ = ["routers"]

routers = typer.Typer(
    name="routers",
    help="Routers of networks: the model types that are known, what a model's routers do, what ours cost.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@routers.callback()
def _routers() -> None:
    """Routers of networks: the model types that are known, what a model's routers do, what ours cost."""


@routers.command("list", short_help="List the model types whose routers are known.")
def list_routers(
    model_types: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL_TYPE]...", help="Only these, as config.json names them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the model types of transformers whose routers are known: formula, selection, where the bias is kept."""
    from gatewise.nn.known import described

    entries = described()
    if model_types:
        known = list(dict.fromkeys(str(entry["model_type"]) for entry in entries))
        for model_type in model_types:
            if model_type not in known:
                raise InputError(f"no router of {shown(model_type)} is known: {choose(model_type, known, 'there are')}")
        entries = [entry for entry in entries if entry["model_type"] in model_types]
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


routers.command("inspect", short_help="Which experts the tokens of texts go to.")(inspect)
routers.command("bench", short_help="What our gates cost as routers.")(bench)
routers.command("upcycle", short_help="Make a dense model sparse.")(upcycle)
