"""How a run goes: a live line on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from gatewise.study.replicate import Row

__all__ = ["Progress", "live_progress", "silent", "span"]

_EVERY = 15.0


class Progress(Protocol):
    """Who is told how a run goes."""

    def begin(self, total: int, done: int) -> None:
        """There are so many tasks, and so many have rows already."""
        ...

    def update(self, rows: list[Row], seconds_left: float) -> None:
        """These rows were stored; the rest will take about so long."""
        ...

    def end(self) -> None:
        """The run is over."""
        ...


class _Silent:
    def begin(self, total: int, done: int) -> None:
        pass

    def update(self, rows: list[Row], seconds_left: float) -> None:
        pass

    def end(self) -> None:
        pass


def silent() -> Progress:
    """Tells nobody."""
    return _Silent()


def live_progress() -> Progress:
    """A bar on standard error if it is a terminal, else a line every 15 seconds."""
    return _Live() if sys.stderr.isatty() else _Lines()


class _Count:
    """Rows so far, failures, and the rate."""

    def __init__(self) -> None:
        self.total = self.done = self.added = self.failed = self.below = 0
        self.began = time.monotonic()

    def begin(self, total: int, done: int) -> None:
        self.total, self.done, self.began = total, done, time.monotonic()

    def add(self, rows: list[Row]) -> None:
        self.done += len(rows)
        self.added += len(rows)
        self.failed += sum(row["status"] == "FAILED" for row in rows)
        self.below += sum(bool(row.get("below_truth")) for row in rows)

    def sentence(self, seconds_left: float) -> str:
        rate = self.added / max(time.monotonic() - self.began, 1e-9)
        left = f"about {span(seconds_left)} left" if self.done < self.total else "done"
        trouble = [f"{self.failed} failed"] * bool(self.failed) + [f"{self.below} below the truth"] * bool(self.below)
        return ", ".join([f"{rate:.3g} rows per second", left, *trouble])


class _Lines(_Count):
    """Lines on standard error."""

    def begin(self, total: int, done: int) -> None:
        super().begin(total, done)
        self._last = time.monotonic()
        print(f"{done} of {total} tasks have rows already", file=sys.stderr, flush=True)

    def update(self, rows: list[Row], seconds_left: float) -> None:
        self.add(rows)
        if time.monotonic() - self._last >= _EVERY or self.done == self.total:
            self._last = time.monotonic()
            print(f"{self.done} of {self.total}, {self.sentence(seconds_left)}", file=sys.stderr, flush=True)

    def end(self) -> None:
        pass


class _Live(_Count):
    """A bar."""

    def begin(self, total: int, done: int) -> None:
        super().begin(total, done)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task("starting", total=total, completed=done)

    def update(self, rows: list[Row], seconds_left: float) -> None:
        self.add(rows)
        self._bar.update(self._task, completed=self.done, description=self.sentence(seconds_left))

    def end(self) -> None:
        self._bar.stop()


def span(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> span(4.2), span(75), span(9000)
        ('4 s', '1 min 15 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
