"""A sparse layer in the place of a dense model's MLP, and the MLP back."""

from collections.abc import Mapping

from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.experts import NetworkBank
from gatewise.nn.hf.entries import DAMAGED
from gatewise.nn.hf.form import DenseMLP
from gatewise.nn.hf.recipe import LayerRecipe
from gatewise.nn.layer import SparseMoE
from gatewise.nn.router import Router
from gatewise.nn.selection import Selection

__all__ = ["Replaced", "UpcycledMLP", "put_in_place", "rebuild", "sparse_layer", "upcycled_in"]


class UpcycledMLP(SparseMoE):
    """y_t = drop(Σⱼ w_tj f_e(t,j)(x_t)): a sparse layer that stands in the place of a dense MLP.

    Its state holds, beside the numbers, how it was made and how its router chooses now, as the bytes of a JSON text:
    any checkpoint is enough to build the layer anew, wherever it lies in what was saved.

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

    def get_extra_state(self) -> Tensor:
        """The recipe of the layer as it is now, bytes (n,)."""
        return LayerRecipe.of(self.mlp, self.router).as_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Let the router choose as it did when the state was taken.

        Raises:
            InputError: the state is damaged, or does not fit the router.
        """
        entry = LayerRecipe.read(state).router
        if entry is None:
            return
        try:
            selection, jitter = Selection(**entry["selection"]), float(entry["jitter"])
        except DAMAGED as error:
            raise InputError(f"the recipe of a sparse layer is damaged: {shown(str(error))}") from None
        self.router.check(selection)
        self.router.selection, self.router.jitter = selection, jitter

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
        self._new = module
        setattr(self._parent, self._attribute, module)

    @property
    def stands(self) -> bool:
        """Whether the module stands there still."""
        return getattr(self._parent, self._attribute, None) is self._new

    def undo(self) -> None:
        """Put it back, in the mode in which the model is now."""
        if isinstance(self._old, nn.Module):
            self._old.train(self._new.training)
        else:
            # A function cannot take the place of a module.
            delattr(self._parent, self._attribute)
        setattr(self._parent, self._attribute, self._old)


def sparse_layer(model: nn.Module, mlp: DenseMLP, router: Router, experts: NetworkBank) -> UpcycledMLP:
    """A sparse layer for the place of an MLP; the model is not changed."""
    dropouts = {name: model.get_submodule(mlp.path(name)) for name in mlp.dropouts}
    return UpcycledMLP(mlp, router, experts, dropouts)


def put_in_place(model: nn.Module, layer: UpcycledMLP) -> list[Replaced]:
    """Let a sparse layer stand in the place of its MLP; what undoes it is returned."""
    mlp = layer.mlp
    return [
        Replaced(model, mlp.name, layer.train(model.get_submodule(mlp.name).training)),
        *(Replaced(model, mlp.path(name), nn.Identity()) for name in mlp.idle),
    ]


def rebuild(model: nn.Module, recipes: Mapping[str, LayerRecipe]) -> None:
    """Put sparse layers without numbers of their own in the place of a dense model's MLPs.

    Args:
        model: dense.
        recipes: of the layers, by their names.

    Raises:
        InputError: a recipe is damaged, or of another model.
    """
    try:
        for name, recipe in recipes.items():
            mlp = recipe.mlp.at(name)
            weight, _ = mlp.matrices(model)[-1]
            router = recipe.built_router(name, weight)
            put_in_place(model, sparse_layer(model, mlp, router, mlp.experts(model, recipe.n_experts)))
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"the recipe of a sparse layer is damaged or of another model: {shown(str(error))}") from None


def upcycled_in(model: nn.Module) -> dict[str, UpcycledMLP]:
    """The layers that stand in the place of a dense model's MLPs, by their names.

    Raises:
        InputError: it is no model.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {type(model).__name__}")
    return {name: module for name, module in model.named_modules() if isinstance(module, UpcycledMLP)}
