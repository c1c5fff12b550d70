"""A model folder that also holds its fit: what an estimator needs to come back as it was.

Beside config.json and weights.safetensors, which are those of any model folder, stand fit.json and fit.safetensors. The
first names the checksums of the configuration and of the second, so that files of different fits are told apart.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.numpy

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import check_new_folder, new_folder
from gatewise.fit.result import FitResult
from gatewise.io.fit_kinds import check_result
from gatewise.io.model_config import ModelMetadata
from gatewise.io.model_folder import (
    CONFIG_NAME,
    FIT_ARRAYS_NAME,
    FIT_NAME,
    SavedModel,
    load_with_checksum,
    model_files,
    refusal_to_replace,
)
from gatewise.io.pack import Packer, Unpacker
from gatewise.io.sealed import (
    VERSION,
    canonical_checksum,
    checksum,
    damaged,
    find_model_folder,
    read_member,
    read_sealed,
)
from gatewise.model import MixtureOfExperts

__all__ = ["FIT_SCHEMA_VERSION", "fit_files", "load_fit", "save_fit"]

FIT_SCHEMA_VERSION = 1
"""The version of fit.json; one of a higher version is refused."""

_LARGEST_FIT = 256 * 2**20


def fit_files(model: MixtureOfExperts, metadata: ModelMetadata, state: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a model folder with its fit, by name.

    Args:
        model: the fitted mixture, an object that may occur in the state.
        metadata: the names of its inputs and target.
        state: values of the kinds of `gatewise.io.pack` and `gatewise.io.fit_kinds`, by name.

    Raises:
        InputError: the model cannot be saved, or a value is of no kind.
    """
    files = model_files(model, metadata)
    packer = Packer([model])
    packed = packer.pack(dict(state))
    arrays = safetensors.numpy.save(packer.arrays)
    content: dict[str, Any] = {
        "schema_version": FIT_SCHEMA_VERSION,
        "gatewise_version": VERSION,
        "config_sha256": json.loads(files[CONFIG_NAME])["sha256"],
        "arrays_sha256": checksum(arrays),
        "state": packed,
        "shared": packer.shared,
    }
    content["sha256"] = canonical_checksum(content)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return {**files, FIT_NAME: text.encode(), FIT_ARRAYS_NAME: arrays}


def save_fit(
    directory: str | os.PathLike[str],
    model: MixtureOfExperts,
    metadata: ModelMetadata,
    state: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write a model folder with its fit, whole or not at all; the arguments are those of `fit_files`.

    Raises:
        InputError: as `fit_files`.
        OutputError: the folder cannot be written, exists, or is not a model folder.
    """
    check_new_folder(directory, overwrite=overwrite, refusal=refusal_to_replace)
    files = fit_files(model, metadata, state)
    with new_folder(directory, overwrite=overwrite, manifest=False, refusal=refusal_to_replace) as folder:
        for name, content in files.items():
            folder.write(name, content)


def load_fit(directory: str | os.PathLike[str]) -> tuple[SavedModel, dict[str, Any]]:
    """The model and the state that `fit_files` was given.

    The state's `result` is checked: its arrays fit each other and the model.

    Args:
        directory: the folder, or that of a fit's outputs in which it is the folder `model`.

    Raises:
        ModelFolderError: as `load_model`; or the folder holds a model without its fit, or the fit of another model.
    """
    folder = find_model_folder(directory)
    saved, config_checksum = load_with_checksum(folder)
    if not os.path.lexists(folder / FIT_NAME):
        raise ModelFolderError(
            f"the model folder {folder} holds a model without its fit (no {FIT_NAME}): `save_model` or an older "
            "Gatewise wrote it; read the model alone with gatewise.load_model, or fit again and save the estimator"
        )
    content = read_sealed(folder, FIT_NAME, FIT_SCHEMA_VERSION, _LARGEST_FIT)[0]
    if content.get("config_sha256") != config_checksum:
        raise damaged(folder, f"{FIT_NAME} is of another model than {CONFIG_NAME}")
    packed = read_member(folder, FIT_ARRAYS_NAME)
    if content.get("arrays_sha256") != checksum(packed):
        raise damaged(folder, f"{FIT_ARRAYS_NAME} was changed after it was written (its checksum does not match)")
    try:
        arrays = safetensors.numpy.load(packed)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, f"{FIT_ARRAYS_NAME} is not a safetensors file ({error})") from None
    try:
        state = _state(content, arrays, saved.model)
    except (InputError, RecursionError) as error:
        raise damaged(folder, f"{FIT_NAME}: {error}") from None
    return saved, state


def _state(content: dict[str, Any], arrays: dict[str, Any], model: MixtureOfExperts) -> dict[str, Any]:
    shared = content.get("shared")
    if not isinstance(shared, list):
        raise InputError("it has no list of shared objects")
    model.requires_grad_(False)
    state = Unpacker(arrays, shared, [model]).unpack(content.get("state"))
    if not isinstance(state, dict) or not isinstance(state.get("result"), FitResult):
        raise InputError("it has no result of a fit")
    check_result(state["result"], model)
    return state
