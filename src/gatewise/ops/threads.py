"""One thread in BLAS and in torch, for as long as any thread of the process needs it."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["single_threaded"]


class _Process:
    """What is set for the whole process: by the first thread that comes, and put back by the last that goes.

    Put back by whoever set it, it would change under those who are still at work, and stay changed after them.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._inside = 0
        self._torch = 1
        self._blas: Any = None
        self._modules = 0
        self._controller: Any = None

    def _libraries(self) -> Any:
        """The libraries with threads, looked for when modules have come: to find them takes milliseconds."""
        if len(sys.modules) != self._modules:
            self._modules, self._controller = len(sys.modules), ThreadpoolController()
        return self._controller

    def enter(self) -> None:
        with self._guard:
            if self._inside == 0:
                self._torch = torch.get_num_threads()
                self._blas = self._libraries().limit(limits=1, user_api="blas")
            # Every thread has a number of its own for OpenMP; what else this sets is the process's.
            torch.set_num_threads(1)
            self._inside += 1

    def leave(self) -> None:
        with self._guard:
            self._inside -= 1
            if self._inside == 0:
                torch.set_num_threads(self._torch)
                self._blas.restore_original_limits()
                return
            # Not by torch, which would set that of the MKL in it for all threads.
            for library in self._libraries().lib_controllers:
                if library.user_api == "openmp":
                    library.set_num_threads(self._torch)


_process = _Process()
_thread = threading.local()


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread in BLAS and in torch: the order of a sum must not depend on the machine or the number of workers.

    Blocks may be nested, and open in several threads at once.
    """
    if getattr(_thread, "is_inside", False):
        yield
        return
    _process.enter()
    _thread.is_inside = True
    try:
        yield
    finally:
        _thread.is_inside = False
        _process.leave()
