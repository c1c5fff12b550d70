"""The folder of a study: a manifest, and one part per batch of rows, each written whole and never again.

    DIR/study.json          the design, versions, machine: written once, when the folder is made
    DIR/parts/*.parquet     rows; a part appears by a rename, after its bytes are on the disk
    DIR/quarantine/*        parts that cannot be read; their tasks run again
    DIR/.lock               held by the one process that writes

Whatever happens to a run, a power cut included, what has been stored stays, and no part is ever half there: a crash
loses the batches that were being worked on. A part's name is the SHA-256 of its bytes, so that a damaged one is known
as such, wherever the damage is.
"""

import hashlib
import io
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import filelock
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gatewise.exceptions import InputError, OutputError
from gatewise.files import write_file
from gatewise.io.reading import parquet_table
from gatewise.messages import shown
from gatewise.study.design import StudyDesign
from gatewise.study.replicate import Row, Task

__all__ = ["Store", "first_columns"]

_VERSION = 1
"""Raised when the meaning of a stored row changes; older folders are then read by name of their version."""

_MANIFEST = "study.json"
_PACKAGES = ("gatewise", "numpy", "scipy", "torch", "numba", "pandas", "pyarrow", "joblib")
first_columns = {
    "key": pa.string(),
    "method": pa.string(),
    "n": pa.int64(),
    "replicate": pa.int64(),
    "status": pa.string(),
    "error": pa.string(),
    "seconds": pa.float64(),
}
"""Columns that every row has."""
_OTHER = {
    "objective": pa.float64(),
    "true_objective": pa.float64(),
    "below_truth": pa.bool_(),
    "attempts": pa.int64(),
    "starts": pa.int64(),
    "iterations": pa.int64(),
    "kept_start": pa.string(),
    "outside_box": pa.int64(),
    "cells": pa.string(),
}


