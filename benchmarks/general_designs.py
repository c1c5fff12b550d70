"""Designs with counts and classes: a softmax gate and linear Poisson or multinomial logistic experts."""

from dataclasses import dataclass

import numpy as np

from common import GeneralParameters

__all__ = ["CLASSES", "GeneralDesign", "GeneralSample", "generate_general", "log_densities", "truth_of"]

CLASSES = 3
REDRAWN = 0.3


@dataclass(frozen=True)
class GeneralDesign:
    """One design: the family, n rows, d features, k experts."""

    family: str
    n: int
    d: int
    k: int

    def __str__(self) -> str:
        return f"{self.family} n={self.n:,} d={self.d} k={self.k}"


@dataclass(frozen=True)
class GeneralSample:
    """A drawn data set, the common start of every program, and the parameters it was drawn from.

    Attributes:
        x: features, (n, d).
        y: counts or class codes, (n,).
        labels: the start, (n,): the expert each row was drawn from, with 30 % of them drawn again uniformly.
        truth: the parameters.
    """

    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray
    truth: GeneralParameters

    @property
    def responsibilities(self) -> np.ndarray:
        """The labels as an indicator matrix (n, k)."""
        return np.eye(len(self.truth.gate))[self.labels]


def truth_of(design: GeneralDesign) -> GeneralParameters:
    """The parameters of a design.

    The gate's slopes are N(0, 4 / d) with the last expert as reference. Experts of counts have the intercepts 0.5 to 2
    and slopes N(0, 0.36 / d), so means mostly between 1 and 20; those of classes have intercepts N(0, 1) and slopes
    N(0, 9 / d).
    """
    d, k = design.d, design.k
    random = np.random.default_rng(1000 * d + k)
    gate = np.zeros((k, 1 + d))
    gate[:-1, 1:] = random.normal(size=(k - 1, d)) * 2 / np.sqrt(d)
    if design.family == "poisson":
        experts = random.normal(size=(k, 1, 1 + d)) * 0.6 / np.sqrt(d)
        experts[:, 0, 0] = np.linspace(0.5, 2.0, k)
    else:
        experts = random.normal(size=(k, CLASSES - 1, 1 + d))
        experts[..., 1:] *= 3 / np.sqrt(d)
    return GeneralParameters(gate, experts)


def log_densities(family: str, locations: np.ndarray, y: np.ndarray, log_factorial: np.ndarray) -> np.ndarray:
    """Log f(y | hᵢ) for locations (n, k, m), (n, k); log y! is handed in, since it never changes."""
    if family == "poisson":
        return y[:, None] * locations[..., 0] - np.exp(locations[..., 0]) - log_factorial[:, None]
    every = np.concatenate([locations, np.zeros((*locations.shape[:2], 1))], axis=2)
    top = every.max(axis=2, keepdims=True)
    log_sum = top[..., 0] + np.log(np.exp(every - top).sum(axis=2))
    return np.take_along_axis(every, y.astype(int)[:, None, None], axis=2)[..., 0] - log_sum


def generate_general(design: GeneralDesign) -> GeneralSample:
    """Draw the data set of a design, features standard normal; the seed follows from the design."""
    n, d, k = design.n, design.d, design.k
    truth = truth_of(design)
    random = np.random.default_rng(7 * n + 10 * d + k)
    x = random.normal(size=(n, d))
    with_one = np.column_stack([np.ones(n), x])

    def draw(logits: np.ndarray) -> np.ndarray:
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        cumulative = (weights / weights.sum(axis=1, keepdims=True)).cumsum(axis=1)
        return np.minimum((random.uniform(size=n)[:, None] > cumulative).sum(axis=1), logits.shape[1] - 1)

    expert = draw(with_one @ truth.gate.T)
    location = np.einsum("np,kmp->nkm", with_one, truth.experts)[np.arange(n), expert]
    if design.family == "poisson":
        y = random.poisson(np.exp(location[:, 0])).astype(float)
    else:
        y = draw(np.column_stack([location, np.zeros(n)])).astype(float)
    labels = expert.copy()
    redrawn = random.uniform(size=n) < REDRAWN
    labels[redrawn] = random.integers(0, k, redrawn.sum())
    return GeneralSample(x, y, labels, truth)
