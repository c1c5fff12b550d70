"""Models on disk: a folder with config.json and weights.safetensors, from which loading never runs code.

The configuration names the classes by their registered names and holds their sizes and options; the weights are plain
arrays. Two checksums, one of the weights and one of the configuration, tell a folder that was changed after it was
written.
"""

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import NewFolder, new_folder
from gatewise.io.model_arrays import put_together, take_apart
from gatewise.io.model_config import SCHEMA_VERSION, ModelConfig, ModelMetadata
from gatewise.io.sealed import (
    CONFIG_NAME,
    VERSION,
    canonical_checksum,
    checksum,
    damaged,
    find_model_folder,
    read_member,
    read_sealed,
)
from gatewise.model import MixtureOfExperts

__all__ = [
    "CONFIG_NAME",
    "FIT_ARRAYS_NAME",
    "FIT_NAME",
    "SCHEMA_VERSION",
    "WEIGHTS_NAME",
    "ModelMetadata",
    "SavedModel",
    "load_model",
    "load_with_checksum",
    "model_files",
    "refusal_to_replace",
    "save_model",
]

WEIGHTS_NAME = "weights.safetensors"
FIT_NAME = "fit.json"
FIT_ARRAYS_NAME = "fit.safetensors"

_LARGEST_CONFIG = 16 * 2**20


@dataclass(frozen=True)
class SavedModel:
    """A model as it came from a folder.

    Attributes:
        model: the mixture, on the CPU.
        metadata: the names of its inputs and target.
    """

    model: MixtureOfExperts
    metadata: ModelMetadata


def model_files(model: MixtureOfExperts, metadata: ModelMetadata) -> dict[str, bytes]:
    """The files of a model folder, by name.

    Args:
        model: the mixture; its classes are registered ones and its parameters all float64 or all float32.
        metadata: the names of its inputs and target.

    Raises:
        InputError: the model cannot be rebuilt from names and sizes, an array is not finite or of another type, or the
            names do not fit the sizes.
    """
    parts, arrays, dtype = take_apart(model)
    metadata.check_fits(model)
    weights = safetensors.torch.save(arrays)
    config: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "gatewise_version": VERSION,
        "created": {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        **parts.model_dump(mode="json"),
        "metadata": metadata.model_dump(mode="json"),
        "weights": {"dtype": dtype, "sha256": checksum(weights)},
    }
    config["sha256"] = canonical_checksum(config)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return {CONFIG_NAME: text.encode(), WEIGHTS_NAME: weights}


def refusal_to_replace(folder: Path) -> str | None:
    """Why `folder` must not be replaced by a model folder, or None if it is a model folder and holds nothing else."""
    strangers = set(NewFolder(folder).files()) - {CONFIG_NAME, WEIGHTS_NAME, FIT_NAME, FIT_ARRAYS_NAME}
    if strangers:
        return f"it holds {sorted(strangers)[0]!r}, which Gatewise did not write"
    try:
        config = json.loads((folder / CONFIG_NAME).read_bytes())
        known = isinstance(config["schema_version"], int) and isinstance(config["gatewise_version"], str)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = False
    return None if known else "it was not written by Gatewise"


def save_model(
    directory: str | os.PathLike[str],
    model: MixtureOfExperts,
    *,
    metadata: ModelMetadata,
    overwrite: bool = False,
) -> None:
    """Write a model folder, whole or not at all: config.json and weights.safetensors.

    Args:
        directory: the folder; its parent must exist.
        model: the mixture.
        metadata: the names of its inputs and target, and the coding of its columns.
        overwrite: whether an existing model folder may be replaced.

    Raises:
        InputError: the model cannot be saved; see `model_files`.
        OutputError: the folder cannot be written, exists, or is not a model folder.

    Example:
        >>> import tempfile
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.gates import SoftmaxGate
        >>> model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian())
        >>> metadata = ModelMetadata(feature_names=("x",), gate_feature_names=("x",), target_name="y")
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     save_model(Path(parent, "model"), model, metadata=metadata)
        ...     load_model(Path(parent, "model")).metadata.feature_names
        ('x',)
    """
    files = model_files(model, metadata)
    with new_folder(directory, overwrite=overwrite, manifest=False, refusal=refusal_to_replace) as folder:
        for name, content in files.items():
            folder.write(name, content)


def _read_config(folder: Path) -> ModelConfig:
    content = read_sealed(folder, CONFIG_NAME, SCHEMA_VERSION, _LARGEST_CONFIG)[1]
    try:
        return ModelConfig.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise damaged(folder, f"{CONFIG_NAME}, at {place!r}: {first['msg']}") from None


def load_model(directory: str | os.PathLike[str]) -> SavedModel:
    """Read a model folder, or the folder of a fit's outputs that contains one; no code is run from it.

    Args:
        directory: the folder that `save_model` wrote, or the one that `gatewise fit --out` wrote.

    Raises:
        ModelFolderError: it is missing or incomplete, of a newer version, names unknown classes, was changed after it
            was written, links out of itself, or its arrays have wrong names, shapes or types or are not finite.
    """
    return load_with_checksum(find_model_folder(directory))[0]


def load_with_checksum(folder: Path) -> tuple[SavedModel, str]:
    """The model of a model folder, and the checksum of its configuration, by which other files know it.

    Raises:
        ModelFolderError: as `load_model`.
    """
    config = _read_config(folder)
    content = read_member(folder, WEIGHTS_NAME)
    if checksum(content) != config.weights.sha256:
        raise damaged(folder, f"{WEIGHTS_NAME} was changed after it was written (its checksum does not match)")
    try:
        arrays = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise damaged(folder, f"{WEIGHTS_NAME} is not a safetensors file ({error})") from None
    try:
        model = put_together(config, arrays, config.weights.dtype, WEIGHTS_NAME)
        config.metadata.check_fits(model)
    except InputError as error:
        raise ModelFolderError(f"the model folder {folder} cannot be rebuilt: {error}; save the model again") from None
    return SavedModel(model, config.metadata), config.sha256
