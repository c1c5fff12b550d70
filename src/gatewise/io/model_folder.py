"""Models on disk: a folder with config.json and weights.safetensors, from which loading never runs code.

The configuration names the classes by their registered names and holds their sizes; the weights are plain arrays. Two
checksums, one of the weights and one of the configuration, tell a folder that was changed after it was written.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.gates import GATES
from gatewise.io.atomic import NewFolder, new_folder
from gatewise.io.coding import ColumnCoding
from gatewise.model import MixtureOfExperts

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
SCHEMA_VERSION = 1
"""The version of the folder's format; a folder of a higher version is refused."""

# Not from the package itself: it exports names of higher layers.
_VERSION = importlib.metadata.version("gatewise")
_LARGEST_CONFIG = 16 * 2**20
_DTYPES = {"float64": torch.float64, "float32": torch.float32}

Size = Annotated[int, Field(ge=0, le=10**6)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _GateConfig(_Strict):
    name: str
    n_features: Size
    n_experts: Annotated[Size, Field(ge=1)]


class _ExpertsConfig(_GateConfig):
    shared_scale: bool


class _FamilyConfig(_Strict):
    name: str


class _WeightsConfig(_Strict):
    dtype: Literal["float64", "float32"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _CreationConfig(_Strict):
    time: str
    python: str
    torch: str


class ModelMetadata(_Strict):
    """What a model does not know about itself: the names of its inputs and of its target.

    Attributes:
        feature_names: of the experts' inputs, in order, after coding.
        gate_feature_names: of the gate's inputs, in order.
        target_name: the target's.
        coding: how the features are made from the columns of a table, or None if they are these columns.

    Raises:
        ValueError: (pydantic's ValidationError) names are repeated, the target is a feature, or the coding makes
            other features.

    Example:
        >>> ModelMetadata(feature_names=("x",), gate_feature_names=(), target_name="y").column_coding().coded_names
        ['x']
    """

    feature_names: tuple[str, ...]
    gate_feature_names: tuple[str, ...]
    target_name: str
    coding: ColumnCoding | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> "ModelMetadata":
        for names in (self.feature_names, self.gate_feature_names):
            if len(set(names)) < len(names):
                raise ValueError(f"the feature names {list(names)} are not distinct; rename one of them")
        inputs = self._input_names()
        if self.target_name in inputs:
            raise ValueError(f"the target {self.target_name!r} is among the features")
        if self.coding is not None and sorted(self.coding.coded_names) != sorted(inputs):
            raise ValueError(f"the coding makes {self.coding.coded_names}, not the features {inputs}")
        return self

    def _input_names(self) -> list[str]:
        """The experts' features, then those of the gate alone."""
        return list(dict.fromkeys([*self.feature_names, *self.gate_feature_names]))

    def column_coding(self) -> ColumnCoding:
        """The coding, or the one that takes every feature as a numeric column."""
        if self.coding is not None:
            return self.coding
        return ColumnCoding.model_validate(
            {"columns": [{"kind": "numeric", "name": name} for name in self._input_names()]}
        )


class _Config(_Strict):
    schema_version: Literal[1]
    gatewise_version: str
    created: _CreationConfig
    gate: _GateConfig
    experts: _ExpertsConfig
    family: _FamilyConfig
    metadata: ModelMetadata
    weights: _WeightsConfig
    sha256: str


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


def _shell(gate: _GateConfig, experts: _ExpertsConfig, family: _FamilyConfig) -> MixtureOfExperts:
    """The model without memory for its weights: its classes and the shapes of its arrays."""
    with torch.device("meta"):
        return MixtureOfExperts(
            GATES[gate.name](gate.n_features, gate.n_experts),
            EXPERTS[experts.name](experts.n_features, experts.n_experts, experts.shared_scale),
            FAMILIES[family.name](),
        )


def _describe(array: torch.Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"


def model_files(model: MixtureOfExperts, metadata: ModelMetadata) -> dict[str, bytes]:
    """The files of a model folder, by name.

    Args:
        model: the mixture; its classes are registered ones and its arrays all float64 or all float32.
        metadata: the names of its inputs and target.

    Raises:
        InputError: the model cannot be rebuilt from names and sizes, an array is not finite or of another type, or the
            names do not fit the sizes.
    """
    arrays = {name: array.detach().cpu().contiguous() for name, array in model.state_dict().items()}
    dtypes = {str(array.dtype).removeprefix("torch.") for array in arrays.values()}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES):
        raise InputError(f"a model is saved in float64 or float32, this one is in {', '.join(sorted(dtypes))}")
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise InputError(f"the weights {name!r} are not finite: such a model cannot be saved")
    gate = _GateConfig(name=model.gate.name, n_features=model.gate.n_features, n_experts=model.n_experts)
    experts = _ExpertsConfig(
        name=model.experts.name,
        n_features=model.experts.n_features,
        n_experts=model.n_experts,
        shared_scale=model.experts.shared_scale,
    )
    family = _FamilyConfig(name=model.family.name)
    shell = _shell(gate, experts, family)
    parts = ((shell.gate, model.gate), (shell.experts, model.experts), (shell.family, model.family))
    for rebuilt, part in parts:
        if type(rebuilt) is not type(part):
            raise InputError(f"{type(part).__name__} is not the class registered as {part.name!r}: it cannot be saved")
    shapes = {name: array.shape for name, array in shell.state_dict().items()}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise InputError("the model's arrays do not follow from its classes and sizes: it cannot be saved")
    sizes = (experts.n_features, gate.n_features)
    if (len(metadata.feature_names), len(metadata.gate_feature_names)) != sizes:
        raise InputError(
            f"the model has {sizes[0]} features and {sizes[1]} gate features, the metadata name "
            f"{len(metadata.feature_names)} and {len(metadata.gate_feature_names)}"
        )
    weights = safetensors.torch.save(arrays)
    config: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "gatewise_version": _VERSION,
        "created": {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        "gate": gate.model_dump(mode="json"),
        "experts": experts.model_dump(mode="json"),
        "family": family.model_dump(mode="json"),
        "metadata": metadata.model_dump(mode="json"),
        "weights": {"dtype": dtypes.pop(), "sha256": hashlib.sha256(weights).hexdigest()},
    }
    config["sha256"] = _canonical_checksum(config)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return {CONFIG_NAME: text.encode(), WEIGHTS_NAME: weights}


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


def _read_config(folder: Path) -> _Config:
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
        return _Config.model_validate_json(content, strict=True)
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

    metadata = config.metadata
    sizes = (len(metadata.feature_names), len(metadata.gate_feature_names))
    if sizes != (config.experts.n_features, config.gate.n_features):
        raise damaged(f"{CONFIG_NAME} names {sizes[0]} features and {sizes[1]} gate features, not as many as its sizes")
    try:
        model = _shell(config.gate, config.experts, config.family)
    except InputError as error:
        raise ModelFolderError(f"the model folder {folder} cannot be rebuilt: {error}") from None
    content = _read_member(folder, WEIGHTS_NAME)
    if hashlib.sha256(content).hexdigest() != config.weights.sha256:
        raise damaged(f"{WEIGHTS_NAME} was changed after it was written (its checksum does not match)")
    try:
        arrays = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise damaged(f"{WEIGHTS_NAME} is not a safetensors file ({error})") from None
    dtype = _DTYPES[config.weights.dtype]
    expected = {name: _describe(array.to(dtype)) for name, array in model.state_dict().items()}
    found = {name: _describe(array) for name, array in arrays.items()}
    if found != expected:
        name = next(name for name in sorted(expected | found) if expected.get(name) != found.get(name))
        raise damaged(f"{WEIGHTS_NAME} holds {name!r} as {found.get(name)}, and {expected.get(name)} is needed")
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise damaged(f"the weights {name!r} are not finite")
    model.load_state_dict(arrays, assign=True)
    return SavedModel(model, metadata)
