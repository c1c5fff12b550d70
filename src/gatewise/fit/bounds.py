"""What a solver climbs: a function of θ with its derivatives, and bounds on single entries of θ."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["Ascendable", "Bounds"]


@dataclass(frozen=True)
class Bounds:
    """lower ≤ θ ≤ upper, entry by entry.

    Attributes:
        lower: (size,), −∞ where there is no bound.
        upper: (size,), +∞ where there is none.

    Example:
        >>> bounds = Bounds(np.array([0.0, -np.inf]), np.array([np.inf, 1.0]))
        >>> bounds.clip(np.array([-2.0, 3.0]))
        array([0., 1.])
        >>> bounds.projected(np.array([0.0, 0.5]), np.array([-1.0, -1.0]))
        array([ 0., -1.])
    """

    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def none(cls, size: int) -> "Bounds":
        """No bounds at all."""
        return cls(np.full(size, -np.inf), np.full(size, np.inf))

    def clip(self, theta: np.ndarray) -> np.ndarray:
        """θ with the entries that are outside put on their bounds."""
        return np.clip(theta, self.lower, self.upper)

    def held(self, theta: np.ndarray, slack: float = 0.0) -> np.ndarray:
        """Which entries are on a bound, or nearer to it than the slack, a mask (size,)."""
        return (theta <= self.lower + slack) | (theta >= self.upper - slack)

    def projected(self, theta: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The gradient of what is to be large, without the components that push an entry out through its bound."""
        outward = ((theta <= self.lower) & (gradient < 0.0)) | ((theta >= self.upper) & (gradient > 0.0))
        return np.where(outward, 0.0, gradient)

    def inward(self, theta: np.ndarray) -> np.ndarray:
        """Unit vectors as columns (size, c), one for each bound that θ is on, that lead away from it."""
        unit = np.eye(len(theta))
        return np.concatenate([unit[:, theta <= self.lower], -unit[:, theta >= self.upper]], axis=1)

    def as_inequalities(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes A (c, size) and limits b (c,): θ + s is within the bounds exactly where A s ≥ b."""
        unit = np.eye(len(theta))
        below, above = np.isfinite(self.lower), np.isfinite(self.upper)
        limits = np.concatenate([(self.lower - theta)[below], (theta - self.upper)[above]])
        return np.concatenate([unit[below], -unit[above]]), limits

    def some(self, entries: np.ndarray) -> "Bounds":
        """The bounds of some entries."""
        return Bounds(self.lower[entries], self.upper[entries])

    def pairs(self) -> list[tuple[float | None, float | None]]:
        """(lower, upper) of each entry, None where there is none, as SciPy asks for them."""
        return [
            (low if np.isfinite(low) else None, high if np.isfinite(high) else None)
            for low, high in zip(self.lower.tolist(), self.upper.tolist(), strict=True)
        ]


class Ascendable(Protocol):
    """What a solver climbs: a function of θ with its derivatives and bounds."""

    bounds: Bounds

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The value and the gradient."""
        ...

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian, or what stands for it."""
        ...
