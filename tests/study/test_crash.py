"""Processes killed at random and at chosen moments, and workers of a cluster: every key once, the same bits."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gatewise.study import Store, StudyDesign, run_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="SIGKILL and process groups of POSIX"),
]

DRIVER = Path(__file__).with_name("crash_driver.py")
TASKS = 2000


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of 2,000 tasks: its file, and its rows from one run that nothing disturbs."""
    from tests.study.conftest import SMALL

    folder = tmp_path_factory.mktemp("reference")
    text = SMALL.replace("sizes = [40, 60, 90]", "sizes = [40, 50, 60, 70, 80]")
    text = text.replace("replicates = 4", "replicates = 200")
    (folder / "study.toml").write_text(text)
    store = Store.create(folder / "rows", StudyDesign.parse(text, "study"))
    assert run_study(store).added == TASKS
    return folder / "study.toml", rows_of(folder / "rows")


def rows_of(folder):
    return Store.open(folder).rows().drop(columns="seconds")


def start(file, folder, jobs, *crash):
    command = [sys.executable, DRIVER, file, folder, jobs, *crash]
    return subprocess.Popen(
        list(map(str, command)), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def check(folder, expected):
    found = rows_of(folder)
    assert found["key"].is_unique
    assert len(found) == TASKS
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_like=True)
    assert Store.open(folder).quarantined() == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_ten_times_at_random_moments(study, tmp_path, jobs):
    file, expected = study
    folder = tmp_path / "rows"
    generator = np.random.default_rng(jobs)
    counts = []
    for _ in range(10):
        process = start(file, folder, jobs)
        before = len(list((folder / "parts").glob("*.parquet")))
        # Once it works, which takes seconds, it lives between 0 and 2 seconds more.
        while len(list((folder / "parts").glob("*.parquet"))) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 2.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        counts.append(len(rows_of(folder)))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    last = start(file, folder, jobs)
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    check(folder, expected)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "counts"), [("fsync", (1, 2, 5, 6)), ("replace", (1, 3))])
def test_killed_between_writing_flushing_and_renaming(study, tmp_path, call, counts, when):
    """Each part is written, flushed (fsync), renamed (replace), and its folder flushed: two fsyncs to a rename."""
    file, expected = study
    folder = tmp_path / "rows"
    for count in counts:
        process = start(file, folder, 1, call, count, when)
        _, err = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL, err
        kept = rows_of(folder)
        if len(kept):
            same = expected[expected["key"].isin(kept["key"])].reset_index(drop=True)
            pd.testing.assert_frame_equal(kept[["key", "loss.D1"]], same[["key", "loss.D1"]], check_exact=True)
    last = start(file, folder, 1)
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    check(folder, expected)
    assert not list((folder / "parts").glob(".*"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def cluster():
    """A scheduler and two worker processes on this machine: the address, and the workers."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
    processes = [subprocess.Popen(scheduler, **quiet)]
    for _ in range(2):
        worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
        processes.append(subprocess.Popen(worker, **quiet))
    wait_for_workers(address, 2)
    yield address, processes[1:]
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_workers(address, count):
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=120)


def test_a_cluster_one_worker_of_which_is_killed(study, cluster, tmp_path):
    file, expected = study
    address, workers = cluster
    folder = tmp_path / "rows"
    store = Store.create(folder, StudyDesign.parse(file.read_text(), "study"))

    class KillsHalfWay:
        """Kills a worker when half of the rows are stored."""

        def __init__(self):
            self.stored = 0
            self.killed_at = None

        def begin(self, total, done):
            assert (total, done) == (TASKS, 0)

        def update(self, rows, seconds_left):
            self.stored += len(rows)
            if self.killed_at is None and self.stored >= TASKS // 2:
                self.killed_at = self.stored
                os.killpg(workers[0].pid, signal.SIGKILL)

        def end(self):
            pass

    progress = KillsHalfWay()
    outcome = run_study(store, scheduler=address, progress=progress)
    assert progress.killed_at is not None
    assert progress.killed_at < TASKS
    assert workers[0].wait(timeout=30) == -signal.SIGKILL
    assert (outcome.added, outcome.remaining) == (TASKS, 0)
    check(folder, expected)


def test_a_disk_that_is_really_full(study, tmp_path):
    """On a file system of 200 kB of its own, where the machine allows to make one."""
    file, expected = study
    place = tmp_path / "small-disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        process = start(file, place / "rows", 1)
        _, err = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "no space left on device" in err
        assert "the same command goes on from there" in err
        kept = len(rows_of(place / "rows"))
        assert 0 < kept < TASKS
        shutil.copytree(place / "rows", tmp_path / "rows", ignore=shutil.ignore_patterns(".lock"))
    finally:
        subprocess.run(["umount", str(place)], check=True)
    last = start(file, tmp_path / "rows", 1)
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    check(tmp_path / "rows", expected)
