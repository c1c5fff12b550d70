"""Reading routers: what each router in a model has just done, whichever class it is of."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.router import Router
from gatewise.nn.routing import Routing

__all__ = ["OwnReader", "RouterReader", "add_reader", "layer_around", "readers_of"]


class RouterReader(ABC):
    """How to read one router: its inputs x (T, d), and its `Routing` from what its forward pass took and gave.

    Args:
        module: the router, whose forward hooks see the calls.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    @abstractmethod
    def n_experts(self) -> int:
        """E."""

    @abstractmethod
    def routing(self, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> Routing:
        """What the router did with the T tokens of a call, axes of tokens in one.

        Args:
            arguments: of the forward pass.
            keywords: of the forward pass.
            outputs: what it gave.
        """

    @abstractmethod
    def tokens(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        """What the router read in a call, (T, d)."""

    @property
    @abstractmethod
    def gate_parameters(self) -> list[nn.Parameter]:
        """What is trained of the router: all that makes the logits, and no correction bias."""

    @property
    @abstractmethod
    def correction_bias(self) -> Tensor | None:
        """The bias b (E,) that acts on the choice only, where it is kept; None where there is none."""


class OwnReader(RouterReader):
    """Reads a `gatewise.nn.Router`."""

    module: Router

    @property
    def n_experts(self) -> int:
        """E."""
        return self.module.n_experts

    def routing(self, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> Routing:
        """What the router did, with the selection that it has now."""
        logits, weights, indices = (part.reshape(-1, part.shape[-1]) for part in outputs)
        return Routing(logits, weights, indices, self.module.selection, self.module.normalised)

    def tokens(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        """What the router read, (T, d)."""
        x = arguments[0] if arguments else keywords["x"]
        return x.reshape(-1, x.shape[-1])

    @property
    def gate_parameters(self) -> list[nn.Parameter]:
        """The gate's."""
        return list(self.module.gate.parameters())

    @property
    def correction_bias(self) -> Tensor | None:
        """The router's own, (E,) or None."""
        return self.module.correction_bias


Reads = Callable[[nn.Module, nn.Module | None], RouterReader | None]

_READS: list[Reads] = [lambda module, layer: OwnReader(module) if isinstance(module, Router) else None]


def add_reader(reads: Reads) -> None:
    """Let `readers_of` find routers of another kind. The kind that was added last is asked first.

    Args:
        reads: gives the reader of a module, or None where the module is no router of this kind. It is passed the
            module and its `layer_around`, or None where there is none.
    """
    _READS.insert(0, reads)


def layer_around(model: nn.Module, name: str) -> nn.Module | None:
    """The layer of a router: the innermost module around it that has experts, or else the one that holds it.

    What PEFT or torch.compile put around a router is no layer.

    Args:
        model: what the name begins at.
        name: of the router.
    """
    parts = name.split(".") if name else []
    around = [model.get_submodule(".".join(parts[:depth])) for depth in reversed(range(len(parts)))]
    return next((module for module in around if hasattr(module, "experts")), around[0] if around else None)


def readers_of(model: nn.Module) -> dict[str, RouterReader]:
    """The readers of all routers in a model, by the routers' names, each router once.

    Raises:
        InputError: it is no model, or there is no router that can be read.

    Example:
        >>> from gatewise.nn import SparseMoE
        >>> list(readers_of(nn.Sequential(SparseMoE(8, n_experts=4), SparseMoE(8, n_experts=4))))
        ['0.router', '1.router']
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    found: dict[str, RouterReader] = {}
    for name, module in model.named_modules():
        layer = layer_around(model, name)
        for reads in _READS:
            reader = reads(module, layer)
            if reader is not None:
                found[name] = reader
                break
    if not found:
        raise InputError(
            f"there is no router in this {type(model).__name__} that can be read: `gatewise routers list` shows those "
            "of transformers that are known"
        )
    return found
