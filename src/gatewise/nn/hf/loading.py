"""A transformers model from a folder on the disk, without running anything that the folder holds."""

import json
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.messages import listed, shown
from gatewise.nn.hf.arrays import is_own_folder, recipes_in
from gatewise.nn.hf.contents import as_folder, check_contents

__all__ = ["class_of", "is_upcycled", "load_as", "load_model"]

_CONFIGURATION = "config.json"


def load_model(model_dir: str | Path, **options: Any) -> nn.Module:
    """The model in a folder, of the class that its configuration names among those of transformers.

    Nothing is downloaded, no code of the folder is run, and weights are read from safetensors only.

    Args:
        model_dir: a folder with config.json and *.safetensors, as `save_pretrained` writes them.
        options: of transformers' `from_pretrained`, as dtype or device_map.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelFolderError: the folder is no model's, its configuration names code of its own or no class of transformers,
            or asks for a kernel or an adapter from elsewhere or for more layers than its weights can fill; or its
            weights are missing, damaged, incomplete, or outside the folder.
    """
    folder = as_folder(model_dir)
    cls = class_of(folder)
    if is_upcycled(folder):
        raise ModelFolderError(
            f"the model in {folder} has sparse layers in the place of its MLPs: load_upcycled({str(model_dir)!r}) "
            "loads it"
        )
    return load_as(cls, folder, **options)


def is_upcycled(model_dir: str | Path) -> bool:
    """Whether the model in a folder has sparse layers in the place of its MLPs.

    Raises:
        ModelFolderError: there is no model, its configuration asks for code of its own, or its weights cannot be read.
    """
    folder = as_folder(model_dir)
    class_of(folder)
    return is_own_folder(folder) or bool(recipes_in(folder, None))


def load_as(cls: Any, folder: Path, **options: Any) -> nn.Module:
    """The model in a folder, of this class.

    Args:
        cls: of transformers, or one of such.
        folder: with a configuration that has been looked at.
        options: of transformers' `from_pretrained`.

    Raises:
        InputError: an option would have code run, or is chosen here.
        ModelFolderError: as `load_model`.
    """
    forbidden = {"trust_remote_code", "use_safetensors", "local_files_only", "output_loading_info"} & set(options)
    if forbidden:
        raise InputError(f"{sorted(forbidden)[0]} cannot be chosen here: models are read from the disk and run no code")
    check_contents(folder, options.get("variant"))
    try:
        model, info = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # noqa: BLE001 - what a configuration asks for can fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFolderError(f"cannot load the model in {folder}: {shown(reason)}") from None
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise ModelFolderError(f"the weights in {folder} lack {listed(lacking)}, which would be drawn at random")
    return model.eval()


def class_of(folder: Path) -> Any:
    """The class that a folder's configuration names among those of transformers.

    Raises:
        ModelFolderError: there is none, or it asks for code of its own.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"there is no model folder {folder}")
    try:
        configuration = json.loads((folder / _CONFIGURATION).read_bytes())
    except FileNotFoundError:
        raise ModelFolderError(f"{folder} is no model's folder: it has no {_CONFIGURATION}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"cannot read {folder / _CONFIGURATION}: {shown(str(error))}") from None
    if not isinstance(configuration, dict):
        raise ModelFolderError(f"{folder / _CONFIGURATION} is no configuration of a model")
    if "auto_map" in configuration:
        raise ModelFolderError(
            f"{folder / _CONFIGURATION} asks for code of its own (auto_map), which is never run: load the model "
            "yourself, if you trust it, and pass it to the functions of gatewise.nn.hf"
        )
    names = configuration.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    cls = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise ModelFolderError(
            f"{folder / _CONFIGURATION} names the architecture {shown(name)}, which is none of this transformers "
            f"({transformers.__version__})"
        )
    return cls
