"""Outputs are there whole or not at all, also when the disk fails at any step."""

import errno
import io
import json
import os
from pathlib import Path

import pytest

from gatewise.exceptions import OutputError
from gatewise.files import atomic
from gatewise.files.atomic import (
    MANIFEST,
    NewFolder,
    check_new_file,
    check_new_folder,
    new_folder,
    refusal_by_manifest,
    write_file,
)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail_on_call(monkeypatch, name: str, number: int, error: BaseException) -> list[int]:
    """Let the function `os.<name>` raise at its n-th call; the list counts the calls."""
    original = getattr(os, name)
    calls = [0]

    def replacement(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(atomic.os, name, replacement)
    return calls


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def build(folder: Path, text: str, **options) -> None:
    with new_folder(folder, **options) as new:
        new.write("a.txt", text.encode())
        new.write("model/b.txt", text.encode())


def test_write_file_replaces_only_when_allowed(tmp_path):
    path = tmp_path / "a.txt"
    write_file(path, b"old")
    with pytest.raises(OutputError, match=r"cannot write the file .*a\.txt: it exists; choose another name or allow"):
        write_file(path, b"new")
    assert contents(tmp_path) == {"a.txt": b"old"}
    write_file(path, b"new", overwrite=True)
    assert contents(tmp_path) == {"a.txt": b"new"}
    check_new_file(path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "overwrite", "message"),
    [
        ("old.txt", False, "it exists; choose another name or allow overwriting"),
        ("folder", True, "a folder has that name; choose another name"),
        ("missing/a.txt", True, "the folder .*missing does not exist; create it first"),
        ("locked.txt", True, "no permission to write in "),
    ],
)
def test_a_file_is_refused_before_the_work_as_after_it(tmp_path, monkeypatch, name, overwrite, message):
    (tmp_path / "old.txt").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    if name == "locked.txt":
        # The tests may run as root, to whom nothing is forbidden.
        monkeypatch.setattr(atomic.os, "access", lambda path, mode: False)
    for refuse in (check_new_file, lambda path, overwrite: write_file(path, b"new", overwrite=overwrite)):
        with pytest.raises(OutputError, match=f"cannot write the file .*{name}: {message}"):
            refuse(tmp_path / name, overwrite=overwrite)
    assert contents(tmp_path) == {"old.txt": b"old"}


def test_permissions_are_those_of_ordinary_files(tmp_path):
    umask = os.umask(0o027)
    try:
        write_file(tmp_path / "a.txt", b"1")
        build(tmp_path / "out", "1")
    finally:
        os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("no/such/a.txt", "the folder .* does not exist; create it first"),
        ("folder", "a folder has that name"),
        ("..", "it has no name of its own"),
        ("file/a.txt", "the folder .* does not exist"),
        ("n" * 300, "file name too long"),
    ],
)
def test_write_file_refuses(tmp_path, name, pattern):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OutputError, match=pattern):
        write_file(tmp_path / name, b"x")
    assert contents(tmp_path) == {"file": b"1"}


@pytest.mark.parametrize("existing", [None, b"old"])
@pytest.mark.parametrize("error", [NO_SPACE, KeyboardInterrupt()], ids=["disk-full", "ctrl-c"])
@pytest.mark.parametrize(("function", "number"), [("fsync", 1), ("replace", 1)])
def test_a_file_survives_a_failure(tmp_path, monkeypatch, existing, error, function, number):
    path = tmp_path / "a.txt"
    if existing is not None:
        path.write_bytes(existing)
    before = contents(tmp_path)
    fail_on_call(monkeypatch, function, number, error)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_file(path, b"new content", overwrite=True)
    assert contents(tmp_path) == before


