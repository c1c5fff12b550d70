"""Routers on disk, beside the model: numbers as safetensors, all else as JSON; loading never runs code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import new_folder
from gatewise.messages import listed, shown
from gatewise.nn.hf.adapter import Adapter, check_is_not_offloaded
from gatewise.nn.hf.contents import as_folder
from gatewise.nn.hf.entries import DAMAGED, described_router, router_of
from gatewise.nn.hf.loading import load_model
from gatewise.nn.hf.sites import Site, refuse_recording, sites_of, swapped_in
from gatewise.nn.hf.swap import Swapped, put_in_place
from gatewise.nn.model_calls import unwrapped
from gatewise.nn.readers import layer_around
from gatewise.nn.router import Router

__all__ = ["FOLDER", "load_routers", "load_with_routers", "save_routers"]

FOLDER = "gatewise_routers"
"""The folder beside a model's files that holds its routers."""

_NUMBERS, _DESCRIPTION = "routers.safetensors", "routers.json"
_FORMAT = 1


def save_routers(model: nn.Module, model_dir: str | Path, *, overwrite: bool = False) -> Path:
    """Write the swapped routers into the folder `gatewise_routers` of a model's folder, whole or not at all.

    The gates' numbers and the correction biases go to routers.safetensors; the gates' names and options, the selections
    and a checksum of the numbers to routers.json.

    Args:
        model: with swapped routers.
        model_dir: the model's folder, which must exist. What else is in it is not looked at.
        overwrite: whether routers that were saved there may be replaced.

    Returns:
        The folder that was written.

    Raises:
        InputError: it is no model, nothing is swapped, something has been put around a router, a gate is of a class
            that is not registered, or a number is not finite.
        OutputError: the folder cannot be written, or exists.
    """
    # Names are those of the model itself, whatever compiles or distributes it.
    model = unwrapped(model)
    adapters = swapped_in(model)
    if not adapters:
        raise InputError(f"no router of this {type(model).__name__} is swapped: there is nothing to save")
    entries: dict[str, Any] = {}
    arrays: dict[str, Tensor] = {}
    for name, adapter in adapters.items():
        layer = layer_around(model, name)
        if layer is None or not adapter.stands_in(model.get_submodule(name.rpartition(".")[0])):
            raise InputError(
                f"something has been put around the router {name!r}, as PEFT does with modules_to_save, and no model "
                "has a router of that name: save what is around it, or take it away first (merge_and_unload)"
            )
        adapter.link(layer)
        own = _arrays(adapter.router)
        for part, value in own.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise InputError(f"{part} of the router {name!r} is not finite: it cannot be saved")
            arrays[f"{name}.{part}"] = value
        entries[name] = _described(name, adapter)
    numbers = safetensors.torch.save(arrays)
    description = {
        "format": _FORMAT,
        "model_type": _model_type(model),
        "sha256": hashlib.sha256(numbers).hexdigest(),
        "routers": entries,
    }
    target = as_folder(model_dir) / FOLDER
    with new_folder(target, overwrite=overwrite) as folder:
        folder.write(_NUMBERS, numbers)
        folder.write(_DESCRIPTION, (json.dumps(description, indent=1, allow_nan=False) + "\n").encode())
    return target


