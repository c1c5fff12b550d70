"""Trust-region Newton ascent with the exact Hessian and bounds on some coordinates.

Maximises f by steps s that maximise gᵀs + ½ sᵀHs within ‖s‖ ≤ Δ (Moré and Sorensen 1983; Conn, Gould and Toint,
*Trust-Region Methods*, 2000, algorithm 7.3.4), solved exactly through the eigenvalues of H: directions of negative
*and* of positive curvature are both used, so saddles are left behind. A coordinate on its bound whose gradient
points outward is held there; a step that crosses a bound is cut back to it.
"""

import math
from collections.abc import Callable

import numpy as np

from gatewise.fit.bounds import Ascendable
from gatewise.fit.monitor import Monitor
from gatewise.fit.status import FitStatus

__all__ = ["bounded_step", "newton"]

_SMALLEST_RADIUS = 1e-12
# A step that promises no more than this share of the objective is the last one. At a regular maximum its quadratic
# convergence leaves rounding error only; along a separating ray it ends a climb that would never end.
_LAST_STEP = 1e-11
# Iterations after the gradient has met its tolerance. Quadratic convergence needs two or three of them.
_POLISHING = 25
# A gradient below this share of the objective is rounding. Above it the Hessian still curves along directions in which
# nothing changes, by as much as the gradient, and they do not look flat.
_SHARP = 1e-12
# A step that cuts the gradient by this factor is one of quadratic convergence, not of a climb that would never end.
_QUADRATIC = 0.1
_ROUNDING = 4.0 * float(np.finfo(float).eps)


def newton(objective: Ascendable, theta: np.ndarray, monitor: Monitor, tol: float) -> tuple[np.ndarray, FitStatus]:
    """Climb from θ until the projected gradient is below `tol`, and as long as steps still sharpen it quickly.

    Where steps go on promising more, as along a separating ray, the climb ends some iterations after `tol` is met.

    Returns:
        The last θ, and CONVERGED or STALLED. The monitor ends it earlier by raising.
    """
    value, gradient = objective.value_and_gradient(theta)
    monitor.begin(theta, value)
    radius = 1.0
    polishing = 0
    hessian, free, curvature, vectors = _local_model(objective, theta, gradient)
    while True:
        slope = float(np.abs(gradient[free]).max(initial=0.0))
        step = np.zeros_like(theta)
        step[free] = vectors @ bounded_step(curvature, vectors.T @ gradient[free], radius)
        candidate = objective.bounds.clip(theta + step)
        step = candidate - theta
        promised = float(gradient @ step + 0.5 * step @ hessian @ step)
        rounding = _ROUNDING * max(1.0, abs(value))
        polishing += slope <= tol
        sharp = _SHARP * max(1.0, abs(value))
        if slope <= tol and (polishing > _POLISHING or (promised <= rounding and slope <= sharp)):
            return theta, FitStatus.CONVERGED
        new_value, new_gradient = objective.value_and_gradient(candidate)
        gained = new_value - value
        # Within rounding of a maximum the values cannot rank two points any more; the gradients still can.
        flat = abs(promised) <= 1e3 * rounding and abs(gained) <= 1e3 * rounding
        new_slope = float(np.abs(objective.bounds.projected(candidate, new_gradient)).max(initial=0.0))
        accepted = np.isfinite(new_value) and (new_slope < slope if flat else gained > 1e-4 * promised > 0.0)
        length = float(np.linalg.norm(step))
        sharpens = accepted and sharp < new_slope < _QUADRATIC * slope
        if slope <= tol and promised <= _LAST_STEP * max(1.0, abs(value)) and accepted and not (flat or sharpens):
            monitor.iterate(candidate, new_value)
            return candidate, FitStatus.CONVERGED
        if accepted:
            good = flat or gained > 0.75 * promised
            radius = max(radius, 2.0 * length) if good else (radius if gained > 0.25 * promised else 0.5 * length)
            theta, value, gradient = candidate, new_value, new_gradient
            hessian, free, curvature, vectors = _local_model(objective, theta, gradient)
        else:
            radius = 0.25 * length
        monitor.iterate(theta, value)
        if not accepted and (radius < _SMALLEST_RADIUS or (flat and slope <= sharp)):
            return theta, FitStatus.CONVERGED if slope <= tol else FitStatus.STALLED


def _local_model(
    objective: Ascendable, theta: np.ndarray, gradient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The Hessian, which coordinates are free, and eigenvalues and eigenvectors of its negative over those."""
    hessian = objective.hessian(theta)
    free = objective.bounds.projected(theta, gradient) == gradient
    curvature, vectors = np.linalg.eigh(-hessian[np.ix_(free, free)])
    return hessian, free, curvature, vectors


def bounded_step(curvature: np.ndarray, gradient: np.ndarray, radius: float) -> np.ndarray:
    """Argmax of gᵀs − ½ Σ cᵢ sᵢ² within ‖s‖ ≤ radius, in the eigenvector basis of the negative Hessian.

    s = g / (c + μ) with the smallest μ ≥ 0 that makes c + μ ≥ 0 and ‖s‖ ≤ radius, found by bisection on μ. In the
    hard case (g orthogonal to the lowest eigenvector) a component along that eigenvector fills the radius.
    """
    if not curvature.size:
        return gradient
    largest = max(abs(curvature[0]), abs(curvature[-1]), 1e-300)
    lowest = float(curvature[0])

    def step(shift: float) -> np.ndarray:
        denominator = curvature + shift
        if denominator[0] > 1e-14 * largest:
            return gradient / denominator
        # A direction without curvature and without slope is left alone.
        idle = (denominator <= 1e-14 * largest) & (np.abs(gradient) <= 1e-16 * largest)
        return np.where(idle, 0.0, gradient / np.where(denominator <= 1e-14 * largest, 1e-14 * largest, denominator))

    if lowest >= -1e-14 * largest:
        plain = step(0.0)
        if np.linalg.norm(plain) <= radius:
            return plain
    floor = max(0.0, -lowest)
    high = floor + float(np.linalg.norm(gradient)) / radius + 1e-14 * largest

    def excess(shift: float) -> float:
        answer = step(shift)
        return math.sqrt(answer @ answer) - radius

    shift = _bisect(excess, floor, high)
    answer = step(shift)
    missing = radius**2 - float(answer @ answer)
    if lowest < 0.0 and missing > 0.1 * radius**2:
        answer[0] += np.sqrt(missing) * (1.0 if gradient[0] >= 0.0 else -1.0)
    return answer


def _bisect(excess: Callable[[float], float], low: float, high: float) -> float:
    """The point where a decreasing function changes sign, from the non-positive side, to a few digits."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        if excess(middle) > 0.0:
            low = middle
        else:
            high = middle
        if high - low <= 1e-6 * high:
            break
    return high
