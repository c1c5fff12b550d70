"""What a loss says: its value, its terms apart, the cells, and the copy at which it was taken."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Term", "VoronoiLoss"]


@dataclass(frozen=True)
class Term:
    """One additive term of a loss.

    Attributes:
        cell: the true atom j, or the true group of a tree.
        parameter: the parameters in the norm, joined by " and ", or "weight" for |Σᵢ wᵢ − w*ⱼ|.
        size: m, the number of fitted atoms in the cell.
        exponent: the power of the norm; 1 for a weight.
        value: what it adds to the loss, weights of the atoms included.
        counted: whether the cell is one of the K that count.
        inner: of a tree the true atom in the group `cell`, else None.
        group: of a tree the fitted group that the term belongs to, else None.
    """

    cell: int
    parameter: str
    size: int
    exponent: float
    value: float
    counted: bool = True
    inner: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class VoronoiLoss:
    """A loss between two mixing measures, in parts.

    Attributes:
        kind: the name of the loss.
        value: the loss, the sum of the terms that are counted.
        terms: by cell and parameter.
        cells: for each true atom the fitted atoms nearest to it.
        distances: by cell and parameter the largest distance of an atom of the cell to its true atom, without weights
            and exponents, at the translation used.
        translation: what is added to the truth, by parameter; "bias" is the logarithm of the factor of its weights.
        symmetry: "infimum", "estimate" or "none".
        exact: whether the infimum was searched through all cells that occur, see `voronoi_loss`.
        r: the exponent r̄ or r by size of the cells that occur, empty for losses without one.
        status: how sure the formula is.
        inner: of a tree the losses between a fitted and a true group that are part of the value.
    """

    kind: str
    value: float
    terms: tuple[Term, ...]
    cells: tuple[tuple[int, ...], ...]
    distances: Mapping[tuple[int, str], float]
    translation: Mapping[str, float | np.ndarray]
    symmetry: str
    exact: bool
    r: Mapping[int, float]
    status: str
    inner: Mapping[tuple[int, int], "VoronoiLoss"]

    def by_parameter(self) -> dict[str, float]:
        """The counted terms, summed over cells: {"weight": 0.01, "gate_slope": …}."""
        found: dict[str, float] = {}
        for term in self.terms:
            if term.counted:
                found[term.parameter] = found.get(term.parameter, 0.0) + term.value
        return found

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        """A table of the terms, largest cells' numbers and parameters by name."""
        lines = [f"{self.kind} = {self.value:.6g}"]
        width = max((len(term.parameter) for term in self.terms), default=0)
        for term in self.terms:
            place = f"cell {term.cell + 1}" + ("" if term.inner is None else f".{term.inner + 1}")
            note = "" if term.counted else "  not counted"
            power = f"power {term.exponent:g}"
            lines.append(f"{place:10} {term.size} atoms  {term.parameter:{width}}  {power}  {term.value:.6g}{note}")
        return "\n".join(lines)
