"""Runs: workers, time, interrupts, and what a cluster needs."""

import os
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from gatewise.exceptions import InputError, OutputError
from gatewise.fit import start as start_module
from gatewise.study import Store, all_tasks, run_study
from gatewise.study import runner as runner_module
from gatewise.study.replicate import Laboratory


def rows_of(folder):
    return Store.open(folder).rows().drop(columns="seconds")


class Heard:
    """Takes down what a run tells."""

    def __init__(self):
        self.told = []

    def begin(self, total, done):
        self.told.append(("begin", total, done))

    def update(self, rows, seconds_left):
        assert seconds_left >= 0.0
        self.told.append(("update", len(rows)))

    def end(self):
        self.told.append(("end",))


def test_rows_are_those_of_the_laboratory_and_progress_is_told(design, tmp_path):
    heard = Heard()
    store = Store.create(tmp_path / "study", design)
    outcome = run_study(store, progress=heard)
    assert (outcome.added, outcome.failed, outcome.remaining, outcome.reason) == (24, 0, 0, "finished")
    assert heard.told[0] == ("begin", 24, 0)
    assert heard.told[-1] == ("end",)
    assert sum(entry[1] for entry in heard.told if entry[0] == "update") == 24
    laboratory = Laboratory(design)
    found = {row["key"]: row for row in store.rows().to_dict("records")}
    for task in all_tasks(design)[:5]:
        for name, value in laboratory.run(task).items():
            assert name == "seconds" or found[task.key][name] == value


def test_two_workers_give_the_rows_of_one(design, tmp_path):
    for jobs in (1, 2):
        assert run_study(Store.create(tmp_path / str(jobs), design), jobs=jobs).added == 24
    pd.testing.assert_frame_equal(rows_of(tmp_path / "1"), rows_of(tmp_path / "2"), check_exact=True)


def test_when_the_time_is_up_nothing_new_begins(design, tmp_path):
    store = Store.create(tmp_path / "study", design)
    outcome = run_study(store, max_time=1e-9)
    assert (outcome.reason, outcome.added, outcome.remaining) == ("out of time", 0, 24)
    assert run_study(store).added == 24


def test_failures_are_stored_and_not_run_again(design, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ArithmeticError("no luck")

    store = Store.create(tmp_path / "study", design)
    with monkeypatch.context() as patch:
        patch.setattr("gatewise.study.replicate.fit", broken)
        outcome = run_study(store)
    assert (outcome.added, outcome.failed) == (24, 24)
    assert set(store.rows()["error"]) == {"ArithmeticError: no luck"}
    assert run_study(store).added == 0


def test_a_worker_that_is_killed_is_said(design, tmp_path, monkeypatch):
    def killed(design_json, batch):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(runner_module, "_run_in_process", killed)
    with pytest.raises(OutputError, match=r"a worker process was killed.*This run stored 0 rows before that"):
        run_study(Store.create(tmp_path / "study", design), jobs=2)
    monkeypatch.undo()
    assert run_study(Store.open(tmp_path / "study")).added == 24


def test_jobs_and_schedulers_that_cannot_be_used(design, tmp_path):
    store = Store.create(tmp_path / "study", design)
    with pytest.raises(InputError, match="jobs must be a number of worker processes"):
        run_study(store, jobs=0)
    # Port 9 on this machine: nobody answers.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("gatewise.study.cluster._SECONDS", 1)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*start one with"):
        run_study(store, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"no Dask scheduler answers at nonsense"):
        run_study(store, scheduler="nonsense")
    monkeypatch.undo()
    assert len(store.rows()) == 0


def test_an_interrupt_within_a_fit_is_the_study_s_and_spoils_no_row(design, tmp_path, monkeypatch):
    whole = Store.create(tmp_path / "whole", design)
    run_study(whole)
    # As pyarrow's threads do: the system may give the signal to any of them, Python runs its handler in the main one.
    asked, sent = threading.Event(), threading.Event()

    def another_thread():
        asked.wait()
        signal.raise_signal(signal.SIGINT)
        sent.set()

    threading.Thread(target=another_thread, daemon=True).start()
    climb, climbs = start_module.newton, []

    def interrupted_once(*arguments, **options):
        if len(climbs) == 2:
            asked.set()
            assert sent.wait(timeout=60)
        climbs.append(1)
        return climb(*arguments, **options)

    monkeypatch.setattr(start_module, "newton", interrupted_once)
    store = Store.create(tmp_path / "study", design)
    outcome = run_study(store)
    assert outcome.reason == "interrupted"
    assert 0 < outcome.added < 24
    assert outcome.remaining == 24 - outcome.added
    assert run_study(store).reason == "finished"
    pd.testing.assert_frame_equal(rows_of(whole.folder), rows_of(store.folder), check_exact=True)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupt_ends_the_batches_in_flight_and_says_how_to_go_on(small_text, tmp_path, jobs):
    file = tmp_path / "small.toml"
    file.write_text(small_text.replace("replicates = 4", "replicates = 4000"))
    main = "import sys; from gatewise.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "study", "run", file, "--out", tmp_path / "study", "--jobs", jobs]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    parts = tmp_path / "study" / "parts"
    while len(list(parts.glob("*.parquet"))) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out.startswith("interrupted: ")
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    rows = Store.open(tmp_path / "study").rows()
    assert "INTERRUPTED" not in set(rows["status"])
    stored = int(out.split()[1])
    assert len(rows) == stored > 0
    assert not list(parts.glob(".*"))
