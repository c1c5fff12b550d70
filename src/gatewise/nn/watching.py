"""Hooks that see what routers do: each call once, no recomputation, no copy, no probe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from gatewise.nn.readers import RouterReader
from gatewise.nn.routing import Routing

__all__ = ["Call", "Watch", "is_recomputation", "unwatched", "watch"]

_UNWATCHED: ContextVar[bool] = ContextVar("gatewise_unwatched", default=False)


class Call:
    """One call of a router: its `Routing`, and the tokens that it read, when they are asked for.

    Attributes:
        reader: the router's.
        routing: what the router did.
    """

    def __init__(
        self, reader: RouterReader, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any
    ) -> None:
        self.reader = reader
        self.routing: Routing = reader.routing(arguments, keywords, outputs)
        self._inputs = arguments, keywords

    def tokens(self) -> torch.Tensor:
        """X (T, d)."""
        return self.reader.tokens(*self._inputs)


class Watch:
    """A router's hook. A copy of the router, by deepcopy or pickle, is not watched: its hook keeps nothing."""

    def __init__(
        self, reader: RouterReader | None = None, keep: Callable[[Call], None] | None = None, probes: bool = False
    ) -> None:
        self._reader = reader
        self._keep = keep
        self._probes = probes
        self._handle: torch.utils.hooks.RemovableHandle | None = None

    # Compiled code would go on counting into what has ended, and cannot follow counters.
    @torch.compiler.disable
    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> None:
        """Keep the call, unless it is a recomputation or not to be counted."""
        if self._keep is None or self._reader is None or is_recomputation():
            return
        if self._probes or not _UNWATCHED.get():
            self._keep(Call(self._reader, arguments, keywords, outputs))

    def remove(self) -> None:
        """See no more calls, not even from compiled code that holds on to the hook."""
        self._keep = None
        if self._handle is not None:
            self._handle.remove()

    def __reduce__(self) -> tuple[type["Watch"], tuple[()]]:
        return Watch, ()


def watch(reader: RouterReader, keep: Callable[[Call], None], *, probes: bool = False) -> Watch:
    """Have every call of a router kept, but recomputations by checkpointing.

    Args:
        reader: of the router.
        keep: gets each call, with its gradients.
        probes: whether calls within `unwatched` are seen too.

    Returns:
        The hook; its `remove` ends it.
    """
    found = Watch(reader, keep, probes)
    found._handle = reader.module.register_forward_hook(found, with_kwargs=True)
    return found


@contextmanager
def unwatched() -> Iterator[None]:
    """Within the block routers are called to look at them, and not to be counted."""
    token = _UNWATCHED.set(True)
    try:
        yield
    finally:
        _UNWATCHED.reset(token)


def is_recomputation() -> bool:
    """Whether this is a forward pass within a backward pass: what checkpointing does."""
    # What `torch.utils.checkpoint` itself asks; there is no public name for it.
    return torch._C._current_graph_task_id() != -1  # pyright: ignore[reportPrivateUsage]
