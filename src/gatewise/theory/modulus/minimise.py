"""Least squares in curved, graded valleys: residuals in 80-bit floats, derivatives in doubles, a box.

Near a mixture with more atoms than are needed the residual vanishes at different orders in different directions, and
its minimisers lie in valleys that are narrow in some orders and bent in others. A monotone Levenberg–Marquardt method
crawls along such a valley and stops too early, with a clean but wrong exponent. Three things help: steps are bent by
the second derivative along them (geodesic acceleration, Transtrum and Sethna 2012, arXiv:1201.5885), steps are measured
relative to the present coordinates, and bursts of nearly undamped Gauss–Newton steps may rise before they fall.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gatewise.theory.modulus.special import LONG

__all__ = ["Box", "Minimum", "Objective", "minimise"]


class Objective(Protocol):
    """A sum of squares, by its residuals.

    Attributes:
        size: the number of coordinates.
        floor: the norm that rounding leaves of a residual that is zero.
    """

    size: int
    floor: float

    def residual(self, point: np.ndarray) -> np.ndarray:
        """The residuals (m,) in 80-bit floats at a point (size,) of them."""
        ...

    def jacobian(self, point: np.ndarray) -> np.ndarray:
        """Their derivatives (m, size) in doubles."""
        ...


@dataclass(frozen=True)
class Box:
    """Bounds on the coordinates; where both are equal the coordinate is held."""

    low: np.ndarray
    high: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """Indices of the coordinates that may move."""
        return np.flatnonzero(self.high > self.low)

    def clip(self, point: np.ndarray) -> np.ndarray:
        """The nearest point of the box."""
        return np.clip(point, self.low, self.high)


@dataclass(frozen=True)
class Minimum:
    """The norm of the residuals at the best point found."""

    value: float
    point: np.ndarray


@dataclass
class _State:
    point: np.ndarray
    residual: np.ndarray
    square: Any


_SMALLEST_SCALE = 1e-3
_FIRST_DAMPING = 1e-4
_LEAST_DAMPING = 1e-26
_BURST_DAMPINGS = (1e-26, 1e-22, 1e-18, 1e-14)
_BURST_STEPS = 8
_STALLS = 4
_NOTHING_LEFT = 1e-9
_RESOLVED = 1e-14


def minimise(
    objective: Objective, start: np.ndarray, box: Box, *, steps: int, tolerance: float = 1e-9, polish: int = 0
) -> Minimum:
    """The least ‖r‖ in the box that is found from a start.

    Args:
        objective: residuals and derivatives.
        start: where to begin, clipped into the box.
        box: bounds.
        steps: the most Levenberg–Marquardt steps.
        tolerance: a step that lowers ‖r‖² relatively by less counts as a stall; four in a row end a run.
        polish: how often bursts and further steps may alternate, as long as they help.

    Example:
        >>> class Valley:
        ...     size, floor = 2, 1e-19
        ...     def residual(self, t):
        ...         return np.array([t[1] - t[0] ** 2, t[0] * t[1]])
        ...     def jacobian(self, t):
        ...         x, y = t.astype(float)
        ...         return np.array([[-2 * x, 1.0], [y, x]])
        >>> box = Box(np.array([0.1, -1.0]), np.array([0.1, 1.0]))
        >>> round(minimise(Valley(), np.zeros(2), box, steps=50).value, 9)
        0.000995037
    """
    state = _state(objective, box.clip(start.astype(LONG)))
    state, settled = _levenberg_marquardt(objective, state, box, steps, tolerance)
    for _ in range(polish):
        if settled:
            break
        before = state.square
        state = _bursts(objective, state, box)
        state, settled = _levenberg_marquardt(objective, state, box, max(steps // 3, 10), tolerance)
        if not state.square < before * (1 - 1e-4):
            break
    return Minimum(float(np.sqrt(state.square)), state.point)


def _state(objective: Objective, point: np.ndarray) -> _State:
    with np.errstate(all="ignore"):
        residual = objective.residual(point)
        square = residual @ residual
    # Outside its domain, as a weight above 1, a mixture is no candidate: NaN would win or lose comparisons by chance.
    return _State(point, residual, square if np.isfinite(square) else LONG(np.inf))


def _at_floor(objective: Objective, state: _State) -> bool:
    return bool(state.square <= objective.floor**2)


def _scales(state: _State, box: Box, index: np.ndarray) -> np.ndarray:
    """Steps are relative to a coordinate's size, but not finer than a share of its room."""
    room = 0.5 * (box.high[index] - box.low[index]).astype(float)
    return np.maximum(np.abs(state.point[index]).astype(float), _SMALLEST_SCALE * room)


