"""A model's blocks and heads as programs of their own, for a runtime that does without Gatewise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gatewise.early_exit.inputs import map_tensors
from gatewise.early_exit.interception import Layout, Step

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["ExportedStage", "exported"]


@dataclass(frozen=True)
class ExportedStage:
    """A block and the exit behind it as programs: `torch.export.save` writes one, `.module()` runs it.

    Attributes:
        block: takes the tensors that the backbone gives the block, in their order; what else it gives is as it was with
            the example.
        head: makes of the block's output, and of the padding mask if the inputs have one, the calibrated logits (n, C);
            None where there is no exit.
    """

    block: torch.export.ExportedProgram
    head: torch.export.ExportedProgram | None


class _Block(nn.Module):
    """A block as a function of tensors alone."""

    def __init__(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self._given, self._named = given, named

    def forward(self, *tensors: Tensor) -> Any:
        """What the block gives for these tensors, which stand in the places of the example's."""
        left = iter(tensors)
        given = map_tensors(self._given, lambda _, part: next(left), "in")
        return self.module(*given, **map_tensors(self._named, lambda _, part: next(left), "in"))


class _Exit(nn.Module):
    """Pooling, head and temperature of one exit."""

    def __init__(self, model: "EarlyExitModel", exit: int) -> None:
        super().__init__()
        self.head = model.heads[exit]
        self._pool = model.pool
        self.register_buffer("temperature", model.temperatures[exit].clone())

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (n, C), as `EarlyExitModel.calibrated` gives them."""
        return self.head(self._pool(hidden, mask).float()) / self.get_buffer("temperature")


def exported(model: "EarlyExitModel", example: Any) -> dict[str, ExportedStage]:
    """See `EarlyExitModel.export_stages`."""
    steps: dict[str, Step] = {}

    def note_step(step: Step) -> None:
        steps[step.name] = step

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
            model.interception.run(example, note_step)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, (given, named) in arguments.items():
        module = model.backbone.get_submodule(name)
        layouts = model.interception.layouts.get(name, {})
        shapes: list[dict[int, Any] | None] = []
        tensors: list[Tensor] = []

        def note_tensor(
            path: str,
            part: Tensor,
            shapes: list[dict[int, Any] | None] = shapes,
            tensors: list[Tensor] = tensors,
            layouts: dict[str, Layout] = layouts,
        ) -> Tensor:
            axis = layouts[path].batch if layouts else 0
            shapes.append(None if axis is None else {axis: torch.export.Dim.DYNAMIC})
            tensors.append(part)
            return part

        for part in (given, named):
            map_tensors(part, note_tensor, "in")
        block = _Block(module, given, named).eval()
        with torch.no_grad():
            program = torch.export.export(block, tuple(tensors), dynamic_shapes={"tensors": tuple(shapes)})
        found[name] = ExportedStage(program, _exported_head(model, name, steps[name]))
    return found


def _exported_head(model: "EarlyExitModel", name: str, step: Step) -> torch.export.ExportedProgram | None:
    exit = model.exit_of.get(name)
    if exit is None:
        return None
    given = (step.hidden,) if step.mask is None else (step.hidden, step.mask)
    shapes = {key: {0: torch.export.Dim.DYNAMIC} for key in ("hidden", "mask")[: len(given)]}
    with torch.no_grad():
        return torch.export.export(_Exit(model, exit).eval(), given, dynamic_shapes=shapes)
