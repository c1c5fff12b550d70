"""Mixtures of every family beside SciPy's distributions of their experts, for brute-force sums."""

import numpy as np
import torch
from scipy import special, stats

from gatewise.model import MixtureOfExperts


class ClassDistribution:
    """A categorical variable as SciPy would have it: its mean is the vector of probabilities."""

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def logpmf(self, y):
        return np.log(self.probabilities[int(y)])

    def mean(self):
        return self.probabilities

    def var(self):
        return self.probabilities * (1.0 - self.probabilities)


class Vector:
    """A multivariate normal variable with variances by column."""

    def __init__(self, mean, covariance):
        self.distribution = stats.multivariate_normal(mean, covariance)
        self.logpdf = self.distribution.logpdf

    def mean(self):
        return self.distribution.mean

    def var(self):
        return np.diag(self.distribution.cov)


class Proportion:
    """Successes with their own trials: the mean is that of one trial."""

    def __init__(self, probability):
        self.probability = probability

    def logpmf(self, y):
        return stats.binom(int(y[1]), self.probability).logpmf(y[0])

    def mean(self):
        return self.probability

    def var(self):
        return self.probability * (1.0 - self.probability)


def full_covariance(s):
    factor = np.array([[np.exp(s[0]), 0.0], [s[2], np.exp(s[1])]])
    return factor @ factor.T


# Family and options, SciPy's distribution from one expert's location and dispersions, and values that targets can have.
FAMILY_CASES = {
    "gaussian": ("gaussian", {}, lambda h, s: stats.norm(h, np.exp(s)), (-0.7, 0.2, 1.4)),
    "bernoulli": ("bernoulli", {}, lambda h, s: stats.bernoulli(special.expit(h)), (0.0, 1.0, 1.0)),
    "binomial": ("binomial", {"trials": 7}, lambda h, s: stats.binom(7, special.expit(h)), (0.0, 3.0, 7.0)),
    "proportion": ("binomial", {}, lambda h, s: Proportion(special.expit(h)), ((2.0, 3.0), (0.0, 5.0), (1.0, 1.0))),
    "two classes": (
        "categorical",
        {"n_classes": 2},
        lambda h, s: ClassDistribution(special.softmax([h, 0.0])),
        (0.0, 1.0, 0.0),
    ),
    "three classes": (
        "categorical",
        {"n_classes": 3},
        lambda h, s: ClassDistribution(special.softmax([*h, 0.0])),
        (0.0, 1.0, 2.0),
    ),
    "gamma": ("gamma", {}, lambda h, s: stats.gamma(np.exp(s), scale=np.exp(h - s)), (0.1, 0.9, 4.0)),
    "laplace": ("laplace", {}, lambda h, s: stats.laplace(h, np.exp(s)), (-0.7, 0.2, 1.4)),
    "diagonal vector": (
        "multivariate_gaussian",
        {"n_targets": 2, "covariance": "diagonal"},
        lambda h, s: Vector(h, np.diag(np.exp(2.0 * s))),
        ((0.3, -0.4), (1.0, 0.2), (-2.0, 0.7)),
    ),
    "vector": (
        "multivariate_gaussian",
        {"n_targets": 2},
        lambda h, s: Vector(h, full_covariance(s)),
        ((0.3, -0.4), (1.0, 0.2), (-2.0, 0.7)),
    ),
    "negative binomial": (
        "negative_binomial",
        {},
        lambda h, s: stats.nbinom(np.exp(s), 1.0 / (1.0 + np.exp(h - s))),
        (0.0, 2.0, 9.0),
    ),
    "poisson": ("poisson", {}, lambda h, s: stats.poisson(np.exp(h)), (0.0, 2.0, 9.0)),
    "student t": ("student_t", {}, lambda h, s: stats.t(np.exp(s[1]), h, np.exp(s[0])), (-0.7, 0.2, 5.0)),
    "student t 4": ("student_t", {"df": 4.0}, lambda h, s: stats.t(4.0, h, np.exp(s)), (-0.7, 0.2, 5.0)),
}
ORDERED = [name for name in FAMILY_CASES if "class" not in name and "vector" not in name and name != "proportion"]
DISCRETE = ["bernoulli", "binomial", "negative binomial", "poisson"]


def random_mixture(gate="softmax", experts="linear", case="gaussian", d=2, k=3, seed=0, dtype=torch.float64, **options):
    """A mixture with random parameters of moderate size, without gradients."""
    family, family_options, _, _ = FAMILY_CASES[case]
    model = MixtureOfExperts.build(gate, experts, family, d, k, family_options=family_options, **options).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.copy_(0.6 * noise.to(dtype))
        if model.family.n_dispersion == 2 and family == "student_t":
            # Degrees of freedom above 2: variances are finite.
            model.experts.log_scale[:, 1].abs_().add_(1.0)
    return model.requires_grad_(False)


def inputs(model, n=3, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, model.experts.n_features, dtype=torch.float64, generator=generator).to(dtype)


def targets(case, n=3, dtype=torch.float64):
    values = FAMILY_CASES[case][3]
    return torch.tensor([values[row % len(values)] for row in range(n)], dtype=dtype)


def expert_distributions(model, case, x):
    """SciPy's distributions, one list of k for each row of x."""
    location, dispersion = (array.numpy() for array in model.experts(x))
    make = FAMILY_CASES[case][2]
    return [[make(row[i], dispersion[i]) for i in range(model.n_experts)] for row in location]


def log_density(distribution, y):
    return distribution.logpdf(y) if hasattr(distribution, "logpdf") else distribution.logpmf(y)
