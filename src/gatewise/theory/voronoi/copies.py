"""Copies of the truth by symmetries that are no translations: signs, exchanges, and the cosine gate's shared shift."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.charts import Chart

__all__ = ["Shift", "discrete_copies", "shared_shift"]

_ODD = frozenset({"tanh", "sigmoid", "cube"})


def _with_slopes(chart: Chart, slope: np.ndarray) -> Chart:
    return replace(chart, blocks={**chart.blocks, "gate_slope": slope})


def discrete_copies(truth: MixingMeasure, chart: Chart) -> list[Chart]:
    """The truth in all copies that a discrete symmetry of its gate makes, itself first.

    An activation σ with σ(z) + σ(−z) constant allows (β₁₁, β₁₂) ↦ (−β₁₂, −β₁₁) for two experts, an even one the sign of
    each β₁. With as many dimensions as experts the directions of a cosine gate have a mirror image.
    """
    if truth.gate == "activation_dense_to_sparse":
        name, slope = truth.options.get("activation", "tanh"), chart.blocks["gate_slope"]
        if name in _ODD and truth.n_atoms == 2 and "gate_slope" not in chart.translated:
            return [chart, _with_slopes(chart, -slope[::-1])]
        if name == "cos":
            signs = product((1.0, -1.0), repeat=truth.n_atoms)
            return [_with_slopes(chart, np.array(sign)[:, None] * slope) for sign in signs]
    shift = shared_shift(truth, chart)
    if shift is not None and shift.dimension == 0:
        return [chart, shift.copy(chart, np.array([-1.0])), shift.copy(chart, np.array([1.0]))]
    return [chart]


@dataclass(frozen=True)
class Shift:
    """The vectors t for which all uⱼ + t are unit vectors again: centre + radius · basis s with ‖s‖ = 1.

    Attributes:
        centre: −m/‖m‖² with m the shortest vector for which uⱼᵀm = 1 for all j (d,).
        radius: 1/‖m‖.
        basis: orthonormal columns that no difference of two uⱼ sees (d, d − k* + 1).
    """

    centre: np.ndarray
    radius: float
    basis: np.ndarray

    @property
    def dimension(self) -> int:
        """The dimension of this sphere, d − k*; 0 for the two points of a mirror image."""
        return self.basis.shape[1] - 1

    def copy(self, chart: Chart, s: np.ndarray) -> Chart:
        """The truth with the shifted directions."""
        return _with_slopes(chart, chart.blocks["gate_slope"] + self.centre + self.radius * (self.basis @ s))

    def nearest(self, t: np.ndarray) -> np.ndarray:
        """S of the vector on the sphere that is nearest to t."""
        s = self.basis.T @ (t - self.centre)
        length = np.linalg.norm(s)
        return s / length if length > 0.0 else np.eye(len(s))[0]


def shared_shift(truth: MixingMeasure, chart: Chart) -> Shift | None:
    """The shift of a cosine gate's directions, for 2 ≤ k* ≤ d linearly independent ones; else None."""
    cosine = truth.gate == "cosine" or (truth.gate == "perturbed_cosine" and truth.options.get("tau1") == 0.0)
    if not cosine:
        return None
    directions = chart.blocks["gate_slope"]
    k, d = directions.shape
    if not 2 <= k <= d or np.linalg.matrix_rank(directions) < k:
        return None
    offset = np.linalg.pinv(directions) @ np.ones(k)
    differences = directions[:-1] - directions[-1]
    basis = np.linalg.svd(differences)[2][k - 1 :].T
    square = float(offset @ offset)
    return Shift(-offset / square, 1.0 / np.sqrt(square), basis)
