"""The Poisson family with a log link."""

import math

import numpy as np
import torch
from scipy import special
from torch import Tensor

from gatewise.families.base import BOUNDARY, FAMILIES, Family
from gatewise.families.elementwise import gamma_below, poisson_draws, smallest_count, through_numpy
from gatewise.families.smooth import exp_or_tangent, largest_log
from gatewise.families.starts import half_row, no_dispersion, weighted_mean
from gatewise.families.targets import as_column, check_counts, is_count
from gatewise.parts.formulas import FamilyFormula


@FAMILIES.register
class Poisson(Family):
    """P(Y = y | h) = exp(y h − μ) / y! with mean μ = exp(h), for counts y.

    The logarithm of an exposure may be added to the location. Above h = 319 (39 in float32) μ is continued by its
    tangent, so that values and gradients stay finite: the log density there is a huge negative number.

    Example:
        >>> import torch
        >>> Poisson().log_density(torch.tensor([2.0]), torch.tensor([[0.0, 1.0]]), torch.zeros(2, 0))
        tensor([[-1.6931, -1.4114]])
    """

    name = "poisson"
    formula = "μʸ exp(−μ) / y!, μ = exp(h)"
    source = "McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 6"
    is_discrete = True
    log_link = True

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
        """exp(yh − eʰ)/y!."""
        import sympy

        from gatewise.families.densities import H, Y, count

        density = sympy.exp(Y * H - sympy.exp(H)) / sympy.gamma(Y + 1)
        return FamilyFormula(self.name, (Y,), (H,), (), density, count, 12, "h is the logarithm of the mean")

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log P(Y = y) = y h − μ − log y!, (…, k); −∞ for targets that are no counts."""
        value = as_column(y, location)
        known = is_count(value)
        count = torch.where(known, value, torch.zeros_like(value))
        return torch.where(known, count * location - exp_or_tangent(location) - torch.lgamma(count + 1.0), -torch.inf)

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Mean μ = exp(h), (…, k)."""
        return exp_or_tangent(location)

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Variance μ, (…, k)."""
        return exp_or_tangent(location)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y) = P(G > μ) for a standard gamma variable G of shape ⌊y⌋ + 1, (…, k)."""
        return through_numpy(poisson_below, location, as_column(y, location), exp_or_tangent(location))

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """The smallest count y with P(Y ≤ y) ≥ probability, (…, k)."""
        return through_numpy(_quantile, location, probability.unsqueeze(-1), exp_or_tangent(location))

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts, (…, k)."""
        return poisson_draws(exp_or_tangent(location.detach().double()), generator).to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Information μ, (…, k)."""
        return exp_or_tangent(location)

    def closed_derivatives(
        self, y: Tensor, location: Tensor, log_scale: Tensor, with_second: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Derivatives y − μ and −μ by h."""
        # Only fits need it, and a model without numba starts faster.
        from gatewise.kernels.density_pass import poisson_derivatives

        value, first, second = poisson_derivatives(
            y.numpy(), location.detach().numpy(), largest_log(location.dtype), with_second
        )
        return (
            torch.from_numpy(value),
            torch.from_numpy(first).unsqueeze(-1),
            None if second is None else torch.from_numpy(second)[..., None, None],
        )

    def at_boundary(self, location: Tensor) -> Tensor:
        """Whether the mean is below 1e-8, (…, k)."""
        return location < math.log(BOUNDARY)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the weighted mean count, with half a count more spread over the rows."""
        return torch.log(weighted_mean(y, weight) + half_row(weight)), no_dispersion(weight)


def poisson_below(y: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """P(Y ≤ y) of a Poisson variable, elementwise."""
    shape = np.floor(y) + 1.0
    inside = np.maximum(shape, 1.0)
    value = gamma_below(inside, mean / inside, upper=True)
    return np.where(shape < 1.0, 0.0, np.where(shape == np.inf, 1.0, value))


def _quantile(probability: np.ndarray, mean: np.ndarray) -> np.ndarray:
    z = np.clip(special.ndtri(probability), -40.0, 40.0)
    guess = mean + z * np.sqrt(mean) + (z * z - 1.0) / 6.0
    return smallest_count(poisson_below, probability, guess, 0.01 * np.sqrt(mean), np.inf, mean)
