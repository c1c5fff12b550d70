"""Directions in which nothing changes: those that the parts declare, and those that a matrix shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Symmetry
from gatewise.theory.modulus.coordinates import Coordinates
from gatewise.theory.modulus.special import LONG

__all__ = ["NullDirections", "Orbit"]

_ZERO = 1e-9


@dataclass(frozen=True)
class Orbit:
    """Directions along the declared symmetries that leave the held coordinates where they are.

    Attributes:
        directions: a basis, (size, number of directions).
        names: of the symmetries that have a part in them.
        sentences: what they do.
    """

    directions: np.ndarray
    names: tuple[str, ...]
    sentences: tuple[str, ...]

    def moves(self, coordinate: int) -> bool:
        """Whether the coordinate moves along an orbit."""
        return bool(self.directions.size) and float(np.abs(self.directions[coordinate]).max()) > _ZERO

    def along(self, coordinate: int, amount: float) -> np.ndarray:
        """The shortest displacement along the orbit's tangents that moves the coordinate by `amount`, (size,)."""
        row = self.directions[coordinate]
        return (self.directions @ (row / (row @ row)) * amount).astype(LONG)

    def slice(self, coordinate: int, preference: np.ndarray) -> list[int] | None:
        """As few other coordinates as possible that fix the place on the orbit when they are held.

        Args:
            coordinate: the one that is displaced.
            preference: weights (size,); coordinates with a large weight are held first, those with 0 not at all.

        Returns:
            The coordinates, or None if the displaced coordinate itself is needed for that.
        """
        rows = self.directions * preference[:, None]
        rows[coordinate] = 0.0
        dimension = self.directions.shape[1]
        factored: Any = linalg.qr(rows.T, mode="economic", pivoting=True)
        _, triangle, order = factored
        held = [int(i) for i in order[:dimension]]
        rank = np.linalg.matrix_rank(self.directions[held], tol=_ZERO)
        enough = abs(triangle[dimension - 1, dimension - 1]) > _ZERO * abs(triangle[0, 0]) if triangle.size else False
        return held if enough and rank == dimension else None


class NullDirections:
    """The declared continuous symmetries of a mixture, as directions in its coordinates.

    Args:
        model: the mixture.
        coordinates: its coordinates.
        frozen: full names of parameters that are no coordinates.

    Attributes:
        pins: full names of the parameters one row of which settles a translation.
    """

    def __init__(self, model: MixtureOfExperts, coordinates: Coordinates, frozen: list[str]) -> None:
        self.pins: list[str] = []
        self._coordinates = coordinates
        self._parts: list[tuple[Symmetry, np.ndarray]] = []
        map_ = coordinates.derivative(np.zeros(coordinates.size, LONG))
        for part, module in (("gate", model.gate), ("experts", model.experts)):
            span = coordinates.spans[part]
            for symmetry in module.symmetries():
                if symmetry.dimension == 0:
                    continue
                if symmetry.pins is not None:
                    self.pins.append(f"{part}.{symmetry.pins}")
                tangents = symmetry.tangents(module.own_parameters()).numpy()
                whole = np.zeros((len(tangents), len(coordinates.base)))
                whole[:, span] = tangents
                moved = np.linalg.lstsq(map_, whole.T, rcond=None)[0]
                moved[np.abs(moved) < _ZERO] = 0.0
                self._parts.append((symmetry, moved))

    def orbit(self, held: list[int]) -> Orbit:
        """The directions that are left when these coordinates are held."""
        if not self._parts:
            return Orbit(np.zeros((self._coordinates.size, 0)), (), ())
        everything = np.concatenate([moved for _, moved in self._parts], axis=1)
        kept = linalg.null_space(everything[held], rcond=_ZERO) if held else np.eye(everything.shape[1])
        names, sentences, at = [], [], 0
        for symmetry, moved in self._parts:
            width = moved.shape[1]
            if kept.size and np.abs(kept[at : at + width]).max() > _ZERO:
                names.append(symmetry.name)
                sentences.append(symmetry.sentence)
            at += width
        directions = everything @ kept
        directions[np.abs(directions) < _ZERO] = 0.0
        return Orbit(directions, tuple(names), tuple(sentences))

    def further(self, jacobian: np.ndarray, held: list[int]) -> np.ndarray:
        """Null directions of the derivatives that no declared symmetry explains, an orthonormal basis (size, number).

        Args:
            jacobian: derivatives of the residuals (m, size) at the truth.
            held: coordinates that do not move.
        """
        moved = jacobian.copy()
        moved[:, held] = 0.0
        scale = np.linalg.norm(moved, axis=0)
        _, values, right = np.linalg.svd(moved, full_matrices=True)
        rank = int((values > _ZERO * max(values[0], 1e-300)).sum()) if len(scale) else 0
        null = right[rank:].T
        known = [self.orbit(held).directions, np.eye(moved.shape[1])[:, held]]
        basis = linalg.orth(np.concatenate(known, axis=1)) if any(part.size for part in known) else null[:, :0]
        rest = null - basis @ (basis.T @ null)
        left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
        return left[:, sizes > 1e-6]
