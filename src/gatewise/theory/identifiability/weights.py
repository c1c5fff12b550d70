"""Directions in which no weight πᵢ(x) changes: found from derivatives, explained by the declared symmetries."""

from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy
import torch

from gatewise.gates import Gate
from gatewise.parts.expressions import rational
from gatewise.parts.formulas import Formula
from gatewise.theory.identifiability.automatic import FormOf, derivatives_by_parameters
from gatewise.theory.identifiability.confirm import vanishes

__all__ = ["Translation", "Weights", "study_weights", "translation_of"]

_ROWS = 200
_ZERO = 1e-9
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Translation:
    """That one vector may be added to coordinates v of every expert, Σᵢ ∂ log π/∂vᵢ = 0.

    Attributes:
        text: what v is, and which function of x all logits rise by.
        dimension: in how many directions.
        confirmed: "sympy".
    """

    text: str
    dimension: int
    confirmed: str


@dataclass(frozen=True)
class Weights:
    """What the weights of a gate with k experts determine.

    Attributes:
        n_experts: k.
        n_parameters: of the gate.
        rank: of the derivatives of log π by them, at random inputs and parameters.
        smallest_kept: the smallest singular value that counts as different from 0, over the largest.
        largest_dropped: the largest one that counts as 0, over the largest; 0.0 if none is dropped.
        declared: the gate's continuous symmetries: sentence and how many dimensions each adds.
        further: how many null directions no declared symmetry explains.
        broken: how many declared directions do change the weights, which should be none.
        translation: that of the formula, if there is one.
    """

    n_experts: int
    n_parameters: int
    rank: int
    smallest_kept: float
    largest_dropped: float
    declared: tuple[tuple[str, int], ...]
    further: int
    broken: int
    translation: Translation | None

    @property
    def gap(self) -> str:
        """Kept and dropped singular values in words."""
        size = f"below {_ROUNDING:.0e}" if self.largest_dropped < _ROUNDING else f"{self.largest_dropped:.0e}"
        return f"smallest singular value kept {self.smallest_kept:.0e}, largest dropped {size}"

    @property
    def null(self) -> int:
        """How many directions leave all weights unchanged."""
        return self.n_parameters - self.rank


def translation_of(formula: Formula) -> Translation | None:
    """The translation of a gate whose score is linear in coordinates that can move freely, shown by algebra.

    Example:
        >>> from gatewise.gates import build_gate
        >>> from gatewise.parts.expressions import formula_of
        >>> translation_of(formula_of(build_gate("perturbed_cosine", 2, 2))).text
        'Σᵢ ∂log π/∂vᵢ = 0 with v = β₁/(‖β₁‖ + τ₁): all logits rise by the same function of x'
        >>> translation_of(formula_of(build_gate("cosine", 2, 2))) is None
        True
    """
    if not formula.linear:
        return None
    total = sympy.Add(*(coordinate * function for coordinate, function in formula.linear))
    if not vanishes(formula.values[0] - total):
        return None
    own = [entry.symbol for entry in formula.parameters]
    place = [(symbol, rational(Fraction(3 * i + 4, 5 * i + 7))) for i, symbol in enumerate(own)]
    matrix = sympy.Matrix([[sympy.diff(v, symbol).subs(place) for symbol in own] for v, _ in formula.linear])
    if matrix.rank(simplify=True) < len(formula.linear):
        return None
    text = f"Σᵢ ∂log π/∂vᵢ = 0 with {formula.coordinates}: all logits rise by the same function of x"
    return Translation(text, len(formula.linear), "sympy")


def study_weights(gate: Gate, formula: Formula | None, seed: int) -> Weights:
    """The derivatives of log π, in double precision by automatic differentiation, and what explains their null space.

    Args:
        gate: any gate; its present parameters do not matter, but for those that are 0 by design.
        formula: its score, if there is one.
        seed: of inputs and parameters.
    """
    gate = deepcopy(gate).double()
    generator = torch.Generator().manual_seed(seed)
    own = {
        name: value + 0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in gate.own_parameters().items()
    }
    gate.assign_parameters(own)
    x = 1.5 * torch.randn(_ROWS, gate.n_features, generator=generator, dtype=torch.float64)
    # Of a gate that is a density of x the densities count, not only the weights.
    seen = FormOf(gate, "logits") if gate.is_joint else FormOf(gate, "forward")
    blocks = derivatives_by_parameters(seen, own, x)
    size = sum(value.numel() for value in own.values())
    matrix = torch.cat([block.reshape(_ROWS * gate.n_experts, -1) for block in blocks.values()], dim=1).numpy()
    # Where an expert is not selected its weight is 0, and has no logarithm.
    matrix = matrix[torch.isfinite(seen(x)).reshape(-1).numpy()]
    values, vectors = np.linalg.svd(matrix, full_matrices=True)[1:]
    values = np.concatenate([values, np.zeros(size - len(values))])
    largest = values[0] if len(values) and values[0] > 0.0 else 1.0
    kept = values / largest > _ZERO
    rank = int(kept.sum())
    null = vectors[rank:]
    declared = []
    rows = np.empty((0, size))
    for symmetry in gate.symmetries():
        if not symmetry.dimension:
            continue
        before = _rank(rows)
        rows = np.vstack([rows, symmetry.tangents(own).detach().numpy()])
        declared.append((symmetry.sentence, _rank(rows) - before))
    explained = _rank(rows)
    broken = _rank(rows - rows @ null.T @ null) if len(rows) else 0
    return Weights(
        gate.n_experts,
        size,
        rank,
        float(values[kept][-1] / largest) if rank else 0.0,
        float(values[rank] / largest) if rank < size else 0.0,
        tuple(declared),
        size - rank - (explained - broken),
        broken,
        None if formula is None else translation_of(formula),
    )


def _rank(rows: np.ndarray) -> int:
    """The rank of rows of any lengths."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    alive = rows[lengths[:, 0] > 1e-8] / lengths[lengths[:, 0] > 1e-8]
    return int((np.linalg.svd(alive, compute_uv=False) > 1e-8).sum()) if len(alive) else 0
