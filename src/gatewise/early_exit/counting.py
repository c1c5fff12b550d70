"""Multiply-adds and milliseconds of a model's parts, from runs of the model itself."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from gatewise.early_exit.costs import CostTable, StageTimes
from gatewise.early_exit.inputs import n_rows, rows
from gatewise.early_exit.interception import Step
from gatewise.early_exit.policies.reference import FixedExit
from gatewise.early_exit.trace import ExitTrace
from gatewise.exceptions import InputError

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel
    from gatewise.early_exit.policies.base import Policy

Evaluate = Callable[[], tuple[Tensor, Step | None]]
"""Gives an exit's logits, and where the run is; None after the backbone's end."""

__all__ = ["Evaluate", "count_multiply_adds", "measure_milliseconds", "usual_sizes"]

_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Clock = Literal["wall", "cpu"]


def _attention(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Two products for each pair of tokens; PyTorch's counter does not know the CPU's operation."""
    *lead, queries, width = q
    pairs = int(np.prod(lead)) * queries * k[-2]
    return 2 * pairs * (width + v[-1])


def count_multiply_adds(model: "EarlyExitModel", example: Any) -> CostTable:
    """Multiply-adds of one sample of the example's shape: products and convolutions, half of PyTorch's count of flops.

    What adds or compares element by element is not counted. Work before the first exit is that exit's, work after the
    last block the last one's. A decision is counted as four products for each class, and those of a gate.
    """
    from torch.utils.flop_counter import FlopCounterMode

    operation = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={operation: _attention})
    size = n_rows(example)
    blocks, heads = [0.0] * model.n_exits, [0.0] * model.n_exits
    before = 0

    def lap() -> float:
        nonlocal before
        now = counter.get_total_flops()
        spent, before = (now - before) / (2.0 * size), now
        return spent

    def at_exit(exit: int, evaluate: Evaluate) -> None:
        blocks[exit] = lap()
        evaluate()
        heads[exit] = lap()

    with torch.no_grad(), counter:
        model.walk(example, at_exit)
    decisions = [4.0 * model.n_classes + model.n_gate_features] * (model.n_exits - 1)
    return CostTable(tuple(blocks), tuple(heads), (*decisions, 0.0))


def usual_sizes(batch_size: int) -> list[int]:
    """Numbers of samples at which to measure: 1, 2, 4, … and the batch size."""
    return sorted({*(2**power for power in range(batch_size.bit_length()) if 2**power < batch_size), batch_size})


def measure_milliseconds(
    model: "EarlyExitModel",
    inputs: Any,
    batch_size: int,
    policy: "Policy | None" = None,
    repeats: int = 9,
    clock: Clock = "wall",
    sizes: Sequence[int] | None = None,
) -> CostTable:
    """Milliseconds of every part, measured in runs of the model, the median of some repeats.

    Args:
        model: the model.
        inputs: a batch; its samples are repeated if it has too few.
        batch_size: how many samples come together; the table's costs of one sample are those at this size.
        policy: whose decisions are measured; by default those of a threshold on the largest probability.
        repeats: runs of each size, after one that is not counted.
        clock: "wall", or "cpu" for the process's CPU time, which other programs hardly change.
        sizes: the numbers of samples to measure; by default 1, 2, 4, … up to the batch size.

    Raises:
        InputError: the batch size is below 1, or the clock is unknown.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if clock not in _CLOCKS:
        raise InputError(f"clock must be one of {', '.join(map(repr, _CLOCKS))}, not {clock!r}")
    now = _CLOCKS[clock]
    chosen = tuple(usual_sizes(batch_size) if sizes is None else sorted({*sizes, batch_size}))
    found = np.zeros((repeats + 1, 4, model.n_exits, len(chosen)))
    whole = np.zeros((repeats + 1, len(chosen)))
    available = n_rows(inputs)
    batches = [rows(inputs, torch.arange(size) % available) for size in chosen]
    # Sizes are interleaved, so that a busy moment of the machine does not hit one of them alone.
    for repeat in range(repeats + 1):
        for place, batch in enumerate(batches):
            found[repeat, :, :, place] = _one_run(model, batch, policy, now)
            whole[repeat, place] = _besides(model, batch, now)
    # A part never takes less time for more samples; noise that says so is smoothed away.
    median = np.maximum.accumulate(np.median(found[1:], axis=0) * 1000.0, axis=-1)
    besides = np.maximum.accumulate(np.median(whole[1:], axis=0).clip(0.0) * 1000.0)
    times = StageTimes(chosen, *median, whole=besides[None])
    each = median[:, :, chosen.index(batch_size)] / batch_size
    return CostTable(
        tuple(each[0].tolist()), tuple(each[1].tolist()), tuple(each[2].tolist()), "milliseconds", batch_size, times
    )


def _one_run(model: "EarlyExitModel", batch: Any, policy: "Policy | None", now: Callable[[], float]) -> np.ndarray:
    spent = np.zeros((4, model.n_exits))
    trace = ExitTrace()
    index = torch.arange(n_rows(batch))
    mark = 0.0

    def at_exit(exit: int, evaluate: Evaluate) -> None:
        nonlocal mark, trace
        blocks = now()
        logits, step = evaluate()
        heads = now()
        trace = trace.at(exit, model.calibrated(exit, logits))
        if exit < model.n_exits - 1:
            _decided(trace, policy)
        decided = now()
        if exit < model.n_exits - 1:
            _ready_to_go_on(step, trace, index)
        spent[:, exit] = blocks - mark, heads - blocks, decided - heads, now() - decided
        mark = now()

    with torch.no_grad():
        mark = now()
        model.walk(batch, at_exit)
    return spent


def _decided(trace: ExitTrace, policy: "Policy | None") -> Tensor:
    """What is done at an exit whoever leaves."""
    if policy is None or policy.needs_labels or trace.exit in policy.skipped:
        fires, close = trace.last.confidence > 0.5, trace.last.confidence < 0.0
    else:
        fires, close = policy.decide(trace)
    return fires.nonzero() if not bool(close.any()) else fires


def _ready_to_go_on(step: Step | None, trace: ExitTrace, index: Tensor) -> None:
    """What is done where some leave and some go on, here for all of them."""
    if step is not None:
        step.hidden.index_select(0, index)
    trace.select(index)
    places = index.index_select(0, index)
    places[index] = trace.exit
    trace.last.logits.index_select(0, index)
    (~(index < 0)).nonzero().squeeze(1)


def _besides(model: "EarlyExitModel", batch: Any, now: Callable[[], float]) -> float:
    """What an answer of the last exit takes besides the network: a run of `infer` less the same run without it."""
    from gatewise.early_exit.running import infer

    policy = FixedExit(model.n_exits, model.n_exits - 1)

    def last_only(exit: int, evaluate: Evaluate) -> None:
        if exit == model.n_exits - 1:
            evaluate()

    with torch.no_grad():
        begun = now()
        infer(model, policy, batch)
        between = now()
        model.walk(batch, last_only)
        return (between - begun) - (now() - between)
