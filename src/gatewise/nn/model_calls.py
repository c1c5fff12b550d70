"""The calls of a watched model: which rows of its routers count in the call that runs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, cast

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.arguments import whole
from gatewise.nn.batches import Batch, Domains, Labels, Rows
from gatewise.nn.watching import Hook

__all__ = ["Arguments", "ModelCalls", "called_modules", "unwrapped"]

Arguments = Mapping[str, Any]
"""The arguments of a call by their names."""


class ModelCalls:
    """Looks at the arguments of every call of some modules, for masks and domains.

    Args:
        called: the modules.
        mask: the name of the argument with the mask, or what makes one of all arguments; None for none.
        domains: the name of the argument, or of the column, with the domains, or what makes them; None for none.
        most_domains: how many domains are told apart.

    Attributes:
        domains: the domains that came.
        n_strange: how many calls had a mask that is no table of tokens.
        n_labelled: how many calls had domains.

    Raises:
        InputError: an argument is not what it may be.
    """

    def __init__(
        self,
        called: Sequence[nn.Module],
        mask: str | Callable[[Arguments], Any] | None,
        domains: str | Callable[[Arguments], Any] | None,
        most_domains: int,
    ) -> None:
        for name, value in (("mask", mask), ("domains", domains)):
            if not (value is None or isinstance(value, str) or callable(value)):
                raise InputError(
                    f"{name} must be the name of an argument or a function of all of them, not {shown(value)}"
                )
        whole("most_domains", most_domains, least=2)
        self._called = called
        self._mask = mask
        self._labels = domains
        self._hooks: list[Hook] = []
        # A stack for each thread: calls lie within calls, and replicas run beside each other.
        self._batches: dict[int, list[Batch]] = {}
        self._given: tuple[Tensor | None, Labels | None] = (None, None)
        self.domains = Domains(most_domains)
        self.n_strange = 0
        self.n_labelled = 0

    @property
    def lacking_column(self) -> str | None:
        """The name of the column with the domains, if no call had it; None where one had, or none was named."""
        return self._labels if isinstance(self._labels, str) and not self.n_labelled else None

    def begin(self) -> None:
        """Count calls anew."""
        self.n_strange = self.n_labelled = 0

    def start(self) -> None:
        """Begin to look."""
        for module in self._called:
            enter, leave = Hook(self._enter, probes=True), Hook(self._leave, probes=True)
            enter.handle = module.register_forward_pre_hook(enter, with_kwargs=True)
            leave.handle = module.register_forward_hook(leave, always_call=True)
            self._hooks += [enter, leave]

    def stop(self) -> None:
        """Look no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._batches = {}

    @contextmanager
    def given(self, mask: Tensor | None, domain: Labels | None) -> Iterator[None]:
        """Within the block calls have this mask and domain, beside what their arguments say.

        Raises:
            InputError: the mask is not of booleans.
        """
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool):
            raise InputError("the mask must be a tensor of booleans, True where a token counts")
        before, self._given = self._given, (mask, domain)
        try:
            yield
        finally:
            self._given = before

    def rows(self, n_tokens: int, device: torch.device) -> Rows:
        """Which of so many rows of a router count, and of which domain they are."""
        batches = self._batches.get(get_ident())
        if batches:
            batch = batches[-1]
        else:
            # A router was called alone, or within a part of the model.
            mask, domain = self._given
            batch = Batch(None, [] if mask is None else [mask], self._codes(domain))
        return batch.rows(n_tokens, device)

    def _codes(self, label: Labels | None) -> Tensor | None:
        return None if label is None else self.domains.codes(label)

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Before a call: which of its tokens count. Gives other arguments where it takes a column out."""
        parameters = inspect.signature(unwrapped(module).forward).parameters
        named = {**dict(zip(parameters, arguments, strict=False)), **keywords}
        mask, label = self._given
        changed = None
        if isinstance(self._labels, str):
            label = named.get(self._labels, label)
            if self._labels in keywords and self._labels not in parameters:
                changed = arguments, {name: value for name, value in keywords.items() if name != self._labels}
        elif self._labels is not None:
            label = self._labels(named)
        masks = [] if mask is None else [mask]
        found = self._mask(named) if callable(self._mask) else named.get(self._mask) if self._mask else None
        if isinstance(found, Tensor) and found.ndim <= 2:
            masks.append(found != 0)
        elif found is not None:
            # A mask of attention for each pair of tokens, from which padding cannot be told.
            self.n_strange += 1
        self.n_labelled += label is not None
        self._batches.setdefault(get_ident(), []).append(self._batch(named, masks, label))
        return changed

    def _leave(self, *call: object) -> None:
        batches = self._batches.get(get_ident())
        if batches:
            batches.pop()
        if not batches:
            # Threads come and go.
            self._batches.pop(get_ident(), None)

    def _batch(self, named: Arguments, masks: list[Tensor], label: Labels | None) -> Batch:
        """That of a call; a call that says nothing of its tokens has those of the call around it."""
        shape, around = _shape(named), self._batches.get(get_ident())
        if around and shape is None and not masks and label is None:
            return around[-1]
        return Batch(shape, masks, self._codes(label))


def unwrapped(module: nn.Module) -> nn.Module:
    """The model in what torch.compile or a distributed wrapper has put around it, whose arguments have no names."""
    for name in ("_orig_mod", "module"):
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module):
            return unwrapped(inner)
    return module


def _shape(named: Arguments) -> tuple[int, int] | None:
    """(B, S) of a model's input, where it goes by a name that is known."""
    for name in ("input_ids", "inputs_embeds"):
        value = named.get(name)
        if isinstance(value, Tensor) and value.ndim >= 2:
            return value.shape[0], value.shape[1]
    return None


def called_modules(model: object) -> list[nn.Module]:
    """What is called: the model itself, or each of some layers.

    Raises:
        InputError: it is neither a model nor a list of layers.
    """
    # A ModuleList is never called, its layers are.
    layers = [model] if isinstance(model, nn.Module) and not isinstance(model, nn.ModuleList) else model
    found = list(layers) if isinstance(layers, Iterable) else [layers]
    wrong = [each for each in found if not isinstance(each, nn.Module)]
    if wrong:
        raise InputError(f"pass a model or a list of layers, which are torch modules, not {shown(wrong[0])}")
    return cast(list[nn.Module], found)
