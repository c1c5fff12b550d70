"""Simulated tables on which the search for the best maximum is calibrated: one for each number, from a seed."""

import dataclasses

import numpy as np

from gatewise.model import MixtureOfExperts

FAMILIES = ("gaussian", "poisson", "categorical", "gamma")
_CLASSES = 3
_SMALLEST_WEIGHT = 0.05


@dataclasses.dataclass(frozen=True)
class Table:
    """A table drawn from a mixture, and the model to fit.

    Attributes:
        name: family, experts, features, rows, and what the gate sees.
        model: the prototype.
        x: (n, d).
        gate_x: (n, d), or (n, 0) for a gate without features.
        y: (n,).
    """

    name: str
    model: MixtureOfExperts
    x: np.ndarray
    gate_x: np.ndarray
    y: np.ndarray


def table(number: int, seed: int) -> Table:
    """Family by turns; 2 to 5 experts, 1 to 8 features, weights of at least 5 %, 500 to 2,000 rows."""
    generator = np.random.default_rng([seed, number])
    family = FAMILIES[number % len(FAMILIES)]
    k = int(generator.choice([2, 3, 4, 5], p=[0.4, 0.3, 0.2, 0.1]))
    d = int(generator.integers(1, 9))
    n = round(500.0 * 4.0 ** generator.uniform())
    on_inputs = bool(generator.integers(2))
    x = generator.normal(size=(n, d))
    labels = _labels(x, k, on_inputs, generator)
    y = _target(family, x, labels, k, generator)
    gate_x = x if on_inputs else x[:, :0]
    options = {"n_classes": _CLASSES} if family == "categorical" else {}
    model = MixtureOfExperts.build(
        gate="softmax",
        experts="linear",
        family=family,
        family_options=options,
        n_experts=k,
        n_features=d,
        n_gate_features=gate_x.shape[1],
    )
    name = f"{family}, k = {k}, d = {d}, n = {n}, {'gate on inputs' if on_inputs else 'constant gate'}"
    return Table(name, model, x, gate_x, y)


def _labels(x: np.ndarray, k: int, on_inputs: bool, generator: np.random.Generator) -> np.ndarray:
    """Which expert makes each row: shares of at least 5 %, which the inputs move in half of the tables."""
    share = _SMALLEST_WEIGHT + (1.0 - k * _SMALLEST_WEIGHT) * generator.dirichlet(np.ones(k))
    logits = np.log(share) + (x @ generator.normal(size=(x.shape[1], k)) / np.sqrt(x.shape[1]) if on_inputs else 0.0)
    return (np.broadcast_to(logits, (len(x), k)) + generator.gumbel(size=(len(x), k))).argmax(axis=1)


def _target(family: str, x: np.ndarray, labels: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    n, d = x.shape
    size = 1.5 if family == "categorical" else 1.0
    n_outputs = _CLASSES if family == "categorical" else 1
    intercept = size * 1.5 * generator.normal(size=(k, n_outputs))
    slope = size * generator.normal(size=(k, n_outputs, d)) / np.sqrt(d)
    location = intercept[labels] + np.einsum("nd,nmd->nm", x, slope[labels])
    if family == "gaussian":
        return location[:, 0] + generator.uniform(0.3, 1.0, size=k)[labels] * generator.normal(size=n)
    if family == "categorical":
        return (location + generator.gumbel(size=location.shape)).argmax(axis=1).astype(float)
    mean = np.exp(np.clip(0.6 * location[:, 0] + 1.0, -4.0, 6.0))
    if family == "poisson":
        return generator.poisson(mean).astype(float)
    shape = np.exp(generator.uniform(np.log(2.0), np.log(20.0), size=k))[labels]
    return generator.gamma(shape, mean / shape)
