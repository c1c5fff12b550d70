"""Run what is missing of a study: batches of tasks on workers, their rows stored as they come.

The rows do not depend on the number of workers, on their order, on batches or on interruptions: every task has its own
seeds. A batch is what one worker does before its rows are stored, about `BATCH_SECONDS` of work; a crash loses the
batches in flight and nothing else.
"""

import bisect
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gatewise.exceptions import InputError, OutputError
from gatewise.fit.interrupt import deferred_interrupt
from gatewise.study.cluster import dask_backend
from gatewise.study.progress import Progress, silent
from gatewise.study.replicate import Laboratory, Row, Task, all_tasks, laboratory
from gatewise.study.store import Store

__all__ = ["BATCH_SECONDS", "RunOutcome", "run_study"]

BATCH_SECONDS = 4.0
"""About how long a batch takes, once it is known how long tasks take."""

_MOST_TASKS = 200


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        added: rows stored by this run.
        failed: how many of them are failures.
        remaining: tasks that still have no row.
        reason: "finished", "interrupted" or "out of time".
        seconds: wall time.
    """

    added: int
    failed: int
    remaining: int
    reason: str
    seconds: float


class _Plan:
    """The tasks that are left, cut into batches as they are asked for."""

    def __init__(self, tasks: list[Task], n_workers: int) -> None:
        self._waiting = deque(tasks)
        self._n_workers = n_workers
        self._done = 0.0
        self._known: dict[str, dict[int, float]] = {}
        self._sizes: dict[str, list[int]] = {}

    def predicted(self, task: Task) -> float:
        """Seconds that a task will take: what the last row of its method and size took, or the nearest size, scaled."""
        sizes = self._sizes.get(task.method)
        if not sizes:
            return 0.0
        place = bisect.bisect_left(sizes, task.n)
        nearest = min(sizes[max(place - 1, 0) : place + 1], key=lambda size: abs(size - task.n))
        return self._known[task.method][nearest] * max(1.0, task.n / nearest)

    def learn(self, rows: list[Row]) -> None:
        """Take note of how long tasks took."""
        for row in rows:
            method, n = str(row["method"]), int(row["n"])
            known = self._known.setdefault(method, {})
            if n not in known:
                bisect.insort(self._sizes.setdefault(method, []), n)
            known[n] = float(row["seconds"])
            self._done += known[n]

    def seconds_left(self, elapsed: float) -> float:
        """How long what no batch has yet will take, if it goes on as it went: rows count processor seconds."""
        work = sum(map(self.predicted, list(self._waiting)))
        return work * elapsed / self._done if self._done > 0.0 else work / self._n_workers

    def batches(self, stop: Callable[[], bool]) -> Iterator[list[Task]]:
        """Batches until nothing is left or it is time to stop."""
        while self._waiting and not stop():
            batch, seconds = [], 0.0
            # Towards the end batches shrink, so that no worker is left alone with a large one.
            most = min(_MOST_TASKS, max(1, len(self._waiting) // (2 * self._n_workers)))
            while self._waiting and len(batch) < most:
                seconds += self.predicted(self._waiting[0])
                if batch and (seconds > BATCH_SECONDS or self._waiting[0].method not in self._known):
                    break
                batch.append(self._waiting.popleft())
            yield batch


def run_study(
    store: Store,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    max_time: float | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Run the tasks of a study that have no row yet.

    Ctrl-C lets the batches in flight end and stores them; so does the end of the time. A second Ctrl-C ends at once.

    Args:
        store: the study's folder.
        jobs: worker processes of this machine (joblib's loky); 1 runs in this process, −1 takes all cores.
        scheduler: the address of a Dask scheduler whose workers are used instead, "tcp://host:8786".
        max_time: seconds after which no further batch is begun.
        progress: who is told how it goes.

    Raises:
        InputError: another process writes into the folder, jobs is 0, or the scheduler cannot be used.
        OutputError: rows cannot be stored, or the workers died; what was stored stays, and the same call goes on.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from gatewise.study import Store, read_design, run_study
        >>> design = read_design("softmax-gaussian-exact").with_plan(sizes=[100, 200], replicates=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store.create(Path(folder, "study"), design)
        ...     outcome = run_study(store)
        ...     outcome.added, outcome.reason, len(store.rows())
        (4, 'finished', 4)
    """
    if jobs == 0:
        raise InputError("jobs must be a number of worker processes, or -1 for one on each core, not 0")
    began = time.monotonic()
    report = progress or silent()
    added = failed = 0
    with store.writing(), deferred_interrupt() as interrupted:
        tasks = all_tasks(store.design)
        todo = store.missing(tasks)
        # A design that cannot be used is refused here and not by every worker.
        Laboratory(store.design)

        def stop() -> bool:
            return interrupted() or (max_time is not None and time.monotonic() - began > max_time)

        with _workers(jobs, scheduler) as workers:
            plan = _Plan(todo, workers.count)
            report.begin(len(tasks), len(tasks) - len(todo))
            try:
                for rows in workers.run(store.design.model_dump_json(), plan.batches(stop)):
                    store.add(rows)
                    plan.learn(rows)
                    added += len(rows)
                    failed += sum(row["status"] == "FAILED" for row in rows)
                    report.update(rows, plan.seconds_left(time.monotonic() - began))
            except TerminatedWorkerError:
                raise OutputError(
                    "a worker process was killed, by the system if memory ran out: take fewer, down to jobs=1. "
                    f"{_stored(added)}"
                ) from None
            except OutputError as error:
                raise OutputError(f"{error}. {_stored(added)}") from error
            finally:
                report.end()
        remaining = len(todo) - added
        reason = "finished" if not remaining else "interrupted" if interrupted() else "out of time"
    return RunOutcome(added, failed, remaining, reason, time.monotonic() - began)


