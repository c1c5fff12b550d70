"""Start after start, in blocks, until the evidence is in; and what the search cannot have seen."""

import copy
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import joblib
import numpy as np
from rich.console import Console

from gatewise.fit.assess import best_end_point
from gatewise.fit.interrupt import deferred_interrupt
from gatewise.fit.optima import Optima, SeenOptimum, have_many_rows
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.result import Search
from gatewise.fit.start import EndPoint, run_start
from gatewise.fit.starts import BLOCK, is_independent, is_perturbation
from gatewise.ops.derivatives import differentiable
from gatewise.ops.threads import single_threaded

__all__ = ["Found", "judge", "search"]

# What the work of a search is counted in: about a millisecond of one core. A pass over few rows costs a call anyway.
_ENTRIES_PER_UNIT = 1e6
_MOST_WORK = 8_000.0
_MOST_STARTS = 600
# So many starts none of which came to an optimum tell that others will not either.
_IDLE_STARTS = 4 * BLOCK
# When the evidence is in: tuned on simulated tables, see docs/search.md.
_FEWEST_INDEPENDENT = 2 * BLOCK
_FEWEST_HITS = 3
_TIMES_AS_LIKELY = 20.0
_EXPECTED = 3.0
# A strategy that has been tried so many times is judged by itself.
_OFTEN = 15


@dataclass(frozen=True)
class Found:
    """What a search has to show.

    Attributes:
        ends: where each start ended, in their order.
        optima: the distinct ones among them.
        evidence: what has been seen, and what has not.
        cut_short: whether the user or the clock ended it.
    """

    ends: list[EndPoint]
    optima: Optima
    evidence: Search
    cut_short: bool

    def settled(self, problem: Problem, ends: list[EndPoint]) -> Self:
        """The same after the floors have been settled: where the starts ended then, and what that tells."""
        if ends is self.ends:
            return self
        optima = Optima(problem)
        for end in ends:
            optima.add(end)
        return replace(self, ends=ends, optima=optima, evidence=judge(optima, ends)[0])


def search(problem: Problem, options: FitOptions, deadline: float | None, interrupted: Callable[[], bool]) -> Found:
    """Run starts, block after block, until as many have run as were asked for, or the evidence is in.

    What a start may know of earlier ones is the best point of the blocks before its own, and the decision to go on is
    taken between blocks: so the same starts are run, with the same bits, whatever the number of workers. The clock ends
    a search only where the user has set a time limit.
    """
    ends: list[EndPoint] = []
    optima = Optima(problem)
    wanted = _wanted(problem, options)
    serial = options.n_jobs in (None, 1) or wanted == 1
    shared = "sharedmem" if problem.runs_in_threads else None
    pool: AbstractContextManager[Any] = (
        nullcontext(None)
        if serial
        else joblib.Parallel(n_jobs=_n_workers(options), return_as="generator", require=shared)
    )
    # Tasks are sent from another thread: what they hold must not change, and a problem remembers what it has computed.
    sent = problem if serial or problem.runs_in_threads else copy.deepcopy(problem)
    with pool as parallel:
        while True:
            indices = range(len(ends), len(ends) + BLOCK if wanted is None else min(len(ends) + BLOCK, wanted))
            best = optima.ordinary()[:1]
            around = best[0].theta if best else None
            if parallel is None:
                block = _run_here(problem, options, indices, around, deadline, interrupted)
            else:
                block = _run_in_workers(parallel, sent, options, indices, around, deadline, interrupted)
            with closing(block):
                for end in block:
                    ends.append(end)
                    optima.add(end)
                    _announce(options, end)
                    if interrupted() or (deadline is not None and time.monotonic() > deadline):
                        evidence, settled = judge(optima, ends)
                        cut_short = not settled if wanted is None else len(ends) < wanted
                        return Found(ends, optima, evidence, cut_short)
            evidence, settled = judge(optima, ends)
            idle = evidence.n_optima == 0 and len(ends) >= _IDLE_STARTS
            if len(ends) == wanted or (wanted is None and (settled or idle or _is_spent(problem, ends))):
                return Found(ends, optima, evidence, cut_short=False)


def _wanted(problem: Problem, options: FitOptions) -> int | None:
    """How many starts are asked for, or None where the evidence decides."""
    if problem.has_one_maximum:
        return 1
    return None if isinstance(options.n_starts, str) else options.n_starts


def _n_workers(options: FitOptions) -> int | None:
    """No more than a block has starts."""
    return None if options.n_jobs is None else min(options.n_jobs, BLOCK)


def _is_spent(problem: Problem, ends: Sequence[EndPoint]) -> bool:
    """Whether the limit of counted work is reached: passes over the data, each by its entries, and starts."""
    per_pass = 1.0 + problem.n_rows * problem.size / _ENTRIES_PER_UNIT
    work = per_pass * sum(end.n_evaluations for end in ends)
    return len(ends) >= _FEWEST_INDEPENDENT and (len(ends) >= _MOST_STARTS or work >= _MOST_WORK)


