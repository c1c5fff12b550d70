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


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGINT is only noted; the yielded function tells whether it came.

    Raised at once, KeyboardInterrupt could land inside compiled code or half an update. A second SIGINT does raise it.
    Outside the main thread, which alone receives signals, nothing changes.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is None:
        yield never
        return
    came = False

    def note(signal_number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, previous)
