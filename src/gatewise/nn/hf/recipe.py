"""How a sparse layer was made of a dense MLP, as plain data in the layer's own state."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.hf.entries import DAMAGED, described_router, is_registered, router_of
from gatewise.nn.hf.form import FRAMES, DenseMLP
from gatewise.nn.router import Router

__all__ = ["STATE", "LayerRecipe"]

STATE = "_extra_state"
"""The name of a layer's recipe among the arrays of its state, as torch has it."""

_NAME, _FORMAT = "gatewise_upcycled", 1
_FORM = ("first", "second", "gated", "activation", "usual", "place", "idle", "dropouts")


@dataclass(frozen=True)
class LayerRecipe:
    """What a sparse layer is, but for its numbers and its place.

    Attributes:
        mlp: the form of the MLP it stands for.
        n_experts: E.
        router: what `router_of` needs; None with a gate of a class that is not registered.
    """

    mlp: DenseMLP
    n_experts: int
    router: Mapping[str, Any] | None

    @classmethod
    def of(cls, mlp: DenseMLP, router: Router) -> "LayerRecipe":
        """That of a layer as it is now."""
        described = described_router(mlp.name, router) if is_registered(router.gate) else None
        return cls(mlp, router.n_experts, described)

    @staticmethod
    def is_in(state: Tensor) -> bool:
        """Whether bytes (n,) are those of a recipe, damaged ones too, and of no other library."""
        return state.dtype == torch.uint8 and _NAME.encode() in bytes(state.cpu().tolist())

    @classmethod
    def read(cls, state: Tensor) -> "LayerRecipe":
        """That of bytes (n,).

        Raises:
            InputError: they are damaged, or of a newer Gatewise.
        """
        try:
            entry = json.loads(bytes(state.cpu().tolist()))
            version = entry[_NAME]
        except (*DAMAGED, RecursionError):
            raise InputError("the recipe of a sparse layer is damaged: it is no text of Gatewise's") from None
        if version != _FORMAT:
            raise InputError(f"the recipe of a sparse layer has the format {shown(version)}, and this Gatewise reads 1")
        try:
            return cls(_mlp(entry["mlp"]), entry["n_experts"], entry["router"])
        except DAMAGED as error:
            raise InputError(f"the recipe of a sparse layer is damaged: {shown(str(error))}") from None

    def as_tensor(self) -> Tensor:
        """The recipe as bytes (n,), on the CPU."""
        form = {name: getattr(self.mlp, name) for name in _FORM}
        entry = {_NAME: _FORMAT, "mlp": form, "n_experts": self.n_experts, "router": self.router}
        return torch.frombuffer(bytearray(json.dumps(entry).encode()), dtype=torch.uint8)

    def built_router(self, name: str, weight: Tensor) -> Router:
        """The router without its numbers, for an MLP whose matrix D (d, hidden) this is.

        Raises:
            InputError: its gate is of a class of someone's own, it does not fit, or its weights do not sum to 1.
        """
        if self.router is None:
            raise InputError(
                f"the gate of the layer {name!r} is of a class that is not registered, and cannot be built: upcycle "
                "the dense model as it was done, and load the numbers with load_state_dict"
            )
        router = router_of(self.router, weight.shape[0], self.n_experts, weight.dtype)
        if not router.selection.sums_to_one:
            raise InputError(f"the weights that the selection of {name!r} gives do not sum to 1")
        return router


def _mlp(entry: Mapping[str, Any]) -> DenseMLP:
    """The form of an MLP, each of its fields of the type that it must have."""
    own: dict[str, Any] = {name: entry[name] for name in _FORM}
    lists = {name: own[name] for name in ("first", "idle", "dropouts")}
    names = [own["place"], own["second"], *(own[name] for name in ("activation", "usual") if own[name] is not None)]
    if not all(isinstance(names, list) for names in lists.values()):
        raise TypeError("the names of modules are no lists")
    names += [name for part in lists.values() for name in part]
    if not all(isinstance(name, str) for name in names) or not isinstance(own["gated"], bool):
        raise TypeError("the names of modules are no texts")
    if len(own["first"]) not in ((1, 2) if own["gated"] else (1,)):
        raise ValueError(f"there are {len(own['first'])} matrices that read tokens")
    fields: dict[str, Any] = own | {name: tuple(part) for name, part in lists.items()}
    mlp = DenseMLP(**fields)
    if (mlp.place or mlp.idle) and mlp not in FRAMES:
        raise ValueError(f"an MLP at {shown(mlp.place)} with {shown(list(mlp.idle))} beside it is not known")
    return mlp
