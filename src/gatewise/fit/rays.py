"""Separation in any model: directions without curvature along which the objective does not fall, out to infinity.

Along such a ray the likelihood has no maximum, and the parameters that move have no standard errors. A direction in
which neither the gate's contrasts nor the locations move is no ray: it is a null direction of the model.
"""

import re
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.families import Family

__all__ = ["separated_experts", "separating_ray"]

# A direction with less information than this, per unit of weight and in internal units, is followed.
_CURVED = 1e-4
_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_MOVED = 1e-3


class Climbed(Protocol):
    """What is asked of a problem: `ModuleProblem` is one."""

    size: int

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]: ...

    def channels_at(self, theta: np.ndarray) -> tuple[Tensor, Tensor, Tensor]: ...

    def explained(self, theta: np.ndarray) -> np.ndarray: ...

    def labels(self) -> list[str]: ...


def separating_ray(
    problem: Climbed, theta: np.ndarray, information: np.ndarray, entries: np.ndarray
) -> np.ndarray | None:
    """A direction (size,) in some entries of θ that separates, or None; also where the curvature is no number.

    Args:
        problem: what was maximised.
        theta: where the solver ended.
        information: there, per unit of weight.
        entries: indices of θ that may move.
    """
    flat = problem.explained(theta)[:, entries]
    block = information[np.ix_(entries, entries)] + flat.T @ flat
    if not np.isfinite(block).all():
        return None
    values, vectors = np.linalg.eigh(block)
    here = problem.value_and_gradient(theta)[0]
    slack = 1e-9 * max(1.0, abs(here))
    for value, vector in zip(values, vectors.T, strict=True):
        if value > _CURVED:
            return None
        for sign in (1.0, -1.0):
            direction = np.zeros(problem.size)
            direction[entries] = sign * vector
            ahead = [problem.value_and_gradient(theta + length * direction)[0] for length in _LENGTHS]
            if all(reached >= here - slack for reached in ahead) and _moves(problem, theta, direction):
                return direction
    return None


def separated_experts(
    problem: Climbed, family: Family, theta: np.ndarray, information: np.ndarray
) -> dict[int, np.ndarray]:
    """Experts some of whose fitted probabilities or means are at the boundary, with the direction they go."""
    _, location, _ = problem.channels_at(theta)
    suspects = family.at_boundary(location).any(0).tolist()
    labels = problem.labels()
    found = {}
    for expert in (i for i, suspect in enumerate(suspects) if suspect):
        own = [
            entry
            for entry, label in enumerate(labels)
            if label.startswith("experts.") and re.search(rf"\[{expert}[,\]]", label) and "log_scale" not in label
        ]
        direction = separating_ray(problem, theta, information, np.array(own, dtype=int)) if own else None
        if direction is not None:
            found[expert] = direction
    return found


def _moves(problem: Climbed, theta: np.ndarray, direction: np.ndarray) -> bool:
    """Whether contrasts of logits, or locations, change along the direction at some row."""
    channels = []
    for point in (theta, theta + _LENGTHS[-1] * direction):
        logits, location, _ = problem.channels_at(point)
        contrasts = torch.nan_to_num(logits - logits[:, -1:])
        channels.append(torch.cat([contrasts.reshape(-1), location.reshape(-1)]))
    return bool(((channels[1] - channels[0]).abs() > _MOVED).any())
