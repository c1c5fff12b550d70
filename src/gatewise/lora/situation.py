"""What the modules of a routed model cannot see: which rows are fixed, what is padding, whether a sequence goes on."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gatewise.exceptions import InputError

__all__ = ["BASE", "Rows", "Situation", "Stack"]

BASE = "__base__"
"""The name by which peft fixes a row to the base without adapters."""

Rows = tuple[str | None, ...]
Chooser = Callable[[dict[str, Any]], Rows | None]
Observer = Callable[[str, Tensor, Tensor, Tensor, Tensor | None, bool], None]


class Stack:
    """What is known of the tokens that one stack of layers reads in a call.

    Attributes:
        mask: (B, L), True where there is a token, or None.
        outside_mask: of the states that a decoder reads from its encoder.
        cache_name: under which argument the cache came, or None.
        begins: whether the call begins its sequences, and does not go on with a cache.
        shared: the mean scores (…, E) of all modules, for tokens of the stack and for those of its encoder.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.mask = _as_mask(arguments.get("attention_mask"))
        states = arguments.get("encoder_hidden_states")
        # Where they lie, and not they: what is known of a call outlives it.
        self._outside = (states.data_ptr(), states.shape) if isinstance(states, Tensor) else None
        self.outside_mask = _as_mask(arguments.get("encoder_attention_mask"))
        # Models call it `past_key_values`, or `cache`.
        self.cache_name = next((name for name, value in arguments.items() if hasattr(value, "get_seq_length")), None)
        self.begins = self.cache_name is None or int(arguments[self.cache_name].get_seq_length()) == 0
        self.shared: dict[bool, tuple[Tensor, Tensor]] = {}

    def is_input(self, x: Tensor) -> bool:
        """Whether x are the model's input tokens, and not those that a decoder of an encoder's states reads."""
        return self._outside is None or self.is_outside(x)

    def is_outside(self, x: Tensor) -> bool:
        """Whether x are the encoder's states, and not the stack's own tokens."""
        return self._outside == (x.data_ptr(), x.shape)

    def mask_of(self, x: Tensor) -> Tensor | None:
        """The mask of tokens x (B, L, d) as booleans (B, L), or None where all are tokens."""
        mask = self.outside_mask if self.is_outside(x) else self.mask
        if mask is None:
            return None
        # With a cache the mask has the earlier tokens too.
        mask = mask[:, -x.shape[1] :]
        return mask if mask.shape == x.shape[:2] else None


def _as_mask(mask: object) -> Tensor | None:
    """A padding mask (B, L) as booleans; other kinds, as a mask of pairs, say nothing of padding."""
    return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None


