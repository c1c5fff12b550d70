"""Random numbers for the first values of parameters, drawn by what columns and rows contain and not by their places."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.fit.module_coordinates import ModuleCoordinates
from gatewise.fit.problem import StartRows
from gatewise.parts.component import Component

__all__ = ["Draws", "entry_order"]


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
        """The same for a parameter of any part: a last axis of size d that is not the experts' is the features'."""
        return self.normal(like, _is_of_features(part, name, tuple(like.shape)))

    def rows(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers of rows, drawn with their weights along an order that their contents give."""
        order = self.data.sorted_rows
        cumulative = np.cumsum(self.data.weight[order])
        positions = np.searchsorted(cumulative, self.generator.uniform(size=shape) * cumulative[-1], side="right")
        return torch.from_numpy(order[np.minimum(positions, len(order) - 1)])


def entry_order(coordinates: ModuleCoordinates, data: StartRows) -> np.ndarray:
    """The entries of θ, those that belong to features in the columns' canonical order, (size,).

    Of parameters whose last axis runs over something made of several features the entries stay where they are.
    """
    model, found, start = coordinates.prototype, [], 0
    for part, columns in ((model.gate, data.gate_columns), (model.experts, data.columns)):
        for name, value in part.named_parameters():
            owner, _, leaf = name.rpartition(".")
            places = start + np.arange(value.numel()).reshape(value.shape)
            if _is_of_features(part.get_submodule(owner), leaf, tuple(value.shape)):
                places = places[..., columns]
            found.append(places.reshape(-1))
            start += value.numel()
    entries = coordinates.column.numpy()[np.concatenate(found)]
    entries = entries[entries >= 0]
    return entries[np.sort(np.unique(entries, return_index=True)[1])]


def _is_of_features(part: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    """Whether the last axis of a parameter has the size of the inputs and is neither the experts' nor the outputs'."""
    if not isinstance(part, Component) or name == "log_scale" or name.endswith("bias"):
        return False
    return len(shape) > (name in part.per_expert) and shape[-1] == part.n_features
