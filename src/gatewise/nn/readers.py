"""Reading routers: what each router in a model has just done, whichever class it is of."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.router import Router
from gatewise.nn.routing import Routing

__all__ = ["RouterReader", "add_reader", "readers_of"]


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


class _OwnReader(RouterReader):
    """Reads a `gatewise.nn.Router`."""

    module: Router

    @property
    def n_experts(self) -> int:
        return self.module.n_experts

    def routing(self, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> Routing:
        logits, weights, indices = (part.reshape(-1, part.shape[-1]) for part in outputs)
        return Routing(logits, weights, indices, self.module.selection, self.module.normalised)

    def tokens(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        x = arguments[0] if arguments else keywords["x"]
        return x.reshape(-1, x.shape[-1])

    @property
    def gate_parameters(self) -> list[nn.Parameter]:
        return list(self.module.gate.parameters())

    @property
    def correction_bias(self) -> Tensor | None:
        return self.module.correction_bias


Reads = Callable[[nn.Module, nn.Module | None], RouterReader | None]

_READS: list[Reads] = [lambda module, layer: _OwnReader(module) if isinstance(module, Router) else None]


def add_reader(reads: Reads) -> None:
    """Let `readers_of` find routers of another kind.

    Args:
        reads: gives the reader of a module, or None where the module is no router of this kind. It is passed the
            module, and the one that holds it, or None where there is none.
    """
    _READS.append(reads)


def readers_of(model: nn.Module) -> dict[str, RouterReader]:
    """The readers of all routers in a model, by the routers' names, each router once.

    Raises:
        InputError: there is no router that can be read.

    Example:
        >>> from gatewise.nn import SparseMoE
        >>> list(readers_of(nn.Sequential(SparseMoE(8, n_experts=4), SparseMoE(8, n_experts=4))))
        ['0.router', '1.router']
    """
    found: dict[str, RouterReader] = {}
    for name, module in model.named_modules():
        layer = model.get_submodule(name.rpartition(".")[0]) if name else None
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
