"""The axis of a feature in a figure: continuous, or two categories where the feature has two values."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

__all__ = ["FeatureAxis"]

# Half the width of a category, and of the strip in which its rows are spread, as shares of the distance of the two.
_HALF = 0.3
_SPREAD = 0.22


@dataclass(frozen=True)
class FeatureAxis:
    """How the values of a feature are laid along an axis.

    Attributes:
        categories: the two values that the feature has, or None if it has others.
    """

    categories: np.ndarray | None

    @classmethod
    def of(cls, column: np.ndarray) -> "FeatureAxis":
        """The axis for a column of values (n,)."""
        values = np.unique(column)
        return cls(values if len(values) == 2 else None)

    @property
    def _unit(self) -> float:
        return 0.0 if self.categories is None else float(np.ptp(self.categories))

    def line(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A curve's coordinates: of categories a level piece for each, with gaps between them."""
        if self.categories is None:
            return x, y
        reach = _HALF * self._unit
        gaps = np.full(len(x), np.nan)
        return (
            np.column_stack([x - reach, x + reach, gaps]).ravel()[:-1],
            np.column_stack([y, y, gaps]).ravel()[:-1],
        )

    def areas(
        self, x: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The pieces (x, low, high) of an area: of categories one for each."""
        if self.categories is None:
            return [(x, low, high)]
        reach = np.array([-_HALF, _HALF]) * self._unit
        return [(place + reach, np.full(2, a), np.full(2, b)) for place, a, b in zip(x, low, high, strict=True)]

    def rows(self, column: np.ndarray) -> np.ndarray:
        """Where rows are drawn: those of a category beside each other, by chance with a fixed seed."""
        if self.categories is None:
            return column
        return column + _SPREAD * self._unit * np.random.default_rng(0).uniform(-1.0, 1.0, len(column))

    def mark(self, figure: go.Figure, axis: str = "xaxis") -> None:
        """Name the categories on an axis of a figure."""
        if self.categories is None:
            return
        first, second = self.categories.tolist()
        room = 0.5 * self._unit
        figure.update_layout(
            {
                axis: {
                    "tickvals": [first, second],
                    "ticktext": [f"{first:.6g}", f"{second:.6g}"],
                    "range": [first - room, second + room],
                    "showgrid": False,
                }
            }
        )
