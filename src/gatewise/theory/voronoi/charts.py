"""Coordinates in which losses are taken: what the parts' symmetries leave alone, or the raw parameters.

A symmetry is dealt with by its kind (`parts.parameters.Kind`). A scale is divided out by the part's `coordinates`: the
temperature, the length of a cosine gate's β₁. A translation stays, as a vector t that the infimum runs over. A discrete
one (signs) and an orbit (the shift of a cosine gate's directions) make copies of the truth, see `copies`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gatewise.gates import Gate
from gatewise.parts.component import Atoms, Component, Coordinates
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.motions import Motions, motions_of

__all__ = ["Chart", "chart_of", "gate_coordinates"]

_PARTS = ("gate", "expert")


@dataclass(frozen=True)
class Chart:
    """A measure in coordinates: blocks of numbers for each atom.

    Attributes:
        blocks: arrays (k, p) by name, the gate's first.
        labels: what a block is called, where that is not its name: "gate_slope/τ".
        translated: the blocks to which one vector t may be added for all atoms together.
        free_scale: whether all weights may be multiplied by one number.
    """

    blocks: dict[str, np.ndarray]
    labels: Mapping[str, str]
    translated: tuple[str, ...]
    free_scale: bool

    def label(self, name: str) -> str:
        """The name of a block for a reader."""
        return self.labels.get(name, name)


def chart_of(measure: MixingMeasure, raw: bool, dispersions: bool, by_class: bool = False) -> Chart:
    """A measure in coordinates; of a nested one the outer gate.

    Args:
        measure: the measure.
        raw: whether to take the gate's parameters as they are, without dividing scales out.
        dispersions: whether the variance and other dispersions belong to the atoms, as in a likelihood.
        by_class: whether each output of the experts is a block of its own, "expert_slope[0]".

    Raises:
        InputError: the gate has a symmetry for which there are no coordinates.
    """
    entries = {kind: {n: v for n, v in measure.parameters.items() if n.startswith(f"{kind}_")} for kind in _PARTS}
    gate, experts = measure.parts
    mine = gate_coordinates(gate, entries["gate"], raw)
    own = Coordinates(_rows(entries["expert"])) if experts is None else experts.coordinates(entries["expert"])
    blocks, labels = dict(own.blocks), {**own.labels, **mine.labels}
    if by_class:
        for name, axes in (("expert_slope", 3), ("expert_intercept", 2)):
            value = entries["expert"].get(name)
            if value is not None and value.ndim == axes:
                place = list(blocks).index(name)
                each = {f"{name}[{c}]": value[:, c].reshape(len(value), -1) for c in range(value.shape[1])}
                rest = list(blocks.items())
                blocks = dict([*rest[:place], *each.items(), *rest[place + 1 :]])
    if dispersions:
        blocks |= _rows({n: v for n, v in measure.parameters.items() if not n.startswith(("gate_", "expert_"))})
    motions = Motions((), ()) if gate is None or raw else motions_of(gate)
    free = (*(measure.translations or ()), *(name for name in motions.blocks if name not in motions.entries))
    translated = tuple(name for name in mine.blocks if name in free)
    return Chart({**mine.blocks, **blocks}, labels, translated, "bias" in (measure.translations or ()))


def gate_coordinates(gate: Gate | None, atoms: Atoms, raw: bool) -> Coordinates:
    """The gate's blocks; raw ones are the entries as they are."""
    if gate is None:
        return Coordinates(_rows(atoms))
    return Component.coordinates(gate, atoms) if raw else gate.coordinates(atoms)


def _rows(atoms: Atoms) -> dict[str, np.ndarray]:
    return {name: value.reshape(len(value), -1) for name, value in atoms.items()}
