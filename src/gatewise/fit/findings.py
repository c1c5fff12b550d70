"""What must be said about a fit: the conditions, their evidence, and the advice, most serious first."""

import dataclasses

import numpy as np

from gatewise.fit.assess import KeptPoint
from gatewise.fit.floors import Agreement, Floors
from gatewise.fit.null_space import SINGULAR
from gatewise.fit.optima import have_many_rows
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.result import Optimum, Search
from gatewise.fit.search import Found
from gatewise.fit.spreads import RelativeSpread
from gatewise.fit.start import EndPoint
from gatewise.fit.status import Finding, FitStatus
from gatewise.messages import percent

__all__ = ["collect_findings", "findings_at", "seen"]

# Fewer effective rows than this is an empty expert.
_EMPTY_ROWS = 1e-2
_KINK = (
    " It lies at a kink: there the gradient jumps, and a convex combination of the gradients around it vanishes. "
    "Standard errors are from the outer products of the scores."
)


def collect_findings(
    floors: Floors, options: FitOptions, point: KeptPoint, found: Found, optima: tuple[Optimum, ...]
) -> tuple[Finding, ...]:
    """All findings in the order of `FitStatus`; the first is the status, and there is always one."""
    problem = floors.problem
    noticed = [
        *_early_end(options, point.end, found),
        *_at_point(problem, point, optima),
        *_floor(floors, point),
    ]
    if not any(finding.code.is_early for finding in noticed):
        is_maximum = all(finding.code.is_maximum for finding in noticed)
        noticed += _weak_search(problem, found.evidence, options, point, is_maximum)
    noticed.sort(key=_severity)
    first, *others = noticed or [_converged(point, found)]
    added = _kink(first, point) + _higher(problem, point) + _light(problem)
    first = dataclasses.replace(first, message=first.message + added)
    return (first, *others, *_floor_beside(floors, point), *_partition(problem, point))


def findings_at(problem: Problem, point: KeptPoint, kept: KeptPoint) -> tuple[Finding, ...]:
    """All findings at a rival of the kept point."""
    noticed = sorted(_at_point(problem, point, ()), key=_severity)
    message = f"{FitStatus.CONVERGED.sentence} Another one is higher; this is a rival of it."
    below = problem.objective(kept.theta) - problem.objective(point.theta)
    found = noticed or [Finding(FitStatus.CONVERGED, message, {"below": below})]
    return (*found, *_partition(problem, point))


def _severity(finding: Finding) -> int:
    return list(FitStatus).index(finding.code)


def _at_point(problem: Problem, point: KeptPoint, optima: tuple[Optimum, ...]) -> list[Finding]:
    """What there is to say of a point, however it was found."""
    noticed = [
        *_saturation(problem),
        *_separation(point.direction),
        *_expert_separation(point),
        *_degenerate_experts(problem, point, optima),
    ]
    if not problem.is_saturated and point.end.status is FitStatus.CONVERGED:
        noticed += _curvature(problem, point)
    return noticed


def _converged(point: KeptPoint, found: Found) -> Finding:
    evidence = found.evidence
    reached = sum(end.status is FitStatus.CONVERGED for end in found.ends)
    return Finding(
        FitStatus.CONVERGED,
        f"{FitStatus.CONVERGED.sentence} {seen(evidence)}",
        {"starts_at_best": evidence.hits_of_best, "first_order_points": reached, "at_kink": point.end.at == "kink"}
        | dataclasses.asdict(evidence),
    )


def seen(search: Search) -> str:
    """What a search has seen, and how likely it is that it has not seen the best, in a sentence or two."""
    if not search.n_independent:
        alone = "One regression has one maximum: there is nothing to search."
        return (
            alone
            if search.complete
            else "There was one place to begin, or those that were given: nothing was searched."
        )
    optima = f"{search.n_optima} distinct optim{'um' if search.n_optima == 1 else 'a'}"
    there = "there" if search.is_about_kept else "at the best optimum without a tight expert"
    such = "" if search.is_about_kept else " such"
    return (
        f"{search.hits_of_best} of {search.n_independent} independent starts ended {there}; {optima}{such} found. "
        f"Estimated chance that one more start finds a better one{such and ' of these'}: "
        f"{percent(search.chance_of_better)}."
    )


