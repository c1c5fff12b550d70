"""What a fit returns: the model in the user's units, and everything needed to judge it."""

from dataclasses import dataclass

import numpy as np

from gatewise.fit.coordinates import Coordinates
from gatewise.fit.status import Finding, FitStatus
from gatewise.model import MixtureOfExperts

__all__ = ["Baseline", "BoundaryInterval", "FitResult", "NullSpace", "Optimum", "Search", "StartRecord"]


@dataclass(frozen=True)
class Baseline:
    """The one-expert fit of the same kind that every mixture has to beat.

    Attributes:
        scale: the residual standard deviation √(Σ w e² / Σ w) in the units of y, NaN for a family without a scale.
        log_likelihood: its maximised log-likelihood, NaN for least squares.
        objective: what was maximised, there: the log-likelihood, or −½ Σ w e² for least squares.
        n_parameters: its number of free parameters.
        model: that model in the user's units; None on the compiled path, where a regression is all there is to it.
    """

    scale: float
    log_likelihood: float
    objective: float
    n_parameters: int
    model: MixtureOfExperts | None = None


@dataclass(frozen=True)
class BoundaryInterval:
    """How far a coefficient of a gate that selects experts can move, all else equal, until a row changes its own.

    Attributes:
        component: which part of the gate, "gate 1 vs 3".
        term: which of its numbers.
        estimate: where it is, in the units of the parameter table.
        lower: where it would be when the first row changes its selected experts on the way down, −∞ if none does.
        upper: the same on the way up.
    """

    component: str
    term: str
    estimate: float
    lower: float
    upper: float

    @property
    def width(self) -> float:
        """Upper − lower."""
        return self.upper - self.lower


@dataclass(frozen=True)
class NullSpace:
    """What the information matrix does not see at a point.

    Attributes:
        explained: orthonormal directions (c, size) of θ in which a declared symmetry moves.
        sentences: what each symmetry does, with the number of dimensions that it adds here.
        further: orthonormal directions (u, size) without information that no declared symmetry explains.
        by_selection: orthonormal directions (v, size) that act through the selection of the experts only.
    """

    explained: np.ndarray
    sentences: tuple[tuple[str, int], ...]
    further: np.ndarray
    by_selection: np.ndarray

    @property
    def dimension(self) -> int:
        """How many directions there are in all."""
        return len(self.explained) + len(self.further) + len(self.by_selection)


@dataclass(frozen=True)
class StartRecord:
    """Where one start began and ended.

    Attributes:
        index: its place in the order of the starts.
        strategy: how it was made.
        status: how the solver left it (CONVERGED, MAX_ITER, STALLED, TIME_LIMIT, INTERRUPTED or ON_FLOOR).
        log_likelihood: at its end point.
        objective: there; see `FitResult.objective`.
        relative_gradient: the largest projected gradient component of the mean log-likelihood there.
        n_iterations: solver iterations.
        n_evaluations: passes over the data.
        on_floor: indices of experts on the variance floor.
        optimum: index into `FitResult.optima`, or None if it did not reach a first-order point.
        seconds: wall time.
    """

    index: int
    strategy: str
    status: FitStatus
    log_likelihood: float
    objective: float
    relative_gradient: float
    n_iterations: int
    n_evaluations: int
    on_floor: tuple[int, ...]
    optimum: int | None
    seconds: float


@dataclass(frozen=True)
class Search:
    """How far the search for the best maximum went, and what it cannot have seen.

    Optima count here as far as they are ordinary: no expert on the floor, and none tight unless three starts ended
    there, or all have such a one.

    Attributes:
        n_starts: starts that were followed to their end.
        n_independent: those among them that depend on the data and the seed alone: neither given by the caller nor near
            the best point so far. Only these tell what has not been seen.
        hits_of_best: independent starts that ended at the best optimum.
        n_optima: distinct optima.
        chance_of_better: an estimate of the probability that one more independent start ends at a better optimum, of
            the strategy for which it is largest; 1 while there is too little to estimate it from.
        is_about_kept: whether the best optimum of these is the kept one; if not, that has a tight expert, and hardly
            any start ended there.
        complete: whether the evidence is in: the kept optimum was hit often enough, that chance is small, and no
            expert is tight on few rows.
    """

    n_starts: int
    n_independent: int
    hits_of_best: int
    n_optima: int
    chance_of_better: float
    is_about_kept: bool
    complete: bool


