"""What a routed module adds to its base's output, and how that takes the place of peft's own sum."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from gatewise.exceptions import InputError
from gatewise.lora.places import Factors, Place
from gatewise.lora.router import AdapterRouter
from gatewise.lora.situation import Situation
from gatewise.lora.sparse import adapter_sum

__all__ = ["ATTRIBUTE", "Change", "MergedFactors", "MergedProduct", "RoutedChange", "install", "uninstall"]

ATTRIBUTE = "gatewise_change"
"""The name under which peft's layer holds its `Change`."""


class Change(nn.Module, ABC):
    """Tokens u (T, d) ↦ the change (T, out) of a module's output.

    Args:
        place: the module with its adapters.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        # In a list: the place's layer holds this module, and must not be held by it as a part.
        self._place = [place]

    @property
    def place(self) -> Place:
        """The module."""
        return self._place[0]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor | None:
        """The change for tokens (…, d) as (…, out); None where no adapter is active."""

    def collect(self, x: Tensor) -> None:
        """Give scores to the mean over all modules; nothing where there are none."""


class RoutedChange(Change):
    """Σₖ w_k s_e B_e A_e u with weights and adapters from a router.

    Args:
        place: the module.
        router: of the module.
        situation: of the model.
    """

    def __init__(self, place: Place, router: AdapterRouter, situation: Situation) -> None:
        super().__init__(place)
        self.router = router
        # Parameters are changed in place by training, loading and casts: looked up once, they stay right.
        self._factors = [place.factors(adapter) for adapter in place.adapters]
        self._situation = situation

    def forward(self, x: Tensor) -> Tensor | None:
        """The sparse sum over the chosen adapters."""
        place = self.place
        if not self.router.among(place.layer.active_adapters):
            return None
        logits, weights, indices = self.router(x)
        if self._situation.observer is not None:
            stack = self._situation.stack
            mask = stack.mask_of(x) if x.ndim == 3 else None
            self._situation.observer(place.name, logits, weights, indices, mask, stack.is_input(x))
        # With many adapters the scores are as large as the tokens, and are not needed any more.
        del logits
        tokens = x.reshape(-1, x.shape[-1]).to(self._factors[0].down.dtype)
        change = adapter_sum(tokens, weights, indices, self._factors)
        return change.reshape(*x.shape[:-1], change.shape[-1])

    def collect(self, x: Tensor) -> None:
        """The router's scores."""
        self.router.collect(x)


class _Merged(Change):
    """One adapter made of all that are active, for every token.

    Args:
        place: the module.
        situation: of the model.
    """

    def __init__(self, place: Place, situation: Situation) -> None:
        super().__init__(place)
        self._situation = situation

    def forward(self, x: Tensor) -> Tensor | None:
        """The change by the merged adapter.

        Raises:
            InputError: rows are fixed to adapters of their own.
        """
        place = self.place
        if self._situation.fixed is not None:
            raise InputError("merged adapters are one, and rows cannot have theirs: take the router 'uniform'")
        active = place.layer.active_adapters
        adapters = [place.factors(adapter) for adapter in place.adapters if adapter in active]
        return self.merged(x.to(adapters[0].down.dtype), adapters) if adapters else None

    @abstractmethod
    def merged(self, x: Tensor, adapters: list[Factors]) -> Tensor:
        """The change for tokens (…, d) as (…, out)."""


class MergedProduct(_Merged):
    """(1/E) Σₑ sₑ Bₑ Aₑ u: the mean of the products, which is the uniform average of all adapters' changes."""

    def merged(self, x: Tensor, adapters: list[Factors]) -> Tensor:
        """Without ever making B A."""
        tokens = x.reshape(-1, x.shape[-1])
        dtype = self.place.routing_dtype
        weights = torch.full((len(tokens), len(adapters)), 1.0 / len(adapters), dtype=dtype, device=x.device)
        indices = torch.arange(len(adapters), device=x.device).expand(len(tokens), -1)
        change = adapter_sum(tokens, weights, indices, adapters)
        return change.reshape(*x.shape[:-1], change.shape[-1])


class MergedFactors(_Merged):
    """(1/E Σₑ sₑ Bₑ)(1/E Σₑ Aₑ) u: A and B averaged each by itself, as the paper's released script has it.

    That mixes one adapter's A with another's B. Smaller ranks are filled with zeros.
    """

    def merged(self, x: Tensor, adapters: list[Factors]) -> Tensor:
        """By the two means."""
        rank = max(adapter.rank for adapter in adapters)
        down = torch.stack([functional.pad(a.down, (0, 0, 0, rank - a.rank)) for a in adapters]).mean(0)
        up = torch.stack([functional.pad(a.up * a.scaling, (0, rank - a.rank)) for a in adapters]).mean(0)
        change = functional.linear(functional.linear(x, down), up)
        biases = [a.bias * a.scaling for a in adapters if a.bias is not None]
        return change + torch.stack(biases).sum(0) / len(adapters) if biases else change


class _RoutedForward:
    """The forward pass of one of peft's layers while a router is attached."""

    def __init__(self, layer: LoraLayer, change: Change, situation: Situation) -> None:
        self._layer = layer
        self._change = change
        self._situation = situation

    def __call__(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        layer, situation = self._layer, self._situation
        names = keywords.pop("adapter_names", None)
        # peft's layers take this beside what is the base's.
        keywords.pop("alora_offsets", None)
        result = layer.base_layer(x, *arguments, **keywords)
        if layer.disable_adapters:
            return result
        if layer.merged:
            raise InputError("adapters were merged into the base under an attached router: call unmerge_adapter()")
        if situation.collects:
            self._change.collect(x)
            return result
        if names is None:
            change = self._change(x)
        else:
            with situation.fixing(tuple(names)):
                change = self._change(x)
        return result if change is None else (result + change).to(result.dtype)


def install(layer: LoraLayer, change: Change, situation: Situation) -> None:
    """Let a layer add this change in the place of peft's sum over its active adapters.

    Raises:
        InputError: a router is attached already, or something else has taken the place of the layer's forward pass.
    """
    if hasattr(layer, ATTRIBUTE):
        raise InputError("a router is attached to this model already: call its detach() first")
    if "forward" in vars(layer):
        raise InputError(
            "another program has replaced the forward pass of the model's LoRA layers (accelerate's hooks do so): "
            "attach the router first"
        )
    setattr(layer, ATTRIBUTE, change)
    vars(layer)["forward"] = _RoutedForward(layer, change, situation)


def uninstall(layer: LoraLayer) -> None:
    """Undo `install`."""
    delattr(layer, ATTRIBUTE)
    vars(layer).pop("forward", None)
