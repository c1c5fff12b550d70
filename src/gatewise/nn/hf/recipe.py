"""How a dense model became sparse, as plain data in its configuration: what any checkpoint of it carries along."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.hf.entries import DAMAGED, described_router, router_of
from gatewise.nn.hf.loading import RECIPE
from gatewise.nn.hf.mlps import DenseMLP
from gatewise.nn.hf.upcycled import put_in_place, upcycled_in

__all__ = ["keep_recipe", "rebuild", "recipe_of"]

_FORMAT = 1


def recipe_of(model: nn.Module) -> dict[str, Any]:
    """What `rebuild` needs: for each sparse layer the form of the MLP it stands for, E, and its router.

    Raises:
        InputError: it is no model, nothing in it was upcycled, or a gate is of a class that is not registered.
    """
    layers = upcycled_in(model)
    if not layers:
        raise InputError(f"nothing in this {type(model).__name__} was upcycled: there is nothing to save")
    entries = [
        {
            "mlp": dataclasses.asdict(layer.mlp),
            "n_experts": layer.experts.n_experts,
            "router": described_router(f"{name}.router", layer.router),
        }
        for name, layer in layers.items()
    ]
    return {"format": _FORMAT, "layers": entries}


def keep_recipe(model: nn.Module) -> None:
    """Write the recipe into the model's configuration as it is now, or take it out where nothing is sparse."""
    config: Any = getattr(model, "config", None)
    if config is None:
        return
    try:
        setattr(config, RECIPE, recipe_of(model))
    except InputError:
        # Nor is there one with a gate of a class of one's own, which works, and of which `save_upcycled` says so.
        if hasattr(config, RECIPE):
            delattr(config, RECIPE)


def rebuild(model: nn.Module, recipe: Any) -> None:
    """Put sparse layers without numbers of their own in the place of a dense model's MLPs, as the recipe has them.

    Raises:
        InputError: the recipe is damaged, or of another model.
    """
    if not isinstance(recipe, Mapping) or recipe.get("format") != _FORMAT:
        found = recipe.get("format") if isinstance(recipe, Mapping) else recipe
        raise InputError(f"{RECIPE} has the format {shown(found)}, and this Gatewise reads {_FORMAT}")
    try:
        entries = list(recipe["layers"])
        for entry in entries:
            _rebuild(model, entry)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{RECIPE} is damaged or of another model: {shown(str(error))}") from None


def _rebuild(model: nn.Module, entry: Mapping[str, Any]) -> None:
    mlp = _mlp(entry["mlp"])
    n_experts = entry["n_experts"]
    weight, _ = mlp.matrices(model)[-1]
    router = router_of(entry["router"], weight.shape[0], n_experts, weight.dtype)
    if not router.selection.sums_to_one:
        raise InputError(f"the weights that the selection of {mlp.name!r} gives do not sum to 1")
    put_in_place(model, mlp, router, mlp.experts(model, n_experts))


def _mlp(entry: Mapping[str, Any]) -> DenseMLP:
    """The form of an MLP, each of its fields of the type that it must have."""
    own: dict[str, Any] = {field.name: entry[field.name] for field in dataclasses.fields(DenseMLP)}
    lists = {name: own[name] for name in ("first", "idle", "dropouts")}
    names = [own["name"], own["second"], *(own[name] for name in ("activation", "usual") if own[name] is not None)]
    if not all(isinstance(names, Iterable) and not isinstance(names, str) for names in lists.values()):
        raise TypeError("the names of modules are no lists")
    names += [name for part in lists.values() for name in part]
    if not all(isinstance(name, str) for name in names) or not isinstance(own["gated"], bool):
        raise TypeError("the names of modules are no texts")
    if len(own["first"]) not in ((1, 2) if own["gated"] else (1,)):
        raise ValueError(f"{own['name']!r} has {len(own['first'])} matrices")
    fields: dict[str, Any] = own | {name: tuple(part) for name, part in lists.items()}
    return DenseMLP(**fields)