class _Linearised:
    """The Gauss–Newton model at a point on the coordinates that may move, in relative units."""

    def __init__(self, index: np.ndarray, scale: np.ndarray, norm: np.longdouble, jacobian: np.ndarray) -> None:
        self.index, self.scale, self.norm, self.jacobian = index, scale, norm, jacobian
        self.orthogonal, self.triangle = np.linalg.qr(jacobian)
        self._long = self.orthogonal.T.astype(LONG)
        self.everything = np.ones(len(index), bool)
        self._factors: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def project(self, residual: np.ndarray) -> np.ndarray:
        """The part of a residual that the model reaches, in units of the present norm."""
        return (self._long @ (residual / self.norm)).astype(float)

    def _factored(self, movable: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        key = movable.tobytes()
        if key not in self._factors:
            self._factors[key] = np.linalg.svd(self.triangle[:, movable], full_matrices=False)
        return self._factors[key]

    def promise(self, projected: np.ndarray) -> float:
        """The share of ‖r‖² that the model can take away."""
        left, values, _ = self._factored(self.everything)
        kept = values > _RESOLVED * values[0]
        part = left[:, kept].T @ projected
        return float(part @ part)

    def solve(self, projected: np.ndarray, damping: float, movable: np.ndarray) -> np.ndarray:
        """The damped least-squares solution of R z = −projected with z = 0 outside `movable`."""
        left, values, right = self._factored(movable)
        step = np.zeros(len(self.index))
        if values.size and values[0] > 0:
            # Relative to the largest value at the point, so that the damping has no units.
            gain = values / (values**2 + damping * values[0] ** 2)
            step[movable] = -(right.T @ (gain * (left.T @ projected)))
        return step


def _linearise(objective: Objective, state: _State, box: Box) -> _Linearised | None:
    """The model without the coordinates that a bound holds, or None if there is no finite one."""
    index = box.free
    with np.errstate(all="ignore"):
        jacobian = objective.jacobian(state.point)[:, index]
    norm = np.sqrt(state.square)
    if not np.isfinite(jacobian).all() or norm == 0:
        return None
    gradient = (jacobian.T.astype(LONG) @ (state.residual / norm)).astype(float)
    point = state.point[index]
    held = ((point <= box.low[index]) & (gradient > 0)) | ((point >= box.high[index]) & (gradient < 0))
    if held.all():
        return None
    index = index[~held]
    scale = _scales(state, box, index)
    jacobian = jacobian[:, ~held] * scale
    return _Linearised(index, scale, norm, jacobian) if jacobian.any() else None


def _bounded_step(
    state: _State, box: Box, model: _Linearised, projected: np.ndarray, damping: float
) -> tuple[np.ndarray, np.ndarray]:
    """A step that ends in the box, and which coordinates it did not bring to a bound.

    Coordinates that would leave are set to their bound, and the others are solved for again: cutting a step off instead
    would break the cancellation between coordinates in which the small orders consist.
    """
    unit = model.scale * float(model.norm)
    point = state.point[model.index]
    low = ((box.low[model.index] - point).astype(float)) / unit
    high = ((box.high[model.index] - point).astype(float)) / unit
    movable, fixed = model.everything.copy(), np.zeros(len(unit))
    step = model.solve(projected, damping, movable)
    for _ in range(len(unit)):
        out = movable & ((step < low) | (step > high))
        if not out.any():
            break
        fixed[out] = np.where(step[out] < low[out], low[out], high[out])
        movable &= ~out
        step = fixed + model.solve(projected + model.triangle @ fixed, damping, movable)
    return step, movable


def _moved(state: _State, box: Box, model: _Linearised, step: np.ndarray) -> np.ndarray:
    point = state.point.copy()
    point[model.index] += (model.scale * step).astype(LONG) * model.norm
    return box.clip(point)


def _bend(
    objective: Objective, state: _State, model: _Linearised, step: np.ndarray, damping: float, movable: np.ndarray
) -> np.ndarray:
    """Half the second-order correction of a step, from a difference of residuals along it."""
    share = LONG(0.1)
    point = state.point.copy()
    point[model.index] += share * (model.scale * step).astype(LONG) * model.norm
    with np.errstate(all="ignore"):
        ahead = objective.residual(point)
    linear = (model.jacobian @ step).astype(LONG) * model.norm
    second = 2 / share * ((ahead - state.residual) / share - linear)
    if not np.isfinite(second).all():
        return np.zeros_like(step)
    return 0.5 * model.solve(model.project(second), damping, movable)


def _levenberg_marquardt(
    objective: Objective, state: _State, box: Box, steps: int, tolerance: float
) -> tuple[_State, bool]:
    """The best state, and whether it is known that no step leads on from it."""
    damping, stalls = _FIRST_DAMPING, 0
    for _ in range(steps):
        if _at_floor(objective, state) or not np.isfinite(state.square):
            return state, True
        model = _linearise(objective, state, box)
        if model is None:
            return state, True
        found, projected = None, model.project(state.residual)
        if model.promise(projected) < _NOTHING_LEFT:
            return state, True
        for _ in range(12):
            step, movable = _bounded_step(state, box, model, projected, damping)
            bend = _bend(objective, state, model, step, damping, movable)
            if np.linalg.norm(bend) <= 0.75 * np.linalg.norm(step):
                found = _better(objective, state, box, model, step + bend)
            found = found or _better(objective, state, box, model, step)
            if found is not None:
                break
            damping = max(damping * 16, 1e-24)
        if found is None:
            break
        stalls = stalls + 1 if state.square - found.square < tolerance * state.square else 0
        state, damping = found, max(damping / 16, _LEAST_DAMPING)
        if stalls >= _STALLS:
            break
    return state, False


def _better(objective: Objective, state: _State, box: Box, model: _Linearised, step: np.ndarray) -> _State | None:
    trial = _state(objective, _moved(state, box, model, step))
    return trial if trial.square < state.square else None


def _bursts(objective: Objective, state: _State, box: Box) -> _State:
    """A few nearly undamped steps for each of several dampings; the best point on the way is kept."""
    best = state
    for damping in _BURST_DAMPINGS:
        present = best
        for _ in range(_BURST_STEPS):
            model = _linearise(objective, present, box)
            if model is None:
                break
            step, _ = _bounded_step(present, box, model, model.project(present.residual), damping)
            # Longer steps than this share of a coordinate leave the region that the derivatives describe.
            longest = float(np.abs(step).max() * model.norm)
            step *= min(1.0, 0.3 / max(longest, 1e-300))
            present = _state(objective, _moved(present, box, model, step))
            if not np.isfinite(present.square):
                break
            if present.square < best.square:
                best = present
    return best
