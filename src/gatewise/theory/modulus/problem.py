"""A truth, a mixture with as many or more atoms that equals it, and the coordinates between them."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.theory.modulus.coordinates import Coordinates, Label
from gatewise.theory.modulus.design import ModulusDesign
from gatewise.theory.modulus.distance import MixtureDistance
from gatewise.theory.modulus.kinks import Kinks, Places
from gatewise.theory.modulus.null_directions import NullDirections
from gatewise.theory.modulus.profile import Space
from gatewise.theory.modulus.special import LONG
from gatewise.theory.weights import weight_blocks

__all__ = ["Problem"]

_SAME = 1e-9


def _rows(model: MixtureOfExperts) -> dict[str, list[tuple[int, ...]]]:
    """The atoms of each row of every parameter that has rows."""
    atoms = [(i,) for i in range(model.n_experts)]
    found = {f"gate.{at}{name}": rows for at, gate, rows in model.gate.components() for name in gate.per_expert}
    experts = model.experts
    names = [*experts.per_expert, *([] if experts.shared_scale else ["log_scale"])]
    return {**found, **{f"experts.{name}": atoms for name in names}}


class Problem:
    """All that is needed to measure one coordinate of one allocation.

    Args:
        truth: the true mixture.
        fitted: a mixture that equals it.
        cells: the true atom of each fitted atom.
        design: what is fixed before.
        kinks: places of kinks of one's own parts.
        hold: names of coordinates, with or without index, that stay where they are.

    Raises:
        InputError: the fitted mixture is not the truth, or the parts cannot be measured.
    """

    def __init__(
        self,
        truth: MixtureOfExperts,
        fitted: MixtureOfExperts,
        cells: Sequence[int],
        design: ModulusDesign,
        kinks: Places | None = None,
        hold: Sequence[str] = (),
    ) -> None:
        if len(cells) != fitted.n_experts or set(cells) != set(range(truth.n_experts)):
            raise InputError(
                f"cells must name a true atom, from 0 to {truth.n_experts - 1}, for each of the {fitted.n_experts} "
                f"fitted ones, and each true atom at least once, not {list(cells)}"
            )
        self.truth, self.fitted, self.cells, self.design = truth, fitted, tuple(cells), design
        self._own_kinks = kinks
        self.rows = _rows(fitted)
        frozen = ["experts.log_scale"] if design.distance == "l2" else []
        parts = {"gate": fitted.gate.own_parameters(), "experts": fitted.experts.own_parameters()}
        self.coordinates = Coordinates(parts, cells, weight_blocks(fitted.gate), self.rows, frozen)
        self.distance = self._distance(design)
        apart = self.distance.norm(np.zeros(self.coordinates.size, LONG))
        if not apart < _SAME:
            raise InputError(
                f"the fitted mixture is not the truth: their distance is {apart:.3g}; give one that repeats the true "
                f"atoms {list(cells)} and shares their weights"
            )
        self.null = NullDirections(fitted, self.coordinates, frozen)
        self._held = self._known(hold, "hold")
        self._free = self._known(design.locality.free, "set free")

    def _known(self, names: Sequence[str], what: str) -> list[int]:
        """The coordinates of these names.

        Raises:
            InputError: there is none of a name.
        """
        found: list[int] = []
        for name in names:
            own = [i for i, label in enumerate(self.labels) if name in (label.name, str(label))]
            if not own:
                known = ", ".join(dict.fromkeys(label.name for label in self.labels))
                raise InputError(f"there is no parameter {shown(name)} to {what}: there are {known}")
            found += own
        return found

    def _distance(self, design: ModulusDesign) -> MixtureDistance:
        kinks = Kinks(self.truth, self.fitted, self._own_kinks)
        return MixtureDistance(self.truth, self.fitted, self.coordinates, design, kinks)

    @cached_property
    def finer_distance(self) -> MixtureDistance:
        """The distance on a grid with about twice the nodes per axis, for checking minimisers."""
        design = self.design
        grown: dict[str, Any] = (
            {"nodes": 2 * design.inputs.nodes}
            if design.inputs.kind == "box"
            else {
                "radial": design.inputs.radial + 2,
                "angular": design.inputs.angular + 6,
            }
        )
        inputs = design.inputs.model_copy(update=grown)
        targets = design.targets.model_copy(update={"nodes": 2 * design.targets.nodes - 1})
        return self._distance(design.model_copy(update={"inputs": inputs, "targets": targets}))

    @property
    def labels(self) -> list[Label]:
        """What each coordinate is."""
        return self.coordinates.labels

    def pinned(self, displaced: int) -> list[int]:
        """Coordinates that are held: what is known, and a row of every translation, in another cell if possible."""
        label = self.labels[displaced]
        own = {self.cells[atom] for atom in label.atoms}
        sizes = Counter(self.cells)
        found = list(self._held)
        for name in self.null.pins:
            rows = self.rows[name]
            at = self._anchor(name, rows, own, sizes)
            atoms = set(rows[at])
            for i, other in enumerate(self.labels):
                is_row = other.name == name and other.index[0] == at
                is_mass = other.name == f"{name}.mass" and atoms <= set(other.atoms)
                if is_row or is_mass:
                    found.append(i)
        return sorted({i for i in found if i != displaced})

    def _anchor(self, name: str, rows: Sequence[tuple[int, ...]], own: set[int], sizes: Counter[int]) -> int:
        """A row whose cell is not the displaced one's if possible, and the smallest; the last of several."""

        def cost(row: int) -> tuple[int, int, int]:
            cells = {self.cells[atom] for atom in rows[row]}
            return (len(cells & own), max(sizes[cell] for cell in cells), -row)

        return min(range(len(rows)), key=cost)

    def space(self, displaced: int, held: Sequence[int]) -> Space:
        """For the search."""
        groups: dict[str, int] = {}
        numbers = tuple(groups.setdefault(label.name, len(groups)) for label in self.labels)
        shares = tuple(i for i, label in enumerate(self.labels) if label.kind == "share")
        free = tuple(i for i in self._free if i != displaced and i not in shares)
        return Space(displaced, tuple(held), shares, numbers, free)

    def named(self, name: str) -> list[int]:
        """The coordinates of a full name, or of a name without index in the first atom of each cell of several.

        Raises:
            InputError: there is none.
        """
        if "[" in name:
            return [self.coordinates.index(name)]
        firsts = self.first_atoms()
        found = [
            i
            for i, label in enumerate(self.labels)
            if label.name == name and (not label.atoms or label.atoms[0] in firsts)
        ]
        if not found:
            names = ", ".join(dict.fromkeys(label.name for label in self.labels))
            raise InputError(f"there is no parameter {shown(name)}: there are {names}")
        return found

    def first_atoms(self) -> set[int]:
        """The first atom of each cell with several atoms; of every cell if all have one."""
        sizes = Counter(self.cells)
        several = [cell for cell, size in sizes.items() if size > 1] or list(sizes)
        return {self.cells.index(cell) for cell in several}

    def default_names(self) -> list[str]:
        """All coordinates of the first atoms, and what all atoms share, but shares and what is held."""
        firsts = self.first_atoms()
        return [
            str(label)
            for i, label in enumerate(self.labels)
            if label.kind != "share" and (not label.atoms or label.atoms[0] in firsts)
            if i not in self._held and not self._is_last_mass(i)
        ]

    def _is_last_mass(self, i: int) -> bool:
        """Whether a mass is the only one of its kind, and so no more than a translation."""
        label = self.labels[i]
        same = [other for other in self.labels if other.name == label.name]
        return label.kind == "mass" and len(same) == 1 and label.name.removesuffix(".mass") in self.null.pins
