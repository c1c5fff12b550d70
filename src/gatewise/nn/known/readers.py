"""Reads the routers that are known by their classes' names."""

import dataclasses
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.nn.known.contracts import RouterContract
from gatewise.nn.known.lookup import contract_of
from gatewise.nn.readers import RouterReader
from gatewise.nn.routing import Routing

__all__ = ["KnownRouterReader", "reads_known"]


class KnownRouterReader(RouterReader):
    """Reads a router of another library as its contract says.

    Args:
        module: the router.
        layer: the module that holds it; None if it stands alone, so that a bias that the layer keeps is out of reach.
        contract: of the router's class.
    """

    def __init__(self, module: nn.Module, layer: nn.Module | None, contract: RouterContract) -> None:
        super().__init__(module)
        self.layer = layer
        self.contract = contract

    @property
    def n_experts(self) -> int:
        """E."""
        return attrgetter(self.contract.weight)(self.module).shape[0]

    def routing(self, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> Routing:
        """What the router did, in float32 or float64."""
        logits, weights, indices = outputs
        selection = self.contract.selection(self.module)
        if self.contract.capped:
            # These logits have passed the cap already.
            selection = dataclasses.replace(selection, cap=None)
        logits, weights = (part.reshape(-1, part.shape[-1]) for part in (logits, weights))
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return Routing(logits.to(dtype), weights.to(dtype), indices.reshape(-1, indices.shape[-1]), selection)

    def tokens(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        """What the router read, (T, d)."""
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        return hidden.reshape(-1, hidden.shape[-1])

    @property
    def gate_parameters(self) -> list[nn.Parameter]:
        """The weight of the logits, and their bias where there is one."""
        paths = (self.contract.weight, self.contract.gate_bias)
        return [self.module.get_parameter(path) for path in paths if path is not None]

    @property
    def correction_bias(self) -> Tensor | None:
        """The bias b (E,), a view of where it is kept; None where there is none."""
        bias = self.contract.bias
        holder = self.layer if bias is not None and bias.place == "argument" else self.module
        if bias is None or holder is None:
            return None
        return attrgetter(bias.path)(holder).detach().reshape(-1)


def reads_known(module: nn.Module, layer: nn.Module | None) -> RouterReader | None:
    """The reader of a module, or None if its class is not known; for `add_reader`."""
    contract = contract_of(module)
    return None if contract is None else KnownRouterReader(module, layer, contract)
