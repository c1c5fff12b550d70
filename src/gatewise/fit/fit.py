"""Fit a mixture of experts: all starts, the best of them, and a verdict with its evidence."""

import dataclasses
import time

import numpy as np

from gatewise.exceptions import InputError
from gatewise.fit.assess import KeptPoint, best_end_point, examine
from gatewise.fit.build import build_problem
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.findings import collect_findings, findings_at
from gatewise.fit.floors import Floors, settle_floors
from gatewise.fit.interrupt import deferred_interrupt
from gatewise.fit.names import Names
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.result import FitResult, StartRecord
from gatewise.fit.rivals import find_rivals
from gatewise.fit.rows import checked_rows
from gatewise.fit.search import Found, search
from gatewise.fit.start import EndPoint
from gatewise.fit.starts import checked_init
from gatewise.fit.status import Finding, FitStatus
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import differentiable
from gatewise.ops.threads import single_threaded

__all__ = ["fit"]

# Their information matrix has 3.2 GB, and two or three of them are needed at once.
_MOST_PARAMETERS = 20_000


def fit(
    model: MixtureOfExperts,
    x: np.ndarray,
    y: np.ndarray,
    *,
    gate_x: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    offset: np.ndarray | None = None,
    options: FitOptions | None = None,
    names: Names | None = None,
) -> FitResult:
    """Maximise Σ_r w_r log Σᵢ πᵢ(x_r) f(y_r | h(x_r, ηᵢ), σᵢ) (plus log priors, if any) over all parameters.

    Each start is followed by a few EM steps and then by a trust-region Newton method with the exact Hessian, in
    internal units, to a first-order point. The likelihood of a Gaussian mixture is unbounded (a scale can shrink
    onto a few rows), so every σ has a floor; a start that ends on the floor never beats one that does not. Where many
    rows ask for less the floor is lowered.

    Args:
        model: a prototype that says which gate, experts and family to fit; it is not changed.
        x: experts' covariates (n, d).
        y: targets (n,).
        gate_x: the gate's covariates (n, d_gate); by default x, or nothing if the gate has no features.
        sample_weight: non-negative frequencies (n,); a row with weight 2 counts as two rows, also in BIC's n = Σ w.
        offset: log(exposure) of each row (n,), added to every expert's location, for families with a log link.
        options: how to look for the maximum, and of what.
        names: of the columns, for messages and findings; None for those of arrays, x0, x1, … and y.

    Returns:
        The fit, its status and its evidence; nothing is raised for numerical trouble. Ctrl-C ends the search at the
        next iteration and returns the best point so far, with the status INTERRUPTED.

    Raises:
        InputError: the data or the options cannot be used.

    Example:
        >>> import numpy as np
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.gates import SoftmaxGate
        >>> x = np.linspace(-1.0, 1.0, 200)[:, None]
        >>> y = np.abs(x[:, 0]) + 0.1 * np.cos(np.arange(200.0))
        >>> result = fit(MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian()), x, y)
        >>> np.sort(result.model.experts.weight.numpy().ravel()).round(1)
        array([-1.,  1.])
    """
    began = time.monotonic()
    if not isinstance(model, MixtureOfExperts):
        raise InputError(f"model must be a MixtureOfExperts, not {shown(model)}")
    options = options or FitOptions()
    deadline = None if options.time_limit is None else began + options.time_limit
    with single_threaded(), differentiable(), deferred_interrupt() as interrupted:
        rows = checked_rows(model, x, y, gate_x, sample_weight, offset, names)
        _check_parameter_count(model)
        options = dataclasses.replace(options, init=checked_init(options.init, model, len(rows.kept)))
        problem = build_problem(model, rows, options, deadline, interrupted)
        found = search(problem, options, deadline, interrupted)
        floors = settle_floors(problem, options, found.ends, deadline, interrupted)
        return _assemble(floors, options, found.settled(floors.problem, floors.ends), began)


