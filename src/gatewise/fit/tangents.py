"""The declared symmetries of a model as directions of θ."""

import numpy as np

from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import orthonormal_rows
from gatewise.parts.parameters import Parameters, within

__all__ = ["declared_tangents", "span"]


def declared_tangents(scratch: MixtureOfExperts, named: Parameters, column: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """For each continuous symmetry of gate and experts what it does, and where it moves the free entries (·, size).

    Args:
        scratch: a model whose parameters may be changed, since symmetries are declared for the present ones.
        named: "gate.…" and "experts.…", in this order.
        column: for each entry of the full vector the free one that it stands for, −1 if it is held.
    """
    found = []
    for prefix, part in (("gate", scratch.gate), ("experts", scratch.experts)):
        own = within(prefix, named)
        part.assign_parameters(own)
        for symmetry in part.symmetries():
            if not symmetry.dimension:
                continue
            tangents = symmetry.tangents(own).numpy()
            full = np.zeros((len(tangents), len(column)))
            start = 0 if prefix == "gate" else len(column) - tangents.shape[1]
            full[:, start : start + tangents.shape[1]] = tangents
            found.append((f"{part.name} {symmetry.name}: {symmetry.sentence}", _constrained(full, column)))
    return found


def span(tangents: list[tuple[str, np.ndarray]], size: int) -> np.ndarray:
    """An orthonormal basis (·, size) of all directions together."""
    rows = [directions for _, directions in tangents if len(directions)]
    return orthonormal_rows(np.vstack(rows)) if rows else np.empty((0, size))


def _constrained(tangents: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The combinations of directions of the full vector that respect what is held and tied, in free entries."""
    size = int(column.max(initial=-1)) + 1
    kept = column >= 0
    counts = np.bincount(column[kept], minlength=size)
    free = np.stack([np.bincount(column[kept], weights=row[kept], minlength=size) / counts for row in tangents])
    restored = np.where(kept, free[:, np.maximum(column, 0)], 0.0)
    lost = tangents - restored
    if not np.abs(lost).max(initial=0.0) > 1e-10:
        return free
    _, values, combinations = np.linalg.svd(lost.T, full_matrices=True)
    rank = int((values > 1e-8 * max(float(values[0]), 1.0)).sum())
    return combinations[rank:] @ free
