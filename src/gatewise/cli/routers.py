"""`gatewise routers`: the routers of networks."""

import typer

from gatewise.cli.routers_bench import bench
from gatewise.cli.routers_inspect import inspect

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


routers.command("inspect", short_help="Which experts the tokens of texts go to.")(inspect)
routers.command("bench", short_help="What our gates cost as routers.")(bench)
