"""A run in which samples leave, and the backbone's blocks as exported programs."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatewise.early_exit.counting import Evaluate
from gatewise.early_exit.inputs import map_tensors, n_rows
from gatewise.early_exit.interception import Layout
from gatewise.early_exit.outputs import EarlyExitOutput
from gatewise.early_exit.policies import Policy
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["exported", "infer"]


def infer(model: "EarlyExitModel", policy: Policy, inputs: Any) -> EarlyExitOutput:
    """See `EarlyExitModel.infer`."""
    if policy.needs_labels:
        raise InputError(f"the {policy.name} policy knows the answers: simulate it on data with classes")
    n, last = n_rows(inputs), model.n_exits - 1
    exit_index = torch.full((n,), last)
    near = torch.zeros(n, dtype=torch.bool)
    answered: list[Tensor] = []
    whose: list[Tensor] = []
    trace, places = ExitTrace(), torch.arange(n)

    def at_exit(exit: int, evaluate: Evaluate) -> Tensor | None:
        nonlocal trace, places
        if exit in policy.skipped:
            return None
        trace = trace.at(exit, model.calibrated(exit, evaluate()[0]))
        if exit == last:
            answered.append(trace.last.logits)
            whose.append(places)
            return None
        fires, close = policy.decide(trace)
        if bool(close.any()):
            near[places[close]] = True
        leaving = fires.nonzero().squeeze(1)
        if not len(leaving):
            return None
        who = places.index_select(0, leaving)
        exit_index[who] = exit
        answered.append(trace.last.logits.index_select(0, leaving))
        whose.append(who)
        keep = (~fires).nonzero().squeeze(1)
        if len(keep):
            trace, places = trace.select(keep), places.index_select(0, keep)
        return keep

    model.walk(inputs, at_exit)
    if len(answered) == 1:
        # All in one place, as a single sample always is, and then in the batch's order.
        logits = answered[0]
    else:
        logits = torch.empty(n, model.n_classes, dtype=answered[0].dtype)
        for who, part in zip(whose, answered, strict=True):
            logits[who] = part
    return EarlyExitOutput(logits, exit_index, model.costs_of(type(policy)).of(exit_index, policy.used), near)


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
