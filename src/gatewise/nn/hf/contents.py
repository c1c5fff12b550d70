"""What a model's folder asks for beside its weights, looked at before transformers reads it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.messages import shown

__all__ = ["as_folder", "check_contents", "weights_names"]

_CONFIGURATION = "config.json"
# transformers takes such a name with a "/" for a repository with a kernel, whose code it downloads and runs.
_KERNELS = ("attn_implementation", "experts_implementation")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")


def as_folder(model_dir: object) -> Path:
    """The path of a folder.

    Raises:
        InputError: it is no path.
    """
    if not isinstance(model_dir, str | os.PathLike):
        raise InputError(f"pass the path of a model's folder, not {shown(model_dir)}")
    return Path(model_dir)


def weights_names(variant: str | None = None) -> tuple[str, str]:
    """What transformers calls the weights in one file, and the index of those in several.

    Example:
        >>> weights_names("upcycled")
        ('model.upcycled.safetensors', 'model.safetensors.index.upcycled.json')
    """
    within = "" if variant is None else f".{variant}"
    return f"model{within}.safetensors", f"model.safetensors.index{within}.json"


def check_contents(folder: Path, variant: str | None = None) -> None:
    """Refuse a folder that leads out of itself, or asks for more layers than its weights can fill.

    Args:
        folder: with a configuration that is a dictionary.
        variant: of the weights' names.

    Raises:
        ModelFolderError: the configuration names a kernel from elsewhere or too many layers; there is an adapter, of
            another model; or the index of the weights is damaged or names what is no file of the folder.
    """
    configuration = folder / _CONFIGURATION
    found = list(_settings(json.loads(configuration.read_bytes())))
    for name, value in found:
        if isinstance(value, str) and "/" in value and any(kernel in name for kernel in _KERNELS):
            raise ModelFolderError(
                f"{configuration} asks for {name} = {shown(value)}, code from elsewhere, which is never downloaded or "
                "run: take the line out"
            )
    if (folder / "adapter_config.json").exists():
        raise ModelFolderError(
            f"{folder} holds an adapter (adapter_config.json), which belongs to a model that lies elsewhere: load both "
            "by PEFT, and pass the model to the functions of gatewise.nn.hf"
        )
    n_arrays = _n_arrays(folder, variant)
    for name, value in found:
        if name in _LAYERS and isinstance(value, int) and n_arrays is not None and value > n_arrays:
            raise ModelFolderError(
                f"{configuration} asks for {name} = {shown(value)}, and the weights are {n_arrays} arrays"
            )


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """All names and values of a configuration and of those in it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _n_arrays(folder: Path, variant: str | None) -> int | None:
    """How many arrays the weights are; None where transformers has to say what is wrong with them.

    Raises:
        ModelFolderError: the index is damaged, or names what is no file of the folder.
    """
    weights, listing = weights_names(variant)
    # As transformers does it, which takes the index only where the weights are not in one file.
    if (folder / weights).is_file():
        try:
            with safetensors.safe_open(folder / weights, "pt") as file:
                return len(file.keys())
        except (safetensors.SafetensorError, OSError):
            return None
    index = folder / listing
    if not index.is_file():
        return None
    try:
        files = json.loads(index.read_bytes())["weight_map"]
        names = set(files.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ModelFolderError(f"{index} is damaged: it holds no weight_map of arrays and files") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise ModelFolderError(f"{index} names {shown(name)}, which is no file of that folder")
    return len(files)
