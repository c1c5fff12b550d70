"""Data that the tests of the estimators share."""

from typing import NamedTuple

import numpy as np
import pytest


class Sample(NamedTuple):
    """Rows of a mixture with known labels."""

    X: np.ndarray
    y: np.ndarray
    label: np.ndarray


def draw(seed, n=200, d=2):
    """Two lines with slopes of opposite sign, errors of 0.3, and a gate on the first covariate."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    label = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-X[:, 0]))).astype(int)
    y = np.where(label == 1, 1.0 + 2.0 * X[:, 0], -1.0 - X.sum(axis=1)) + 0.3 * rng.normal(size=n)
    return Sample(X, y, label)


@pytest.fixture(scope="session")
def draw_sample():
    """The generator itself, for tests that need other sizes or seeds."""
    return draw


@pytest.fixture(scope="session")
def sample():
    return draw(0)