def judge(optima: Optima, ends: Sequence[EndPoint]) -> tuple[Search, bool]:
    """What the starts tell about optima that none of them has reached.

    Where W optima were seen in N independent starts, each end point being as likely as any other a priori, the next
    start ends at an unseen one with probability W (W + 1) / (N (N − 1)) (Boender and Rinnooy Kan 1987, the share of
    the basins that is unseen), and an unseen one is better than W others with probability 1 / (W + 1): together
    W / (N (N − 1)). It holds for one distribution of starts: the largest of the estimates for all strategies in turn,
    and for each that has been tried often enough.

    The search is settled where the best optimum was hit by some independent starts, one more of these is twenty times
    as likely to end there as at a better one, and, where there are several optima, the best one has been perturbed
    without success so often that something that is as easy to hit would have been expected three times. It is
    complete where it is settled, no start came higher without reaching a first-order point, and the best optimum of all
    has no tight expert with few rows: of such optima there are many, and their hits say little of the best without one.
    """
    if optima.problem.has_one_maximum:
        return Search(len(ends), 0, 0, 1, 0.0, is_about_kept=True, complete=True), True
    ordinary = optima.ordinary()
    strategies = {end.index: end.strategy for end in ends if is_independent(end.strategy)}
    hits = [Counter(strategies[end.index] for end in seen.members if end.index in strategies) for seen in ordinary]
    hits_of_best = sum(hits[0].values()) if hits else 0
    chance = _chance_of_better(sum(bool(hit) for hit in hits), len(strategies))
    for strategy, n_tried in Counter(strategies.values()).items():
        n_optima = sum(strategy in hit for hit in hits)
        if n_tried >= _OFTEN and n_optima:
            chance = max(chance, _chance_of_better(n_optima, n_tried))
    enough = hits_of_best >= _FEWEST_HITS and len(strategies) >= _FEWEST_INDEPENDENT
    share = hits_of_best / max(len(strategies), 1)
    probed = len(ordinary) <= 1 or _n_perturbed(ordinary[0], ends) * share >= _EXPECTED
    higher = best_end_point(list(ends))[1] if ends else None
    settled = enough and chance * _TIMES_AS_LIKELY <= share and probed
    is_about_kept = not ordinary or ordinary[0] is optima.sorted()[0]
    by_chance = bool(ordinary) and not have_many_rows(optima.problem, ordinary[0].effective_rows, ordinary[0].tight)
    evidence = Search(
        n_starts=len(ends),
        n_independent=len(strategies),
        hits_of_best=hits_of_best,
        n_optima=len(ordinary),
        chance_of_better=chance,
        is_about_kept=is_about_kept,
        complete=settled and higher is None and is_about_kept and not by_chance,
    )
    return evidence, settled


def _chance_of_better(n_optima: int, n_starts: int) -> float:
    if n_optima == 0 or n_starts < 2:
        return 1.0
    return min(1.0, n_optima / (n_starts * (n_starts - 1)))


def _n_perturbed(best: SeenOptimum, ends: Sequence[EndPoint]) -> int:
    """How many starts have perturbed the best optimum: those of the blocks after the one that found it."""
    found = min(end.index for end in best.members) // BLOCK
    return sum(is_perturbation(end.strategy) and end.index // BLOCK > found for end in ends)


def _run_here(
    problem: Problem,
    options: FitOptions,
    indices: range,
    best: np.ndarray | None,
    deadline: float | None,
    interrupted: Callable[[], bool],
) -> Generator[EndPoint, None, None]:
    for index in indices:
        yield run_start(problem, options, index, deadline, interrupted, best)


def _run_in_workers(
    parallel: joblib.Parallel,
    problem: Problem,
    options: FitOptions,
    indices: range,
    best: np.ndarray | None,
    deadline: float | None,
    interrupted: Callable[[], bool],
) -> Generator[EndPoint, None, None]:
    # Processes receive a terminal's Ctrl-C themselves, and have a monotonic clock of their own: they are told when the
    # time is up by the clock on the wall.
    ends_at = None if deadline is None else time.time() + deadline - time.monotonic()
    if problem.runs_in_threads:
        tasks = (
            joblib.delayed(_run_start_in_thread)(copy.copy(problem), options, index, deadline, interrupted, best)
            for index in indices
        )
    else:
        tasks = (joblib.delayed(_run_start_in_worker)(problem, options, index, ends_at, best) for index in indices)
    results: Generator[EndPoint, None, None] = parallel(tasks)  # pyright: ignore[reportAssignmentType]
    try:
        for end in results:  # noqa: UP028 - `yield from` would close the results outside the filter below
            yield end
    finally:
        with warnings.catch_warnings():
            # Cutting the search short is meant, and said in the status; joblib would warn of unused results.
            warnings.filterwarnings("ignore", message=r"\d+ tasks", category=UserWarning)
            results.close()


def _run_start_in_worker(
    problem: Problem, options: FitOptions, index: int, ends_at: float | None, best: np.ndarray | None
) -> EndPoint:
    deadline = None if ends_at is None else time.monotonic() + ends_at - time.time()
    with single_threaded(), differentiable(), deferred_interrupt() as interrupted:
        if threading.current_thread() is not threading.main_thread():
            # Where the caller's joblib runs threads they share the problem, which evaluates one point at a time.
            problem = copy.deepcopy(problem)
        return run_start(problem, options, index, deadline, interrupted, best)


def _run_start_in_thread(
    problem: Problem,
    options: FitOptions,
    index: int,
    deadline: float | None,
    interrupted: Callable[[], bool],
    best: np.ndarray | None,
) -> EndPoint:
    with single_threaded(), differentiable():
        return run_start(problem, options, index, deadline, interrupted, best)


def _announce(options: FitOptions, end: EndPoint) -> None:
    """A line per start, where it is asked for."""
    # A process may have no standard error.
    if not options.verbose or sys.stderr is None:
        return
    total = "" if isinstance(options.n_starts, str) else f"/{options.n_starts}"
    line = (
        f"start {end.index + 1}{total} {end.strategy:<9} {end.status.name:<11} "
        f"mean objective {end.value:.9f}  {end.n_iterations} iterations  {end.seconds:.2f} s"
    )
    if sys.stderr.isatty():
        Console(stderr=True).print(line)
    else:
        # Notebooks and logs have no width to break a line at. One that cannot be written is not worth a fit.
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
