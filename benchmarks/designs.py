"""The designs of the benchmarks: softmax gate and linear Gaussian experts on uniform inputs."""

from dataclasses import dataclass

import numpy as np

__all__ = ["GRID", "TARGETS", "Design", "Sample", "Target", "generate"]

# Standard deviations of the experts; a design with k experts uses the first k.
SCALES = np.array([0.3, 0.5, 0.4, 0.6])
REDRAWN = 0.3
HELD_OUT = 10_000


@dataclass(frozen=True)
class Design:
    """One cell of the grid: n rows, d features, k experts."""

    n: int
    d: int
    k: int

    def __str__(self) -> str:
        return f"n={self.n:,} d={self.d} k={self.k}"


@dataclass(frozen=True)
class Sample:
    """A drawn data set and the common start of every program.

    Attributes:
        x: features, (n, d).
        y: target, (n,).
        labels: the start, (n,): the expert each row was drawn from, with 30 % of them drawn again uniformly.
    """

    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray

    @property
    def responsibilities(self) -> np.ndarray:
        """The labels as an indicator matrix (n, k)."""
        return np.eye(int(self.labels.max()) + 1)[self.labels]


@dataclass(frozen=True)
class Target:
    """How many times less CPU time than `program` a fit of this design has to take."""

    program: str
    factor: float


GRID = tuple(Design(n, d, k) for n in (1_000, 10_000, 100_000) for d in (1, 8) for k in (2, 4))
TARGETS = {
    Design(10_000, 8, 4): Target("flexmix", 100.0),
    Design(10_000, 1, 4): Target("flexmix", 200.0),
    Design(100_000, 8, 4): Target("NumPy EM", 8.0),
    Design(100_000, 1, 4): Target("NumPy EM", 50.0),
}


def generate(design: Design) -> Sample:
    """Draw the data set of a design; the seed follows from the design, so that every run sees the same rows.

    Features are uniform on (0, 1), the gate's slopes N(0, 64 / d) with the last expert as reference and weights that
    are equal in the middle of the cube, the experts' intercepts N(0, 1) and slopes N(0, 4 / d).
    """
    n, d, k = design.n, design.d, design.k
    truth = np.random.default_rng(1000 * d + k)
    gate = np.zeros((1 + d, k))
    gate[1:, :-1] = truth.normal(size=(d, k - 1)) * 8 / np.sqrt(d)
    gate[0] = -0.5 * gate[1:].sum(axis=0)
    intercepts = truth.normal(size=k)
    experts = np.vstack([intercepts, truth.normal(size=(d, k)) * 2 / np.sqrt(d)])
    scale = SCALES[:k]

    random = np.random.default_rng(7 * n + 10 * d + k)
    x = random.uniform(size=(n, d))
    with_one = np.column_stack([np.ones(n), x])
    logits = with_one @ gate
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    expert = np.minimum((random.uniform(size=n)[:, None] > weights.cumsum(axis=1)).sum(axis=1), k - 1)
    y = (with_one @ experts)[np.arange(n), expert] + scale[expert] * random.normal(size=n)

    # The generator these designs were first measured with drew held-out rows at this place. Drawing them too keeps
    # the labels the same, and with them every earlier figure comparable.
    random.uniform(size=HELD_OUT * (d + 1))
    random.normal(size=HELD_OUT)
    labels = expert.copy()
    redrawn = random.uniform(size=n) < REDRAWN
    labels[redrawn] = random.integers(0, k, redrawn.sum())
    return Sample(x=x, y=y, labels=labels)