def _check_parameter_count(model: MixtureOfExperts) -> None:
    """Refuse a model whose information matrix would take all memory.

    Raises:
        InputError: it has too many parameters.
    """
    count = sum(value.numel() for value in model.parameters())
    if count > _MOST_PARAMETERS:
        raise InputError(
            f"the model has {count:,} parameters, more than {_MOST_PARAMETERS:,}: a fit looks at the curvature in each "
            "pair of them; use fewer experts or features, or smaller options"
        )


def _assemble(floors: Floors, options: FitOptions, found: Found, began: float) -> FitResult:
    problem = floors.problem
    end, higher = best_end_point(found.ends)
    point = examine(problem, end, problem.canonical_order(end.theta), higher)
    optima, reached = found.optima.table()
    findings = collect_findings(floors, options, point, found, optima)
    records = {record.index: record for record in _records(problem, found.ends, reached)}
    result = _result(problem, options, point, findings, found, began)
    rivals = []
    for rival in find_rivals(problem, found.optima, point):
        own = _result(problem, options, rival, findings_at(problem, rival, point), found, began)
        numbers = [index for index in records if reached.get(index) == reached[rival.end.index]]
        rivals.append(dataclasses.replace(own, starts=tuple(records[index] for index in numbers)))
    return dataclasses.replace(result, starts=tuple(records.values()), optima=optima, rivals=tuple(rivals))


def _records(problem: Problem, ends: list[EndPoint], reached: dict[int, int]) -> list[StartRecord]:
    return [
        StartRecord(
            index=end.index,
            strategy=end.strategy,
            status=FitStatus.ON_FLOOR if end.on_floor else end.status,
            log_likelihood=problem.log_likelihood(end.theta),
            objective=problem.objective(end.theta),
            relative_gradient=end.relative_gradient,
            n_iterations=end.n_iterations,
            n_evaluations=end.n_evaluations,
            on_floor=end.on_floor,
            optimum=reached.get(end.index),
            seconds=end.seconds,
        )
        for end in ends
    ]


def _result(
    problem: Problem,
    options: FitOptions,
    point: KeptPoint,
    findings: tuple[Finding, ...],
    found: Found,
    began: float,
) -> FitResult:
    """What a fit says of a point, without starts, optima and rivals."""
    scales = problem.relative_scales(point.theta)
    ray = point.direction
    return FitResult(
        status=findings[0].code,
        findings=findings,
        model=problem.build_model(point.theta),
        kind=problem.kind,
        log_likelihood=problem.log_likelihood(point.theta),
        objective=problem.objective(point.theta),
        entropy=point.entropy,
        n_parameters=problem.size - len(point.null_space.explained),
        n_rows=problem.n_rows,
        total_weight=problem.total_weight,
        relative_gradient=point.relative_gradient,
        smallest_eigenvalue=float(point.curvature[0]) if point.curvature.size else 0.0,
        information=point.information * problem.total_weight,
        residual_variance=problem.residual_variance(point.theta),
        n_gate_parameters=problem.n_gate,
        score_gram=problem.score_gram(point.theta),
        null_space=point.null_space,
        coordinates=problem.coordinates,
        theta=point.theta,
        scale=np.empty(0) if scales is None else problem.unit * scales,
        effective_rows=point.effective_rows,
        on_floor=point.on_floor,
        tight=point.tight,
        gate_ridge=options.gate_ridge,
        expert_ridge=options.expert_ridge,
        variance_prior=options.variance_prior,
        separated=point.separated,
        separation=None if ray is None else _gate_part(problem.coordinates, point.theta, ray),
        baseline=problem.baseline,
        starts=(),
        optima=(),
        search=found.evidence,
        rivals=(),
        trace=point.end.trace,
        seed=options.seed,
        seconds=time.monotonic() - began,
        boundary=point.boundary,
    )


def _gate_part(coordinates: Coordinates, theta: np.ndarray, ray: np.ndarray) -> np.ndarray:
    return (coordinates.jacobian(theta) @ ray)[: coordinates.n_gate]
