"""Upcycled models on disk: weights as safetensors, all else as JSON; loading never runs code of the folder."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import new_folder
from gatewise.messages import listed, shown
from gatewise.nn.hf.arrays import VARIANT, array_shapes, is_own_folder, recipes_in
from gatewise.nn.hf.contents import as_folder
from gatewise.nn.hf.entries import described_router
from gatewise.nn.hf.loading import class_of, load_as
from gatewise.nn.hf.recipe import STATE, LayerRecipe
from gatewise.nn.hf.upcycled import rebuild, upcycled_in
from gatewise.nn.model_calls import unwrapped

__all__ = ["load_upcycled", "save_upcycled"]

_CONFIGURATION, _CHECKSUMS = "config.json", "upcycled.json"
_FORMAT = 1
# What would leave weights out, or write them elsewhere or by another name.
_FORBIDDEN = {"variant", "save_directory", "state_dict", "push_to_hub", "is_main_process", "safe_serialization"}


def save_upcycled(
    model: nn.Module, model_dir: str | Path, *, tokenizer: Any = None, overwrite: bool = False, **options: Any
) -> Path:
    """Write an upcycled model into a new folder, whole or not at all.

    The folder holds what `save_pretrained` writes, with the weights as model.upcycled.safetensors or in parts, so that
    transformers alone says that it finds no weights. The forms of the layers and how their routers choose lie among the
    weights, as bytes of JSON in each layer's state; checksums of the weights and of config.json are in upcycled.json.

    Args:
        model: upcycled.
        model_dir: the folder.
        tokenizer: to be saved beside it.
        overwrite: whether a folder that Gatewise wrote may be replaced.
        options: of transformers' `save_pretrained`, as max_shard_size.

    Returns:
        The folder that was written.

    Raises:
        InputError: it is no model, nothing in it was upcycled, it holds adapters, a gate is of a class that is not
            registered, a number of a sparse layer is not finite, or an option is not what it may be.
        OutputError: the folder cannot be written, or exists.
    """
    forbidden = _FORBIDDEN & set(options)
    if forbidden:
        raise InputError(f"{sorted(forbidden)[0]} cannot be chosen here")
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    if tokenizer is not None and not hasattr(tokenizer, "save_pretrained"):
        raise InputError(f"tokenizer must be one of transformers, not {shown(tokenizer)}")
    whole: Any = unwrapped(model)
    if hasattr(whole, "peft_config"):
        raise InputError(f"this {type(whole).__name__} holds adapters of PEFT: merge them first (merge_and_unload)")
    if not hasattr(whole, "save_pretrained"):
        raise InputError(f"pass the model of transformers, not a {type(whole).__name__}")
    layers = upcycled_in(whole)
    if not layers:
        raise InputError(f"nothing in this {type(whole).__name__} was upcycled: there is nothing to save")
    for name, layer in layers.items():
        described_router(f"{name}.router", layer.router)
        for part, value in layer.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise InputError(f"{part} of the layer {name!r} is not finite: it cannot be saved")
    target = as_folder(model_dir)
    with new_folder(target, overwrite=overwrite) as folder:
        try:
            whole.save_pretrained(folder.root, variant=VARIANT, **options)
        except (ValueError, TypeError) as error:
            raise InputError(f"transformers cannot save this {type(whole).__name__}: {error}") from None
        if tokenizer is not None:
            tokenizer.save_pretrained(folder.root)
        paths = [folder.root / _CONFIGURATION, *sorted(folder.root.glob("*.safetensors"))]
        description = {"format": _FORMAT, "sha256": {path.name: _checksum(path) for path in paths}}
        folder.write(_CHECKSUMS, (json.dumps(description, indent=1) + "\n").encode())
    return target


def load_upcycled(model_dir: str | Path, **options: Any) -> nn.Module:
    """The upcycled model in a folder that `save_upcycled` wrote, or in a checkpoint of a Trainer.

    Nothing is downloaded, no code of the folder is run, and weights are read from safetensors only.

    Args:
        model_dir: the folder.
        options: of transformers' `from_pretrained`, as dtype or device_map.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelFolderError: the folder is none of an upcycled model; or what it holds is missing, damaged, does not fit
            together, or is refused as by `load_model`.
    """
    folder = as_folder(model_dir)
    if "variant" in options:
        raise InputError("variant cannot be chosen here")
    cls = class_of(folder)
    variant = _checked_variant(folder)
    recipes = recipes_in(folder, variant)
    if not recipes:
        raise ModelFolderError(
            f"the model in {folder} was not upcycled: there is no sparse layer in its weights; load_model loads it"
        )
    sparse = _sparse_class(cls, recipes)
    _check_shapes(folder, sparse, variant)
    model = load_as(sparse, folder, variant=variant, **options)
    model.__class__ = cls
    for value in (*model.parameters(), *model.buffers()):
        if value.device.type == "cpu":
            # Numbers mapped from a file lie on any address, from which the products of some processors round otherwise.
            value.data = value.data.clone()
    return model


def _sparse_class(cls: Any, recipes: Mapping[str, LayerRecipe]) -> Any:
    """The class whose models have, from their configuration on, sparse layers in the place of MLPs."""

    def __init__(self: Any, config: Any, *arguments: Any, **keywords: Any) -> None:
        cls.__init__(self, config, *arguments, **keywords)
        rebuild(self, recipes)

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})


def _checked_variant(folder: Path) -> str | None:
    """The variant in the weights' names, None in a checkpoint of a Trainer, once the checksums have been compared.

    Raises:
        ModelFolderError: a file is missing, damaged, or not the one that was written.
    """
    path = folder / _CHECKSUMS
    if not path.exists():
        if is_own_folder(folder):
            raise ModelFolderError(f"there is no {path}, which says what the weights beside it must be")
        return None
    try:
        description = json.loads(path.read_bytes())
        version, sums = description["format"], dict(description["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelFolderError(f"{path} holds no checksums of weights") from None
    if version != _FORMAT:
        raise ModelFolderError(f"{path} has the format {shown(version)}, and this Gatewise reads {_FORMAT}")
    there = {_CONFIGURATION, *(file.name for file in folder.glob("*.safetensors"))}
    for names, what in ((set(sums) - there, "names, is missing"), (there - set(sums), "does not name, is there")):
        if names:
            raise ModelFolderError(f"{folder}: {listed(sorted(names))}, which {_CHECKSUMS} {what}")
    for name, wanted in sums.items():
        if _checksum(folder / name) != wanted:
            raise ModelFolderError(f"{folder / name} is damaged or not the file that {_CHECKSUMS} describes")
    return VARIANT


def _check_shapes(folder: Path, sparse: Any, variant: str | None) -> None:
    """Refuse a recipe that does not fit the weights, before memory is taken for what it asks for.

    Raises:
        ModelFolderError: an array of a sparse layer is missing or of another shape, or the recipe is damaged.
    """
    try:
        config = sparse.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            skeleton = sparse(config)
    except InputError as error:
        raise ModelFolderError(f"the model in {folder} cannot be built: {error}") from None
    except Exception as error:  # noqa: BLE001 - what a configuration asks for can fail in any way
        raise ModelFolderError(f"the model in {folder} cannot be built: {shown(str(error))}") from None
    shapes = array_shapes(folder, variant)
    for name, layer in upcycled_in(skeleton).items():
        numbers = {part: value for part, value in layer.state_dict().items() if part != STATE}
        for part, value in numbers.items():
            found = shapes.get(f"{name}.{part}")
            if found != tuple(value.shape):
                what = "is missing" if found is None else f"has the shape {found}, not {tuple(value.shape)}"
                raise ModelFolderError(f"the weights in {folder}: {part} of the layer {name!r} {what}")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
