"""One start, from responsibilities to its end point."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gatewise.fit.gradient_sampling import gradient_sampling, has_kink
from gatewise.fit.interrupt import never
from gatewise.fit.least_squares import GaussNewton, LeastSquaresProblem
from gatewise.fit.monitor import Monitor, SolverStopped
from gatewise.fit.newton import newton
from gatewise.fit.options import FitOptions
from gatewise.fit.partition import PartitionedProblem
from gatewise.fit.problem import Problem
from gatewise.fit.quasi_newton import quasi_newton
from gatewise.fit.some_entries import EntriesMonitor, SomeEntries
from gatewise.fit.starts import is_perturbation, model_of_start, responsibilities_of_start, strategy_of_start
from gatewise.fit.status import FitStatus
from gatewise.fit.top_k_search import top_k_search

__all__ = ["EndPoint", "continue_start", "run_start"]

# Above this many, the eigenvalues of one Hessian take longer than a user would wait.
_HESSIAN_AT_ALL = 3000
_APPROACH_TOL = 1e-5


@dataclass(frozen=True)
class _Climbed:
    """Where a climb ended: θ, CONVERGED or STALLED, and what is small there if it is not the gradient, and why."""

    theta: np.ndarray
    status: FitStatus
    remainder: float | None = None
    at: Literal["interior", "kink", "edge"] = "interior"


@dataclass(frozen=True)
class EndPoint:
    """Where a start ended, in internal units.

    Attributes:
        index: the start's number.
        strategy: how it was made.
        theta: the end point.
        value: its mean objective.
        status: CONVERGED, STALLED, MAX_ITER, TIME_LIMIT or INTERRUPTED.
        relative_gradient: largest projected gradient component of the mean objective; at a kink that of the shortest
            convex combination of the gradients around it, at an edge that of what does not point over it.
        at: "kink" or "edge" where the gradient itself is larger than that; "interior" elsewhere. The edge is that of
            the gate parameters with which every row keeps its selected experts.
        on_floor: experts with a spread on the floor.
        scale_floor: that floor.
        n_iterations: solver iterations.
        n_evaluations: passes over the data.
        trace: the mean objective, iteration by iteration.
        seconds: wall time.
    """

    index: int
    strategy: str
    theta: np.ndarray
    value: float
    status: FitStatus
    relative_gradient: float
    at: Literal["interior", "kink", "edge"]
    on_floor: tuple[int, ...]
    scale_floor: float
    n_iterations: int
    n_evaluations: int
    trace: np.ndarray
    seconds: float


def run_start(
    problem: Problem,
    options: FitOptions,
    index: int,
    deadline: float | None = None,
    interrupted: Callable[[], bool] = never,
    best: np.ndarray | None = None,
) -> EndPoint:
    """Follow one start: a model's parameters or an M-step from responsibilities, EM steps, Newton or quasi-Newton.

    The user and the clock may end it early; the best point so far is returned with the status that says so. `best` is
    θ of the best end point of earlier blocks, for starts that perturb it.
    """
    began = time.monotonic()
    evaluated = problem.n_evaluations
    given = model_of_start(options.init, index)
    if given is None:
        around = None
        is_moved = problem.n_experts > 1 and is_perturbation(strategy_of_start(options.init, index))
        if best is not None and is_moved:
            around = problem.responsibilities(best)
        responsibilities = responsibilities_of_start(problem.start_rows, options.init, index, options.seed, around)
        theta = problem.begin(responsibilities, index, options.seed)
    else:
        theta = problem.bounds.clip(problem.locate(given))
    strategy = strategy_of_start(options.init, index)
    end = _followed(problem, options, theta, index, strategy, options.em_steps, deadline, interrupted)
    return replace(end, n_evaluations=problem.n_evaluations - evaluated, seconds=time.monotonic() - began)


def continue_start(
    problem: Problem,
    options: FitOptions,
    end: EndPoint,
    deadline: float | None = None,
    interrupted: Callable[[], bool] = never,
) -> EndPoint:
    """Climb on from where a start ended, in a problem that has other bounds; the counts and the trace are added up."""
    further = _followed(problem, options, end.theta, end.index, end.strategy, 0, deadline, interrupted)
    return replace(
        further,
        n_iterations=end.n_iterations + further.n_iterations,
        n_evaluations=end.n_evaluations + further.n_evaluations,
        trace=np.concatenate([end.trace, further.trace]),
        seconds=end.seconds + further.seconds,
    )


def _followed(
    problem: Problem,
    options: FitOptions,
    theta: np.ndarray,
    index: int,
    strategy: str,
    em_steps: int,
    deadline: float | None,
    interrupted: Callable[[], bool],
) -> EndPoint:
    """From θ to the end of the climb."""
    began = time.monotonic()
    evaluated = problem.n_evaluations
    monitor = Monitor(max(options.max_iter, 1), deadline, interrupted)
    approach = Monitor(max(options.max_iter, 1), deadline, interrupted)
    remainder, at = None, "interior"
    try:
        theta = problem.improve(theta, em_steps if options.max_iter else 0, monitor.check)
        if options.max_iter == 0:
            raise SolverStopped(FitStatus.MAX_ITER)
        climbed = climb(problem, theta, options, index, approach, monitor)
        theta, status, remainder, at = climbed.theta, climbed.status, climbed.remainder, climbed.at
    except SolverStopped as stop:
        status = stop.status
        theta = next((watch.best for watch in (monitor, approach) if watch.best is not None), theta)
    value, gradient = problem.value_and_gradient(theta)
    slope = float(np.abs(problem.bounds.projected(theta, gradient)).max(initial=0.0))
    if remainder is None or slope <= options.tol:
        at = "interior"
    else:
        slope = remainder
    # A small gradient says nothing about other partitions of the rows.
    if status is FitStatus.MAX_ITER and slope <= options.tol and not isinstance(problem, PartitionedProblem):
        status = FitStatus.CONVERGED
    return EndPoint(
        index=index,
        strategy=strategy,
        theta=theta,
        value=value,
        status=status,
        relative_gradient=slope,
        at=at,
        on_floor=problem.floored(theta),
        scale_floor=problem.scale_floor,
        n_iterations=approach.n_iterations + monitor.n_iterations,
        n_evaluations=problem.n_evaluations - evaluated,
        trace=np.array(approach.trace + monitor.trace),
        seconds=time.monotonic() - began,
    )


def climb(
    problem: Problem, theta: np.ndarray, options: FitOptions, index: int, approach: Monitor, monitor: Monitor
) -> _Climbed:
    """From θ to a first-order point, by the solver that the options and the problem call for.

    Where there are kinks, or a smooth solver has stalled as if there were one, gradient sampling finishes. Partitions
    of the rows by a top-K gate have a search of their own, whatever the options.
    """
    generator = np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(index, 2)))
    if isinstance(problem, PartitionedProblem):
        return _Climbed(*top_k_search(problem, theta, monitor, options.tol, generator), at="edge")
    small = problem.size <= _HESSIAN_AT_ALL
    if isinstance(problem, LeastSquaresProblem) and options.solver == "auto":
        theta = _levenberg_marquardt(problem, theta, approach)
    elif options.solver == "auto" and small and (problem.size > problem.cheap_hessian_size or not problem.is_smooth):
        theta = _approach(problem, theta, approach)
    sampled = problem if problem.may_have_kinks and small else None
    if sampled is None or problem.is_smooth or options.solver != "auto":
        by_newton = options.solver == "newton" or (options.solver == "auto" and small)
        theta, status = (newton if by_newton else quasi_newton)(problem, theta, monitor, options.tol)
        if sampled is None or status is FitStatus.CONVERGED:
            return _Climbed(theta, status)
    # Directions are drawn for the entries in an order that does not depend on that of the columns.
    order = sampled.entry_order
    ordered = SomeEntries(sampled, theta, order)
    watch = EntriesMonitor(monitor, ordered)
    monitor.begin(theta, problem.value_and_gradient(theta)[0])
    part, sampled_status, remainder = gradient_sampling(ordered, theta[order], watch, options.tol, generator)
    if problem.is_smooth and not has_kink(ordered, part, generator):
        return _Climbed(ordered.whole(part), FitStatus.STALLED)
    return _Climbed(ordered.whole(part), sampled_status, remainder, at="kink")


def _approach(problem: Problem, theta: np.ndarray, monitor: Monitor) -> np.ndarray:
    """Come near a maximum without a Hessian; Newton's method takes over from there, also where this one stalls.

    Without curvature nothing keeps the numbers from drifting along a symmetry, by factors of 10⁵ along scales.
    """
    try:
        theta = quasi_newton(problem, theta, monitor, _APPROACH_TOL)[0]
    except SolverStopped as stop:
        if stop.status is not FitStatus.MAX_ITER or monitor.best is None:
            raise
        theta = monitor.best
    return problem.settled(theta)


def _levenberg_marquardt(problem: LeastSquaresProblem, theta: np.ndarray, monitor: Monitor) -> np.ndarray:
    """Come near a minimum of the squares without second derivatives; Newton's method finishes."""
    try:
        return newton(GaussNewton(problem), theta, monitor, _APPROACH_TOL)[0]
    except SolverStopped as stop:
        if stop.status is not FitStatus.MAX_ITER or monitor.best is None:
            raise
        return monitor.best
