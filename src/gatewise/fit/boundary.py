"""How far each coefficient of a top-K gate can move, all else equal, until a row changes its selected experts."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.fit.entry_names import named_entry
from gatewise.fit.result import BoundaryInterval
from gatewise.gates import Gate
from gatewise.parts.parameters import Parameters

__all__ = ["boundary_intervals"]

# Coefficients of scores that are not linear are moved from this share of their size to this many times it, or times the
# spread of the scores, if that is larger.
_NEAREST = 1e-9
_FARTHEST = 1e6
_BISECTIONS = 50


class _Selection(nn.Module):
    """Inputs ↦ selection."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate.selection(x)


@torch.no_grad()
def boundary_intervals(gate: Gate, x: Tensor, features: Sequence[str]) -> tuple[BoundaryInterval, ...]:
    """One interval for each coefficient that moves the selection, in the units of the gate.

    Scores that are linear in the parameters have contrasts against the last expert, as the parameter table has; with
    K = 1, where a positive factor of all of them changes nothing, they are brought to length 1 together. Their
    intervals are exact. Of other scores the parameters themselves are moved, and the ends found by bisection: what
    changes a selection and changes it back within less than the doubling of a step is not seen.

    Args:
        gate: the fitted gate.
        x: the rows' inputs, as the gate sees them (n, d).
        features: their names.

    Example:
        >>> from gatewise.gates import SoftmaxGate, TopKGate
        >>> gate = TopKGate(SoftmaxGate(1, 2), 1, "logit").double()
        >>> gate.inner.assign_parameters({"weight": torch.tensor([[0.8], [0.0]]), "bias": torch.tensor([-0.6, 0.0])})
        >>> x = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
        >>> [(i.term, round(i.lower, 6), round(i.upper, 6)) for i in boundary_intervals(gate, x, ["x"])]
        [('(intercept)', -0.8, -0.4), ('x', 0.6, 1.2)]
    """
    if gate.dense.basis(x) is not None:
        return _linear_intervals(gate, x, features)
    return _numerical_intervals(gate, x, features)


def _linear_intervals(gate: Gate, x: Tensor, features: Sequence[str]) -> tuple[BoundaryInterval, ...]:
    inner = gate.dense
    basis = cast(Tensor, inner.basis(x)).numpy()
    coefficients = inner.coefficients(inner.own_parameters()).numpy()
    quantities = inner.quantities(features)
    k, q = coefficients.shape
    columns = np.arange(0 if gate.selects_on == "logit" else 1, q)
    contrasts = (coefficients[:-1] - coefficients[-1])[:, columns]
    length = float(np.linalg.norm(contrasts)) if gate.own_top_k == 1 else 1.0
    if length == 0.0:
        return ()
    chosen = gate.selection(x).numpy()
    score = basis[:, columns] @ coefficients[:, columns].T
    last = np.where(chosen, score, np.inf).min(axis=1)
    next_one = np.where(chosen, -np.inf, score).max(axis=1)
    found = []
    for i in range(k - 1):
        # A selected expert may fall to the best one that is not, another may rise to the worst one that is.
        gap = np.where(chosen[:, i], next_one, last) - score[:, i]
        for place, column in enumerate(columns):
            below, above = _reach(gap, basis[:, column], chosen[:, i])
            estimate = float(contrasts[i, place]) / length
            quantity = quantities[i * q + column]
            found.append(
                BoundaryInterval(
                    quantity.component, quantity.term, estimate, estimate - below / length, estimate + above / length
                )
            )
    return tuple(found)


def _reach(gap: np.ndarray, slope: np.ndarray, selected: np.ndarray) -> tuple[float, float]:
    """How far a coefficient can fall and rise until score + t · slope has crossed its gap in some row."""
    moved = slope != 0.0
    distance = np.abs(gap[moved] / slope[moved])
    # Of a selected expert the score has to fall, of another to rise.
    upward = np.where(selected[moved], slope[moved] < 0.0, slope[moved] > 0.0)
    return float(distance[~upward].min(initial=np.inf)), float(distance[upward].min(initial=np.inf))


def _numerical_intervals(gate: Gate, x: Tensor, features: Sequence[str]) -> tuple[BoundaryInterval, ...]:
    parameters = gate.own_parameters()
    here = gate.selection(x)
    module = _Selection(gate)

    spread = float(np.ptp(gate.selection_score(x).numpy(), axis=-1).max(initial=0.0))

    def stays(moved: Parameters) -> bool:
        named = {f"gate.{name}": value for name, value in moved.items()}
        return bool(torch.equal(torch.func.functional_call(module, named, (x,)), here))

    found = []
    for name, value in parameters.items():
        for index in np.ndindex(*value.shape):
            interval = _interval(stays, parameters, name, index, spread)
            if not np.isfinite(interval).any():
                continue
            lower, upper = interval
            component, term = named_entry("gate", gate, name, tuple(value.shape), index, features)
            term = term.removeprefix("inner.")
            found.append(BoundaryInterval(component, term, float(value[index]), lower, upper))
    return tuple(found)


def _interval(
    stays: Callable[[Parameters], bool], parameters: Parameters, name: str, index: tuple[int, ...], spread: float
) -> tuple[float, float]:
    value = parameters[name]
    centre = float(value[index])
    # A bias that happens to be 0 has no size of its own.
    largest = float(value.abs().max())
    size = largest if largest > 0.0 else max(spread, 1e-12)
    farthest = _FARTHEST * max(size, spread)

    def at(place: float) -> bool:
        moved = value.clone()
        moved[index] = place
        return stays({**parameters, name: moved})

    ends = []
    for sign in (-1.0, 1.0):
        inside, step = centre, _NEAREST * size
        while step <= farthest and at(centre + sign * step):
            inside, step = centre + sign * step, 2.0 * step
        if step > farthest:
            ends.append(sign * np.inf)
            continue
        outside = centre + sign * step
        for _ in range(_BISECTIONS):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if at(middle) else (inside, middle)
        ends.append(inside)
    return ends[0], ends[1]
