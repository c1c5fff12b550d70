"""Families: stateless distributions that score a target under each of k experts."""

from gatewise.families.base import FAMILIES, Family, build_family, family_takes
from gatewise.families.bernoulli import Bernoulli
from gatewise.families.binomial import Binomial
from gatewise.families.categorical import Categorical
from gatewise.families.gamma import Gamma
from gatewise.families.gaussian import Gaussian
from gatewise.families.laplace import Laplace
from gatewise.families.multivariate_gaussian import MultivariateGaussian
from gatewise.families.negative_binomial import NegativeBinomial
from gatewise.families.poisson import Poisson
from gatewise.families.student_t import StudentT

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Family",
    "Gamma",
    "Gaussian",
    "Laplace",
    "MultivariateGaussian",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "build_family",
    "family_takes",
]