class Store:
    """A study's folder.

    Args:
        folder: where it is.
        manifest: what `study.json` says.

    Example:
        >>> import tempfile
        >>> from gatewise.study import Store, read_design
        >>> design = read_design("softmax-gaussian-exact").with_plan(sizes=[100], replicates=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store.create(Path(folder, "study"), design)
        ...     len(store.rows()), Store.open(Path(folder, "study")).design == design
        (0, True)
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.design = StudyDesign.model_validate(manifest["design"])
        self.digest = self.design.digest()
        self._known: dict[str, pa.Table] = {}
        self._left_out: set[str] = set()

    @classmethod
    def create(cls, folder: Path, design: StudyDesign) -> Self:
        """A new folder for a design, or the one that is there if it is of the same design.

        Raises:
            InputError: the folder holds something else, or a study of another design.
            OutputError: it cannot be written.
        """
        if (folder / _MANIFEST).exists():
            store = cls.open(folder)
            store.check_design(design)
            return store
        _refuse_strangers(folder)
        manifest = {
            "version": _VERSION,
            "written_by": "gatewise",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "digest": design.digest(),
            "seeds": "SeedSequence(seed, spawn_key=(0, n, replicate)) for data, shared by all methods; "
            "(1, crc32(method), n, replicate, attempt) for starts; (2, crc32(parameter)) for drawn true parameters; "
            "(3, n, stream) for the bootstrap of slopes; (4,) for the points at which densities are compared",
            "versions": {name: version(name) for name in _PACKAGES},
            "machine": {
                "python": sys.version.split()[0],
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
            "design": design.model_dump(mode="json"),
        }
        try:
            (folder / "parts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        content = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        write_file(folder / _MANIFEST, content.encode())
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """The study in a folder.

        Raises:
            InputError: there is none, or its manifest is damaged or of a later version.
        """
        folder = Path(folder)
        path = folder / _MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["version"] > _VERSION:
                raise InputError(f"{folder} was written by a later version of Gatewise ({manifest['versions']})")
            store = cls(folder, manifest)
        except FileNotFoundError:
            raise InputError(f"{folder} holds no study: there is no {_MANIFEST} in it") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no manifest of a study: {error}") from None
        if store.digest != manifest.get("digest"):
            raise InputError(f"{path} was changed: its design is no longer the one that the rows were made with")
        return store

    def check_design(self, design: StudyDesign) -> None:
        """Refuse a design that would make other rows than those that are here.

        Raises:
            InputError: it is another one; the message names what differs.
        """
        if design.digest() == self.digest:
            return
        mine, other = self.design.model_dump(mode="json"), design.model_dump(mode="json")
        mine["sizes"], other["sizes"] = self.design.all_sizes(), design.all_sizes()
        changed = [name for name in mine if mine[name] != other[name]]
        raise InputError(
            f"{self.folder} holds a study of another design: {', '.join(changed)} differ. Choose another folder, or "
            "give the design, sizes, replicates and seed that it was begun with"
        )

    # --- writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder: one process writes at a time. What a crash left half written is cleared away.

        Raises:
            InputError: another process is writing.
            OutputError: the folder cannot be written.
        """
        lock = filelock.FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"another process is writing into {self.folder}: wait for it, or stop it") from None
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        try:
            self._clear_up()
            yield
        finally:
            lock.release()

    def _clear_up(self) -> None:
        try:
            for left in (self.folder / "parts").glob(".*.partial"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def add(self, rows: Sequence[Row]) -> None:
        """Store rows as one part, on the disk when this returns.

        Raises:
            OutputError: the disk is full or the folder cannot be written; nothing is left half written.
        """
        if not rows:
            return
        names = sorted({name for row in rows for name in row} - set(first_columns) - set(_OTHER))
        types = {**first_columns, **_OTHER, **dict.fromkeys(names, pa.float64())}
        columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()}
        table = pa.table(columns).replace_schema_metadata({"gatewise_study": self.digest})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getvalue()
        write_file(self.folder / "parts" / f"{_checksum(content)}.parquet", content)

    # --- reading

    def rows(self) -> pd.DataFrame:
        """All stored rows, by method, n and replicate; parts that cannot be read are put in quarantine.

        Raises:
            InputError: a part belongs to another study, or two parts have different rows of one task.
        """
        tables = [self._known[path.name] for path in self._readable()]
        if not tables:
            columns = {**first_columns, **_OTHER}
            return pa.table({name: pa.array([], kind) for name, kind in columns.items()}).to_pandas(use_threads=False)
        frame = pa.concat_tables(tables, promote_options="default").to_pandas(use_threads=False)
        doubled = frame["key"].duplicated(keep=False)
        if doubled.any():
            raise InputError(
                f"{self.folder} has two rows of the task {frame.loc[doubled, 'key'].iloc[0]}: a part was copied into "
                "it, or two processes without a common lock wrote into it"
            )
        common = [name for name in (*first_columns, *_OTHER) if name in frame]
        # Parts differ in their measures, and their order is that of their checksums: columns get an order of their own.
        frame = frame[common + sorted(set(frame.columns) - set(common))]
        return frame.sort_values(["method", "n", "replicate"], ignore_index=True)

    def keys(self) -> set[str]:
        """The keys of all stored rows.

        Raises:
            InputError: as `rows`.
        """
        return {key for path in self._readable() for key in self._known[path.name]["key"].to_pylist()}

    def missing(self, tasks: Sequence[Task]) -> list[Task]:
        """Those of the tasks that have no row, in their order."""
        known = self.keys()
        return [task for task in tasks if task.key not in known]

    def quarantined(self) -> list[str]:
        """The names of parts that could not be read, in quarantine or left out where they are."""
        folder = self.folder / "quarantine"
        moved = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted([*moved, *self._left_out])

    def _readable(self) -> list[Path]:
        """The parts that can be read, now in memory."""
        found = []
        for path in sorted((self.folder / "parts").glob("[!.]*.parquet")):
            if path.name not in self._known:
                content = path.read_bytes()
                if _checksum(content) != path.stem:
                    self._quarantine(path, content)
                    continue
                table = parquet_table(content)
                whose = (table.schema.metadata or {}).get(b"gatewise_study", b"").decode()
                if whose != self.digest or not set(first_columns) <= set(table.column_names):
                    raise InputError(f"{path} is no part of this study: move it out of the folder")
                self._known[path.name] = table
            found.append(path)
        return found

    def _quarantine(self, path: Path, content: bytes) -> None:
        """Move a part out of the way, under a name of its own; who may not write here only leaves it out."""
        folder = self.folder / "quarantine"
        try:
            folder.mkdir(exist_ok=True)
            os.replace(path, folder / f"{path.stem}-{_checksum(content)}.parquet")
        except OSError:
            self._left_out.add(path.name)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _refuse_strangers(folder: Path) -> None:
    try:
        entries = [entry.name for entry in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise InputError(f"{folder} cannot be used for a study: {(error.strerror or str(error)).lower()}") from None
    strangers = [name for name in entries if name not in ("parts", ".lock") and not name.endswith(".partial")]
    if strangers:
        raise InputError(
            f"{folder} is not empty and holds no study (it has {shown(strangers[0])}): choose another folder"
        )


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write the study {folder}: {(error.strerror or str(error)).lower()}")
