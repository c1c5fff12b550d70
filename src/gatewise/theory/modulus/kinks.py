"""Where gates and experts are not smooth in the inputs, as functions of their parameters."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gatewise.model import MixtureOfExperts
from gatewise.parts.component import Component
from gatewise.theory.modulus.inputs import Breaks

__all__ = ["Kinks", "Places"]

Places = Callable[[Mapping[str, np.ndarray], np.ndarray], Sequence[np.ndarray]]
"""(parameters by full name, other coordinates (n, d − 1)) ↦ places on the first axis, arrays (n,)."""


class Kinks:
    """Where the truth and the displaced mixture have kinks on the first axis.

    Known are those that gate and experts name themselves, see `Component.kinks`.

    Args:
        truth: the true mixture; its kinks stay.
        fitted: the displaced one; its kinks move.
        own: places of one's own gate or experts, for both mixtures, or None for those that are known here.
    """

    def __init__(self, truth: MixtureOfExperts, fitted: MixtureOfExperts, own: Places | None = None) -> None:
        self._sides = [(_shapes(model), [own] if own is not None else _known(model)) for model in (truth, fitted)]
        self.exist = any(places for _, places in self._sides)

    def breaks(self, true_point: np.ndarray, point: np.ndarray) -> list[Breaks]:
        """For the quadrature: all places, at flat parameters of the truth and of the fitted mixture."""
        found: list[Breaks] = []
        for (shapes, places), flat in zip(self._sides, (true_point, point), strict=True):
            parameters, at = {}, 0
            for name, shape in shapes.items():
                size = int(np.prod(shape))
                parameters[name] = flat[at : at + size].reshape(shape)
                at += size
            found += [_at(place, parameters) for place in places]
        return found


def _at(place: Places, parameters: Mapping[str, np.ndarray]) -> Breaks:
    return lambda rest: [np.broadcast_to(cut, len(rest)) for cut in place(parameters, rest)]


def _shapes(model: MixtureOfExperts) -> dict[str, tuple[int, ...]]:
    parts = {"gate": model.gate, "experts": model.experts}
    return {
        f"{part}.{name}": tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.own_parameters().items()
    }


def _known(model: MixtureOfExperts) -> list[Places]:
    """The places that the parts name, where they name any."""
    found: list[Places] = []
    for prefix, part in (("gate", model.gate), ("experts", model.experts)):
        own = {name: value.numpy() for name, value in part.own_parameters().items()}
        if len(part.kinks(own, np.zeros((1, max(part.n_features - 1, 0))))):
            found.append(_of_part(prefix, part))
    return found


def _of_part(prefix: str, part: Component) -> Places:
    def places(parameters: Mapping[str, np.ndarray], rest: np.ndarray) -> Sequence[np.ndarray]:
        start = f"{prefix}."
        own = {name.removeprefix(start): value for name, value in parameters.items() if name.startswith(start)}
        return part.kinks(own, rest)

    return places
