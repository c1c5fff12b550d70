"""Columns centred and scaled, so that a fit does not depend on their units."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Standardisation"]

# Rows that are turned into columns at once: few enough to stay near the processor.
_ROWS = 2048


@dataclass(frozen=True)
class Standardisation:
    """x ↦ (x − mean) / scale, column by column.

    Attributes:
        mean: (d,).
        scale: standard deviations (d,), 1 for a column that does not vary.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray) -> "Standardisation":
        """Weighted mean and standard deviation, in two passes so that a large offset costs no digits."""
        share = weight / weight.sum()
        mean = x.mean(axis=0)
        # Averaging the differences again removes the rounding error of a mean taken far from zero.
        mean = mean + share @ (x - mean)
        scale = np.sqrt(share @ (x - mean) ** 2)
        return cls(mean, np.where(scale > 0.0, scale, 1.0))

    def design(self, x: np.ndarray) -> np.ndarray:
        """The channel-major design (1 + d, n): a row of ones, then the standardised columns."""
        design = np.empty((1 + x.shape[1], len(x)))
        design[0] = 1.0
        for low in range(0, len(x), _ROWS):
            design[1:, low : low + _ROWS] = ((x[low : low + _ROWS] - self.mean) / self.scale).T
        return design
