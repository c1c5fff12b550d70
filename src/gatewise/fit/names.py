"""What the columns and the parameters of a fit are called."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatewise.families import Family
from gatewise.fit.coordinates import Coordinates
from gatewise.parts.parameters import Quantity

__all__ = ["Names"]


@dataclass(frozen=True)
class Names:
    """The user's names of the columns.

    Attributes:
        features: the experts' covariates.
        gate_features: the gate's covariates; empty for constant weights.
        target: what is explained.
        outputs: what the numbers of an expert's location are about, one name each: the columns of a target with
            several, or "species=setosa" for the logit of a class. Empty for the family's own names.
        reference: the class against which the experts' logits are taken, or None without classes.
        offset: what is added to every expert's location, "log(holders)" of an exposure, "offset" where it has no name
            of its own, or None where nothing is added.
        weights: the row weights, "sample_weight" where they have no name of their own, or None without weights.
    """

    features: Sequence[str]
    gate_features: Sequence[str]
    target: str
    outputs: tuple[str, ...] = ()
    reference: str | None = None
    offset: str | None = None
    weights: str | None = None

    @classmethod
    def numbered(cls, n_features: int, n_gate_features: int) -> "Names":
        """The names of arrays: x0, x1, … and y."""
        return cls([f"x{j}" for j in range(n_features)], [f"x{j}" for j in range(n_gate_features)], "y")

    def quantities(self, coordinates: Coordinates, family: Family) -> list[Quantity]:
        """What the identified quantities of a fit are, by these names."""
        found = coordinates.quantities(self.features, self.gate_features, self.target)
        if not self.outputs:
            return found
        own = family.output_names(self.target)
        n_gate = coordinates.n_gate
        return found[:n_gate] + [self._renamed(quantity, own) for quantity in found[n_gate:]]

    def along(
        self, coordinates: Coordinates, family: Family, theta: np.ndarray, direction: np.ndarray
    ) -> list[tuple[float, str]]:
        """What changes along a direction of θ, the largest first, as parts of a vector of length 1.

        Quantities are those of the parameter table, each in a unit that makes speeds comparable. Where none of them
        changes, as where a gate acts through a selection only, the parameters themselves are named.
        """
        speed = coordinates.along(theta, direction)
        length = float(np.linalg.norm(speed))
        if length > 1e-8 * float(np.linalg.norm(direction)):
            speed = speed / length
            names = [f"{quantity.component}: {quantity.term}" for quantity in self.quantities(coordinates, family)]
        else:
            speed, names = direction, coordinates.entry_names(self.features, self.gate_features)
        order = np.argsort(-np.abs(speed), kind="stable")
        return [(float(speed[place]), names[place]) for place in order]

    def _renamed(self, quantity: Quantity, own: list[str]) -> Quantity:
        """A quantity of the experts with the output's own name in front."""
        for old, new in zip(own, self.outputs, strict=True):
            # The logit of two classes has no name of its own; such a family has no dispersions either.
            prefix = f"{old} " if old else ""
            if quantity.term.startswith(prefix):
                return dataclasses.replace(quantity, term=f"{new} {quantity.term.removeprefix(prefix)}")
        return quantity
