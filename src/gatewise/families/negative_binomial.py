"""The negative binomial family with a log link: counts with more variance than Poisson's."""

import math

import numpy as np
import torch
from scipy import special
from torch import Tensor

from gatewise.families.base import BOUNDARY, FAMILIES, Family
from gatewise.families.elementwise import gamma_quantile, poisson_draws, smallest_count, through_numpy, uniform
from gatewise.families.smooth import (
    bounded_log,
    exp_or_tangent,
    largest_log,
    log_gamma_increment,
    log_gamma_increment_slopes,
    log_sigmoid,
)
from gatewise.families.starts import half_row, weighted_mean
from gatewise.families.targets import as_column, check_counts, is_count
from gatewise.parts.formulas import FamilyFormula, TheoryParameter

_SIZES = (1e-2, 1e3)


@FAMILIES.register
class NegativeBinomial(Family):
    """P(Y = y | h, r) = Γ(y + r)/(Γ(r) y!) · (r/(r + μ))ʳ (μ/(r + μ))ʸ with mean μ = exp(h) and variance μ + μ²/r.

    The dispersion is log r, r the size: a Poisson variable whose mean is a gamma variable of shape r. As r → ∞ it
    becomes the Poisson family, and where counts vary no more than Poisson's a fit drives r there. The logarithm of an
    exposure may be added to the location.

    Example:
        >>> import torch
        >>> family = NegativeBinomial()
        >>> location = torch.tensor([[1.0, 1.0]])
        >>> family.log_density(torch.tensor([2.0]), location, torch.tensor([0.0, 30.0]))
        tensor([[-1.9398, -1.4114]])
        >>> family.variance(location, torch.tensor([0.0, 30.0]))
        tensor([[10.1073,  2.7183]])
    """

    name = "negative_binomial"
    formula = "Γ(y + r)/(Γ(r) y!) (r/(r + μ))ʳ (μ/(r + μ))ʸ, μ = exp(h), variance μ + μ²/r"
    source = "Lawless (1987), Canadian Journal of Statistics 15"
    is_discrete = True
    is_log_concave = False
    log_link = True

    @property
    def n_dispersion(self) -> int:
        """One: log r."""
        return 1

    def check_target(self, y: Tensor) -> None:
        """Refuse targets that are not whole numbers from 0 on.

        Raises:
            InputError: there is such a value.
        """
        check_counts(y, self.name)

    def is_extreme(self, y: Tensor) -> Tensor:
        """Counts of 0."""
        return y == 0.0

    def expression(self) -> FamilyFormula:
        """The negative binomial probability with the mean eʰ."""
        import sympy

        from gatewise.families.densities import H, Y, count

        size = TheoryParameter("r", positive=True, atom="size")
        r, mean = size.symbol, sympy.exp(H)
        share = r / (r + mean)
        density = sympy.gamma(Y + r) / (sympy.gamma(r) * sympy.gamma(Y + 1)) * share**r * (mean / (r + mean)) ** Y
        note = "r is the size, h the logarithm of the mean"
        return FamilyFormula(self.name, (Y,), (H,), (size,), density, count, 20, note)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log P(Y = y), (…, k), without cancellation at large r; −∞ for targets that are no counts."""
        value = as_column(y, location)
        known = is_count(value)
        count = torch.where(known, value, torch.zeros_like(value))
        log_size = bounded_log(log_scale)
        size = torch.exp(log_size)
        log_choices = log_gamma_increment(size, count) - torch.lgamma(count + 1.0)
        return torch.where(
            known, log_choices + count * location + (size + count) * log_sigmoid(log_size - location), -torch.inf
        )

    @torch.no_grad()
    def closed_derivatives(
        self, y: Tensor, location: Tensor, log_scale: Tensor, with_second: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Derivatives by h and s = log r.

        With p = μ/(r + μ) the first are y (1 − p) − r p and c′ − r log(1 + μ/r) + (r + y) p, where
        c = log Γ(y + r) − log Γ(r) − y log r.
        """
        value = self.log_density(y, location, log_scale).numpy()
        log_size = bounded_log(log_scale)
        size = np.exp(log_size.numpy())
        count = np.broadcast_to(y.unsqueeze(-1).numpy(), value.shape)
        known = np.isfinite(value)
        count = np.where(known, count, 0.0)
        score = (log_size - location).numpy()
        mean_share, size_share = special.expit(-score), special.expit(score)
        log_share = log_sigmoid(log_size - location).numpy()
        choices = log_gamma_increment_slopes(np.broadcast_to(size, value.shape), count)
        # Where the size is bounded nothing depends on it any more.
        inside = known * (log_scale.abs() <= largest_log(log_scale.dtype)).numpy()
        by_location = count * size_share - size * mean_share
        first = np.empty((*value.shape, 2))
        first[..., 0] = known * by_location
        first[..., 1] = inside * (choices[0] + size * log_share + (size + count) * mean_share)
        second = None
        if with_second:
            second = np.empty((*value.shape, 2, 2))
            both = (size + count) * mean_share * size_share
            second[..., 0, 0] = -(known * both)
            second[..., 0, 1] = second[..., 1, 0] = inside * mean_share * by_location
            second[..., 1, 1] = inside * (choices[1] + size * log_share + 2.0 * size * mean_share - both)
        return (
            torch.from_numpy(value),
            torch.from_numpy(first),
            None if second is None else torch.from_numpy(second),
        )

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Mean μ = exp(h), (…, k)."""
        return exp_or_tangent(location)

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """μ + μ²/r, (…, k), at most the largest number."""
        mean = exp_or_tangent(location)
        value = mean + mean * mean * torch.exp(-bounded_log(log_scale))
        return torch.clamp(value, max=torch.finfo(value.dtype).max)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y) by the incomplete beta function, (…, k)."""
        return through_numpy(_below, location, as_column(y, location), location, bounded_log(log_scale))

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """The smallest count y with P(Y ≤ y) ≥ probability, (…, k)."""
        return through_numpy(_quantile, location, probability.unsqueeze(-1), location, bounded_log(log_scale))

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts, (…, k): Poisson with a gamma mean."""
        draws = uniform(location.shape, location, generator)
        size = torch.exp(bounded_log(log_scale.detach())).double()
        rate = through_numpy(gamma_quantile, draws, size, draws) * exp_or_tangent(location.detach().double())
        return poisson_draws(rate, generator).to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """μ/(1 + μ/r), (…, k)."""
        log_size = bounded_log(log_scale)
        return torch.exp(log_size + log_sigmoid(location - log_size))

    def at_boundary(self, location: Tensor) -> Tensor:
        """Whether the mean is below 1e-8, (…, k)."""
        return location < math.log(BOUNDARY)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the weighted mean as for Poisson, and the size that gives the weighted variance.

        The size is kept between 0.01 and 1000, which stands for counts that vary no more than Poisson's.
        """
        mean = weighted_mean(y, weight) + half_row(weight)
        excess = weighted_mean((y - mean) ** 2, weight) - mean
        largest = torch.full_like(mean, _SIZES[1])
        size = torch.where(
            excess * _SIZES[1] > mean**2, mean**2 / torch.clamp(excess, min=torch.finfo(mean.dtype).tiny), largest
        )
        return torch.log(mean), torch.log(torch.clamp(size, *_SIZES))

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """The size r."""
        return [("size", True)]


def _below(y: np.ndarray, location: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    count, size, logit = np.floor(y), np.exp(log_size), location - log_size
    inside = np.maximum(count, 0.0)
    # Of the two forms the one whose argument is small, and so is exact.
    lower = special.betainc(size, inside + 1.0, special.expit(-logit))
    upper = special.betaincc(inside + 1.0, size, special.expit(logit))
    value = np.where(logit > 0.0, lower, upper)
    return np.where(count < 0.0, 0.0, np.where(count == np.inf, 1.0, value))


def _quantile(probability: np.ndarray, location: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    # The gamma variable that a large mean leaves, and Poisson's variance on top.
    mean, size = np.exp(np.minimum(location, 600.0)), np.exp(log_size)
    inner = np.clip(probability, 1e-300, 1.0 - 1e-16)
    guess = mean * gamma_quantile(size, inner)
    guess = np.where(size > mean, mean + special.ndtri(inner) * np.sqrt(mean + mean * mean / size), guess)
    spread = np.sqrt(mean) + 0.01 * mean / np.sqrt(size)
    return smallest_count(_below, probability, guess, spread, np.inf, location, log_size)