def _weak_search(
    problem: Problem, search: Search, options: FitOptions, point: KeptPoint, is_maximum: bool
) -> list[Finding]:
    # Who says where to begin, and asks for nothing else, has not asked for a search.
    if search.complete or not search.n_independent:
        return []
    by_chance = not search.is_about_kept or not have_many_rows(problem, point.effective_rows, point.tight)
    if isinstance(options.n_starts, str) and by_chance:
        more = "fewer experts, and a look at the optima: of those with a tight expert there are many"
    elif isinstance(options.n_starts, str):
        more = (
            "more starts than the limit of work allows (n_starts=2000), fewer experts, and a look at the other optima"
        )
    else:
        more = (
            'more starts, or n_starts="auto", which goes on until the evidence is in; fewer experts; and a look at the '
            "other optima"
        )
    opening = FitStatus.WEAK_SEARCH.sentence if is_maximum else "The search is not complete either."
    message = f"{opening} {seen(search)} What helps: {more}."
    evidence = {"at_kink": point.end.at == "kink"} | dataclasses.asdict(search)
    return [Finding(FitStatus.WEAK_SEARCH, message, evidence)]


def _kink(first: Finding, point: KeptPoint) -> str:
    return _KINK if point.end.at == "kink" and first.code in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH) else ""


def _light(problem: Problem) -> str:
    """What must be said of weights that are few in sum though the rows are many."""
    if not problem.total_weight < problem.size <= problem.n_rows:
        return ""
    return (
        f" The weights of the {problem.n_rows} rows sum to {problem.total_weight:.3g}. They count as frequencies, so "
        "that the fit goes by that many rows: if only their ratios matter, scale them to n."
    )


def _higher(problem: Problem, point: KeptPoint) -> str:
    """What must be said of a start that came higher than the kept point without reaching a first-order point."""
    end = point.higher
    if end is None:
        return ""
    gap = problem.objective(end.theta) - problem.objective(point.theta)
    return (
        f" Start {end.index + 1} ended {gap:.3g} higher, but at no first-order point ({end.status.name}), so that it "
        "does not count: raise max_iter to see where it leads."
    )


def _partition(problem: Problem, point: KeptPoint) -> list[Finding]:
    boundary = point.boundary
    if boundary is None:
        return []
    message = FitStatus.PARTITION.sentence
    at_edge = point.end.at == "edge"
    if at_edge and not point.is_definite:
        message += (
            " The maximum lies on an edge of its partition, and across that edge the likelihood of the partition "
            "curves upward: there is no information matrix to invert, and there are no standard errors."
        )
    if len(problem.selection_entries):
        message += " One expert is selected: the gate acts through this selection only and has no standard errors."
    if boundary:
        narrow = min(boundary, key=lambda interval: interval.width)
        wide = max(boundary, key=lambda interval: interval.width)
        message += (
            " All else equal, a coefficient of the gate can move within an interval until a row changes its experts; "
            f"the narrowest is {narrow.width:.3g} wide ({narrow.component}: {narrow.term}), the widest "
            f"{wide.width:.3g} ({wide.component}: {wide.term})."
        )
    evidence = {"widths": [interval.width for interval in boundary], "at_edge": at_edge, "definite": point.is_definite}
    return [Finding(FitStatus.PARTITION, message, evidence)]


def _early_end(options: FitOptions, kept: EndPoint, found: Found) -> list[Finding]:
    ends = found.ends
    statuses = {end.status for end in ends}
    evidence = {"starts_run": len(ends), "starts_asked": options.n_starts}
    if FitStatus.INTERRUPTED in statuses or (found.cut_short and options.time_limit is None):
        return [Finding(FitStatus.INTERRUPTED, FitStatus.INTERRUPTED.sentence, evidence)]
    if FitStatus.TIME_LIMIT in statuses or found.cut_short:
        asked = "" if isinstance(options.n_starts, str) else f" of {options.n_starts}"
        count = f"{len(ends)}{asked} starts were begun" if asked or len(ends) != 1 else "1 start was begun"
        message = f"{FitStatus.TIME_LIMIT.sentence} {count}."
        return [Finding(FitStatus.TIME_LIMIT, message, evidence)]
    if kept.status in (FitStatus.MAX_ITER, FitStatus.STALLED):
        message = (
            f"{kept.status.sentence} Largest gradient component of the mean objective "
            f"{kept.relative_gradient:.2g}, tolerance {options.tol:.2g}, after {kept.n_iterations} iterations."
        )
        return [Finding(kept.status, message, {"relative_gradient": kept.relative_gradient})]
    return []


