"""Displacements of a fitted mixture from a point that is the truth: what is moved, held and bounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.parts.parameters import Parameters
from gatewise.theory.modulus.special import LONG
from gatewise.theory.weights import WeightBlock

__all__ = ["Coordinates", "Label"]


@dataclass(frozen=True)
class Label:
    """What a coordinate is.

    Attributes:
        name: "gate.weight", "experts.bias", …, with ".mass" or ".share" added for weights.
        index: its place in the parameter; for a mass the true atom, for a share true atom and place in its cell.
        kind: "displacement", "mass" or "share".
        atoms: the fitted atoms that it moves; empty for what all share.
    """

    name: str
    index: tuple[int, ...]
    kind: str
    atoms: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}[{','.join(map(str, self.index))}]"


@dataclass(frozen=True)
class _Weights:
    """Where the coordinates of one vector of weights stand, cell by cell."""

    block: WeightBlock
    rows: np.ndarray
    members: list[np.ndarray]
    masses: list[int]
    shares: list[np.ndarray]
    base_mass: np.ndarray
    base_share: list[np.ndarray]


class Coordinates:
    """The map from displacements t to the parameters of gate and experts, all in 80-bit floats.

    A parameter is its value at the truth plus its displacement, so that small displacements keep their digits. Weights
    are given cell by cell, as the displacement of the cell's log mass and the log ratios of shares to the last one.

    Args:
        parts: parameters of the fitted mixture at the truth, under the names "gate" and "experts".
        cells: the true atom of each fitted atom.
        blocks: the gate's vectors of weights.
        rows: for parameters whose first axis is the atom, or a group of atoms: the atoms of each row, by full name.
        frozen: full names of parameters that have no effect and are left out.
    """

    def __init__(
        self,
        parts: dict[str, Parameters],
        cells: Sequence[int],
        blocks: Sequence[WeightBlock],
        rows: Mapping[str, Sequence[tuple[int, ...]]],
        frozen: Sequence[str] = (),
    ) -> None:
        self.cells = tuple(cells)
        values: list[np.ndarray] = []
        places: dict[str, np.ndarray] = {}
        self.spans: dict[str, slice] = {}
        at = 0
        for part, parameters in parts.items():
            start = at
            for name, tensor in parameters.items():
                value = tensor.detach().numpy().astype(np.float64)
                places[f"{part}.{name}"] = np.arange(at, at + value.size).reshape(value.shape)
                values.append(value.reshape(-1))
                at += value.size
            self.spans[part] = slice(start, at)
        self.base = np.concatenate(values).astype(LONG)
        self.labels: list[Label] = []
        self._target: list[int] = []
        self._weights: list[_Weights] = []
        weights = {f"gate.{block.name}": block for block in blocks}
        for name, place in places.items():
            if name in weights:
                self._add_weights(name, weights[name], place)
            elif name not in frozen:
                for index in np.ndindex(*place.shape):
                    atoms = tuple(rows[name][index[0]]) if name in rows else ()
                    self.labels.append(Label(name, index, "displacement", atoms))
                    self._target.append(int(place[index]))
        self._moved = np.array([i for i, label in enumerate(self.labels) if label.kind == "displacement"], int)
        self._to = np.array([place for place in self._target if place >= 0], int)
        self._linear = np.zeros((len(self.base), self.size))
        self._linear[self._to, self._moved] = 1.0

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return len(self.labels)

    def _add_weights(self, name: str, block: WeightBlock, rows: np.ndarray) -> None:
        log_weight = block.weight(self.base[rows])
        keys = [tuple(sorted({self.cells[atom] for atom in atoms})) for atoms in block.atoms]
        members = [np.array([i for i, key in enumerate(keys) if key == cell]) for cell in dict.fromkeys(keys)]
        masses, shares, base_mass, base_share = [], [], [], []
        for own in members:
            inside = log_weight[own]
            top = inside.max()
            whole = top + np.log(np.exp(inside - top).sum())
            base_mass.append(whole)
            base_share.append(inside - inside[-1])
            atoms = tuple(atom for i in own for atom in block.atoms[i])
            cell = self.cells[atoms[0]]
            masses.append(self._add(Label(f"{name}.mass", (cell,), "mass", atoms)))
            places = [
                self._add(Label(f"{name}.share", (cell, j), "share", block.atoms[own[j]])) for j in range(len(own) - 1)
            ]
            shares.append(np.array(places, int))
        self._weights.append(_Weights(block, rows, members, masses, shares, np.array(base_mass, LONG), base_share))

    def _add(self, label: Label) -> int:
        self.labels.append(label)
        self._target.append(-1)
        return len(self.labels) - 1

    def _shared(self, weights: _Weights, cell: int, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-weights of a cell's entries, and their shares."""
        raw = weights.base_share[cell].copy()
        raw[:-1] += point[weights.shares[cell]]
        total = np.log(np.exp(raw).sum())
        log_weight = weights.base_mass[cell] + point[weights.masses[cell]] + (raw - total)
        return log_weight, np.exp(raw - total)

    def parameters(self, point: np.ndarray) -> np.ndarray:
        """All parameters, flat, at displacements (size,)."""
        found = self.base.copy()
        found[self._to] += point[self._moved]
        for weights in self._weights:
            for cell, own in enumerate(weights.members):
                log_weight, _ = self._shared(weights, cell, point)
                found[weights.rows[own]] = weights.block.value(log_weight)
        return found

    def derivative(self, point: np.ndarray) -> np.ndarray:
        """Derivatives of `parameters`, in doubles."""
        found = self._linear.copy()
        for weights in self._weights:
            for cell, own in enumerate(weights.members):
                log_weight, share = self._shared(weights, cell, point)
                slope = weights.block.slope(log_weight).astype(float)
                rows = weights.rows[own]
                found[rows, weights.masses[cell]] = slope
                for j, place in enumerate(weights.shares[cell]):
                    change = -np.full(len(own), share[j], float)
                    change[j] += 1.0
                    found[rows, place] = slope * change
        return found

    def index(self, name: str) -> int:
        """The coordinate of a full name such as "gate.weight[0,1]".

        Raises:
            InputError: there is none of that name; the message lists those that there are.
        """
        names = [str(label) for label in self.labels]
        if name in names:
            return names.index(name)
        raise InputError(f"there is no coordinate {shown(name)}: there are {', '.join(names)}")
