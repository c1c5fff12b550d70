"""Every family with a dispersion, locations and targets to test it at, and its distribution in SciPy."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from scipy.special import expit

from gatewise.families import (
    Bernoulli,
    Binomial,
    Categorical,
    Family,
    Gamma,
    Gaussian,
    Laplace,
    MultivariateGaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
)


def tensor(values, dtype=torch.float64):
    return torch.as_tensor(np.asarray(values, dtype=float)).to(dtype)


@dataclass(frozen=True)
class Case:
    """A scalar family at k = 3 experts: `reference(location, dispersion)` is its distribution in SciPy."""

    family: Family
    location: tuple
    log_scale: tuple
    y: tuple
    reference: object

    def parameters(self, dtype=torch.float64):
        """Locations (k,) and dispersions (k,), (k, s) or (k, 0)."""
        log_scale = tensor(self.log_scale, dtype)
        return tensor(self.location, dtype), log_scale if log_scale.numel() else log_scale.reshape(3, 0)

    def experts(self):
        """SciPy's distributions of the experts."""
        rows = self.log_scale or (None,) * 3
        return [self.reference(h, s) for h, s in zip(self.location, rows, strict=True)]


def _negative_binomial(h, s):
    return stats.nbinom(np.exp(s), expit(s - h))


_REAL = (-40.0, -3.0, -0.2, 0.0, 0.7, 1.0, 5.0, 40.0)
_COUNTS = (0.0, 1.0, 2.0, 3.0, 7.0, 20.0, 100.0)

SCALAR = {
    "gaussian": Case(Gaussian(), (-1.0, 0.0, 2.0), (-0.5, 0.3, 1.0), _REAL, lambda h, s: stats.norm(h, np.exp(s))),
    "bernoulli": Case(Bernoulli(), (-2.0, 0.3, 4.0), (), (0.0, 1.0), lambda h, s: stats.bernoulli(expit(h))),
    "binomial": Case(
        Binomial(7), (-2.0, 0.3, 4.0), (), tuple(map(float, range(8))), lambda h, s: stats.binom(7, expit(h))
    ),
    "poisson": Case(Poisson(), (-3.0, 0.4, 3.0), (), _COUNTS, lambda h, s: stats.poisson(np.exp(h))),
    "negative_binomial": Case(NegativeBinomial(), (-1.0, 0.4, 3.0), (-0.7, 0.5, 3.0), _COUNTS, _negative_binomial),
    "gamma": Case(
        Gamma(),
        (-2.0, 0.4, 3.0),
        (-0.5, 0.5, 4.0),
        (1e-8, 0.1, 0.9, 1.5, 4.0, 30.0, 300.0),
        lambda h, s: stats.gamma(np.exp(s), scale=np.exp(h - s)),
    ),
    "student_t": Case(
        StudentT(),
        (-1.0, 0.0, 2.0),
        ((-0.5, 1.8), (0.3, 2.0), (1.0, 4.0)),
        (*_REAL, 1e6),
        lambda h, s: stats.t(np.exp(s[1]), h, np.exp(s[0])),
    ),
    "student_t_5": Case(
        StudentT(5.0), (-1.0, 0.0, 2.0), (-0.5, 0.3, 1.0), _REAL, lambda h, s: stats.t(5.0, h, np.exp(s))
    ),
    "laplace": Case(Laplace(), (-1.1, 0.1, 2.0), (-0.5, 0.3, 1.0), _REAL, lambda h, s: stats.laplace(h, np.exp(s))),
}

ALL = {
    **{name: case.family for name, case in SCALAR.items()},
    "binomial_pairs": Binomial(),
    "categorical_2": Categorical(2),
    "categorical_4": Categorical(4),
    "multivariate_full": MultivariateGaussian(3),
    "multivariate_diagonal": MultivariateGaussian(2, covariance="diagonal"),
}


def random_problem(family, batch=(5,), k=3, seed=0, dtype=torch.float64):
    """Targets, locations and dispersions of the right shapes: (…) or (…, e), (…, k) or (…, k, m), (k,) or (k, s)."""
    generator = torch.Generator().manual_seed(seed)
    outputs = () if family.n_outputs == 1 else (family.n_outputs,)
    dispersions = () if family.n_dispersion == 1 else (family.n_dispersion,)
    location = torch.randn(*batch, k, *outputs, generator=generator, dtype=torch.float64)
    log_scale = 0.4 * torch.randn(k, *dispersions, generator=generator, dtype=torch.float64)
    if family == StudentT():
        # Enough degrees of freedom for a variance.
        log_scale[:, 1] += 2.0
    if family == Binomial():
        y = torch.tensor([2.0, 5.0], dtype=torch.float64).expand(*batch, 2)
    else:
        y = family.sample(location, log_scale, generator).select(len(batch), 0)
    return y.to(dtype), location.to(dtype), log_scale.to(dtype)
