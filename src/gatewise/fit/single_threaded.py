"""One thread in BLAS and in torch."""

import contextlib
from collections.abc import Generator

import torch
from threadpoolctl import threadpool_limits

__all__ = ["single_threaded"]


@contextlib.contextmanager
def single_threaded() -> Generator[None, None, None]:
    """One thread in BLAS and in torch: the order of a sum must not depend on the machine or the number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
