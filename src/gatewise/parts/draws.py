"""Random numbers for the first values of parameters, drawn by what columns and rows contain and not by their places."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.parts.component import Component
from gatewise.parts.parameters import Parameters

__all__ = ["NOISE", "Draws", "is_of_features"]

NOISE = 0.1
"""The standard deviation of what a start adds to values that are the same for all experts."""


@dataclass(frozen=True)
class Draws:
    """A keyed generator for the parameters of one part, its columns in canonical order, and the rows.

    Attributes:
        generator: keyed by the start.
        columns: the places of the part's columns in canonical order (d,), the first one's first.
        order: the numbers of the rows in an order that their contents give (n,).
        weight: of the rows (n,), as the table has them.

    Example:
        >>> draws = Draws(np.random.default_rng(0), np.array([1, 0]), np.arange(3), np.ones(3))
        >>> draws.placed(torch.tensor([10.0, 20.0]))
        tensor([20., 10.])
    """

    generator: np.random.Generator
    columns: np.ndarray
    order: np.ndarray
    weight: np.ndarray

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
        """The same for a parameter of any part: a last axis of size d that is not the experts' is the features'."""
        return self.normal(like, is_of_features(part, name, tuple(like.shape)))

    def around(self, part: Component, values: Parameters) -> Parameters:
        """The values with normal noise of the deviation `NOISE` added to each."""
        return {name: value + NOISE * self.parameter(part, name, value) for name, value in values.items()}

    def rows(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers of rows, drawn with their weights along an order that their contents give."""
        cumulative = np.cumsum(self.weight[self.order])
        positions = np.searchsorted(cumulative, self.generator.uniform(size=shape) * cumulative[-1], side="right")
        return torch.from_numpy(self.order[np.minimum(positions, len(self.order) - 1)])


def is_of_features(part: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    """Whether the last axis of a parameter has the size of the inputs and is neither the experts' nor the outputs'."""
    if not isinstance(part, Component) or name == "log_scale" or name.endswith("bias"):
        return False
    return len(shape) > (name in part.per_expert) and shape[-1] == part.n_features
