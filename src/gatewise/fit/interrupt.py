"""Ctrl-C as a request: noted when it comes, acted on between two iterations."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["deferred_interrupt", "never"]


def never() -> bool:
    """No interrupt."""
    return False


class _Note:
    """A handler that takes down the first SIGINT and raises KeyboardInterrupt at the second."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGINT is only noted; the yielded function tells whether it came.

    Raised at once, KeyboardInterrupt could land inside compiled code or half an update. A second SIGINT does raise it.
    Of nested blocks the outermost is told: a study in which a fit is one of thousands decides for its fits. Outside
    the main thread, which alone handles signals, and where SIGINT is ignored, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    previous = signal.getsignal(signal.SIGINT)
    if previous in (None, signal.SIG_IGN) or isinstance(previous, _Note):
        yield never
        return
    note = _Note()
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: note.came
    finally:
        signal.signal(signal.SIGINT, previous)