class Situation:
    """The state that all routed modules of one model share, kept by hooks on the model's stacks of layers.

    Args:
        base: the model of transformers.
        adapters: the pool, in its order.
        chooser: gives the adapters of a call's rows from the call's arguments, or None.
        shares: whether one choice per token serves all modules, which needs a pass without adapters before each call.
    """

    def __init__(self, base: nn.Module, adapters: Sequence[str], chooser: Chooser | None, shares: bool) -> None:
        self.adapters = tuple(adapters)
        self.fixed: Rows | None = None
        self.chosen: Rows | None = None
        self.collects = False
        self.observer: Observer | None = None
        self._chooser = chooser
        self._shares = shares
        self._remembered: dict[str, Tensor] = {}
        self._twins: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._stack: Stack | None = None
        coder = bool(getattr(getattr(base, "config", None), "is_encoder_decoder", False))
        model: Any = base
        stacks: list[nn.Module] = [model.get_encoder(), model.get_decoder()] if coder else [base]
        self._handles: list[RemovableHandle] = []
        for module in stacks:
            self._handles.append(module.register_forward_pre_hook(_Before(self, chooses=not coder), with_kwargs=True))
        if coder:
            # The rows are chosen by what goes into the whole model; in generation only the encoder sees it.
            self._handles.append(stacks[0].register_forward_pre_hook(_Choose(self), with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def choose(self, arguments: dict[str, Any]) -> None:
        """Let the router choose the adapters of the call's rows, where it is of that kind."""
        if self._chooser is not None and Stack(arguments).begins:
            self.chosen = self._chooser(arguments)

    def enter(self, module: nn.Module, arguments: dict[str, Any]) -> None:
        """A stack of layers is called with these arguments."""
        stack = Stack(arguments)
        if self._shares:
            self._collect(module, arguments, stack)
        self._stack = stack

    @property
    def stack(self) -> Stack:
        """What is known of the present call.

        Raises:
            InputError: a module was called without its model.
        """
        if self._stack is None:
            raise InputError("call the model and not one of its modules: padding and caches are not known otherwise")
        return self._stack

    def rows(self, n_rows: int) -> Rows | None:
        """The adapters of rows, None for those that are routed; repeated where beams repeat the rows.

        Raises:
            InputError: their number does not fit the batch.
        """
        rows = self.fixed
        if rows is None:
            rows = self.chosen
        elif self.chosen is not None and len(self.chosen) == len(rows):
            rows = tuple(chosen if fixed is None else fixed for fixed, chosen in zip(rows, self.chosen, strict=True))
        if rows is None or len(rows) == n_rows:
            return rows
        times, rest = divmod(n_rows, len(rows))
        if rest:
            raise InputError(f"there are adapters for {len(rows)} rows, and the batch has {n_rows}")
        return tuple(row for row in rows for _ in range(times))

    @contextmanager
    def fixing(self, rows: Rows) -> Iterator[None]:
        """Within the block the rows have these adapters."""
        before, self.fixed = self.fixed, rows
        try:
            yield
        finally:
            self.fixed = before

    def per_sequence(self, name: str, x: Tensor, scores: Tensor) -> Tensor:
        """The mean of the scores (B, L, E) over each sequence's tokens, (B, 1, E), from the call that began it.

        Raises:
            InputError: a cache goes on with sequences that were not begun here.
        """
        stack = self.stack
        if stack.begins or stack.is_outside(x):
            mask = stack.mask_of(x)
            share = torch.ones_like(scores[..., :1]) if mask is None else mask.unsqueeze(-1).to(scores.dtype)
            mean = (scores * share).sum(1, keepdim=True) / share.sum(1, keepdim=True).clamp_min(1.0)
            self._remembered[name] = mean
        mean = self._remembered.get(name)
        if mean is None or len(mean) != len(scores):
            raise InputError("this cache goes on with sequences that the router has not seen: begin with their prompts")
        return mean

    def shared(self, x: Tensor, adapters: Sequence[str]) -> Tensor:
        """The mean scores of all modules for tokens x, (…, E) for the adapters of one module."""
        total, count = self.stack.shared[self.stack.is_outside(x)]
        places = [self.adapters.index(adapter) for adapter in adapters]
        return (total / count.clamp_min(1.0))[..., places]

    def collect(self, x: Tensor, scores: Tensor, adapters: Sequence[str]) -> None:
        """Add a module's scores (…, E) in a pass without adapters."""
        stack = self.stack
        key = stack.is_outside(x)
        places = torch.tensor([self.adapters.index(adapter) for adapter in adapters], device=scores.device)
        wide = scores.new_zeros(*scores.shape[:-1], len(self.adapters)).index_copy(-1, places, scores)
        number = scores.new_zeros(len(self.adapters)).index_fill(0, places, 1.0)
        if key in stack.shared:
            total, count = stack.shared[key]
            wide, number = total + wide, count + number
        stack.shared[key] = (wide, number)

    def _collect(self, module: nn.Module, arguments: dict[str, Any], stack: Stack) -> None:
        """One pass without adapters, in which all modules give their scores; with a cache of its own."""
        mine = {name: value for name, value in arguments.items() if name != "labels"}
        if stack.cache_name is not None:
            mine[stack.cache_name] = self._twin(arguments[stack.cache_name], stack.begins)
        before, self._stack = self._stack, stack
        self.collects = True
        try:
            with torch.no_grad():
                module(**mine)
        finally:
            self.collects = False
            self._stack = before

    def _twin(self, cache: Any, begins: bool) -> Any:
        """The cache of the passes without adapters that belongs to the call's cache."""
        if begins:
            self._twins[cache] = copy.deepcopy(cache)
            # Beams reorder the cache, and would not reorder its twin.
            cache.reorder_cache = _no_beams
        if cache not in self._twins:
            raise InputError(
                "granularity='shared' needs the cache from the first call on: pass a DynamicCache() with the prompt"
            )
        return self._twins[cache]


def _no_beams(*arguments: object) -> NoReturn:
    raise InputError("granularity='shared' keeps a second cache, which beams do not reorder: take num_beams=1")


class _Before:
    """The hook before a stack's forward pass."""

    def __init__(self, situation: Situation, chooses: bool) -> None:
        self._situation = situation
        self._chooses = chooses

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if self._situation.collects:
            return
        bound = _bound(module, arguments, keywords)
        if self._chooses:
            self._situation.choose(bound)
        self._situation.enter(module, bound)


class _Choose:
    """The hook that lets a router choose by the encoder's inputs."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if not self._situation.collects:
            self._situation.choose(_bound(module, arguments, keywords))


def _bound(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those in `**kwargs` too."""
    found = dict(inspect.signature(module.forward).bind_partial(*arguments, **keywords).arguments)
    return {**found.pop("kwargs", {}), **found}