def load_routers(model: nn.Module, model_dir: str | Path) -> Swapped:
    """Put saved routers in the place of a model's own, as they were saved: all or, if anything does not fit, none.

    Args:
        model: the same model, not swapped.
        model_dir: the folder that `save_routers` was given.

    Returns:
        The names of the routers.

    Raises:
        ModelFolderError: a file is missing, damaged or of another model.
        InputError: the model is swapped already or has begun to record outputs.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    model = unwrapped(model)
    refuse_recording(model)
    if swapped_in(model):
        raise InputError("the model's routers are swapped already: restore_routers(model) puts the old ones back")
    folder = as_folder(model_dir) / FOLDER
    entries, arrays = _read(folder, _model_type(model))
    sites = {site.name: site for site in sites_of(model)}
    made = [(_site(sites, name, folder), _built(name, entry, arrays, sites, folder)) for name, entry in entries.items()]
    if arrays:
        raise ModelFolderError(f"{folder / _NUMBERS} holds {listed(arrays)}, which {_DESCRIPTION} does not name")
    for site, router in made:
        bias = router.correction_bias
        put_in_place(site, router)
        acting = site.layer.get_submodule(site.attribute)
        assert isinstance(acting, Adapter)
        if bias is not None and acting.router.correction_bias is not None:
            # The model's own tensor holds the bias from now on.
            acting.router.correction_bias.copy_(bias)
    return Swapped(tuple(site.name for site, _ in made))


def load_with_routers(model_dir: str | Path, **options: Any) -> nn.Module:
    """The model in a folder, with the routers that were saved beside it.

    Args:
        model_dir: a model's folder with `gatewise_routers` in it.
        options: of transformers' `from_pretrained`, as dtype or device_map.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelFolderError: the model or its routers are missing, damaged, or ask for code of their own.
    """
    folder = as_folder(model_dir) / FOLDER
    if not folder.is_dir():
        raise ModelFolderError(f"there is no folder {folder}: save_routers(model, {str(model_dir)!r}) writes one")
    model = load_model(model_dir, **options)
    load_routers(model, model_dir)
    return model


def _model_type(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def _arrays(router: Router) -> dict[str, Tensor]:
    """Numbers by name: those of the gate, and the correction bias wherever the model keeps it."""
    found = {f"gate.{name}": value for name, value in router.gate.state_dict().items()}
    if router.correction_bias is not None:
        found["correction_bias"] = router.correction_bias
    # Copies: tensors that share memory are none that the format takes.
    return {name: value.detach().cpu().clone().contiguous() for name, value in found.items()}


def _described(name: str, adapter: Adapter) -> dict[str, Any]:
    return {"class": type(adapter.old).__name__, **described_router(name, adapter.router)}


def _read(folder: Path, model_type: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The entries of the description and the arrays, checked against each other.

    Raises:
        ModelFolderError: a file is missing or damaged, or they are of another model.
    """
    try:
        text, numbers = (folder / _DESCRIPTION).read_bytes(), (folder / _NUMBERS).read_bytes()
    except OSError as error:
        raise ModelFolderError(
            f"cannot read the routers in {folder}: {(error.strerror or str(error)).lower()}"
        ) from None
    try:
        description = json.loads(text)
        version, of, checksum = (description[key] for key in ("format", "model_type", "sha256"))
        entries = dict(description["routers"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFolderError(f"{folder / _DESCRIPTION} is no description of routers") from None
    if version != _FORMAT:
        raise ModelFolderError(f"{folder / _DESCRIPTION} has the format {shown(version)}, and this Gatewise reads 1")
    if of != model_type:
        raise ModelFolderError(
            f"the routers in {folder} are of a model of type {shown(of)}, and this is a {model_type}"
        )
    if hashlib.sha256(numbers).hexdigest() != checksum:
        raise ModelFolderError(f"{folder / _NUMBERS} is damaged or not the file that {_DESCRIPTION} describes")
    try:
        return entries, safetensors.torch.load(numbers)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{folder / _NUMBERS} is not a safetensors file ({error})") from None


def _site(sites: Mapping[str, Site], name: str, folder: Path) -> Site:
    if name not in sites or sites[name].contract.skipped:
        raise ModelFolderError(
            f"{folder} holds the router {shown(name)}, which this model has not: its routers are {listed(sites)}"
        )
    return sites[name]


def _built(name: str, entry: Any, arrays: dict[str, Tensor], sites: Mapping[str, Site], folder: Path) -> Router:
    """The router that an entry describes, with its arrays, which are taken out of `arrays`.

    Raises:
        ModelFolderError: the entry is none, does not fit the model, or its arrays are missing or of other shapes.
    """
    site = _site(sites, name, folder)
    weight = site.router.get_parameter(site.contract.weight)
    check_is_not_offloaded(name, site.router, site.contract)
    try:
        n_experts, d = weight.shape
        router = router_of(entry, d, n_experts, weight.dtype)
        if entry["class"] != type(site.router).__name__:
            raise InputError(
                f"it took the place of a {shown(entry['class'])}, and here is a {type(site.router).__name__}"
            )
        # A Router without a bias would be given the model's own all the same: the file must hold it.
        if site.contract.bias is not None and router.correction_bias is None:
            raise InputError("the model has a correction bias, and the file none")
    except InputError as error:
        raise ModelFolderError(f"the router {shown(name)} in {folder} does not fit: {error}") from None
    except DAMAGED as error:
        where = f"the entry of {shown(name)} in {folder / _DESCRIPTION}"
        raise ModelFolderError(f"{where} is damaged: {shown(error)}") from None
    for part, target in _targets(router).items():
        value = arrays.pop(f"{name}.{part}", None)
        if value is None or value.shape != target.shape or value.is_floating_point() != target.is_floating_point():
            found = "is missing" if value is None else f"has the shape {tuple(value.shape)}, not {tuple(target.shape)}"
            raise ModelFolderError(f"{folder / _NUMBERS}: {part} of the router {shown(name)} {found}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelFolderError(f"{folder / _NUMBERS}: {part} of the router {shown(name)} is not finite")
        with torch.no_grad():
            target.copy_(value)
    return router.to(device=weight.device)


def _targets(router: Router) -> dict[str, Tensor]:
    """Where the numbers go."""
    found = {f"gate.{name}": value for name, value in router.gate.state_dict(keep_vars=True).items()}
    return found if router.correction_bias is None else {**found, "correction_bias": router.correction_bias}
