"""Directions of θ without information: which the declared symmetries explain, and which are left to be named."""

import numpy as np

from gatewise.fit.problem import Problem
from gatewise.fit.result import NullSpace
from gatewise.ops.linalg import INDEPENDENT, orthonormal_rows

__all__ = ["SINGULAR", "find_null_space"]

# Smallest over largest eigenvalue of the information at which a direction counts as one without information.
SINGULAR = 1e-10


def find_null_space(problem: Problem, theta: np.ndarray, information: np.ndarray, free: np.ndarray) -> NullSpace:
    """The null space of the information over the free coordinates.

    An eigenvector with an eigenvalue below 1e-10 of the largest, after the directions of the declared symmetries are
    taken out, is a further null direction. A symmetry may be broken by a constraint or a bound: then its directions
    carry information, and are not counted. Entries that act through a selection only are kept apart.
    """
    directions, sentences = [], []
    size = len(theta)
    largest = float(np.abs(np.linalg.eigvalsh(information)[[0, -1]]).max()) if size else 0.0
    for sentence, tangents in problem.symmetry_tangents(theta):
        rows = orthonormal_rows(tangents)
        before = len(orthonormal_rows(np.vstack(directions))) if directions else 0
        directions.append(rows)
        sentences.append((sentence, len(orthonormal_rows(np.vstack(directions))) - before))
    explained = orthonormal_rows(np.vstack(directions)) if directions else np.empty((0, size))
    by_selection = _beside(np.eye(size)[problem.selection_entries], explained)
    complement = _complement(explained, free)
    if not len(complement):
        return NullSpace(explained, tuple(sentences), np.empty((0, size)), by_selection)
    values, vectors = np.linalg.eigh(complement @ information @ complement.T)
    flat = np.abs(values) <= SINGULAR * largest
    return NullSpace(explained, tuple(sentences), vectors[:, flat].T @ complement, by_selection)


def _beside(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the span of some rows, less what lies in the span of other, orthonormal ones."""
    if not len(rows):
        return rows
    _, values, basis = np.linalg.svd(rows - rows @ others.T @ others, full_matrices=False)
    return basis[values > INDEPENDENT]


def _complement(explained: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span the free coordinates orthogonal to the explained directions, (size − c, size)."""
    held = np.eye(len(free))[~free]
    taken = orthonormal_rows(np.vstack([explained, held]))
    return np.linalg.svd(taken, full_matrices=True)[2][len(taken) :] if len(taken) else np.eye(len(free))
