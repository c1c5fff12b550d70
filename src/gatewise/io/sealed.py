"""Reading the files of a model folder: only what lies in it, JSON that was not changed, and one error for the rest."""

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any, NoReturn

from gatewise.exceptions import ModelFolderError

__all__ = [
    "CONFIG_NAME",
    "VERSION",
    "canonical_checksum",
    "checksum",
    "damaged",
    "find_model_folder",
    "read_member",
    "read_sealed",
]

CONFIG_NAME = "config.json"
"""The file by which a model folder is known."""

# Not from the package itself: it exports names of higher layers.
VERSION = importlib.metadata.version("gatewise")
"""The version of Gatewise that is installed."""


def checksum(content: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical_checksum(content: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a dictionary without its own `sha256`.

    Example:
        >>> canonical_checksum({"a": 1, "b": 2}) == canonical_checksum({"b": 2, "a": 1, "sha256": "…"})
        True
    """
    rest = {key: value for key, value in content.items() if key != "sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return checksum(canonical.encode("ascii"))


def find_model_folder(directory: str | os.PathLike[str]) -> Path:
    """The model folder that a folder is, or that lies in it as the folder `model` of a fit's outputs.

    Raises:
        ModelFolderError: there is no such folder.
    """
    folder = Path(directory)
    if not os.path.lexists(folder / CONFIG_NAME) and os.path.lexists(folder / "model" / CONFIG_NAME):
        folder = folder / "model"
    if not os.path.isdir(folder):
        raise ModelFolderError(f"there is no model folder {folder}: check its name")
    return folder


def damaged(folder: Path, reason: str) -> ModelFolderError:
    """The error of a model folder that is not as it was written."""
    return ModelFolderError(f"the model folder {folder} is damaged: {reason}; save the model again")


def read_member(folder: Path, name: str, largest: int | None = None) -> bytes:
    """The bytes of a file of a model folder.

    Args:
        folder: the folder.
        name: the file's.
        largest: the most bytes that it may have, or None.

    Raises:
        ModelFolderError: it is missing, no file, too large, cannot be read, or lies outside the folder.
    """
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
            f"the model folder {folder} is incomplete: {name} is missing; name a folder that an estimator's `save`, "
            "`save_model` or the command `gatewise fit` wrote"
        ) from None
    except (OSError, RuntimeError) as error:
        # Path.resolve reports a loop of symbolic links as a RuntimeError.
        raise ModelFolderError(f"cannot read {name} in the model folder {folder}: {error}") from error


def read_sealed(folder: Path, name: str, newest: int, largest: int) -> tuple[dict[str, Any], bytes]:
    """A JSON file of a model folder that states its `schema_version` and its `sha256`, as a dictionary and as bytes.

    Args:
        folder: the folder.
        name: the file's.
        newest: the highest version that is known.
        largest: the most bytes that it may have.

    Raises:
        ModelFolderError: as `read_member`; or it is no JSON, of a newer version, or was changed after it was written.
    """
    content = read_member(folder, name, largest)

    def refuse_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        found = json.loads(content.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise damaged(folder, f"{name} is not JSON ({error})") from None
    version = found.get("schema_version") if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise damaged(folder, f"{name} does not state a schema_version")
    if version > newest:
        raise ModelFolderError(
            f"the model folder {folder} has schema version {version}, and this Gatewise {VERSION} reads up to "
            f"{newest}: update Gatewise"
        )
    try:
        expected = canonical_checksum(found)
    except (ValueError, RecursionError) as error:
        raise damaged(folder, f"{name} holds a number that is not finite or too long ({error})") from None
    if found.get("sha256") != expected:
        raise damaged(folder, f"{name} was changed after it was written (its checksum does not match)")
    return found, content
