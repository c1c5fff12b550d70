"""Where functions are looked at: inputs, targets and parameters drawn as exact fractions, the same from run to run."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import mpmath
import numpy as np

from gatewise.parts.formulas import FamilyFormula
from gatewise.theory.identifiability.atom import AtomFunction, Order
from gatewise.theory.identifiability.automatic import AutomaticFamily
from gatewise.theory.identifiability.parts import Number, Numbers

__all__ = ["GUARD_DIGITS", "Study"]

GUARD_DIGITS = 12
"""How many digits more than are asked for the arithmetic has."""

_DENOMINATOR = 1009


@dataclass(frozen=True)
class Study:
    """An atom's function with samples to look at it.

    Attributes:
        atom: the function.
        n_features: d.
        targets: what draws targets, or None in least squares.
        seed: of all draws.
        pinned: parameters that are held at a value, by label.
    """

    atom: AtomFunction
    n_features: int
    targets: FamilyFormula | AutomaticFamily | None
    seed: int
    pinned: Mapping[str, Fraction]

    def point(self, number: int) -> Numbers:
        """The parameters of one draw, (p,): magnitudes between 0.4 and 1.3, those held as they are held."""
        generator = random.Random(f"parameters {self.seed} {number}")
        found = []
        for own in self.atom.parameters:
            size = mpmath.mpf(generator.randint(400, 1300)) / (_DENOMINATOR * own.divisor)
            sign = 1 if generator.random() < 0.5 or own.positive else -1
            held = self.pinned.get(own.label)
            found.append(sign * size if held is None else _exact(held))
        return np.array(found, dtype=object)

    def samples(self, n: int, number: int) -> tuple[Numbers, Numbers | None]:
        """Inputs (n, d) in [−2, 2], and targets (n, e)."""
        generator = random.Random(f"samples {self.seed} {number}")
        x = np.empty((n, self.n_features), dtype=object)
        for place in np.ndindex(x.shape):
            x[place] = mpmath.mpf(generator.randint(-2000, 2000)) / _DENOMINATOR
        if self.targets is None:
            return x, None
        if isinstance(self.targets, AutomaticFamily):
            return x, self.targets.targets(n, self.seed + number)
        count = self.targets.n_targets
        # Where there are few different targets, all of them must occur.
        numbers = [row % count if count <= 50 else generator.randrange(count) for row in range(n)]
        drawn = [self.targets.targets(each) for each in numbers]
        return x, np.array([[_exact(value) for value in target] for target in drawn], dtype=object)

    def columns(self, orders: Sequence[Order], rows: int, point: int, samples: int) -> Numbers:
        """Derivatives as columns at the draws of these numbers."""
        x, y = self.samples(rows, samples)
        return self.atom.columns(orders, x, y, self.point(point))

    def normalised_columns(self, orders: Sequence[Order], rows: int) -> Numbers:
        """Derivatives of a mixture's numerator less the mixture times those of its denominator, at one of two atoms.

        A mixture g = Σ wᵢ exp(sᵢ) cᵢ / Σ wᵢ exp(sᵢ) moves like Σ over atoms of the derivatives of exp(s) (c − g), where
        g is held: what belongs to the score, or to the weight, has the factor c − g instead of c.
        """
        x, y = self.samples(rows, 0)
        # The other atom is anywhere, also where this one's parameters are held.
        first, second = self.point(0), replace(self, pinned={}).point(1)
        columns = self.atom.columns(orders, x, y, first)
        both = [self.atom.columns([()], x, y, point)[:, 0] for point in (first, second)]
        shares = [self.atom.exponential([()], x, point)[:, 0] for point in (first, second)]
        repeats = len(both[0]) // len(x)
        mixture = (both[0] + both[1]) / np.repeat(shares[0] + shares[1], repeats)
        return columns - mixture[:, None] * np.repeat(self.atom.exponential(orders, x, first), repeats, axis=0)

    def rows_for(self, n_functions: int) -> int:
        """How many samples show which of so many functions depend on each other."""
        few = isinstance(self.targets, FamilyFormula) and self.targets.n_targets <= 50
        repeats = self.targets.n_targets if few and isinstance(self.targets, FamilyFormula) else 1
        return n_functions + 10 + 2 * repeats


def _exact(value: Fraction) -> Number:
    return mpmath.mpf(value.numerator) / value.denominator
