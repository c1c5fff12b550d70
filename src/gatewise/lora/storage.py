"""A routed set of adapters from folders, and in one folder: nothing of it is code."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from gatewise.exceptions import InputError
from gatewise.files import new_folder
from gatewise.lora.attach import RoutedModel, attach_router, first_adapter, load_adapter
from gatewise.lora.gate_set import GATES_FILE, GateSet
from gatewise.lora.places import check_adapter_name, fingerprint_of
from gatewise.lora.routers import AdapterRouting, router_of
from gatewise.messages import shown

__all__ = ["load_and_route", "load_routed", "save_routed"]

_ROUTING = "gatewise_routing.json"
_FORMAT = 1


def load_and_route(
    base: nn.Module,
    folders: Sequence[str | os.PathLike[str]],
    router: str | AdapterRouting = "phatgoose",
    *,
    names: Sequence[str] | None = None,
    **setting: Any,
) -> RoutedModel:
    """Load adapters from their folders onto a base, and route among them.

    Args:
        base: a model of transformers, or of peft with adapters already.
        folders: one for each adapter, as peft's `save_pretrained` writes them; gates beside them are read.
        router: as for `attach_router`.
        names: of the adapters; the folders' own names by default.
        **setting: as for `attach_router`: top_k, temperature, granularity, missing, eps.

    Raises:
        InputError: an adapter is not there, belongs to another base, cannot be routed, or its gates are not its own.

    Example:
        >>> routed = load_and_route(base, ["adapters/poems", "adapters/code"])  # doctest: +SKIP
        >>> routed.generate(**tokenizer("…", return_tensors="pt"))  # doctest: +SKIP
    """
    if isinstance(folders, str | os.PathLike) or not folders:
        raise InputError(f"pass the adapters' folders in a list, not {shown(folders)}")
    found = [Path(folder).absolute().name for folder in folders] if names is None else list(names)
    if len(found) != len(folders):
        raise InputError(f"there are {len(found)} names for {len(folders)} folders")
    for name in found:
        check_adapter_name(name)
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two adapters would be called {twice!r}: pass names=[…], one for each folder")
    gates = {
        name: GateSet.load(folder) if (Path(folder) / GATES_FILE).is_file() else None
        for name, folder in zip(found, folders, strict=True)
    }
    model = base if isinstance(base, PeftModel) else None
    for name, folder in zip(found, folders, strict=True):
        if model is None:
            model, _ = first_adapter(base, os.fspath(folder), name)
        else:
            load_adapter(model, name, folder)
    assert model is not None
    return attach_router(model, found, router, gates=gates, **setting)


def save_routed(routed: RoutedModel, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the adapters with their gates, the router and its setting into one folder, whole or not at all.

    The base is not written.

    Args:
        routed: what `attach_router` gave.
        folder: to be written; its parent must exist.
        overwrite: whether a folder that this function wrote may be replaced.

    Raises:
        InputError: the router cannot be made again from plain data, as one by retrieval.
        OutputError: the folder cannot be written, or exists.
    """
    description = {
        "format": _FORMAT,
        "adapters": list(routed.adapters),
        "router": routed.router.name,
        "options": routed.router.options(),
        "setting": asdict(routed.setting),
    }
    with tempfile.TemporaryDirectory() as scratch, new_folder(folder, overwrite=overwrite) as place:
        for name in routed.adapters:
            routed.model.save_pretrained(scratch, selected_adapters=[name])
            # peft writes the adapter "default" into the folder itself.
            written = Path(scratch, name) if name != "default" else Path(scratch)
            for file in sorted(written.iterdir()):
                if file.name in ("adapter_config.json", "adapter_model.safetensors"):
                    place.write(f"{name}/{file.name}", file.read_bytes())
            gates = routed.gates.get(name)
            if gates is not None:
                checksums, dtype = fingerprint_of(routed.model, name)
                gates.check_adapter(name, checksums, dtype)
                gates.save_pretrained(place.path(f"{name}/{GATES_FILE}").parent)
        place.write(_ROUTING, (json.dumps(description, indent=1, allow_nan=False) + "\n").encode())


def load_routed(base: nn.Module, folder: str | os.PathLike[str]) -> RoutedModel:
    """Load what `save_routed` wrote onto a base.

    Raises:
        InputError: the folder is none of its, is damaged, or belongs to another base.
    """
    place = Path(folder)
    try:
        description: Any = json.loads((place / _ROUTING).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{place} holds no routed set: it has no {_ROUTING}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{place / _ROUTING} cannot be read: {error}") from None
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise InputError(f"{place / _ROUTING} is not of the format {_FORMAT}, which this version reads")
    try:
        names = [check_adapter_name(name) for name in description["adapters"]]
        router, options = description["router"], dict(description["options"])
        setting = dict(description["setting"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place / _ROUTING} is damaged: {error}") from None
    known = {"top_k", "temperature", "granularity", "missing", "eps"}
    if not isinstance(router, str) or set(setting) != known:
        raise InputError(f"{place / _ROUTING} is damaged: its setting must name {', '.join(sorted(known))}")
    return load_and_route(base, [place / name for name in names], router_of(router, options), names=names, **setting)
