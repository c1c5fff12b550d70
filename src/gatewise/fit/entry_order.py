"""The entries of θ in an order that does not depend on that of the columns."""

import numpy as np

from gatewise.fit.coordinates import Coordinates
from gatewise.fit.start_rows import StartRows
from gatewise.parts.draws import is_of_features

__all__ = ["entry_order"]


def entry_order(coordinates: Coordinates, data: StartRows) -> np.ndarray:
    """The entries of θ, those that belong to features in the columns' canonical order, (size,).

    Of parameters whose last axis runs over something made of several features the entries stay where they are.
    """
    model, found, start = coordinates.prototype, [], 0
    for part, columns in ((model.gate, data.gate_columns), (model.experts, data.columns)):
        for name, value in part.named_parameters():
            owner, _, leaf = name.rpartition(".")
            places = start + np.arange(value.numel()).reshape(value.shape)
            if is_of_features(part.get_submodule(owner), leaf, tuple(value.shape)):
                places = places[..., columns]
            found.append(places.reshape(-1))
            start += value.numel()
    entries = coordinates.column.numpy()[np.concatenate(found)]
    entries = entries[entries >= 0]
    return entries[np.sort(np.unique(entries, return_index=True)[1])]
