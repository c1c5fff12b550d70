"""Parameters that a fit leaves as they are, and parameters that it keeps equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts

__all__ = ["Constraints", "Entry", "FreeMap"]

Entry = tuple[str, tuple[int, ...]]
"""One number of a model: the name of its array in `named_parameters`, and its index there, () for a single number."""


@dataclass(frozen=True)
class FreeMap:
    """The full parameter vector as an affine function of the free one: full = base + E · free.

    The full vector holds all parameters in the order of `named_parameters`, flattened. E (N, F) has at most one 1 in a
    row: a row of a frozen entry is 0, and rows of tied entries are equal.

    Attributes:
        base: the present values of frozen entries, 0 elsewhere (N,).
        column: for each entry the free number that it is, −1 if it is frozen (N,). Free numbers are counted in the
            order of the first entry of each.
        n_free: F.
    """

    base: np.ndarray
    column: np.ndarray
    n_free: int


@dataclass(frozen=True, eq=False)
class Constraints:
    """Which parameters a fit does not touch, and which it keeps equal to each other.

    Parameters are called as `model.named_parameters()` calls them, "gate.weight" or "experts.bias", and are meant in
    the units that the model itself has. A frozen parameter keeps the value that it has in the model. Groups of tied
    entries that share an entry are one group.

    Attributes:
        frozen: by name, True for a whole array, or a mask of its shape that is True where an entry is frozen.
        tied: groups of entries, each as (name, index).

    Raises:
        InputError: a mask is not made of booleans, or a group has fewer than two different entries.

    Example:
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.gates import SoftmaxGate
        >>> from gatewise.model import MixtureOfExperts
        >>> model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian())
        >>> constraints = Constraints(
        ...     frozen={"gate.bias": [False, True], "experts.log_scale": True},
        ...     tied=[[("experts.weight", (0, 0)), ("experts.weight", (1, 0))]],
        ... )
        >>> free = constraints.free_map(model)
        >>> free.column.tolist()
        [0, 1, 2, -1, -1, -1, 3, 3, 4, 5]
    """

    frozen: Mapping[str, "bool | ArrayLike"] = field(default_factory=dict)
    tied: Sequence[Sequence[Entry]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.frozen, Mapping):
            raise InputError(f"frozen must be a dictionary from names to masks, not {shown(self.frozen)}")
        groups = self.tied if isinstance(self.tied, Sequence) else [self.tied]
        if not all(isinstance(group, Sequence) and not isinstance(group, str) for group in groups):
            raise InputError(f"tied must be groups of parameters, each a list of (name, index), not {shown(self.tied)}")
        for name, mask in self.frozen.items():
            if np.asarray(mask).dtype != np.bool_:
                raise InputError(f"frozen[{shown(name)}] must be True, False or a mask of them, not {shown(mask)}")
        for group in self.tied:
            entries = [_entry(entry) for entry in group]
            if len(set(entries)) < 2:
                raise InputError(f"a group of tied parameters needs two different entries, not {list(group)}")

    def free_map(self, model: MixtureOfExperts) -> FreeMap:
        """What is left to be fitted of a model.

        Raises:
            InputError: a name or an index is not one of the model's, a mask has another shape than its array, or a
                tied entry is frozen.
        """
        named = {name: value.detach().cpu().double().numpy() for name, value in model.named_parameters()}
        starts = dict(zip(named, np.cumsum([0, *(value.size for value in named.values())]), strict=False))
        values = np.concatenate([value.reshape(-1) for value in named.values()])
        held = self._held(named)
        leader = np.arange(len(values))
        for group in self.tied:
            places = [_place(entry, named, starts) for entry in map(_entry, group)]
            for place, entry in zip(places, group, strict=True):
                if held[place]:
                    raise InputError(f"{entry[0]}{list(entry[1])} is both frozen and tied: take one of them away")
            merged = leader[places]
            leader[np.isin(leader, merged)] = merged.min()
        first = np.unique(leader[~held])
        column = np.full(len(values), -1)
        column[~held] = np.searchsorted(first, leader[~held])
        return FreeMap(np.where(held, values, 0.0), column, len(first))

    def _held(self, named: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which entries of the full vector are frozen."""
        for name in self.frozen:
            _known(name, named)
        masks = []
        for name, value in named.items():
            mask = np.asarray(self.frozen.get(name, False))
            if mask.shape not in ((), value.shape):
                raise InputError(
                    f"the mask of {shown(name)} has the shape {mask.shape}, and the parameter {value.shape}"
                )
            masks.append(np.broadcast_to(mask, value.shape).reshape(-1))
        return np.concatenate(masks)


def _entry(entry: Entry) -> Entry:
    """The entry, its index with plain integers."""
    readable = isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == 2
    if readable and isinstance(entry[0], str) and isinstance(entry[1], Sequence):
        name, index = entry
        if all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in index):
            return name, tuple(int(i) for i in index)
    raise InputError(f"a tied parameter is a name with an index, as ('gate.weight', (0, 1)), not {shown(entry)}")


def _known(name: str, named: Mapping[str, np.ndarray]) -> np.ndarray:
    if name not in named:
        raise InputError(f"the model has no parameter {shown(name)}: its parameters are {', '.join(named)}")
    return named[name]


def _place(entry: Entry, named: Mapping[str, np.ndarray], starts: Mapping[str, int]) -> int:
    """Where an entry stands in the full vector."""
    name, index = entry
    shape = _known(name, named).shape
    if len(index) != len(shape) or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
        raise InputError(f"{shown(name)} has the shape {shape} and no entry {index}: count from 0")
    return int(starts[name]) + int(np.ravel_multi_index(index, shape)) if shape else int(starts[name])
