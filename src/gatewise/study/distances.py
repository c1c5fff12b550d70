"""How far a fitted model is from the truth as a function, whatever its atoms: its density, or its mean."""

import math
from collections.abc import Callable

import numpy as np
import torch

from gatewise.model import MixtureOfExperts
from gatewise.study.design import StudyDesign
from gatewise.study.simulate import generator_of_points, inputs
from gatewise.study.tables import LossTable

__all__ = ["POINTS", "distance_of"]

POINTS = 10_000
"""How many inputs the mean is taken over: the same for every fit of a study, drawn from its seed."""

Distance = Callable[[MixtureOfExperts], float]


def distance_of(design: StudyDesign, truth: MixtureOfExperts, table: LossTable) -> Distance:
    """The function of a fitted model p that the table names, with x from the design's law.

    "hellinger" is h, h² = E_x ½ ∫ (√p(y | x) − √p*(y | x))² dy. At every x one y is drawn from the truth and one from
    the fit; under their equal mixture the integrand over its density is 1 − 1 / cosh(t/2) with t = log p − log p*. It
    lies between 0 and 1, so that no rare point can decide, and its mean over both draws is h² without bias. "l2" is
    (E_x ‖f(x) − f*(x)‖²)^½ of the mixtures' means.

    Args:
        design: the study.
        truth: its model.
        table: a loss of one of these kinds.
    """
    generator = generator_of_points(design.seed)
    x = torch.from_numpy(inputs(design, truth, POINTS, generator))
    seed = int(generator.integers(2**63))
    if table.kind == "l2":
        true_mean = truth.mean(x)
        return lambda model: _root_mean(((model.mean(x) - true_mean) ** 2).reshape(POINTS, -1).sum(1))
    y = truth.sample(x, generator=torch.Generator().manual_seed(seed))
    true_density = truth.log_prob(x, y)

    def hellinger(model: MixtureOfExperts) -> float:
        own = model.sample(x, generator=torch.Generator().manual_seed(seed + 1))
        differences = (model.log_prob(x, y) - true_density, model.log_prob(x, own) - truth.log_prob(x, own))
        return _root_mean(affinity_lost(torch.cat(differences)))

    return hellinger


def affinity_lost(difference: torch.Tensor) -> torch.Tensor:
    """1 − 1 / cosh(t/2) without cancellation, and 1 at t = ±∞, in powers of e^(−|t|/2) that cannot overflow."""
    share = torch.exp(-difference.abs() / 2.0)
    return torch.expm1(-difference.abs() / 2.0) ** 2 / (1.0 + share**2)


def _root_mean(squares: torch.Tensor) -> float:
    return math.sqrt(float(np.mean(squares.detach().numpy())))
