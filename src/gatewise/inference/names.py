"""What the parameters are called."""

import dataclasses
from dataclasses import dataclass

from gatewise.fit import FitResult
from gatewise.ops.parameters import Quantity

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
    """

    features: list[str]
    gate_features: list[str]
    target: str
    outputs: tuple[str, ...] = ()
    reference: str | None = None

    def quantities(self, result: FitResult) -> list[Quantity]:
        """What the identified quantities of a fit are, by these names."""
        found = result.coordinates.quantities(self.features, self.gate_features, self.target)
        if not self.outputs:
            return found
        own = result.model.family.output_names(self.target)
        n_gate = result.coordinates.n_gate
        return found[:n_gate] + [self._renamed(quantity, own) for quantity in found[n_gate:]]

    def _renamed(self, quantity: Quantity, own: list[str]) -> Quantity:
        """A quantity of the experts with the output's own name in front."""
        for old, new in zip(own, self.outputs, strict=True):
            # The logit of two classes has no name of its own; such a family has no dispersions either.
            prefix = f"{old} " if old else ""
            if quantity.term.startswith(prefix):
                return dataclasses.replace(quantity, term=f"{new} {quantity.term.removeprefix(prefix)}")
        return quantity
