"""Hooks that see what routers do: each call once, no recomputation, no copy, no probe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gatewise.nn.readers import RouterReader
from gatewise.nn.routing import Routing

__all__ = ["Call", "Hook", "has_compiled", "is_recomputation", "is_watched", "unwatched", "watch"]

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


class Hook:
    """A hook of a module. A copy of the module, by deepcopy or pickle, has one that does nothing.

    Args:
        act: what it does, with the arguments of torch's hooks.
        probes: whether it acts within `unwatched` too.
    """

    def __init__(self, act: Callable[..., Any] | None = None, probes: bool = False) -> None:
        self._act = act
        self._probes = probes
        self._outside = None if act is None else _outside()
        self.handle: RemovableHandle | None = None

    def __call__(self, *call: Any) -> Any:
        """Act, unless this is a recomputation or not to be counted."""
        return None if self._outside is None else self._outside(self, *call)

    def run(self, *call: Any) -> Any:
        """What a call does, where compiled code does not follow it."""
        if self._act is None or is_recomputation() or (_UNWATCHED.get() and not self._probes):
            return None
        return self._act(*call)

    @property
    def is_active(self) -> bool:
        """Whether it does something: it has not been removed, and is no copy."""
        return self._act is not None

    def remove(self) -> None:
        """Do nothing any more, even where compiled code holds on to the hook."""
        self._act = None
        if self.handle is not None:
            self.handle.remove()

    def __reduce__(self) -> tuple[type["Hook"], tuple[()]]:
        return Hook, ()


@cache
def _outside() -> Callable[..., Any]:
    """`Hook.run` outside of compiled code, which cannot follow what is counted.

    Made for the first hook: torch loads its compiler to make it, which takes as long as loading torch.
    """
    return torch.compiler.disable(Hook.run)


def watch(reader: RouterReader, keep: Callable[[Call], None], *, probes: bool = False) -> Hook:
    """Have every call of a router kept, but recomputations by checkpointing.

    Args:
        reader: of the router.
        keep: gets each call, with its gradients.
        probes: whether calls within `unwatched` are seen too.

    Returns:
        The hook; its `remove` ends it.
    """

    def act(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> None:
        call = Call(reader, arguments, keywords, outputs)
        # On the meta device shapes are passed on, and nothing is chosen.
        if not call.routing.indices.is_meta:
            keep(call)

    hook = Hook(act, probes)
    hook.handle = reader.module.register_forward_hook(hook, with_kwargs=True)
    return hook


def is_watched(module: nn.Module) -> bool:
    """Whether a `Hook` sees the calls of a module."""
    # There is no public list of a module's hooks.
    hooks = module._forward_hooks.values()  # pyright: ignore[reportPrivateUsage]
    return any(isinstance(hook, Hook) and hook.is_active for hook in hooks)


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


def has_compiled() -> bool:
    """Whether `torch.compile` has made code in this process."""
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and bool(dynamo.utils.counters["frames"])
