"""A backbone's own forward pass, entered after each block: samples that have their answer leave, the others go on.

Nothing of the backbone is rebuilt or changed: for the time of a run its blocks' `forward` is replaced by one that first
cuts what the block is given to the samples that are left, and afterwards asks who leaves. What comes before, between
and after the blocks is the backbone's own code, run on fewer samples.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.early_exit.inputs import call, first_tensor, map_tensors, n_rows, padding_mask, rows, trimmed
from gatewise.exceptions import InputError

__all__ = ["Interception", "Layout", "Step", "Visit"]


@dataclass(frozen=True)
class Layout:
    """Which axes of a tensor grow with the batch and with the length of the sequences."""

    batch: int | None = None
    lengths: tuple[int, ...] = ()


@dataclass
class Step:
    """Where a run is, just after a block.

    Attributes:
        name: the block's.
        hidden: its output (n, …), for the n samples that are left.
        mask: their padding mask (n, T), or None.
        alive: their places in the batch, (n,), or None while all are there.
    """

    name: str
    hidden: Tensor
    mask: Tensor | None
    alive: Tensor | None


Visit = Callable[[Step], Tensor | None]
"""Says after a block which samples go on: their places among those that are left, or None for all."""


_Shapes = dict[str, dict[str, tuple[int, ...]]]


class _NobodyIsLeft(Exception):
    """Leaves the backbone's forward pass; it is no error."""


@dataclass
class _Run:
    visit: Visit
    size: int
    length: int
    mask: Tensor | None
    alive: Tensor | None = None
    current: int = 0
    current_length: int = 0
    seen: _Shapes = field(default_factory=dict)


class Interception:
    """Runs a backbone block by block.

    Args:
        backbone: any module.
        blocks: the names of all blocks at which to step in.
        exits: those of them after which there is an exit: they must run once and give tensors.
        mask_name: the argument that is the padding mask (n, T), if the backbone is called by names.
        trim: whether sequences are cut to the longest that is left; only padding at the end is cut.

    Attributes:
        order: the blocks in the order in which they run.
        layouts: by block and path of an argument, its `Layout`.
        compiled: blocks that run compiled, by name.

    Raises:
        InputError: from `probe`.
    """

    def __init__(
        self, backbone: nn.Module, blocks: Sequence[str], exits: Sequence[str], mask_name: str, trim: bool
    ) -> None:
        self.backbone = backbone
        self.exits = frozenset(exits)
        self.mask_name = mask_name
        self.trim = trim
        self.order = list(blocks)
        self.layouts: dict[str, dict[str, Layout]] = {}
        self.compiled: dict[str, Callable[..., Any]] = {}
        self._learning = False

    def run(self, inputs: Any, visit: Visit) -> Any:
        """The backbone's output for those who reach its end, or None if nobody does.

        Args:
            inputs: of the backbone, with a row for each sample.
            visit: is asked after each block.
        """
        mask = padding_mask(inputs, self.mask_name)
        length = 0 if mask is None else mask.shape[1]
        size = n_rows(inputs)
        run = _Run(visit, size, length, mask, current=size, current_length=length)
        with self._stepping_in(run):
            try:
                return call(self.backbone, inputs)
            except _NobodyIsLeft:
                return None

    @contextmanager
    def _stepping_in(self, run: _Run) -> Iterator[None]:
        replaced: list[tuple[nn.Module, object]] = []
        try:
            for name in self.order:
                module = self.backbone.get_submodule(name)
                replaced.append((module, module.__dict__.get("forward")))
                inner = self.compiled.get(name, module.forward)
                # Past nn.Module's own attributes, which are looked through slowly: this runs for every batch.
                module.__dict__["forward"] = self._entered(run, name, inner)
            yield
        finally:
            for module, before in reversed(replaced):
                if before is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = before

    def _entered(self, run: _Run, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any, **keywords: Any) -> Any:
            if self._learning:
                shapes = run.seen.setdefault(name, {})
                for root, part in (("in", arguments), ("in", keywords)):
                    map_tensors(part, lambda path, value: _noted(shapes, path, value), root)
            elif run.alive is not None or run.current_length < run.length:
                arguments = self._cut(run, name, arguments)
                keywords = self._cut(run, name, keywords)
            output = inner(*arguments, **keywords)
            hidden = first_tensor(output)
            if hidden is None:
                if name not in self.exits:
                    return output
                raise InputError(
                    f"the block {name!r} gives {type(output).__name__}, which holds no tensor: put exits after blocks "
                    "that give tensors"
                )
            if self._learning:
                shapes = run.seen[name]
                map_tensors(output, lambda path, value: _noted(shapes, path, value), "out")
            keep = run.visit(Step(name, hidden, run.mask, run.alive))
            return output if keep is None else self._left(run, name, output, keep)

        return forward

    def _cut(self, run: _Run, name: str, value: Any) -> Any:
        """Arguments of a block for the samples that are left: what was made before the first exit is of all samples."""
        layouts = self.layouts[name]

        def cut(path: str, part: Tensor) -> Tensor:
            layout = layouts.get(path)
            if layout is None:
                raise InputError(
                    f"the block {name!r} gets a tensor{path.removeprefix('in')} that it did not get with the example, "
                    "so that its samples are not known: build the model with an example that is used in the same way"
                )
            if layout.batch is not None and run.alive is not None and part.shape[layout.batch] == run.size:
                part = part.index_select(layout.batch, run.alive)
            for axis in layout.lengths:
                if part.shape[axis] == run.length:
                    part = part.narrow(axis, 0, run.current_length)
            return part

        return map_tensors(value, cut, "in")

    def _left(self, run: _Run, name: str, output: Any, keep: Tensor) -> Any:
        """A block's output for those who go on."""
        if len(keep) == 0:
            raise _NobodyIsLeft
        layouts = self.layouts[name]
        before, run.current = run.current, len(keep)
        run.alive = keep if run.alive is None else run.alive.index_select(0, keep)
        old_length = run.current_length
        if run.mask is not None:
            run.mask = run.mask.index_select(0, keep)
            if self.trim:
                run.current_length = _longest(run.mask)
                run.mask = run.mask[:, : run.current_length]

        def cut(path: str, part: Tensor) -> Tensor:
            layout = layouts.get(path, Layout(0))
            if layout.batch is not None and part.shape[layout.batch] == before:
                part = part.index_select(layout.batch, keep)
            for axis in layout.lengths:
                if part.shape[axis] == old_length > run.current_length:
                    part = part.narrow(axis, 0, run.current_length)
            return part

        return map_tensors(output, cut, "out")

    def probe(self, example: Any) -> list[str]:
        """Learn from an example in which order blocks run and which axes of their arguments grow with the batch.

        The example's samples are repeated to batches of two and three, and, where there is a padding mask, cut by one
        column and padded, so that an axis that happens to have the batch's length is not taken for it.

        Returns:
            The blocks in their order.

        Raises:
            InputError: the backbone cannot take the example, a block runs more than once, or an axis mixes samples
                with something else.
        """
        size = n_rows(example)
        if not size:
            raise InputError("the example has no samples: pass one batch as the backbone is called with")
        batches = [rows(example, torch.arange(n) % size) for n in (2, 3)]
        full = self._shapes(batches[0])
        more = self._shapes(batches[1])
        mask = padding_mask(example, self.mask_name)
        shorter = self._shapes(trimmed(batches[1], mask.shape[1] - 1, mask.shape[1])) if mask is not None else more
        # Before the first exit nobody has left, and nothing is cut.
        first = next((place for place, name in enumerate(full) if name in self.exits), len(full))
        cut = list(full)[first:]
        self.layouts = {name: _layouts(name, full[name], more[name], shorter[name]) for name in cut}
        if mask is not None and mask.shape[1] > 2:
            # Without padding a mask is often left out.
            width = mask.shape[1]
            pads = [_padded(batch, self.mask_name) for batch in batches]
            shapes = [self._shapes(part) for part in (*pads, trimmed(pads[1], width - 1, width))]
            for name in cut:
                self.layouts[name] = {**_layouts(name, *(each[name] for each in shapes)), **self.layouts[name]}
        self.order = list(full)
        return self.order

    def _shapes(self, inputs: Any) -> _Shapes:
        times: dict[str, int] = {}

        def count(step: Step) -> None:
            times[step.name] = times.get(step.name, 0) + 1

        run = _Run(count, n_rows(inputs), 0, None)
        self._learning = True
        try:
            with torch.no_grad(), self._stepping_in(run):
                call(self.backbone, inputs)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the backbone cannot take the example ({type(error).__name__}: {str(error).splitlines()[0][:200]}): "
                "pass one batch as the backbone is called with, a tensor, a tuple or a mapping by names"
            ) from error
        finally:
            self._learning = False
        often = [name for name, number in times.items() if number > 1]
        if again := [name for name in often if name in self.exits]:
            raise InputError(
                f"the block {again[0]!r} runs {times[again[0]]} times in one pass: exits need blocks of one"
            )
        # A module of no weights is often used again and again; between exits it needs no cutting of its own.
        self.order = [name for name in self.order if name not in often]
        return {name: shapes for name, shapes in run.seen.items() if name not in often}


