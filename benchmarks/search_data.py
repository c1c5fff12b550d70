"""Simulated tables on which the search for the best maximum is calibrated: one for each number, from a seed."""

import dataclasses

import numpy as np

from gatewise.model import MixtureOfExperts

FAMILIES = ("gaussian", "poisson", "categorical", "gamma")
_CLASSES = 3
_SMALLEST_WEIGHT = 0.05
_GATE_SLOPE = 2.0
_ROWS_PER_PARAMETER, _FEWEST_ROWS, _MOST_ROWS = 20, 250, 800


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
    """Family by turns; 2 to 5 experts, 1 to 8 features, weights of at least 5 %, 20 rows for each parameter.

    There are at least 250 rows and at most 800. In half of the tables the inputs move the weights; in all of classes,
    since one class in a row tells little else.
    """
    generator = np.random.default_rng([seed, number])
    family = FAMILIES[number % len(FAMILIES)]
    k = int(generator.choice([2, 3, 4, 5], p=[0.4, 0.3, 0.2, 0.1]))
    d = int(generator.integers(1, 9))
    on_inputs = bool(generator.integers(2)) or family == "categorical"
    options = {"n_classes": _CLASSES} if family == "categorical" else {}
    model = MixtureOfExperts.build(
        gate="softmax",
        experts="linear",
        family=family,
        family_options=options,
        n_experts=k,
        n_features=d,
        n_gate_features=d if on_inputs else 0,
    )
    n = min(max(_ROWS_PER_PARAMETER * _size(model), _FEWEST_ROWS), _MOST_ROWS)
    x = generator.normal(size=(n, d))
    slope = _GATE_SLOPE * generator.normal(size=(d, k)) / np.sqrt(d) if on_inputs else np.zeros((d, k))
    labels = _labels(x, slope, generator)
    y = _target(family, x, labels, k, generator)
    name = f"{family}, k = {k}, d = {d}, n = {n}, {'gate on inputs' if on_inputs else 'constant gate'}"
    return Table(name, model, x, x if on_inputs else x[:, :0], y)


def _size(model: MixtureOfExperts) -> int:
    """Free parameters: those of the gate are relative to its last expert's."""
    k = model.n_experts
    gate = sum(value.numel() for value in model.gate.parameters()) * (k - 1) // k
    return gate + sum(value.numel() for value in model.experts.parameters())


def _labels(x: np.ndarray, slope: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Which expert makes each row: shares of at least 5 % where all inputs are 0."""
    k = slope.shape[1]
    share = _SMALLEST_WEIGHT + (1.0 - k * _SMALLEST_WEIGHT) * generator.dirichlet(np.ones(k))
    return (np.log(share) + x @ slope + generator.gumbel(size=(len(x), k))).argmax(axis=1)


def _target(family: str, x: np.ndarray, labels: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    n, d = x.shape
    n_outputs = _CLASSES if family == "categorical" else 1
    intercept = 1.5 * generator.normal(size=(k, n_outputs))
    slope = generator.normal(size=(k, n_outputs, d)) / np.sqrt(d)
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
