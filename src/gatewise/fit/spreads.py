"""The spreads of a model in θ: where they stand, their one-expert values, and the bounds that a floor makes of them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.bounds import Bounds
from gatewise.fit.coordinates import Coordinates
from gatewise.parts.parameters import Parameters, within
from gatewise.parts.spread import Spread

__all__ = ["FloorEntry", "RelativeSpread", "SpreadsOfModel"]

# A one-expert spread below this share of that of all rows is rounding.
_EXACT = 1e-9


@dataclass(frozen=True)
class RelativeSpread:
    """One kind of spread of all experts, as a message needs it.

    Attributes:
        name: what it is called.
        whole: what that of the one-expert fit is called.
        values: the smallest of each expert over that of the one-expert fit, (k,).
    """

    name: str
    whole: str
    values: np.ndarray


@dataclass(frozen=True)
class FloorEntry:
    """An entry of θ that a floor bounds.

    Attributes:
        experts: whose it is; several where they share it.
        power: log spread = power · entry.
        unit: the logarithm of the one-expert spread.
    """

    experts: tuple[int, ...]
    power: float
    unit: float


class SpreadsOfModel:
    """The spreads of a model's family, and of its gate where inputs and target have a joint density.

    Args:
        parts: what can run away, by "experts" and "gate"; empty where the objective is bounded whatever happens.
        coordinates: what θ means.
        n_experts: k.
        rows: targets and gate inputs in internal units, by "experts" and "gate".
        weight: of the rows (n,).
        one_expert: the one-expert fit in internal units by "experts" and "gate", or None for the one-expert problem
            itself, whose spreads are held above rounding only.
    """

    def __init__(
        self,
        parts: dict[str, Spread],
        coordinates: Coordinates,
        n_experts: int,
        rows: dict[str, Tensor],
        weight: Tensor,
        one_expert: dict[str, Parameters] | None,
    ) -> None:
        self.parts = parts
        self.n_experts = n_experts
        self.reference: dict[str, Parameters] = {}
        self.entries: dict[int, FloorEntry] = {}
        self._is_alone = one_expert is None
        for part, spread in self.parts.items():
            whole = spread.of_rows(rows[part], weight).log()
            unit = whole
            if one_expert is not None:
                own = spread.logarithms(one_expert[part])[0]
                # Where one expert explains every row its residual is no unit to measure in: that of all rows is.
                unit = torch.where(own <= whole + math.log(10.0 * _EXACT), whole, own)
                own_rows = one_expert[part][spread.parameter].reshape(1, -1).clone()
                own_rows[0, : spread.count] = unit / spread.power
                shape = one_expert[part][spread.parameter].shape
                self.reference[part] = {**one_expert[part], spread.parameter: own_rows.reshape(shape)}
            self._find_entries(coordinates, part, spread, unit)

    def _find_entries(self, coordinates: Coordinates, part: str, spread: Spread, unit: Tensor) -> None:
        columns = within(part, coordinates.parameters(coordinates.column))[spread.parameter]
        for row, own in enumerate(columns.reshape(len(columns), -1)[:, : spread.count].tolist()):
            experts = (row,) if len(columns) == self.n_experts else tuple(range(self.n_experts))
            for place, entry in enumerate(own):
                if entry < 0:
                    continue
                known = self.entries.get(entry)
                before, largest = ((), -math.inf) if known is None else (known.experts, known.unit)
                self.entries[entry] = FloorEntry((*before, *experts), spread.power, max(largest, float(unit[place])))

    def base_scale(self) -> float:
        """The first spread of the one-expert fit's target."""
        return math.exp(float(self.parts["experts"].logarithms(self.reference["experts"])[0, 0]))

    def bounds(self, size: int, floor: float) -> Bounds:
        """Every spread at least `floor` times that of the one-expert fit; that one's own above rounding."""
        bounds = Bounds.none(size)
        share = _EXACT if self._is_alone else floor
        for entry, known in self.entries.items():
            side = bounds.lower if known.power > 0.0 else bounds.upper
            side[entry] = (known.unit + math.log(share)) / known.power
        return bounds

    def relative(self, named: Parameters) -> tuple[RelativeSpread, ...]:
        """All spreads over those of the one-expert fit; none of the one-expert problem itself."""
        found = []
        for part, reference in self.reference.items():
            spread = self.parts[part]
            values = spread.relative(within(part, named), reference).numpy()
            found.append(RelativeSpread(spread.name, spread.whole, np.broadcast_to(values, (self.n_experts,)).copy()))
        return tuple(found)
