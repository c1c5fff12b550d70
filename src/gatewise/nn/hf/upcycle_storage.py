"""Upcycled models on disk: weights as safetensors, all else as JSON; loading never runs code of the folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import new_folder
from gatewise.messages import listed, shown
from gatewise.nn.hf.contents import as_folder, weights_names
from gatewise.nn.hf.loading import RECIPE, class_of, load_as
from gatewise.nn.hf.recipe import keep_recipe, rebuild, recipe_of
from gatewise.nn.hf.upcycled import upcycled_in
from gatewise.nn.model_calls import unwrapped

__all__ = ["load_upcycled", "save_upcycled"]

# In the weights' names: a class that knows no sparse layers then finds no weights, and does not draw MLPs at random.
_VARIANT = "upcycled"
_CHECKSUMS = "upcycled.json"
_FORMAT = 1


def save_upcycled(
    model: nn.Module, model_dir: str | Path, *, tokenizer: Any = None, overwrite: bool = False, **options: Any
) -> Path:
    """Write an upcycled model into a new folder, whole or not at all.

    The folder holds what `save_pretrained` writes, with the weights as model.upcycled.safetensors or in parts, so that
    transformers alone says that it finds no weights; the forms of the layers and their routers are in config.json, and
    checksums in upcycled.json.

    Args:
        model: upcycled.
        model_dir: the folder.
        tokenizer: to be saved beside it.
        overwrite: whether a folder that Gatewise wrote may be replaced.
        options: of transformers' `save_pretrained`, as max_shard_size.

    Returns:
        The folder that was written.

    Raises:
        InputError: it is no model, nothing in it was upcycled, something has been put around a sparse layer, a gate is
            of a class that is not registered, or a number of a sparse layer is not finite.
        OutputError: the folder cannot be written, or exists.
    """
    forbidden = {"variant", "save_directory", "state_dict", "push_to_hub"} & set(options)
    if forbidden:
        raise InputError(f"{sorted(forbidden)[0]} cannot be chosen here")
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    whole: Any = unwrapped(model)
    if not hasattr(whole, "save_pretrained") or hasattr(whole, "peft_config"):
        raise InputError(
            f"pass the model of transformers, not a {type(whole).__name__}: take what is around it away first "
            "(merge_and_unload)"
        )
    recipe_of(whole)
    for name, layer in upcycled_in(whole).items():
        for part, value in layer.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise InputError(f"{part} of the layer {name!r} is not finite: it cannot be saved")
    # As the routers are now: a schedule may have changed how many experts they choose.
    keep_recipe(whole)
    target = as_folder(model_dir)
    with new_folder(target, overwrite=overwrite) as folder:
        whole.save_pretrained(folder.root, variant=_VARIANT, **options)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder.root)
        sums = {path.name: _checksum(path) for path in sorted(folder.root.glob("*.safetensors"))}
        description = {"format": _FORMAT, "sha256": sums}
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
    cls, configuration = class_of(folder)
    if RECIPE not in configuration:
        raise ModelFolderError(
            f"the model in {folder} was not upcycled: its configuration has no {RECIPE}; load_model loads it"
        )
    variant = _checked_variant(folder)
    sparse = _sparse_class(cls)
    _check_shapes(folder, sparse, variant)
    model = load_as(sparse, folder, variant=variant, **options)
    model.__class__ = cls
    for value in (*model.parameters(), *model.buffers()):
        if value.device.type == "cpu":
            # Numbers mapped from a file lie on any address, from which the products of some processors round otherwise.
            value.data = value.data.clone()
    return model


def _sparse_class(cls: Any) -> Any:
    """The class whose models have, from their configuration on, sparse layers in the place of MLPs."""

    def __init__(self: Any, config: Any, *arguments: Any, **keywords: Any) -> None:
        cls.__init__(self, config, *arguments, **keywords)
        rebuild(self, getattr(config, RECIPE, None))

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})


def _checked_variant(folder: Path) -> str | None:
    """The variant in the weights' names, None in a checkpoint of a Trainer, once the checksums have been compared.

    Raises:
        ModelFolderError: a file is missing, damaged, or not the one that was written.
    """
    path = folder / _CHECKSUMS
    if not path.exists():
        if any((folder / name).exists() for name in weights_names(_VARIANT)):
            raise ModelFolderError(f"there is no {path}, which says what the weights beside it must be")
        return None
    try:
        description = json.loads(path.read_bytes())
        version, sums = description["format"], dict(description["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelFolderError(f"{path} holds no checksums of weights") from None
    if version != _FORMAT:
        raise ModelFolderError(f"{path} has the format {shown(version)}, and this Gatewise reads {_FORMAT}")
    there = {file.name for file in folder.glob("*.safetensors")}
    if there != set(sums) or not sums:
        raise ModelFolderError(f"{folder} holds {listed(sorted(there))}, and {_CHECKSUMS} names {listed(sorted(sums))}")
    for name, wanted in sums.items():
        if _checksum(folder / name) != wanted:
            raise ModelFolderError(f"{folder / name} is damaged or not the file that {_CHECKSUMS} describes")
    return _VARIANT


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
    shapes = _shapes(folder, variant)
    for name, layer in upcycled_in(skeleton).items():
        for part, value in layer.state_dict().items():
            found = shapes.get(f"{name}.{part}")
            if found != tuple(value.shape):
                what = "is missing" if found is None else f"has the shape {found}, not {tuple(value.shape)}"
                raise ModelFolderError(f"the weights in {folder}: {part} of the layer {name!r} {what}")


def _shapes(folder: Path, variant: str | None) -> dict[str, tuple[int, ...]]:
    whole, _ = weights_names(variant)
    files = [folder / whole] if (folder / whole).is_file() else sorted(folder.glob("*.safetensors"))
    found: dict[str, tuple[int, ...]] = {}
    try:
        for path in files:
            with safetensors.safe_open(path, "pt") as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFolderError(f"cannot read the weights in {folder}: {shown(str(error))}") from None
    return found


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
