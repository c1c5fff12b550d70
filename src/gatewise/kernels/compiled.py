"""Compiled functions whose cache on disk belongs to the whole room.

Numba keeps one cache for each source file, and looks at that file alone when it asks whether the cache is still good. A
function that calls another file's would go on running what that file said when it was compiled.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

__all__ = ["compiled", "digest_of_sources"]

_ROOM = Path(__file__).parent
_CHOOSING = threading.Lock()


@cache
def digest_of_sources(folder: Path = _ROOM) -> str:
    """SHA-256 of the Python files of a folder, by name and by content.

    Example:
        >>> len(digest_of_sources())
        64
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.name} {len(text)} ".encode() + text)
    return digest.hexdigest()


class GivenFolder(UserProvidedCacheLocator):
    """Numba's locator of the folder `NUMBA_CACHE_DIR`."""

    def get_source_stamp(self) -> Any:
        """What a cache must have been made of to be good: the function's own file, and all files of this room."""
        return super().get_source_stamp(), digest_of_sources()


class BesideTheSource(InTreeCacheLocator):
    """Numba's locator of `__pycache__` beside the source."""

    def get_source_stamp(self) -> Any:
        """As that of `GivenFolder`."""
        return super().get_source_stamp(), digest_of_sources()


class FolderOfTheUser(UserWideCacheLocator):
    """Numba's locator of the user's folder of caches, for sources that lie where nobody may write."""

    def get_source_stamp(self) -> Any:
        """As that of `GivenFolder`."""
        return super().get_source_stamp(), digest_of_sources()


_LOCATORS = ",".join(
    f"{each.__module__}.{each.__qualname__}" for each in (GivenFolder, BesideTheSource, FolderOfTheUser)
)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` of a function that needs no lock of the interpreter, with a cache that belongs to the whole room.

    Args:
        options: of `numba.njit`, such as `fastmath` and `error_model`.

    Raises:
        RuntimeError: by numba, if the function stands in no file that a cache could belong to.

    Example:
        >>> import numpy as np
        >>> from gatewise.kernels.mixture_pass import weighted_sum
        >>> float(weighted_sum(np.ones(2), np.array([1.0, 2.0]), 2))
        3.0
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        with _locators():
            return numba.njit(cache=True, nogil=True, **options)(function)

    return decorate


@contextmanager
def _locators() -> Iterator[None]:
    """Numba asks where a cache lies when a function is decorated, and takes the answer from its configuration."""
    with _CHOOSING:
        before = config.CACHE_LOCATOR_CLASSES  # pyright: ignore[reportAttributeAccessIssue]
        config.CACHE_LOCATOR_CLASSES = _LOCATORS  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            config.CACHE_LOCATOR_CLASSES = before  # pyright: ignore[reportAttributeAccessIssue]
