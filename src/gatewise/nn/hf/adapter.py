"""A router of Gatewise in the place of a model's own, which the model cannot tell from the old one."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.known import RouterContract
from gatewise.nn.readers import OwnReader, RouterReader, add_reader
from gatewise.nn.router import Router
from gatewise.ops.log_space import log_softmax

__all__ = ["Adapter", "adapt"]

# Where transformers installs the hooks that collect router logits.
_RECORDING = "transformers.utils.output_capturing"


class Adapter(nn.Module):
    """Tokens x (…, d) ↦ logits (T, E), weights (T, K) and indices (T, K), as the class in whose place it stands.

    What is used is of a subclass of this one and of the old router's class: models collect the logits of modules of
    that class. The logits are the gate's, or the logarithm of its normalised weights if it is not normalised by a
    softmax, so that a model's own auxiliary loss sees the gate's probabilities.

    The correction bias stays where the model keeps it, in the same tensor: `router.correction_bias` is a view of it.
    The old router is no part of the module tree, but it moves, casts and is saved with it, so that a saved model can be
    loaded without Gatewise, and is then the old one.

    Attributes:
        router: the router that acts.
        contract: of the old router's class.
    """

    router: Router
    contract: RouterContract
    # In tuples: a module or parameter in an attribute would be registered.
    _old: tuple[nn.Module]
    _layer_class: type[nn.Module]
    _kept_bias: tuple[Tensor | None]
    _linked: tuple[Tensor | None]

    @property
    def old(self) -> nn.Module:
        """The router in whose place it stands."""
        return self._old[0]

    def stand_in(self, old: nn.Module, layer: nn.Module, contract: RouterContract, router: Router) -> None:
        """Become the adapter of `adapt`."""
        nn.Module.__init__(self)
        for name, value in vars(old).items():
            # Plain numbers and the configuration, which a layer may ask for. A `forward` here is accelerate's.
            if not name.startswith("_") and name != "forward":
                setattr(self, name, value)
        self.contract = contract
        self.router = router
        self._old = (old,)
        self._layer_class = type(layer)
        self._kept_bias = self._linked = (None,)
        bias = contract.bias
        if bias is not None and bias.place == "argument":
            source = attrgetter(bias.path)(layer)
            self._kept_bias = (source.detach().clone(),)
            self._link(source)
        elif bias is not None:
            _copy_bias(old, self, bias.path)
            self._link(self._bias((), {}))
        carry_hooks(old, self)

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (T, E), weights (T, K) and indices (T, K), axes of tokens in one.

        Args:
            hidden_states: tokens (…, d).
            arguments: the correction bias, where the old router takes one.
            keywords: the same by its name.
        """
        if self.contract.bias is not None:
            self._link(self._bias(arguments, keywords))
        logits, weights, indices = self.router(hidden_states.reshape(-1, hidden_states.shape[-1]))
        if self.contract.capped:
            logits = self.router.selection.capped(logits)
        if not self.router.normalised:
            logits = log_softmax(logits)
        return logits, weights if self.contract.exact else weights.to(hidden_states.dtype), indices

    def _bias(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
        """The correction bias where the model keeps it."""
        bias = self.contract.bias
        assert bias is not None
        if bias.place == "argument":
            return keywords[bias.path] if bias.path in keywords else arguments[0]
        return attrgetter(bias.path)(self)

    def _link(self, source: Tensor) -> None:
        """Let the router use the model's tensor itself."""
        if self._linked[0] is not source:
            view = source.detach().reshape(-1)
            # It is saved where the model keeps it, and not a second time.
            self.router.register_buffer("correction_bias", view, persistent=False)
            self._linked = (source,)

    def link(self, layer: nn.Module) -> Tensor | None:
        """The correction bias of `router`, which is the model's own tensor after this, moved and copied models too.

        Args:
            layer: the model's layer around this one.
        """
        bias = self.contract.bias
        if bias is not None:
            self._link(attrgetter(bias.path)(layer if bias.place == "argument" else self))
        return self.router.correction_bias

    def stands_in(self, layer: nn.Module | None) -> bool:
        """Whether it is the layer's own child, with nothing put around it."""
        return type(layer) is self._layer_class

    def put_back(self, layer: nn.Module) -> nn.Module:
        """The old router, with the bias as it was when this one took its place.

        Args:
            layer: the model's layer around this one.
        """
        bias, kept = self.contract.bias, self._kept_bias[0]
        if bias is not None and bias.place == "argument" and kept is not None:
            with torch.no_grad():
                attrgetter(bias.path)(layer).copy_(kept)
        carry_hooks(self, self.old)
        return self.old.train(self.training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.old._apply(fn, recurse)
        # Moving and casting makes other tensors of them.
        self._linked = (None,)
        if self.contract.bias is not None and self.contract.bias.place != "argument":
            self._link(self._bias((), {}))
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        bias = self.contract.bias
        for name, value in self.old.state_dict(keep_vars=keep_vars).items():
            if bias is None or name != bias.path:
                destination[prefix + name] = value

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        bias = self.contract.bias
        for name, value in self.old.state_dict(keep_vars=True).items():
            if bias is not None and name == bias.path:
                continue
            given = state_dict.pop(prefix + name, None)
            if given is None:
                missing_keys.append(prefix + name)
            elif given.shape != value.shape:
                error_msgs.append(f"{prefix + name} has the shape {tuple(given.shape)}, not {tuple(value.shape)}")
            else:
                with torch.no_grad():
                    value.copy_(given)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class has no name in a module by which a copy could find it. A copy's bias is another tensor than its
        # router's: a parameter's copy shares no memory with that of a view.
        return _empty, (type(self.old),), {**self.__dict__, "_linked": (None,)}

    def extra_repr(self) -> str:
        """Whose place it takes."""
        return f"in the place of {type(self.old).__name__}"


def adapt(old: nn.Module, layer: nn.Module, contract: RouterContract, router: Router) -> Adapter:
    """The adapter by which `router` takes the place of `old`, which stays as it is.

    Args:
        old: the model's own router.
        layer: the module that holds it.
        contract: of the old router's class.
        router: it is used as it is; its correction bias becomes the model's own, where the model has one.
    """
    new = _empty(type(old))
    new.stand_in(old, layer, contract, router)
    return new.train(old.training)


class _AdapterReader(OwnReader):
    """Reads the router of an adapter, with the bias where the model keeps it."""

    def __init__(self, module: Router, adapter: Adapter, layer: nn.Module) -> None:
        super().__init__(module)
        self._adapter = adapter
        self._layer = layer

    @property
    def correction_bias(self) -> Tensor | None:
        return self._adapter.link(self._layer)


def _reads_adapters(module: nn.Module, layer: nn.Module | None) -> RouterReader | None:
    """The reader of the router in an adapter, or None if it is in none; for `add_reader`."""
    if not isinstance(module, Router) or layer is None:
        return None
    around = (each for each in layer.modules() if isinstance(each, Adapter) and each.router is module)
    adapter = next(around, None)
    # Where an adapter stands alone, the layer that keeps the bias is out of reach.
    return None if adapter is None or adapter is layer else _AdapterReader(module, adapter, layer)


def carry_hooks(source: nn.Module, target: nn.Module) -> None:
    """Move the hooks by which transformers collects router logits, once it has installed them."""
    # There is no public list of a module's hooks.
    own, others = source._forward_hooks, target._forward_hooks  # pyright: ignore[reportPrivateUsage]
    for key, hook in list(own.items()):
        if hook.__module__ == _RECORDING:
            others[key] = own.pop(key)


def _copy_bias(old: nn.Module, new: nn.Module, path: str) -> None:
    """Give the adapter a bias of its own under the old router's name."""
    first, _, rest = path.partition(".")
    value = copy.deepcopy(getattr(old, first))
    if rest or isinstance(value, nn.Parameter):
        setattr(new, first, value)
    else:
        new.register_buffer(first, value)


@cache
def _class_for(old: type[nn.Module]) -> type[Adapter]:
    return cast(type[Adapter], type(f"Gatewise{old.__name__}", (Adapter, old), {"__module__": __name__}))


def _empty(old: type[nn.Module]) -> Adapter:
    cls = _class_for(old)
    return cls.__new__(cls)


def check_is_not_offloaded(name: str, old: nn.Module, contract: RouterContract) -> None:
    """Refuse a router whose numbers are not in memory.

    Raises:
        InputError: accelerate keeps them elsewhere and brings them in for each call.
    """
    if old.get_parameter(contract.weight).is_meta:
        raise InputError(
            f"the weights of the router {name!r} are not in memory (offloaded, or on the meta device): load the model "
            "with a device_map that leaves the routers on a device"
        )


add_reader(_reads_adapters)