def _saturation(problem: Problem) -> list[Finding]:
    if not problem.is_saturated:
        return []
    message = (
        f"{FitStatus.SATURATED.sentence} {problem.n_rows} rows, {problem.size} parameters: use fewer experts or "
        "features, or more rows."
    )
    return [Finding(FitStatus.SATURATED, message, {"rows": problem.n_rows, "parameters": problem.size})]


def _separation(direction: np.ndarray | None) -> list[Finding]:
    if direction is None:
        return []
    message = (
        f"{FitStatus.SEPARATED.sentence} A linear programme over all rows and the experts they need found a direction "
        "along which the likelihood does not fall. Gate standard errors are withheld and those of the experts are "
        "conditional on the gate. For finite gate coefficients set a ridge (gate_ridge=1)."
    )
    return [Finding(FitStatus.SEPARATED, message, {"direction_internal": direction.tolist()})]


def _expert_separation(point: KeptPoint) -> list[Finding]:
    if not point.expert_directions:
        return []
    experts = tuple(sorted(point.expert_directions))
    message = (
        f"{FitStatus.EXPERT_SEPARATED.sentence} Expert {_listed(experts)}: along a direction of its own coefficients "
        "the likelihood does not fall. Its standard errors are withheld and the others are conditional on it. Use "
        "fewer experts or features, hold the expert by constraints, or set a ridge on slopes (expert_ridge=1); an "
        "intercept is not held by it."
    )
    return [Finding(FitStatus.EXPERT_SEPARATED, message, {"experts": experts})]


def _floor(floors: Floors, point: KeptPoint) -> list[Finding]:
    problem, on_floor = floors.problem, point.on_floor
    if not on_floor:
        return []
    floor = problem.scale_floor
    held = [
        f"{spread.name} on the floor, {floor:g} times the one-expert {spread.whole}"
        for spread in problem.relative_spreads(point.theta)
        if (spread.values[list(on_floor)] <= floor * (1.0 + 1e-6)).any()
    ]
    agreement = floors.agreement
    tied = "" if agreement is None else f" {_closeness(agreement)}."
    message = (
        f"{FitStatus.ON_FLOOR.sentence} Expert {_listed(on_floor)}: {'; '.join(held)}.{tied} Use fewer experts, look "
        f"for tied targets or a feature that copies the target, or {_bound_by(problem)}."
    )
    evidence = {
        "experts": on_floor,
        "scale_floor": floor,
        "floor": floor * problem.unit,
        "starts": len(floors.ends),
        "agreement": None if agreement is None else dataclasses.asdict(agreement),
    }
    return [Finding(FitStatus.ON_FLOOR, message, evidence)]


def _floor_beside(floors: Floors, point: KeptPoint) -> list[Finding]:
    """What the floor has to do with an estimate that is not on it."""
    found = []
    floor, problem = floors.problem.scale_floor, floors.problem
    if floors.is_lowered:
        message = (
            f"{FitStatus.FLOOR_LOWERED.sentence} It was {floors.asked:g} times the spread of the one-expert fit, and "
            f"is {floor:g} times that now. The starts ran with the old one: set scale_floor={floor:g} to run "
            "them with the new one."
        )
        found.append(Finding(FitStatus.FLOOR_LOWERED, message, {"scale_floor": floor, "asked": floors.asked}))
    if floors.agreement is not None and not point.on_floor:
        message = (
            f"{FitStatus.TIED_ROWS.sentence} {_closeness(floors.agreement)}, and a start that ended there has a higher "
            "likelihood. If targets such as zeros, limits or rounded values are exact by their nature, treat them "
            f"apart; else {_bound_by(problem)}."
        )
        found.append(Finding(FitStatus.TIED_ROWS, message, dataclasses.asdict(floors.agreement)))
    return found


