"""Finished coordinates in a folder, one JSON file each, written whole or not at all."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from gatewise.exceptions import InputError
from gatewise.theory.modulus.result import CoordinateModulus

__all__ = ["read_row", "write_row"]

_VERSION = 1
"""Raised when the meaning of a stored row changes, so that older ones are measured again."""


def _path(folder: Path, identity: dict[str, object]) -> Path:
    text = json.dumps({"version": _VERSION, **identity}, sort_keys=True)
    name = "".join(letter if letter.isalnum() else "_" for letter in str(identity["name"]))
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def read_row(folder: Path | None, identity: dict[str, object]) -> CoordinateModulus | None:
    """The row that was measured with exactly this, or None.

    Raises:
        InputError: the file is there and is no such row.
    """
    if folder is None or not (path := _path(folder, identity)).exists():
        return None
    try:
        return CoordinateModulus.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise InputError(f"{path} is no row of a modulus ({error}): delete it to have it measured again") from None


def write_row(folder: Path | None, identity: dict[str, object], row: CoordinateModulus) -> None:
    """Keep a row; a reader sees the whole file or none.

    Raises:
        InputError: the folder cannot be written.
    """
    if folder is None:
        return
    path = _path(folder, identity)
    text = json.dumps(row.to_dict(), indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None
