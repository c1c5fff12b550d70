"""One data set of a study: keyed by the study's seed, the size and the replicate, the same for every method."""

import math

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.study.design import StudyDesign

__all__ = ["generator_of_points", "generator_of_starts", "inputs", "simulate"]

_DATA, _STARTS, _POINTS = 0, 1, 4


def simulate(design: StudyDesign, truth: MixtureOfExperts, n: int, replicate: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, d) and targets (n,) or (n, e), drawn with the key (seed, n, replicate).

    Raises:
        InputError: the inputs are to come from the gate, and the true gate is no density of them.
    """
    sequence = np.random.SeedSequence(design.seed, spawn_key=(_DATA, n, replicate))
    generator = np.random.default_rng(sequence)
    x = inputs(design, truth, n, generator)
    points = torch.from_numpy(x)
    if design.truth.residual_variance is None:
        seeded = torch.Generator().manual_seed(int(generator.integers(2**63)))
        return x, truth.sample(points, generator=seeded).numpy()
    mean = truth.mean(points).numpy()
    return x, mean + math.sqrt(design.truth.residual_variance) * generator.normal(size=mean.shape)


def inputs(design: StudyDesign, truth: MixtureOfExperts, n: int, generator: np.random.Generator) -> np.ndarray:
    """Inputs (n, d) of the design's law.

    Raises:
        InputError: they are to come from the gate, and the true gate is no density of them.
    """
    law, shape = design.covariates, (n, design.n_features)
    if law.law == "uniform":
        return generator.uniform(law.low, law.high, size=shape)
    if law.law == "normal":
        return generator.normal(law.mean, law.deviation, size=shape)
    if law.law == "grid":
        return np.linspace(law.low, law.high, n)[:, None]
    gate = truth.gate
    if not gate.is_joint:
        raise InputError(f'covariates: the law "gate" needs a joint Gaussian gate, and the true gate is {shown(gate)}')
    return gate.draw_inputs(n, generator)


def generator_of_starts(seed: int, method: int, n: int, replicate: int, attempt: int) -> np.random.Generator:
    """What draws the starts of one attempt of a fit; `method` is a number made of the method's name."""
    key = (_STARTS, method, n, replicate, attempt)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def generator_of_points(seed: int) -> np.random.Generator:
    """What draws the points at which fits are compared with the truth."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_POINTS,)))
