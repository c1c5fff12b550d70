"""Where gates and experts are not smooth in the inputs, as functions of their parameters."""

from collections.abc import Callable, Sequence

import numpy as np

from gatewise.experts import Experts, FeedForwardExperts
from gatewise.gates import Gate, LaplaceGate
from gatewise.model import MixtureOfExperts
from gatewise.ops.parameters import Parameters
from gatewise.theory.modulus.inputs import Breaks

__all__ = ["Kinks", "Places"]

Places = Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]
"""(parameters, flat; other coordinates (n, d − 1)) ↦ places on the first axis, arrays (n,)."""


class Kinks:
    """Where the truth and the displaced mixture have kinks on the first axis.

    Args:
        truth: the true mixture; its kinks stay.
        fitted: the displaced one; its kinks move.
        own: places of the user's own gate or experts, for both, or None for those that are known here.
    """

    def __init__(
        self, truth: MixtureOfExperts, fitted: MixtureOfExperts, true_point: np.ndarray, own: Places | None = None
    ) -> None:
        self._own = own
        self._true_point = true_point
        self._truth, self._fitted = _known(truth), _known(fitted)
        self.exist = own is not None or bool(self._truth or self._fitted)

    def breaks(self, parameters: np.ndarray) -> list[Breaks]:
        """For the quadrature: all places, at these parameters of the fitted mixture."""
        found: list[Breaks] = []
        for places, point in ((self._truth, self._true_point), (self._fitted, parameters)):
            for place in [self._own] if self._own is not None else places:
                found.append(lambda rest, place=place, point=point: list(place(point, rest)))
        return found


def _known(model: MixtureOfExperts) -> list[Places]:
    found: list[Places] = []
    gate, experts = model.gate, model.experts
    offset = sum(value.numel() for value in gate.own_parameters().values())
    if isinstance(gate, LaplaceGate) and gate.n_features == 1:
        centre = _span(gate, 0, "centre")
        found.append(lambda point, rest: [np.full(len(rest), value) for value in point[centre]])
    if isinstance(experts, FeedForwardExperts) and experts.activation == "relu":
        found.append(_hinges(experts, offset))
    return found


def _hinges(experts: FeedForwardExperts, offset: int) -> Places:
    """Where aᵀx + b = 0 cuts the first axis, unit by unit."""
    slope, bias = _span(experts, offset, "inner_weight"), _span(experts, offset, "inner_bias")
    d = experts.n_features

    def places(point: np.ndarray, rest: np.ndarray) -> list[np.ndarray]:
        weights = point[slope].reshape(-1, d)
        return [-(b + rest @ a[1:]) / a[0] for a, b in zip(weights, point[bias], strict=True)]

    return places


def _span(module: Gate | Experts, offset: int, name: str) -> slice:
    own: Parameters = module.own_parameters()
    for key, value in own.items():
        if key == name:
            return slice(offset, offset + value.numel())
        offset += value.numel()
    raise KeyError(name)
