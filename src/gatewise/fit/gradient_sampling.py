"""Ascent of objectives with kinks: gradient sampling, and Newton's method along the kinks.

At the maximum of an objective that is smooth only piece by piece the gradient need not be small: it jumps there from
one piece to the next. What is small is the shortest vector in the convex hull of the gradients of all pieces that meet
(Clarke 1983). Gradient sampling (Burke, Lewis and Overton 2005) takes gradients at random points within a radius,
climbs along the shortest vector of their hull, and shrinks the radius where that vector is small or leads no higher.
Two things are added here:

- A direction that does not lead higher gives a further gradient, which cuts its part of the hull off (as in bundle
  methods), so that the pieces that meet are found where random points miss them.
- The sampled pieces with a positive weight in the shortest vector span the directions across the kink. Across it a
  step to where these pieces are equal is a linear system, along it one of Newton's method; together they converge
  quadratically where the radius sees the right pieces (Mifflin and Sagastizábal 2005).

Lengths are measured by the information, in which a radius means the same in all directions.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from gatewise.fit.bounds import Ascendable
from gatewise.fit.monitor import Monitor
from gatewise.fit.newton import bounded_step
from gatewise.fit.quasi_newton import ascend
from gatewise.fit.status import FitStatus

__all__ = ["Kinked", "gradient_sampling", "has_kink", "shortest_in_hull"]

_FIRST_RADIUS = 1e-2
_LAST_RADIUS = 1e-8
_SHRINK = 0.1
# Steps along a kink are tried from here on; a larger radius sees pieces that have nothing to do with each other.
_NEWTON_RADIUS = 1e-3
_MORE_SAMPLES = 10
# An ascent counts if it is at least this share of what the shortest vector promises.
_SUFFICIENT = 0.1
# Directions of the metric with less information than this share of the mean get that much.
_METRIC_FLOOR = 1e-6
_JUMP = 1e-5
_ROUNDING = 8.0 * float(np.finfo(float).eps)
_FLAT_MOVES = 5
# After so many sampled steps in a row a quasi-Newton method tries again, with so many steps.
_PATIENCE = 5
_QUASI_NEWTON_STEPS = 200
# A step across a kink that is longer than so many radii equals pieces that were not seen there.
_ACROSS = 5.0
# No more pieces than this are asked for Hessians of their own.
_MOST_HESSIANS = 12


class Kinked(Ascendable, Protocol):
    """What gradient sampling climbs: a function with gradients and Hessians almost everywhere."""

    def exact_hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of the piece on which θ lies."""
        ...

    def bend(self, theta: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """The Hessian, curved downward along directions in which nothing changes."""
        ...

    def information_at_kink(self, theta: np.ndarray) -> np.ndarray:
        """A positive semi-definite information per unit of weight that needs no second derivatives."""
        ...


@dataclass(frozen=True)
class _Probe:
    """A point with its value and gradient, the latter by the coordinates in which lengths are measured."""

    theta: np.ndarray
    value: float
    gradient: np.ndarray


@dataclass(frozen=True)
class _Hull:
    """Probes around a point, the weights of the shortest vector in the hull of their gradients, and what it leads to.

    `shortest` is in internal units, without what pushes against the bounds.
    """

    probes: list[_Probe]
    weights: np.ndarray
    shortest: np.ndarray
    better: _Probe | None


def gradient_sampling(
    objective: Kinked, theta: np.ndarray, monitor: Monitor, tol: float, generator: np.random.Generator
) -> tuple[np.ndarray, FitStatus, float]:
    """Climb from θ until gradients within the smallest radius have a convex combination below `tol`.

    Args:
        objective: what is climbed.
        theta: where it begins.
        monitor: is told of every iterate.
        tol: bound on the largest component of that combination.
        generator: draws the points at which gradients are taken.

    Returns:
        The last θ; CONVERGED, or STALLED where no step leads higher although the combination is larger; and the largest
        component of the combination. The monitor ends it earlier by raising.
    """
    search = _Search(objective, theta, generator, monitor)
    here = search.probe(theta)
    monitor.begin(theta, here.value)
    radius, flat_moves, sampled = _FIRST_RADIUS, 0, 0
    while True:
        hull = search.hull(here, radius, tol)
        slope = float(np.abs(hull.shortest).max(initial=0.0))
        rounding = _ROUNDING * max(1.0, abs(here.value))
        better, by_newton = hull.better, False
        if radius <= _NEWTON_RADIUS:
            level = here.value if better is None else better.value
            along = search.along_kink(here, hull, radius)
            if along is None or along.value <= level:
                along = search.along_kink(here, hull, radius, curved=True) or along
            if along is not None and along.value > level:
                better, by_newton = along, True
            elif along is not None and better is None and flat_moves < _FLAT_MOVES:
                # Within rounding values cannot rank two points any more; the hull of the next one tells.
                by_newton = along.value >= here.value - rounding and slope > tol and radius <= _LAST_RADIUS
                flat_moves += by_newton
                better = along if by_newton else None
        highest = max(hull.probes, key=lambda probe: probe.value)
        if better is None and highest.value > here.value + rounding:
            better = highest
        done = radius <= _LAST_RADIUS and (better is None or better.value <= here.value + rounding)
        if better is not None and (not done or slope > tol):
            length = search.distance(here, better)
            here = better
            sampled = 0 if by_newton else sampled + 1
            if by_newton:
                radius = max(_LAST_RADIUS, min(radius, _SHRINK * length))
            elif sampled == _PATIENCE:
                here, sampled = search.quasi_newton(here), 0
                search = _Search(objective, here.theta, generator, monitor)
                here = search.probe(here.theta)
        elif done:
            return here.theta, FitStatus.CONVERGED if slope <= tol else FitStatus.STALLED, slope
        else:
            radius = max(_LAST_RADIUS, _SHRINK * radius)
        monitor.iterate(here.theta, here.value)


def has_kink(objective: Kinked, theta: np.ndarray, generator: np.random.Generator) -> bool:
    """Whether the gradient jumps at a point: whether near it some gradient differs from ∇f + ∇²f·step by half of ∇f.

    Where the hull of the gradients around a point contains 0, one of them differs from the point's own by all of it.
    Near means what it means at the end of gradient sampling: the last radius, measured by the information.
    """
    gradient = objective.value_and_gradient(theta)[1]
    hessian = objective.exact_hessian(theta)
    factor = _metric(objective, theta)
    largest = float(np.abs(gradient).max(initial=0.0))
    for _ in range(len(theta) + _MORE_SAMPLES):
        step = generator.normal(size=len(theta))
        step = solve_triangular(factor.T, _LAST_RADIUS * step / np.linalg.norm(step))
        near = objective.bounds.clip(theta + step)
        expected = gradient + hessian @ (near - theta)
        if float(np.abs(objective.value_and_gradient(near)[1] - expected).max()) > 0.5 * largest:
            return True
    return False


def shortest_in_hull(vectors: np.ndarray, cone: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The shortest vector in the convex hull of the columns of a matrix (p, m), plus a cone, and its weights.

    Non-negative least squares of (0, 1) on the columns (g, 1), and (c, 0) for the generators c of the cone, has that
    vector's weights up to a factor: for every sum s of the weights the best ones are s times those of the shortest.

    Args:
        vectors: the columns (p, m).
        cone: generators (p, c) of the cone, or None.

    Returns:
        The weights (m,), which add up to 1, and the multipliers of the cone (c,).

    Example:
        >>> shortest_in_hull(np.array([[1.0, -3.0], [1.0, 1.0]]))[0]
        array([0.75, 0.25])
    """
    count = vectors.shape[1]
    cone = np.empty((len(vectors), 0)) if cone is None else cone
    size = float(np.abs(vectors).max(initial=0.0))
    if size == 0.0:
        return np.eye(count)[0], np.zeros(cone.shape[1])
    # The columns in units of the largest entry keep the two parts of the problem of one size.
    lengths = np.maximum(np.linalg.norm(cone, axis=0), 1e-300)
    columns = np.block([[vectors / size, cone / lengths], [np.ones((1, count)), np.zeros((1, cone.shape[1]))]])
    target = np.zeros(len(columns))
    target[-1] = 1.0
    found, _ = nnls(columns, target, maxiter=50 * columns.shape[1])
    total = found[:count].sum()
    return found[:count] / total, found[count:] / total * size / lengths


def _metric(objective: Kinked, theta: np.ndarray) -> np.ndarray:
    """L with L Lᵀ the information at θ, floored: a step s has the length ‖Lᵀs‖."""
    information = objective.information_at_kink(theta)
    floor = _METRIC_FLOOR * max(float(np.trace(information)) / len(theta), 1e-300)
    return np.linalg.cholesky(information + floor * np.eye(len(theta)))


class _Search:
    """The objective in the metric of its information, and the two ways of leading higher."""

    def __init__(self, objective: Kinked, theta: np.ndarray, generator: np.random.Generator, monitor: Monitor) -> None:
        self.objective = objective
        self.generator = generator
        self.check = monitor.check
        self.factor = _metric(objective, theta)
        self.reach = 1.0

    def _scaled(self, gradient: np.ndarray) -> np.ndarray:
        """L⁻¹g: a gradient by θ, or a matrix of them as columns, by u = Lᵀθ."""
        return solve_triangular(self.factor, gradient, lower=True)

    def _moved(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        """θ + L⁻ᵀu, held at the bounds."""
        return self.objective.bounds.clip(theta + solve_triangular(self.factor.T, step))

    def distance(self, one: _Probe, other: _Probe) -> float:
        """‖Lᵀ(θ − θ')‖."""
        return float(np.linalg.norm(self.factor.T @ (one.theta - other.theta)))

    def probe(self, theta: np.ndarray) -> _Probe:
        """Value and gradient at a point."""
        self.check()
        value, gradient = self.objective.value_and_gradient(theta)
        if not np.isfinite(gradient).all():
            return _Probe(theta, -np.inf, np.zeros_like(gradient))
        return _Probe(theta, value, self._scaled(gradient))

    def quasi_newton(self, here: _Probe) -> _Probe:
        """Where L-BFGS-B stalls, which it does at kinks only, or the point itself if that is no higher."""

        def watched(theta: np.ndarray) -> tuple[float, np.ndarray]:
            self.check()
            return self.objective.value_and_gradient(theta)

        probe = self.probe(ascend(watched, here.theta, self.objective.bounds, _QUASI_NEWTON_STEPS))
        return probe if probe.value > here.value else here

    def hull(self, here: _Probe, radius: float, tol: float) -> _Hull:
        """Gradients around a point until their shortest vector is below `tol` or leads higher."""
        size = len(here.theta)
        probes = [here]
        for _ in range(size + _MORE_SAMPLES):
            direction = self.generator.normal(size=size)
            direction *= radius * self.generator.uniform() ** (1.0 / size) / np.linalg.norm(direction)
            probe = self.probe(self._moved(here.theta, direction))
            if np.isfinite(probe.value):
                probes.append(probe)
        cone = self._scaled(self.objective.bounds.inward(here.theta))
        enough = len(probes) + 3 * size + 20
        while True:
            gradients = np.column_stack([probe.gradient for probe in probes])
            weights, push = shortest_in_hull(gradients, cone)
            scaled = gradients @ weights + cone @ push
            shortest = self.factor @ scaled
            if np.abs(shortest).max(initial=0.0) <= tol or len(probes) >= enough:
                return _Hull(probes, weights, shortest, None)
            better, further = self._climb(here, scaled, radius)
            if better is not None or further is None:
                return _Hull(probes, weights, shortest, better)
            probes.append(further)

    def _climb(self, here: _Probe, vector: np.ndarray, radius: float) -> tuple[_Probe | None, _Probe | None]:
        """A point that is higher by a share of what the vector promises, or a gradient that its hull misses.

        The gradient is one within the radius. Neither, where rounding leaves no such gradient to be found.
        """
        promise = float(np.linalg.norm(vector))
        direction = vector / promise

        def at(length: float) -> _Probe:
            return self.probe(self._moved(here.theta, length * direction))

        def suffices(probe: _Probe, length: float) -> bool:
            return bool(probe.value - here.value >= _SUFFICIENT * length * promise)

        length, probe = radius, at(radius)
        if suffices(probe, length):
            while True:
                further = at(2.0 * length)
                if not suffices(further, 2.0 * length) or further.value <= probe.value:
                    return probe, None
                length, probe = 2.0 * length, further
        low, high = 0.0, radius
        for _ in range(30):
            if np.isfinite(probe.value) and float(probe.gradient @ direction) < 0.5 * promise:
                return None, probe
            # On average the slope along [low, high] is less than what suffices, so that some gradient there is too.
            middle = float(self.generator.uniform(low, high))
            probe = at(middle)
            low, high = (middle, high) if suffices(probe, middle) else (low, middle)
        return None, None

    def along_kink(self, here: _Probe, hull: _Hull, radius: float, curved: bool = False) -> _Probe | None:
        """Where the pieces of the hull's shortest vector are equal, and the maximum of their model along that.

        The models are quadratic: with the Hessian of the piece on which `here` lies for all, or, along a kink that is
        curved, with each piece's own. Then the step is bent so that the models stay equal.
        """
        kept = np.flatnonzero(hull.weights > 1e-12)
        probes, weights = [hull.probes[index] for index in kept], hull.weights[kept]
        if curved and not 1 < len(probes) <= _MOST_HESSIANS:
            return None
        exact = [self.objective.exact_hessian(probe.theta) for probe in (probes if curved else [here])]
        if not np.isfinite(exact).all():
            return None
        mean_hessian = np.tensordot(weights, exact, axes=1) if curved else exact[0]
        hessians = [self._scaled(self._scaled(hessian).T) for hessian in exact] * (1 if curved else len(probes))
        model = self._scaled(self._scaled(self.objective.bend(here.theta, mean_hessian)).T)
        away = [self.factor.T @ (here.theta - probe.theta) for probe in probes]
        pieces = list(zip(probes, away, hessians, strict=True))
        gradients = np.stack([probe.gradient + hessian @ step for probe, step, hessian in pieces])
        values = np.array(
            [
                probe.value - here.value + probe.gradient @ step + 0.5 * step @ hessian @ step
                for probe, step, hessian in pieces
            ]
        )
        mean_gradient = weights @ gradients
        held = self._scaled(self.objective.bounds.inward(here.theta)).T
        held = held / np.maximum(np.linalg.norm(held, axis=1, keepdims=True), 1e-300)
        across = gradients - mean_gradient
        jumps = float(np.linalg.norm(across, 2)) if len(across) > 1 else 0.0
        rows = np.vstack([across, max(jumps, 1.0) * held])
        left, sizes, right = np.linalg.svd(rows, full_matrices=True)
        rank = int((sizes > max(_JUMP * jumps, 0.1 * radius)).sum())

        def equalising(levels: np.ndarray) -> np.ndarray:
            missing = np.concatenate([weights @ levels - levels, np.zeros(len(held))])
            return right[:rank].T @ (left[:, :rank].T @ missing / sizes[:rank])

        step = equalising(values)
        if float(np.linalg.norm(step)) > _ACROSS * radius:
            return None
        smooth = right[rank:].T
        curvature, vectors = np.linalg.eigh(-smooth.T @ model @ smooth)
        slope = vectors.T @ (smooth.T @ (mean_gradient + model @ step))
        inner = bounded_step(curvature, slope, self.reach)
        total = step + smooth @ (vectors @ inner)
        if curved:
            total = total + equalising(np.array([0.5 * total @ hessian @ total for hessian in hessians]))
        probe = self.probe(self._moved(here.theta, total))
        length = float(np.linalg.norm(inner))
        if probe.value > here.value:
            self.reach = max(self.reach, 2.0 * length)
        elif length > 0.0:
            self.reach = max(0.25 * length, 1e-10)
        return probe if np.isfinite(probe.value) else None