def _stored(added: int) -> str:
    return f"This run stored {added} rows before that; the same command goes on from there"


class _Workers:
    """Who runs batches."""

    count: int = 1

    def run(self, design_json: str, batches: Iterator[list[Task]]) -> Iterator[list[Row]]:
        """The rows of each batch, in any order of the batches."""
        for batch in batches:
            yield _run_batch(design_json, batch)


class _JoblibWorkers(_Workers):
    """Processes or threads that joblib knows how to reach."""

    def __init__(self, count: int, task: Callable[[str, list[Task]], list[Row]], ahead: int) -> None:
        self.count = count
        self._task = task
        self._ahead = ahead

    def run(self, design_json: str, batches: Iterator[list[Task]]) -> Iterator[list[Row]]:
        """The rows of each batch, as they come; no more batches are taken ahead than keep the workers busy."""
        parallel = joblib.Parallel(
            n_jobs=self.count,
            return_as="generator_unordered",
            pre_dispatch=self._ahead,  # pyright: ignore[reportArgumentType]
            batch_size=1,  # pyright: ignore[reportArgumentType]
        )
        results: Any = parallel(joblib.delayed(self._task)(design_json, batch) for batch in batches)
        try:
            yield from results
        finally:
            with warnings.catch_warnings():
                # Results that are thrown away after an error are meant to be; joblib would warn of them.
                warnings.filterwarnings("ignore", message=r"\d+ tasks", category=UserWarning)
                results.close()


@contextmanager
def _workers(jobs: int, scheduler: str | None) -> Iterator[_Workers]:
    if scheduler is not None:
        with dask_backend(scheduler) as n_threads:
            yield _JoblibWorkers(n_threads, _run_batch, 2 * n_threads)
    elif jobs == 1:
        yield _Workers()
    else:
        count = jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)
        with joblib.parallel_config("loky"):
            yield _JoblibWorkers(count, _run_in_process, count)


def _run_batch(design_json: str, batch: list[Task]) -> list[Row]:
    own = laboratory(design_json)
    return [own.run(task) for task in batch]


def _run_in_process(design_json: str, batch: list[Task]) -> list[Row]:
    """A batch in a process of its own: a terminal's Ctrl-C reaches it too, and is the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _run_batch(design_json, batch)
