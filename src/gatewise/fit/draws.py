"""Random numbers for the first values of parameters, drawn by what columns and rows contain and not by their places."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.problem import StartRows
from gatewise.ops.component import Component

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """A keyed generator for the parameters of one part, its columns in canonical order, and the rows.

    Attributes:
        generator: keyed by the start.
        columns: the places of the part's columns in canonical order (d,), the first one's first.
        data: the rows.
    """

    generator: np.random.Generator
    columns: np.ndarray
    data: StartRows

    def placed(self, values: Tensor) -> Tensor:
        """Values (…, d) that belong to the columns in canonical order, at the places where these are."""
        found = torch.empty_like(values)
        found[..., torch.from_numpy(self.columns)] = values
        return found

    def normal(self, like: Tensor, of_features: bool = True) -> Tensor:
        """Standard normal numbers of this shape, whose last axis is that of the features, or none is."""
        drawn = torch.from_numpy(self.generator.normal(size=tuple(like.shape))).to(like)
        return self.placed(drawn) if of_features else drawn

    def parameter(self, part: Component, name: str, like: Tensor) -> Tensor:
        """The same for a parameter of any part: of the features is a last axis of their size that is not the experts'."""
        own_axes = like.ndim - (name in part.per_expert)
        return self.normal(like, own_axes > 0 and like.shape[-1] == part.n_features)

    def rows(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers of rows, drawn with their weights along an order that their contents give."""
        order = self.data.sorted_rows
        cumulative = np.cumsum(self.data.weight[order])
        positions = np.searchsorted(cumulative, self.generator.uniform(size=shape) * cumulative[-1], side="right")
        return torch.from_numpy(order[np.minimum(positions, len(order) - 1)])
