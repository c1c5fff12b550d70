"""Models on disk: a folder with config.json and weights.safetensors, from which loading never runs code.

The configuration names the classes by their registered names and holds their sizes and options; the weights are plain
arrays. Two checksums, one of the weights and one of the configuration, tell a folder that was changed after it was
written.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import NewFolder, new_folder
from gatewise.io.model_config import (
    SCHEMA_VERSION,
    ModelConfig,
    ModelMetadata,
    PartsConfig,
    build_parts,
    describe_parts,
)
from gatewise.model import MixtureOfExperts
from gatewise.ops.standardiser import Standardiser

__all__ = [
    "CONFIG_NAME",
    "SCHEMA_VERSION",
    "WEIGHTS_NAME",
    "ModelMetadata",
    "SavedModel",
    "load_model",
    "model_files",
    "save_model",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "weights.safetensors"

# Not from the package itself: it exports names of higher layers.
_VERSION = importlib.metadata.version("gatewise")
_LARGEST_CONFIG = 16 * 2**20
_DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class SavedModel:
    """A model as it came from a folder.

    Attributes:
        model: the mixture, on the CPU.
        metadata: the names of its inputs and target.
    """

    model: MixtureOfExperts
    metadata: ModelMetadata


def _canonical_checksum(config: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the configuration without its own checksum."""
    rest = {key: value for key, value in config.items() if key != "sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _shell(parts: PartsConfig) -> MixtureOfExperts:
    """The model without memory for its weights: its classes and the shapes of its arrays."""
    with torch.device("meta"):
        return build_parts(parts)


def _mismatch(shell: MixtureOfExperts, arrays: dict[str, torch.Tensor], dtype: torch.dtype) -> str | None:
    """The first array that is not as the shell needs it, or None; parameters must be of this type."""
    buffers = {name for name, _ in shell.named_buffers()}

    def describe(name: str, array: torch.Tensor) -> str:
        kind = str(array.dtype).removeprefix("torch.")
        # A buffer may have another floating type than the parameters: a fixed temperature is kept in float64.
        return f"{'float' if name in buffers and kind in _DTYPES else kind} {tuple(array.shape)}"

    expected = {name: describe(name, array) for name, array in shell.to(dtype).state_dict().items()}
    found = {name: describe(name, array) for name, array in arrays.items()}
    for name in sorted(expected | found):
        if expected.get(name) != found.get(name):
            return f"{name!r} as {found.get(name)}, and {expected.get(name)} is needed"
    return None


def model_files(model: MixtureOfExperts, metadata: ModelMetadata) -> dict[str, bytes]:
    """The files of a model folder, by name.

    Args:
        model: the mixture; its classes are registered ones and its parameters all float64 or all float32.
        metadata: the names of its inputs and target.

    Raises:
        InputError: the model cannot be rebuilt from names and sizes, an array is not finite or of another type, or the
            names do not fit the sizes.
    """
    # Copies: parameters that are tied share their memory, which the format of the weights does not take.
    arrays = {name: array.detach().cpu().clone().contiguous() for name, array in model.state_dict().items()}
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES):
        raise InputError(f"a model is saved in float64 or float32, this one is in {', '.join(sorted(dtypes))}")
    dtype = dtypes.pop()
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise InputError(f"the weights {name!r} are not finite: such a model cannot be saved")
    parts = describe_parts(model)
    shell = _shell(parts)
    _refuse_other_classes(shell, model)
    mismatch = _mismatch(shell, arrays, _DTYPES[dtype])
    if mismatch is not None:
        raise InputError(f"the model's arrays do not follow from its classes and sizes: it has {mismatch}")
    metadata.check_fits(model)
    weights = safetensors.torch.save(arrays)
    config: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "gatewise_version": _VERSION,
        "created": {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        **parts.model_dump(mode="json"),
        "metadata": metadata.model_dump(mode="json"),
        "weights": {"dtype": dtype, "sha256": hashlib.sha256(weights).hexdigest()},
    }
    config["sha256"] = _canonical_checksum(config)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return {CONFIG_NAME: text.encode(), WEIGHTS_NAME: weights}


def _refuse_other_classes(shell: MixtureOfExperts, model: MixtureOfExperts) -> None:
    """Refuse a model whose parts, the parts of its parts included, are not of the classes that loading would make."""
    pairs: list[tuple[Any, Any]] = list(zip(shell.modules(), model.modules(), strict=False))
    for rebuilt, part in [*pairs, (shell.family, model.family)]:
        if type(rebuilt) is not type(part):
            name = getattr(part, "name", type(rebuilt).__name__)
            raise InputError(f"{type(part).__name__} is not the class registered as {name!r}: it cannot be saved")
    if shell.family != model.family:
        raise InputError(f"{model.family!r} cannot be rebuilt from its options: it cannot be saved")


