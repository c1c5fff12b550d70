"""Starts near the best point so far: part of its rows drawn anew, or two experts merged and one split.

They find the maxima that lie behind the next ridge and that no independent start is likely to hit. They say nothing
about what has not been seen, since they do not depend on the data alone.
"""

from collections.abc import Callable

import numpy as np

from gatewise.fit.start_rows import StartRows
from gatewise.fit.strategies import half_spaces, labels_by_share

__all__ = ["PERTURBATIONS"]

Perturbation = Callable[[StartRows, np.ndarray, np.random.Generator], np.ndarray]

_FEWEST_REDRAWN, _MOST_REDRAWN = 0.05, 0.5


def _redraw(data: StartRows, responsibilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Between 5 and 50 % of the rows get a label by lot, with uneven shares."""
    share = generator.uniform(_FEWEST_REDRAWN, _MOST_REDRAWN)
    chosen = labels_by_share(data, np.array([1.0 - share, share]), generator) == 1
    shares = generator.uniform(0.05, 0.95, size=data.n_experts)
    labels = labels_by_share(data, shares / shares.sum(), generator)
    return np.where(chosen, np.eye(data.n_experts)[labels].T, responsibilities)


def _reassign(data: StartRows, responsibilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The rows of one expert go to the others as their responsibilities say, and a half-space splits one of these."""
    k = data.n_experts
    freed = int(generator.integers(k))
    others = np.delete(np.arange(k), freed)
    rest = responsibilities[others]
    total = rest.sum(axis=0)
    moved = np.zeros_like(responsibilities)
    moved[others] = np.where(total > 0.0, rest / np.where(total > 0.0, total, 1.0), 1.0 / len(others))
    mass = moved @ data.weight
    split = int(np.searchsorted(np.cumsum(mass), generator.uniform() * mass.sum()))
    z = np.vstack([data.residual, data.covariates])
    away = half_spaces(data, z, data.weight * moved[split], 2, generator) == 1
    moved[freed] = np.where(away, moved[split], 0.0)
    moved[split] = np.where(away, 0.0, moved[split])
    return moved


PERTURBATIONS: dict[str, Perturbation] = {"redraw": _redraw, "reassign": _reassign}
"""The perturbations by name."""