def _noted(shapes: dict[str, tuple[int, ...]], path: str, value: Tensor) -> Tensor:
    shapes[path] = tuple(value.shape)
    return value


def _layouts(
    name: str,
    two: dict[str, tuple[int, ...]],
    three: dict[str, tuple[int, ...]],
    shorter: dict[str, tuple[int, ...]],
) -> dict[str, Layout]:
    return {
        path: _layout(name, path, shape, three.get(path, shape), shorter.get(path, three.get(path, shape)))
        for path, shape in two.items()
    }


def _layout(name: str, path: str, two: tuple[int, ...], three: tuple[int, ...], shorter: tuple[int, ...]) -> Layout:
    grows = [axis for axis, (small, large) in enumerate(zip(two, three, strict=True)) if small != large]
    if len(grows) > 1 or any((two[axis], three[axis]) != (2, 3) for axis in grows):
        raise InputError(
            f"the block {name!r} has a tensor ({path}) of shape {two} with two samples and {three} with three: samples "
            "must have an axis of their own, so that some of them can leave"
        )
    shrinks = tuple(axis for axis in range(len(three)) if three[axis] != shorter[axis])
    return Layout(grows[0] if grows else None, shrinks)


def _padded(inputs: Any, mask_name: str) -> Any:
    """Inputs whose first sample ends two tokens earlier: a full mask is often replaced by none."""
    mask = inputs[mask_name].clone()
    mask[0, -2:] = 0
    return type(inputs)({**inputs, mask_name: mask})


def _longest(mask: Tensor) -> int:
    """The length to which sequences can be cut: up to the last column with a token."""
    used = mask.ne(0).any(0).nonzero()
    return int(used[-1]) + 1 if len(used) else mask.shape[1]