def _refusal(folder: Path) -> str | None:
    """Why `folder` must not be replaced by a model folder, or None if it is a model folder and holds nothing else."""
    strangers = set(NewFolder(folder).files()) - {CONFIG_NAME, WEIGHTS_NAME}
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
    with new_folder(directory, overwrite=overwrite, manifest=False, refusal=_refusal) as folder:
        for name, content in files.items():
            folder.write(name, content)


def _read_member(folder: Path, name: str, largest: int | None = None) -> bytes:
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise ModelFolderError(f"the model folder {folder} is not self-contained: {name} links out of it")
        if not path.is_file():
            raise ModelFolderError(f"the model folder {folder} is damaged: {name} is not a file")
        if largest is not None and path.stat().st_size > largest:
            raise ModelFolderError(f"the model folder {folder} is damaged: {name} is larger than {largest} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelFolderError(
            f"the model folder {folder} is incomplete: {name} is missing; name a folder that `gatewise fit --out` or "
            "`save_model` wrote"
        ) from None
    except (OSError, RuntimeError) as error:
        # Path.resolve reports a loop of symbolic links as a RuntimeError.
        raise ModelFolderError(f"cannot read {name} in the model folder {folder}: {error}") from error


def _read_config(folder: Path) -> ModelConfig:
    content = _read_member(folder, CONFIG_NAME, _LARGEST_CONFIG)

    def damaged(reason: str) -> ModelFolderError:
        return ModelFolderError(f"the model folder {folder} is damaged: {reason}; save the model again")

    def refuse_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        config = json.loads(content.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise damaged(f"{CONFIG_NAME} is not JSON ({error})") from None
    version = config.get("schema_version") if isinstance(config, dict) else None
    if type(version) is not int or version < 1:
        raise damaged(f"{CONFIG_NAME} does not state a schema_version")
    if version > SCHEMA_VERSION:
        raise ModelFolderError(
            f"the model folder {folder} has schema version {version}, and this Gatewise {_VERSION} reads up to "
            f"{SCHEMA_VERSION}: update Gatewise"
        )
    try:
        checksum = _canonical_checksum(config)
    except (ValueError, RecursionError) as error:
        raise damaged(f"{CONFIG_NAME} holds a number that is not finite or too long ({error})") from None
    if config.get("sha256") != checksum:
        raise damaged(f"{CONFIG_NAME} was changed after it was written (its checksum does not match)")
    try:
        return ModelConfig.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise damaged(f"{CONFIG_NAME}, at {place!r}: {first['msg']}") from None


def load_model(directory: str | os.PathLike[str]) -> SavedModel:
    """Read a model folder, or the folder of a fit's outputs that contains one; no code is run from it.

    Args:
        directory: the folder that `save_model` wrote, or the one that `gatewise fit --out` wrote.

    Raises:
        ModelFolderError: it is missing or incomplete, of a newer version, names unknown classes, was changed after it
            was written, links out of itself, or its arrays have wrong names, shapes or types or are not finite.
    """
    folder = Path(directory)
    if not os.path.lexists(folder / CONFIG_NAME) and os.path.lexists(folder / "model" / CONFIG_NAME):
        folder = folder / "model"
    if not os.path.isdir(folder):
        raise ModelFolderError(f"there is no model folder {folder}: check its name")
    config = _read_config(folder)

    def damaged(reason: str) -> ModelFolderError:
        return ModelFolderError(f"the model folder {folder} is damaged: {reason}; save the model again")

    content = _read_member(folder, WEIGHTS_NAME)
    if hashlib.sha256(content).hexdigest() != config.weights.sha256:
        raise damaged(f"{WEIGHTS_NAME} was changed after it was written (its checksum does not match)")
    try:
        arrays = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise damaged(f"{WEIGHTS_NAME} is not a safetensors file ({error})") from None
    n_values = sum(array.numel() for array in arrays.values())
    if n_values < config.gate.n_experts:
        # A tree of gates takes memory for each of its nodes, even without their arrays.
        raise damaged(f"{WEIGHTS_NAME} holds {n_values} numbers, too few for {config.gate.n_experts} experts")
    dtype = _DTYPES[config.weights.dtype]
    try:
        shell = _shell(config)
        config.metadata.check_fits(shell)
        mismatch = _mismatch(shell, arrays, dtype)
        if mismatch is not None:
            raise damaged(f"{WEIGHTS_NAME} holds {mismatch}")
        # Only now memory is taken, for arrays as large as those of the file. What a constructor computes and does not
        # store, such as a table of exponents, needs this second construction: the first has no values.
        model = build_parts(config).to(dtype)
    except ModelFolderError:
        raise
    except InputError as error:
        raise ModelFolderError(f"the model folder {folder} cannot be rebuilt: {error}") from None
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise damaged(f"the weights {name!r} are not finite")
    model.load_state_dict(arrays, assign=True)
    for part in model.modules():
        if isinstance(part, Standardiser):
            try:
                part.check()
            except InputError as error:
                raise damaged(str(error)) from None
    return SavedModel(model, config.metadata)
