"""Finding blocks in a backbone: by name, by pattern, by number."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from gatewise.exceptions import InputError
from gatewise.messages import choose, listed, shown

__all__ = ["find_blocks", "siblings"]

Exits = str | Sequence[str | int]
"""Where exits are: a pattern, the name of a list of blocks, or names and numbers of blocks."""


def find_blocks(backbone: nn.Module, exits: Exits) -> list[str]:
    """The names of the blocks after which there is an exit, in the order of the backbone's modules.

    Args:
        backbone: any module.
        exits: a pattern such as "encoder.layer.*", in which * stands for one part of a name; or the name of a
            `ModuleList` or `Sequential`, for all that is in it; or a list of names, patterns, and numbers of the
            backbone's children, negative ones from the end.

    Raises:
        InputError: nothing has such a name.

    Example:
        >>> backbone = nn.ModuleDict({"stem": nn.Identity(), "blocks": nn.ModuleList([nn.Identity(), nn.Identity()])})
        >>> find_blocks(backbone, "blocks"), find_blocks(backbone, ["blocks.1"]), find_blocks(backbone, "blocks.*")
        (['blocks.0', 'blocks.1'], ['blocks.1'], ['blocks.0', 'blocks.1'])
    """
    names = [name for name, _ in backbone.named_modules() if name]
    if not isinstance(exits, str | int | Sequence):
        raise InputError(f"exits must be a pattern, or a list of names and numbers of blocks, not {shown(exits)}")
    asked = [exits] if isinstance(exits, str | int) else list(exits)
    if not asked:
        raise InputError("exits is empty: name the blocks after which the network may answer")
    chosen = {name for each in asked for name in _named(backbone, names, each, alone=isinstance(exits, str))}
    return [name for name in names if name in chosen]


def _named(backbone: nn.Module, names: list[str], asked: object, alone: bool) -> list[str]:
    if isinstance(asked, int) and not isinstance(asked, bool):
        children = [name for name, _ in backbone.named_children()]
        if not -len(children) <= asked < len(children):
            raise InputError(f"exit {asked} is not there: the backbone has {len(children)} children, from 0 on")
        return [children[asked]]
    if not isinstance(asked, str):
        raise InputError(f"an exit is the name or the number of a block, not {shown(asked)}")
    if any(character in asked for character in "*?["):
        found = [name for name in names if _matches(name, asked)]
        if not found:
            raise InputError(f"no module's name matches {shown(asked)}: {_hint(names, asked)}")
        return found
    if asked not in names:
        raise InputError(f"the backbone has no module {shown(asked)}: {_hint(names, asked)}")
    module = backbone.get_submodule(asked)
    inside = [f"{asked}.{name}" for name, _ in module.named_children()]
    return inside if alone and inside and isinstance(module, nn.ModuleList | nn.Sequential) else [asked]


def _matches(name: str, pattern: str) -> bool:
    """Whether a name matches part by part: * does not reach over a dot."""
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _hint(names: Iterable[str], asked: str) -> str:
    """Lists of blocks are what is usually meant; all names of a large network would fill a page."""
    every = list(names)
    lists = {f"{name.rpartition('.')[0]}.*".removeprefix(".") for name in every if name.rpartition(".")[2].isdigit()}
    alike = choose(asked, [*lists, *every], among="").split("?")[0] + "? " if asked else ""
    meant = alike if alike.startswith("did you mean") else ""
    return f"{meant}its lists of blocks are {listed(sorted(lists)) or 'none'}"


def siblings(backbone: nn.Module, exits: Iterable[str]) -> list[str]:
    """The blocks at which a run steps in: all children of the modules in which there are exits.

    Between two exits, too, a block may get tensors of the whole batch, such as a mask.
    """
    parents = {name.rpartition(".")[0] for name in exits}
    return [name for name, _ in backbone.named_modules() if name and name.rpartition(".")[0] in parents]