@dataclass(frozen=True)
class Optimum:
    """One distinct end point, in canonical order of the experts.

    Attributes:
        log_likelihood: there, NaN for least squares.
        objective: the sum that was maximised, with priors.
        n_starts: how many starts ended there.
        model: the mixture at that point, in the user's units.
        scale: σ (k,) in the units of y, empty for a family without a scale.
        effective_rows: Σ_rows w · responsibility (k,).
        on_floor: experts on the variance floor.
        tight: experts with a spread below 5 % of the one-expert one, or with fewer than p + 2 effective rows.
    """

    log_likelihood: float
    objective: float
    n_starts: int
    model: MixtureOfExperts
    scale: np.ndarray
    effective_rows: np.ndarray
    on_floor: tuple[int, ...]
    tight: tuple[int, ...]


@dataclass(frozen=True)
class FitResult:
    """A fitted mixture and the evidence on how good the fit is.

    Attributes:
        status: how the fit ended.
        findings: everything noticed, the status's own finding first.
        model: the fitted mixture in the user's units, experts in canonical order (mean responsibility, largest
            first), the last expert being the gate's reference.
        kind: "likelihood" or "least_squares".
        log_likelihood: of exactly these parameters, of y given x, or of (x, y) with a joint gate; NaN for
            least squares.
        objective: the log-likelihood plus the log priors, equal to it without priors; −½ Σ w e² for least squares.
        entropy: −Σ w Σᵢ rᵢ log rᵢ of the responsibilities, for ICL.
        n_parameters: identified parameters: free ones less the directions that the declared symmetries explain.
        n_rows: rows with a positive weight.
        total_weight: Σ w, the n of BIC.
        relative_gradient: largest projected gradient component of the mean objective, in internal units; at a kink that
            of the shortest convex combination of the gradients around it.
        smallest_eigenvalue: of the information matrix per unit of weight, in internal units.
        information: the observed information (negative Hessian of the objective) in internal units, experts in
            canonical order.
        residual_variance: s² = Σ w e² / (Σ w − parameters) for least squares, by which the inverse of the Gauss–Newton
            matrix becomes a covariance; None for likelihoods.
        n_gate_parameters: how many entries of θ are the gate's; they come first.
        score_gram: Σ w s sᵀ of the rows' scores s in internal units, for sandwich covariances, or None.
        null_space: the directions without information.
        coordinates: what θ means in the user's units.
        theta: the estimate in internal units.
        scale: σ (k,) in the units of y, empty for a family without a scale.
        effective_rows: (k,).
        on_floor: experts on the variance floor.
        tight: tight experts.
        gate_ridge: λ of the ridge on the gate, 0 without.
        expert_ridge: λ of the ridge on the experts, 0 without.
        variance_prior: (a, b) of the inverse-gamma prior, or None.
        separated: entries of θ that belong to a gate or to experts that separate.
        separation: how the gate's quantities move, in user units, along the ray on which the likelihood does not fall,
            or None.
        baseline: the one-expert fit.
        starts: one record per start.
        optima: the distinct end points, best first, after them those on the variance floor.
        search: how far the search went, and what it cannot have seen.
        rivals: other optima whose log-likelihood is at most 2 below that of the kept one, the best first, at most five:
            what the fit would be there, experts in the order in which they share rows with the kept ones; only the
            starts that ended there, no optima, and no rivals in turn. A fit with `init=rival.model` and `n_starts=1`
            keeps it.
        trace: the mean objective of the kept start, iteration by iteration.
        seed: the seed everything random was keyed by.
        seconds: wall time of the whole fit.
        boundary: for a gate that selects experts, how far each coefficient can move until a row changes its own; None
            for other gates.
    """

    status: FitStatus
    findings: tuple[Finding, ...]
    model: MixtureOfExperts
    kind: str
    log_likelihood: float
    objective: float
    entropy: float
    n_parameters: int
    n_rows: int
    total_weight: float
    relative_gradient: float
    smallest_eigenvalue: float
    information: np.ndarray
    residual_variance: float | None
    n_gate_parameters: int
    score_gram: np.ndarray | None
    null_space: NullSpace
    coordinates: Coordinates
    theta: np.ndarray
    scale: np.ndarray
    effective_rows: np.ndarray
    on_floor: tuple[int, ...]
    tight: tuple[int, ...]
    gate_ridge: float
    expert_ridge: float
    variance_prior: tuple[float, float] | None
    separated: np.ndarray
    separation: np.ndarray | None
    baseline: Baseline
    starts: tuple[StartRecord, ...]
    optima: tuple[Optimum, ...]
    search: Search
    rivals: tuple["FitResult", ...]
    trace: np.ndarray
    seed: int
    seconds: float
    boundary: tuple[BoundaryInterval, ...] | None = None
