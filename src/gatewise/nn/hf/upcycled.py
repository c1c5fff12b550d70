"""A sparse layer in the place of a dense model's MLP, and the MLP back."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.experts import NetworkBank
from gatewise.nn.hf.mlps import DenseMLP
from gatewise.nn.layer import SparseMoE
from gatewise.nn.router import Router

__all__ = ["Replaced", "UpcycledMLP", "put_in_place", "upcycled_in"]


class UpcycledMLP(SparseMoE):
    """y_t = drop(Σⱼ w_tj f_e(t,j)(x_t)): a sparse layer that stands in the place of a dense MLP.

    Args:
        mlp: what it stands for.
        router: of its experts.
        experts: of the MLP's form.
        dropouts: those that were inside the MLP; from now on they act on what the layer gives.
    """

    def __init__(self, mlp: DenseMLP, router: Router, experts: NetworkBank, dropouts: Mapping[str, nn.Module]) -> None:
        super().__init__(experts.d, router, experts)
        self.mlp = mlp
        self.dropouts = nn.ModuleDict({name.rpartition(".")[2]: module for name, module in dropouts.items()})

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The layer's output for tokens (…, d), of the same shape.

        Args:
            x: tokens.
            mask: as of `SparseMoE`.
        """
        y = super().forward(x, mask)
        for dropout in self.dropouts.values():
            y = dropout(y)
        return y


class Replaced:
    """What stood in a model before, to be put back.

    Args:
        model: the model.
        name: dotted from it.
        module: what stands there from now on.
    """

    def __init__(self, model: nn.Module, name: str, module: nn.Module) -> None:
        parent, _, self._attribute = name.rpartition(".")
        self._parent = model.get_submodule(parent)
        self._old = getattr(self._parent, self._attribute)
        setattr(self._parent, self._attribute, module)

    def undo(self) -> None:
        """Put it back."""
        if not isinstance(self._old, nn.Module):
            # A function cannot take the place of a module.
            delattr(self._parent, self._attribute)
        setattr(self._parent, self._attribute, self._old)


def put_in_place(model: nn.Module, mlp: DenseMLP, router: Router, experts: NetworkBank) -> list[Replaced]:
    """Let a sparse layer stand in the place of an MLP; what undoes it is returned."""
    module: Any = model.get_submodule(mlp.name)
    dropouts = {name: model.get_submodule(name) for name in mlp.dropouts}
    layer = UpcycledMLP(mlp, router, experts, dropouts).train(module.training)
    return [Replaced(model, mlp.name, layer), *(Replaced(model, name, nn.Identity()) for name in mlp.idle)]


def upcycled_in(model: nn.Module) -> dict[str, UpcycledMLP]:
    """The layers that stand in the place of a dense model's MLPs, by their names.

    Raises:
        InputError: it is no model.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {type(model).__name__}")
    return {name: module for name, module in model.named_modules() if isinstance(module, UpcycledMLP)}
