"""Outputs that exist whole or not at all: files, and folders of files.

Everything is built beside its destination under a hidden temporary name, flushed to the disk and then renamed, so
that a crash, a full disk or Ctrl-C at any moment leaves the destination as it was.
"""

import ctypes
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatewise.exceptions import OutputError

__all__ = [
    "MANIFEST",
    "NewFolder",
    "check_new_file",
    "check_new_folder",
    "new_folder",
    "refusal_by_manifest",
    "write_file",
]

MANIFEST = "gatewise-manifest.json"
"""The file by which a folder of outputs is known again; it lists every file that was written."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.partial")


def _flush_to_disk(path: Path) -> None:
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows has no handle on a folder to flush.
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _absolute(path: Path, kind: str) -> Path:
    """The destination with its parent resolved, refused if the parent is not a folder."""
    parent = Path(path).absolute().parent
    name = Path(path).name
    if name in ("", ".", ".."):
        raise OutputError(f"cannot write the {kind} {str(path)!r}: it has no name of its own; name a new {kind}")
    if not os.path.isdir(parent):
        raise OutputError(f"cannot write the {kind} {path}: the folder {parent} does not exist; create it first")
    return parent / name


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def check_new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse early what `write_file` would refuse at the end of the work; the arguments are the same.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the file exists and may not be replaced.
    """
    target = _absolute(Path(path), "file")
    if os.path.isdir(target):
        raise OutputError(f"cannot write the file {path}: a folder has that name; choose another name")
    if not overwrite and os.path.lexists(target):
        raise OutputError(
            f"cannot write the file {path}: it exists; choose another name or allow overwriting (overwrite=True)"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write the file {path}: no permission to write in {target.parent}")


def write_file(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all.

    The bytes go to a temporary sibling, which is flushed to the disk (fsync) and renamed onto `path`; then the folder
    is flushed too. If anything fails, `path` is what it was before.

    Args:
        path: the file; its folder must exist.
        content: what it shall hold.
        overwrite: whether a file that exists may be replaced.

    Raises:
        OutputError: the folder does not exist or cannot be written, the disk is full, or the file exists.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(Path(folder, "a.txt"), b"whole")
        ...     Path(folder, "a.txt").read_bytes()
        b'whole'
    """
    check_new_file(path, overwrite=overwrite)
    target = _absolute(Path(path), "file")
    temporary = _temporary_sibling(target)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _flush_to_disk(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write the file {path}: {_reason(error)}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


class NewFolder:
    """A folder that is being built; files enter it by name and cannot leave it.

    Attributes:
        root: where it is being built, not where it will be.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where the file `name` (`"a.csv"` or `"model/config.json"`) is to be written, its folder created.

        Raises:
            OutputError: the name is absolute, climbs out with `..`, is empty, or is the manifest's.
        """
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts) or name == MANIFEST:
            raise OutputError(f"the output name {name!r} is not allowed: it must be a plain name inside the folder")
        place = self.root.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def write(self, name: str, content: bytes) -> None:
        """Write one file; `name` as in `path`."""
        self.path(name).write_bytes(content)

    def files(self) -> list[str]:
        """The names of the files that are there, sorted."""
        entries = (path for path in self.root.rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted(path.relative_to(self.root).as_posix() for path in entries)


def refusal_by_manifest(folder: Path) -> str | None:
    """Why `folder` must not be replaced, or None if its manifest says that everything in it was written by Gatewise."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        listed = set(manifest["files"]) if manifest["written_by"] == "gatewise" else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        listed = None
    if listed is None:
        return "it was not written by Gatewise"
    strangers = [name for name in NewFolder(folder).files() if name != MANIFEST and name not in listed]
    return f"it holds {strangers[0]!r}, which Gatewise did not write" if strangers else None


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step of the file system; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    if rename(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of the folder `target`, and remove the old one only when the new one is there."""
    old = new
    if not _exchange(new, target):
        old = _temporary_sibling(target)
        os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(old, target)
            raise
    shutil.rmtree(old, ignore_errors=True)
    _flush_to_disk(target.parent)


def check_new_folder(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    refusal: Callable[[Path], str | None] = refusal_by_manifest,
) -> None:
    """Refuse early what `new_folder` would refuse at the end of the work; the arguments are the same.

    Raises:
        OutputError: the parent does not exist or cannot be written, or the folder exists and must not be replaced.
    """
    target = _absolute(Path(path), "folder")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write the folder {path}: no permission to write in {target.parent}")
    if not os.path.lexists(target):
        return
    if os.path.islink(target) or not os.path.isdir(target):
        raise OutputError(f"cannot write the folder {path}: a file has that name; choose another name")
    try:
        is_empty = not any(target.iterdir())
    except OSError as error:
        raise OutputError(f"cannot write the folder {path}: {_reason(error)}") from error
    if is_empty:
        return
    if not overwrite:
        raise OutputError(
            f"cannot write the folder {path}: it exists; choose another name or allow overwriting (overwrite=True)"
        )
    reason = refusal(target)
    if reason is not None:
        raise OutputError(f"will not overwrite the folder {path}: {reason}; move it away or choose another name")


@contextmanager
def new_folder(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    manifest: bool = True,
    refusal: Callable[[Path], str | None] = refusal_by_manifest,
) -> Iterator[NewFolder]:
    """Write a folder whole or not at all: files are put in a temporary sibling that takes its place at the end.

    An empty folder of that name is used. With `overwrite=True` a folder that Gatewise wrote is replaced: the two are
    exchanged in one step where the system can do it (Linux), otherwise the old one is moved aside first and moved back
    if the new one cannot take its place, so that one of them is always there.

    Args:
        path: the folder; its parent must exist.
        overwrite: whether a folder that exists may be replaced.
        manifest: whether to add the manifest, by which the folder is known again.
        refusal: says why an existing folder must not be replaced, or None.

    Raises:
        OutputError: it cannot be written, it exists, or Gatewise did not write what is there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with new_folder(Path(parent, "results")) as folder:
        ...         folder.write("a.txt", b"1")
        ...     sorted(path.name for path in Path(parent, "results").iterdir())
        ['a.txt', 'gatewise-manifest.json']
    """
    target = _absolute(Path(path), "folder")
    check_new_folder(path, overwrite=overwrite, refusal=refusal)
    folder = NewFolder(_temporary_sibling(target))
    try:
        os.mkdir(folder.root)
        yield folder
        if manifest:
            listing = {"written_by": "gatewise", "files": folder.files()}
            (folder.root / MANIFEST).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")
        for place in (*folder.root.rglob("*"), folder.root):
            _flush_to_disk(place)
        check_new_folder(path, overwrite=overwrite, refusal=refusal)
        if os.path.isdir(target) and any(target.iterdir()):
            _replace_folder(folder.root, target)
        else:
            os.rename(folder.root, target)
            _flush_to_disk(target.parent)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the folder {path}: {_reason(error)}") from error
    finally:
        shutil.rmtree(folder.root, ignore_errors=True)
