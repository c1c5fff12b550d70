"""A model's blocks and heads as programs of their own, for a runtime that does without Gatewise."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatewise.early_exit.inputs import map_tensors
from gatewise.early_exit.interception import Layout

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["exported"]


def exported(model: "EarlyExitModel", example: Any) -> dict[str, torch.export.ExportedProgram]:
    """See `EarlyExitModel.export_stages`."""
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            arguments[name] = (given, named)

        return note

    handles = [
        model.backbone.get_submodule(name).register_forward_pre_hook(noting(name), with_kwargs=True)
        for name in model.interception.order
    ]
    try:
        with torch.no_grad():
            model.interception.run(example, lambda _: None)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, (given, named) in arguments.items():
        module = model.backbone.get_submodule(name)
        layouts = model.interception.layouts.get(name, {})
        axes: dict[int, int | None] = {}

        def note_axis(
            path: str, part: Tensor, axes: dict[int, int | None] = axes, layouts: dict[str, Layout] = layouts
        ) -> Tensor:
            axes[id(part)] = layouts[path].batch if layouts else 0
            return part

        map_tensors(given, note_axis, "in")
        map_tensors(named, note_axis, "in")
        bound = inspect.signature(module.forward).bind(*given, **named).arguments
        shapes = {key: _dynamic(value, axes) for key, value in bound.items()}
        with torch.no_grad():
            found[name] = torch.export.export(module, given, named, dynamic_shapes=shapes)
    return found


def _dynamic(value: Any, axes: dict[int, int | None]) -> Any:
    """Which axes may have any length, in the nesting of the value."""
    if isinstance(value, Tensor):
        axis = axes[id(value)]
        return None if axis is None else {axis: torch.export.Dim.DYNAMIC}
    if isinstance(value, dict):
        return {key: _dynamic(part, axes) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_dynamic(part, axes) for part in value)
    return None
