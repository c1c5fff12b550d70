"""Workers of a Dask cluster, through joblib's backend for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import cast

import joblib

from gatewise.exceptions import InputError

__all__ = ["dask_backend"]

_SECONDS = 10
_REMEDY = "start one with `dask scheduler` and `dask worker tcp://HOST:8786 --nthreads 1`"


@contextmanager
def dask_backend(address: str) -> Iterator[int]:
    """Make joblib use the cluster of a scheduler; yields how many tasks its workers run at once.

    Args:
        address: of the scheduler, "tcp://host:8786".

    Raises:
        InputError: the extra `dask` is not installed, the scheduler cannot be reached or has no workers, or a worker
            has another version of Gatewise, so that rows would not have the same bits.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a Dask scheduler needs Dask: install gatewise[dask]") from None
    try:
        client = Client(address, timeout=_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address} ({type(error).__name__}): {_REMEDY}") from None
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise InputError(f"the Dask scheduler at {address} has no workers: {_REMEDY}")
        _check_versions(cast(dict[str, str], client.run(_version)))
        with joblib.parallel_config("dask", client=client):
            yield sum(int(worker["nthreads"]) for worker in workers.values())


def _version() -> str:
    """Runs on a worker."""
    return version("gatewise")


def _check_versions(found: dict[str, str]) -> None:
    own = _version()
    for worker, its in found.items():
        if its != own:
            raise InputError(
                f"the worker {worker} has Gatewise {its} and this machine {own}: install the same version everywhere"
            )