def _closeness(agreement: Agreement) -> str:
    """How closely many rows agree, and what to do if that is not exactly."""
    if agreement.within == 0.0:
        return f"{agreement.rows:.0f} rows agree exactly"
    return (
        f"{agreement.rows:.0f} rows agree to within {agreement.within:.2g} times the spread of the one-expert fit, "
        f"where no gradient is as small as tol: to follow them set scale_floor={agreement.floor:g} and a larger tol"
    )


def _bound_by(problem: Problem) -> str:
    """What gives the likelihood of this model a bound."""
    family, gate = problem.prototype.family, problem.prototype.gate
    inputs = "" if gate.spread is None else "; where it is inputs that agree, fit the weights alone (joint=False)"
    if family.has_scale and family.n_dispersion == 1:
        return f"set a variance prior (variance_prior=(1, 0.1)){inputs}"
    if family.spread is None:
        return "fit the weights alone (joint=False)"
    return f"let all experts share one spread (shared_scale=True){inputs}"


def _degenerate_experts(problem: Problem, point: KeptPoint, optima: tuple[Optimum, ...]) -> list[Finding]:
    found = []
    effective_rows = point.effective_rows
    empty = tuple(int(i) for i in np.flatnonzero(effective_rows < _EMPTY_ROWS))
    if empty:
        message = f"{FitStatus.EMPTY_EXPERT.sentence} Expert {_listed(empty)}: use fewer experts."
        found.append(Finding(FitStatus.EMPTY_EXPERT, message, {"experts": empty}))
    interior = tuple(i for i in point.tight if i not in point.on_floor and i not in empty)
    if interior:
        spreads = problem.relative_spreads(point.theta)
        figures = ", ".join(
            f"{i + 1} ({_narrowness(spreads, i)}{effective_rows[i]:.1f} effective rows)" for i in interior
        )
        calm = next((optimum for optimum in optima if not optimum.tight and not optimum.on_floor), None)
        other = "" if calm is None else f" The best optimum without one has log-likelihood {calm.log_likelihood:.6f}."
        message = f"{FitStatus.TIGHT.sentence} Tight: expert {figures}.{other}"
        found.append(Finding(FitStatus.TIGHT, message, {"experts": interior}))
    return found


def _narrowness(spreads: tuple[RelativeSpread, ...], expert: int) -> str:
    """How narrow an expert is, each kind of spread as a share of the one-expert fit's, ready for what follows."""
    return "".join(
        f"{each.name} = {100.0 * each.values[expert]:.2g} % of the one-expert {each.whole}, " for each in spreads
    )


def _curvature(problem: Problem, point: KeptPoint) -> list[Finding]:
    curvature, conditional = point.curvature, point.conditional_curvature
    if not curvature.size or not conditional.size:
        return []
    smallest, largest = float(curvature[0]), float(curvature[-1])
    if smallest < -SINGULAR * largest:
        return [_on_curvature(FitStatus.NOT_A_MAXIMUM, smallest, largest)]
    smallest, largest = float(conditional[0]), float(conditional[-1])
    if smallest >= SINGULAR * largest:
        return []
    finding = _on_curvature(FitStatus.SINGULAR, smallest, largest)
    named = [_named(problem, point.theta, direction) for direction in point.null_space.further]
    if not named:
        return [finding]
    listed = "; ".join(named)
    message = f"{finding.message} Not identified, and not explained by a symmetry: {listed}."
    return [dataclasses.replace(finding, message=message)]


def _named(problem: Problem, theta: np.ndarray, direction: np.ndarray) -> str:
    """What changes most along a direction of θ, as a sum."""
    along = problem.names.along(problem.coordinates, problem.prototype.family, theta, direction)
    return " ".join(f"{speed:+.2g} {name}" for speed, name in along[:3] if abs(speed) > 0.1)


def _on_curvature(code: FitStatus, smallest: float, largest: float) -> Finding:
    evidence = {"smallest_eigenvalue": smallest, "largest_eigenvalue": largest}
    figures = f"Smallest eigenvalue per row {smallest:.3g}, largest {largest:.3g}, in internal units."
    return Finding(code, f"{code.sentence} {figures}", evidence)


def _listed(experts: tuple[int, ...]) -> str:
    return ", ".join(str(i + 1) for i in experts)