def test_a_file_survives_a_failing_write(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    class FullDisk:
        def __init__(self, *args):
            self.file = io.FileIO(args[0], "x")

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def write(self, content):
            self.file.write(content[:3])
            raise NO_SPACE

    monkeypatch.setattr(atomic, "open", FullDisk, raising=False)
    with pytest.raises(OutputError, match="no space left on device"):
        write_file(path, b"new content", overwrite=True)
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_after_the_rename_the_new_file_is_whole_even_if_the_folder_cannot_be_flushed(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    fail_on_call(monkeypatch, "fsync", 2, NO_SPACE)
    with pytest.raises(OutputError):
        write_file(path, b"new", overwrite=True)
    assert contents(tmp_path) == {"a.txt": b"new"}


def test_new_folder_lists_its_files(tmp_path):
    build(tmp_path / "out", "1")
    found = contents(tmp_path / "out")
    assert set(found) == {"a.txt", "model/b.txt", MANIFEST}
    assert json.loads(found[MANIFEST]) == {"written_by": "gatewise", "files": ["a.txt", "model/b.txt"]}
    assert refusal_by_manifest(tmp_path / "out") is None


def test_new_folder_uses_an_empty_folder(tmp_path):
    (tmp_path / "out").mkdir()
    build(tmp_path / "out", "1")
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"1"


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two-renames"])
def test_overwriting_replaces_everything(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    with new_folder(tmp_path / "out") as new:
        new.write("only-in-the-old.txt", b"0")
    build(tmp_path / "out", "2", overwrite=True)
    assert set(contents(tmp_path)) == {"out/a.txt", "out/model/b.txt", f"out/{MANIFEST}"}


def test_the_folder_is_there_at_every_moment_of_an_exchange(tmp_path, monkeypatch):
    build(tmp_path / "out", "1")
    seen = []
    original = atomic._flush_to_disk

    def observe(path):
        seen.append((tmp_path / "out" / "a.txt").read_bytes())
        original(path)

    monkeypatch.setattr(atomic, "_flush_to_disk", observe)
    build(tmp_path / "out", "2", overwrite=True)
    assert seen[0] == b"1"
    assert seen[-1] == b"2"


@pytest.mark.parametrize(
    ("prepare", "pattern"),
    [
        (lambda out: build(out, "old"), "it exists; choose another name or allow overwriting"),
        (lambda out: out.write_bytes(b"1"), "a file has that name"),
        (lambda out: out.symlink_to(out.parent), "a file has that name"),
    ],
    ids=["exists", "file", "symlink"],
)
def test_new_folder_refuses_what_is_there(tmp_path, prepare, pattern):
    out = tmp_path / "out"
    prepare(out)
    before = contents(tmp_path)
    for attempt in (lambda: build(out, "new"), lambda: check_new_folder(out)):
        with pytest.raises(OutputError, match=pattern):
            attempt()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"notes.txt": b"mine"}, r"it was not written by Gatewise; move it away"),
        ({MANIFEST: b"{", "a.txt": b"1"}, "it was not written by Gatewise"),
        ({MANIFEST: b"[]", "a.txt": b"1"}, "it was not written by Gatewise"),
        ({MANIFEST: b'{"written_by": "other", "files": ["a.txt"]}', "a.txt": b"1"}, "it was not written by Gatewise"),
        (
            {MANIFEST: b'{"written_by": "gatewise", "files": ["a.txt"]}', "a.txt": b"1", "notes.txt": b"mine"},
            r"it holds 'notes\.txt', which Gatewise did not write",
        ),
    ],
)
def test_overwriting_spares_what_gatewise_did_not_write(tmp_path, extra, pattern):
    out = tmp_path / "out"
    out.mkdir()
    for name, content in extra.items():
        (out / name).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=pattern):
        build(out, "new", overwrite=True)
    assert contents(tmp_path) == before


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "out"

    def write_while_another_does():
        with new_folder(out) as new:
            new.write("a.txt", b"ours")
            build(out, "theirs")

    with pytest.raises(OutputError, match="it exists"):
        write_while_another_does()
    assert (out / "a.txt").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("existing", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two-renames"])
@pytest.mark.parametrize("error", [NO_SPACE, KeyboardInterrupt()], ids=["disk-full", "ctrl-c"])
def test_a_folder_survives_a_failure_at_every_step(tmp_path, monkeypatch, existing, can_exchange, error):
    out = tmp_path / "out"
    if existing:
        build(out, "old")
    before = contents(tmp_path)
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    failures = 0
    for function in ("fsync", "rename"):
        for number in range(1, 20):
            with monkeypatch.context() as patch:
                calls = fail_on_call(patch, function, number, error)
                reached = False
                try:
                    build(out, "new", overwrite=True)
                except (OutputError, KeyboardInterrupt):
                    reached = True
            found = contents(tmp_path)
            whole = {name: content for name, content in found.items() if MANIFEST not in name}
            if not reached:
                assert calls[0] < number
                assert set(whole.values()) == {b"new"}
                break
            failures += 1
            # Before the rename the old content stands; a failure after it leaves the new one. Never a mixture.
            assert found == before or set(whole.values()) == {b"new"}
            assert not [path for path in tmp_path.iterdir() if path != out]
            if found != before:
                break
        if out.exists():
            for path in sorted(out.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            out.rmdir()
        if existing:
            build(out, "old")
    assert failures >= 5


def test_an_error_of_the_builder_leaves_nothing(tmp_path):
    def interrupted():
        with new_folder(tmp_path / "out") as new:
            new.write("a.txt", b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/a", "a/../../b", "a//b", "a\\b", "a\0", MANIFEST])
def test_output_names_cannot_leave_their_folder(tmp_path, name):
    with pytest.raises(OutputError, match="is not allowed: it must be a plain name inside the folder"):
        NewFolder(tmp_path).path(name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_error_of_the_exchange_is_reported(tmp_path, monkeypatch):
    build(tmp_path / "out", "old")

    def no_permission(one, other):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(atomic, "_exchange", no_permission)
    with pytest.raises(OutputError, match="permission denied"):
        build(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"old"


def test_a_folder_whose_parent_is_missing_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"the folder .*missing does not exist; create it first"):
        check_new_folder(tmp_path / "missing" / "out")
