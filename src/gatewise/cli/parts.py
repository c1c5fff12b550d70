"""`gatewise gates`, `gatewise experts` and `gatewise families`: what a model can be made of."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gatewise.parts.registry import Registry

__all__ = ["experts", "families", "gates"]

AsJson = Annotated[bool, typer.Option("--json", help="Print the list as JSON.")]


def gates(as_json: AsJson = False) -> None:
    """List the gates: formula, options with their defaults, and source."""
    from gatewise.gates import GATES

    _print(GATES, as_json)


def experts(as_json: AsJson = False) -> None:
    """List the kinds of experts: formula, options with their defaults, and source."""
    from gatewise.experts import EXPERTS

    _print(EXPERTS, as_json)


def families(as_json: AsJson = False) -> None:
    """List the families of distributions: formula, options with their defaults, and source."""
    from gatewise.families import FAMILIES

    _print(FAMILIES, as_json)


def _print(registry: "Registry[Any]", as_json: bool) -> None:
    entries = list(_described(registry))
    if as_json:
        print(json.dumps(entries, ensure_ascii=False, indent=1))
        return
    for entry in entries:
        options = [f"{o['name']}{'' if o['required'] else '=' + _shown(o['default'])}" for o in entry["options"]]
        print(entry["name"])
        print(f"  {entry['formula']}")
        if options:
            print(f"  options: {', '.join(options)}")
        print(f"  source: {entry['source']}")


def _described(registry: "Registry[Any]") -> Iterator[dict[str, Any]]:
    """Name, formula, options and source of each entry, as JSON has them."""
    from gatewise.parts.options import REQUIRED, part_options

    for name in registry:
        cls = registry[name]
        options = [
            {
                "name": option,
                "required": default is REQUIRED,
                "default": None if default is REQUIRED else default,
            }
            for option, default in (part_options(cls) or {}).items()
        ]
        yield {"name": name, "formula": cls.formula, "options": options, "source": cls.source}


def _shown(default: Any) -> str:
    """A default as it would be written on the command line."""
    return default if isinstance(default, str) else json.dumps(default)
