"""What an example says of a backbone before anything is trained."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatewise.early_exit.inputs import first_tensor, n_rows, rows
from gatewise.early_exit.interception import Step
from gatewise.exceptions import InputError

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["check_that_samples_can_leave", "has_own_logits", "own_logits", "widths"]

# Batches of other sizes round differently, in half precision in the third digit.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_COARSE = 5e-2


def own_logits(output: Any, n_classes: int) -> Tensor:
    """The backbone's logits (n, C): what its output calls so, or the output's first tensor.

    Raises:
        InputError: these are no logits of C classes.
    """
    named = getattr(output, "logits", None)
    found = named if isinstance(named, Tensor) else first_tensor(output)
    if found is None or found.ndim != 2 or found.shape[1] != n_classes or not found.is_floating_point():
        what = type(output).__name__ if found is None else f"a tensor of shape {tuple(found.shape)}"
        raise InputError(
            f'the backbone\'s own output is {what}, no logits of {n_classes} classes: take last="head", for a new head '
            "after the last block"
        )
    return found.float()


def has_own_logits(model: "EarlyExitModel", names: list[str], example: Any, last: str) -> tuple[bool, list[str]]:
    """Whether the last exit is the backbone's own, and the blocks with heads: not one whose output *is* the backbone's.

    Raises:
        InputError: they are asked for and are none.
    """
    if last == "head":
        return False, names
    hidden: dict[str, Tensor] = {}

    def note(step: Step) -> None:
        hidden[step.name] = step.hidden

    with torch.no_grad():
        output = model.interception.run(example, note)
    try:
        own_logits(output, model.n_classes)
    except InputError:
        if last == "own":
            raise
        return False, names
    return True, [name for name in names if hidden[name] is not first_tensor(output)]


def widths(model: "EarlyExitModel", example: Any) -> list[int]:
    """The length of what each head reads.

    Raises:
        InputError: a block's output is no tensor of real numbers, or the pooling gives no vectors.
    """
    found: list[int] = []

    def visit(step: Step) -> None:
        if step.name in model.exit_of:
            if not step.hidden.is_floating_point():
                raise InputError(f"the block {step.name!r} gives {step.hidden.dtype}, and heads read real numbers")
            found.append(model.pooled(step).shape[1])

    with torch.no_grad():
        model.interception.run(example, visit)
    return found


def check_that_samples_can_leave(model: "EarlyExitModel", example: Any) -> None:
    """Let the second of three samples leave at the first exit, and compare the others with a run where it stays.

    Raises:
        InputError: the others' outputs change, or the backbone fails: something after the exit counts samples.
    """
    batch = rows(example, torch.arange(3) % n_rows(example))
    whole = _tensors(model, batch, None)
    kept = torch.tensor([0, 2])
    try:
        cut = _tensors(model, batch, kept)
    except (RuntimeError, IndexError) as error:
        raise InputError(
            "samples cannot leave this backbone at its first exit: what follows fails without them "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]}); put exits where only the blocks follow"
        ) from error
    for place, (before, after) in enumerate(zip(whole[1:], cut[1:], strict=True), start=1):
        tolerance = _TOLERANCE.get(before.dtype, _COARSE)
        expected = before[kept]
        if not torch.allclose(after, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max() + 1e-30)):
            raise InputError(
                f"exit {place + 1} gives other numbers for a sample when another one has left: its blocks mix samples, "
                "as a batch norm in training mode does; use a backbone that treats them one by one"
            )


def _tensors(model: "EarlyExitModel", batch: Any, kept: Tensor | None) -> list[Tensor]:
    found: list[Tensor] = []

    def visit(step: Step) -> Tensor | None:
        if step.name not in model.exit_of:
            return None
        first = not found
        found.append(model.pool(step.hidden, step.mask))
        if model.exit_of[step.name] == model.n_exits - 1:
            return step.hidden.new_zeros(0, dtype=torch.long)
        return kept if first else None

    with torch.no_grad():
        output = model.interception.run(batch, visit)
    return [*found, own_logits(output, model.n_classes)] if model.own_last else found
