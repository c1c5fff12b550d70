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
from gatewise.ops.separation import separating_direction

__all__ = ["linear_ray", "separated_experts", "separating_ray"]

# A direction with less information than this, per unit of weight and in internal units, is followed.
_CURVED = 1e-4
_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_MOVED = 1e-3


class Climbed(Protocol):
    """What is asked of a problem: `Problem` is one."""

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
    for value, vector in zip(values, vectors.T, strict=True):
        if value > _CURVED:
            return None
        for sign in (1.0, -1.0):
            direction = np.zeros(problem.size)
            direction[entries] = sign * vector
            if not _falls(problem, theta, direction) and _moves(problem, theta, direction):
                return direction
    return None


def linear_ray(
    problem: Climbed, theta: np.ndarray, information: np.ndarray, gate_design: np.ndarray, responsibilities: np.ndarray
) -> np.ndarray | None:
    """A direction (size,) in which a gate of linear logits separates, by a linear programme, or None.

    The programme runs only where the gate's information is nearly singular, and its answer counts only if the
    likelihood does not fall along the ray.

    Args:
        problem: what was maximised; θ begins with the gate's contrasts (k − 1, q).
        theta: where the solver ended.
        information: there, per unit of weight.
        gate_design: what the logits are linear in (q, n).
        responsibilities: there (k, n).
    """
    n_gate = (len(responsibilities) - 1) * len(gate_design)
    if np.linalg.eigvalsh(information[:n_gate, :n_gate])[0] > _CURVED:
        return None
    direction = separating_direction(gate_design, responsibilities)
    if direction is None:
        return None
    ray = np.zeros(problem.size)
    ray[:n_gate] = (direction[:-1] - direction[-1]).ravel()
    return None if _falls(problem, theta, ray) else ray


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


def _falls(problem: Climbed, theta: np.ndarray, direction: np.ndarray) -> bool:
    """Whether the objective falls somewhere along a ray."""
    here = problem.value_and_gradient(theta)[0]
    slack = 1e-9 * max(1.0, abs(here))
    return any(problem.value_and_gradient(theta + length * direction)[0] < here - slack for length in _LENGTHS)


def _moves(problem: Climbed, theta: np.ndarray, direction: np.ndarray) -> bool:
    """Whether contrasts of logits, or locations, change along the direction at some row."""
    channels = []
    for point in (theta, theta + _LENGTHS[-1] * direction):
        logits, location, _ = problem.channels_at(point)
        contrasts = torch.nan_to_num(logits - logits[:, -1:])
        channels.append(torch.cat([contrasts.reshape(-1), location.reshape(-1)]))
    return bool(((channels[1] - channels[0]).abs() > _MOVED).any())
