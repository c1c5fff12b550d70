"""The folder: parts whole or not at all, damage found, strangers and other designs refused."""

import errno
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from gatewise.exceptions import InputError, OutputError
from gatewise.study import Store, all_tasks, run_study, study_status
from gatewise.study.replay import replay


def same_rows(one, other):
    drop = {"columns": "seconds"}
    pd.testing.assert_frame_equal(one.drop(**drop), other.drop(**drop), check_exact=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study; tests copy it."""
    from gatewise.study import StudyDesign
    from tests.study.conftest import SMALL

    folder = tmp_path_factory.mktemp("finished") / "study"
    store = Store.create(folder, StudyDesign.parse(SMALL, "small"))
    run_study(store)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def parts(folder):
    return sorted((folder / "parts").glob("*.parquet"))


def test_rows_come_back_as_they_were(design, tmp_path):
    store = Store.create(tmp_path / "study", design)
    row = {"key": "exact/40/0", "method": "exact", "n": 40, "replicate": 0, "status": "TIGHT", "error": ""}
    values = {"loss.D1": 0.1 + 0.2, "objective": -1e300, "below_truth": True, "cells": "1,1", "seconds": 0.5}
    failed = {**row, "key": "exact/40/1", "replicate": 1, "status": "FAILED", "error": "Ü <b>", "seconds": 0.1}
    store.add([{**row, **values}, failed])
    found = Store.open(tmp_path / "study").rows()
    assert found["key"].tolist() == ["exact/40/0", "exact/40/1"]
    assert found["loss.D1"].tolist()[0] == 0.1 + 0.2
    assert np.isnan(found["loss.D1"].tolist()[1])
    assert found["error"].tolist() == ["", "Ü <b>"]
    assert found["below_truth"].tolist()[0] is True


@pytest.mark.parametrize("measures", [("a", "b"), ("b", "a")])
def test_columns_have_one_order_whatever_the_parts_hold(design, tmp_path, measures):
    row = {"key": "exact/40/0", "method": "exact", "n": 40, "replicate": 0, "status": "FAILED", "seconds": 0.5}
    later = {**row, "key": "exact/40/1", "replicate": 1, "objective": 1.0}
    store = Store.create(tmp_path / "study", design)
    # A part's name is its checksum: over several seconds either part comes first.
    for seconds in (0.5, 1.0, 2.0, 3.0):
        for path in parts(store.folder):
            path.unlink()
        store = Store.open(store.folder)
        store.add([{**row, measures[0]: 1.0, "seconds": seconds}])
        store.add([{**later, measures[1]: 2.0, "c": 0.0}])
        columns = store.rows().columns.tolist()
        assert columns[-3:] == ["a", "b", "c"]
        assert columns[:8] == ["key", "method", "n", "replicate", "status", "error", "seconds", "objective"]


def test_an_empty_study_has_the_columns(design, tmp_path):
    found = Store.create(tmp_path / "study", design).rows()
    assert len(found) == 0
    assert {"key", "method", "n", "replicate", "status", "seconds"} <= set(found.columns)


def test_the_manifest_says_what_made_the_rows(finished):
    manifest = json.loads((finished / "study.json").read_text())
    assert manifest["written_by"] == "gatewise"
    assert {"numpy", "torch", "gatewise"} <= set(manifest["versions"])
    assert manifest["machine"]["python"].startswith("3.")
    assert "spawn_key" in manifest["seeds"]
    assert Store.open(finished).digest == manifest["digest"]


def test_a_second_run_adds_nothing_and_changes_nothing(copy):
    before = {path.name: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    outcome = run_study(Store.open(copy))
    assert (outcome.added, outcome.remaining, outcome.reason) == (0, 0, "finished")
    assert {path.name: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text"])
def test_damaged_parts_go_to_quarantine_and_their_tasks_run_again(copy, finished, damage):
    victim = parts(copy)[0]
    content = victim.read_bytes()
    middle = len(content) // 3
    changed = {
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"not a part",
    }[damage]
    victim.write_bytes(changed)
    store = Store.open(copy)
    assert len(store.missing(all_tasks(store.design))) > 0
    assert not victim.exists()
    assert [name.startswith(victim.stem) for name in store.quarantined()] == [True]
    assert (copy / "quarantine" / store.quarantined()[0]).read_bytes() == changed
    run_study(store)
    same_rows(Store.open(copy).rows(), Store.open(finished).rows())
    assert study_status(store).quarantined == store.quarantined()


def test_any_flipped_bit_is_found(copy):
    victim = parts(copy)[0]
    content = victim.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.choice(len(content), size=40, replace=False):
        victim.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        store = Store.open(copy)
        store.rows()
        assert len(store.quarantined()) == 1
        shutil.rmtree(copy / "quarantine")


def test_what_a_crash_left_is_neither_read_nor_kept(copy, finished):
    left = copy / "parts" / ".abc.parquet.0123456789ab.partial"
    left.write_bytes(b"half a part")
    same_rows(Store.open(copy).rows(), Store.open(finished).rows())
    assert left.exists()
    run_study(Store.open(copy))
    assert not left.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 8}, "seed differ"), ({"replicates": 5}, "replicates differ"), ({"sizes": [40]}, "sizes differ")],
)
def test_another_design_under_the_same_name_is_refused(copy, design, change, message):
    with pytest.raises(InputError, match=f"holds a study of another design: {message}.*Choose another folder"):
        Store.create(copy, design.with_plan(**change))


def test_a_part_of_another_study_is_refused(copy, design, tmp_path):
    other = Store.create(tmp_path / "other", design.with_plan(seed=8))
    run_study(other)
    stranger = parts(tmp_path / "other")[0]
    shutil.copy(stranger, copy / "parts")
    with pytest.raises(InputError, match=f"{stranger.name} is no part of this study: move it out of the folder"):
        Store.open(copy).rows()


def test_a_task_with_two_rows_is_refused(copy):
    store = Store.open(copy)
    row = store.rows().to_dict("records")[0]
    store.add([{**row, "seconds": 99.0}])
    with pytest.raises(InputError, match="has two rows of the task"):
        Store.open(copy).rows()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no study: there is no study.json"),
        ("{", "is no manifest of a study"),
        ("[]", "is no manifest of a study"),
        ('{"version": 99, "versions": {"gatewise": "9"}}', "was written by a later version"),
    ],
)
def test_folders_that_hold_no_study(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match=message):
        Store.open(tmp_path)


def test_a_changed_manifest_is_noticed(copy):
    path = copy / "study.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(InputError, match="was changed: its design is no longer the one"):
        Store.open(copy)


def test_a_folder_with_other_things_is_refused(design, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"is not empty and holds no study \(it has 'thesis.tex'\)"):
        Store.create(tmp_path, design)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_process_writes_at_a_time(copy):
    one, other = Store.open(copy), Store.open(copy)
    with one.writing(), pytest.raises(InputError, match="another process is writing into"), other.writing():
        pass
    with other.writing():
        pass


def test_a_full_disk_is_said_and_nothing_is_lost(copy, finished, monkeypatch):
    for part in parts(copy)[1:]:
        part.unlink()
    kept = parts(copy)[0].read_bytes()
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"no space left on device.*stored 0 rows.*the same command goes on"):
            run_study(Store.open(copy))
    assert calls
    assert [path.read_bytes() for path in parts(copy)] == [kept]
    assert not list((copy / "parts").glob(".*"))
    run_study(Store.open(copy))
    same_rows(Store.open(copy).rows(), Store.open(finished).rows())


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_without_permission_to_write(copy):
    victim = parts(copy)[0]
    victim.write_bytes(b"damaged")
    everything = [copy, *copy.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    parents = [path for path in copy.parents if path.stat().st_uid == 0 and (path.stat().st_mode & 0o055) != 0o055]
    if is_root:
        for path in parents:
            path.chmod(path.stat().st_mode | 0o055)
        os.seteuid(65534)
    try:
        store = Store.open(copy)
        assert len(store.rows()) < 24
        assert store.quarantined() == [victim.name]
        with pytest.raises(OutputError, match=r"cannot write the study .*: permission denied"):
            run_study(Store.open(copy))
        with pytest.raises(OutputError, match=r"cannot write the study .*: permission denied"):
            Store.create(copy / "parts" / "new", store.design)
    finally:
        if is_root:
            os.seteuid(0)
        for path in everything:
            path.chmod(0o755)
    assert victim.read_bytes() == b"damaged"


def test_replaying_a_task_gives_the_same_bits(finished, copy):
    assert replay(Store.open(finished), "over/60/2").same
    store = Store.open(copy)
    rows = store.rows()
    changed = rows[rows["key"] == "exact/40/1"].to_dict("records")[0]
    for part in parts(copy):
        part.unlink()
    store = Store.open(copy)
    store.add([{**changed, "loss.D1": np.nextafter(changed["loss.D1"], 1.0)}])
    found = replay(Store.open(copy), "exact/40/1")
    assert not found.same
    assert list(found.differences) == ["loss.D1"]
    with pytest.raises(InputError, match="has no row yet"):
        replay(Store.open(copy), "exact/40/0")
