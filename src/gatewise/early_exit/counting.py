"""Multiply-adds and milliseconds of a model's parts, from runs of the model itself."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from gatewise.early_exit.costs import CostTable, StageTimes
from gatewise.early_exit.inputs import n_rows, rows
from gatewise.early_exit.interception import Step
from gatewise.early_exit.policies.thresholds import MaxProbability
from gatewise.exceptions import InputError
from gatewise.nn.arguments import whole

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
        repeats: rounds over all sizes, with one run of each or, of short ones, several.
        clock: "wall", or "cpu" for the process's CPU time, which other programs hardly change.
        sizes: the numbers of samples to measure; by default 1, 2, 4, … up to the batch size.

    Raises:
        InputError: the batch size or the repeats are below 1, or the clock is unknown.
    """
    whole("batch_size", batch_size)
    whole("repeats", repeats)
    if clock not in _CLOCKS:
        raise InputError(f"clock must be one of {', '.join(map(repr, _CLOCKS))}, not {clock!r}")
    now = _CLOCKS[clock]
    deciding = policy if policy is not None and not policy.needs_labels else MaxProbability(model.n_exits, 0.5)
    chosen = tuple(usual_sizes(batch_size) if sizes is None else sorted({*sizes, batch_size}))
    available = n_rows(inputs)
    batches = [rows(inputs, torch.arange(size) % available) for size in chosen]
    with torch.no_grad():
        often = [_runs(partial(_one_run, model, batch, deciding, now)) for batch in batches]
        runs: list[list[np.ndarray]] = [[] for _ in chosen]
        # Sizes are interleaved, so that a busy moment of the machine does not hit one of them alone; of each size
        # several runs follow another as batches do, the first of which finds the memory as another size has left it.
        for _ in range(repeats):
            for place, batch in enumerate(batches):
                runs[place] += [_one_run(model, batch, deciding, now) for _ in range(often[place] + 1)][1:]
    # A part never takes less time for more samples; noise that says so is smoothed away.
    found = np.stack([np.median(each, axis=0) for each in runs], -1) * 1000.0
    median = np.maximum.accumulate(found, axis=-1)
    times = StageTimes(chosen, *median[:-1], whole=median[-1:, 0])
    each = median[:3, :, chosen.index(batch_size)] / batch_size
    blocks, heads, decisions = (tuple(part.tolist()) for part in each)
    return CostTable(blocks, heads, decisions, "milliseconds", batch_size, times)


def _runs(run: Callable[[], object]) -> int:
    """How many runs take about ten milliseconds, of short ones at most 20: a median of few would be all noise."""
    run()
    begun = time.perf_counter()
    run()
    return int(min(20, max(1, 0.01 // max(time.perf_counter() - begun, 1e-9))))


def _one_run(model: "EarlyExitModel", batch: Any, policy: "Policy", now: Callable[[], float]) -> np.ndarray:
    """Seconds of every part, (6, L), of a run with all samples to the end; what leaving costs is done beside it.

    The parts are those of `StageTimes`, by the very code that `infer` runs; the last row has one number, of what a
    batch costs besides.
    """
    from gatewise.early_exit.running import Answers

    n, last = n_rows(batch), model.n_exits - 1
    spent = np.zeros((6, model.n_exits))
    everybody = torch.arange(n)
    nobody = torch.zeros(n, dtype=torch.bool)
    begun = now()
    answers = Answers(model, n)
    spent[5, 0] = now() - begun
    simplest = MaxProbability(model.n_exits, 0.5)

    def at_exit(exit: int, evaluate: Evaluate) -> None:
        nonlocal mark
        blocks = now()
        logits, step = evaluate()
        before = answers.trace
        answers.at(exit, logits)
        heads = now()
        spent[:2, exit] = blocks - mark, heads - blocks
        if exit == last:
            answers.end()
        else:
            # An exit that the policy does not use is measured with a decision as simple as there is.
            answers.decide(policy if exit not in policy.skipped else simplest)
            decided = now()
            # What leaving does is done to a copy, so that everybody goes on.
            beside = Answers(model, n)
            beside.trace = answers.trace
            ready = now()
            beside.leave(everybody)
            if n > 1:
                torch.empty_like(logits)[beside.whose[0]] = beside.parts[0]
            left = now()
            beside.stay(nobody)
            if step is not None:
                step.hidden.index_select(0, everybody)
            spent[2:5, exit] = decided - heads, left - ready, now() - left
        if exit in policy.skipped:
            answers.trace = before
        mark = now()

    mark = now()
    model.walk(batch, at_exit)
    answers.output(policy)
    spent[5, 0] += now() - mark
    return spent
