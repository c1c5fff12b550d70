"""The Bernoulli family: logistic regression as an expert."""

import math

import torch
from torch import Tensor

from gatewise.families.base import BOUNDARY, FAMILIES, Family
from gatewise.families.elementwise import uniform
from gatewise.families.smooth import log_sigmoid
from gatewise.families.starts import half_row, no_dispersion, weighted_mean
from gatewise.families.targets import as_column, refuse
from gatewise.parts.formulas import FamilyFormula


@FAMILIES.register
class Bernoulli(Family):
    """P(Y = 1 | h) = 1/(1 + exp(−h)) for targets 0 and 1.

    Example:
        >>> import torch
        >>> Bernoulli().log_density(torch.tensor([1.0]), torch.tensor([[0.0, -7.0]]), torch.zeros(2, 0))
        tensor([[-0.6931, -7.0009]])
    """

    name = "bernoulli"
    formula = "P(y = 1) = 1/(1 + exp(−h))"
    source = "McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 4"
    is_discrete = True

    @property
    def n_codes(self) -> int:
        """2."""
        return 2

    def check_target(self, y: Tensor) -> None:
        """Refuse targets other than 0 and 1.

        Raises:
            InputError: there is such a value.
        """
        bad = ~((y == 0.0) | (y == 1.0))
        refuse(
            bad, y, self.name, "0 or 1", "code the two outcomes as 0 and 1, or use the binomial or categorical family"
        )

    def is_extreme(self, y: Tensor) -> Tensor:
        """All: there are two outcomes."""
        return torch.isfinite(y)

    def expression(self) -> FamilyFormula:
        """The probability of y."""
        import sympy

        from gatewise.families.densities import H, Y, count

        probability = 1 / (1 + sympy.exp(-H))
        density = Y * probability + (1 - Y) * (1 - probability)
        return FamilyFormula(self.name, (Y,), (H,), (), density, count, 2, "h is the logit of y = 1")

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log P(Y = y), (…, k): log sigmoid(h) at 1 and log sigmoid(−h) at 0; −∞ elsewhere."""
        value = as_column(y, location)
        known = (value == 0.0) | (value == 1.0)
        sign = torch.where(value == 1.0, 1.0, -1.0).to(value.dtype)
        return torch.where(known, log_sigmoid(sign * location), -torch.inf)

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y = 1), (…, k)."""
        return torch.sigmoid(location)

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """p(1 − p), (…, k)."""
        return torch.sigmoid(location) * torch.sigmoid(-location)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y), (…, k): 0 below 0, 1 − p below 1, 1 from 1 on."""
        value = as_column(y, location)
        zero = torch.sigmoid(-location)
        return torch.where(value < 0.0, torch.zeros_like(zero), torch.where(value < 1.0, zero, torch.ones_like(zero)))

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """0 where the probability is at most P(Y = 0), else 1, (…, k)."""
        return (probability.unsqueeze(-1) > torch.sigmoid(-location)).to(location.dtype)

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """0 or 1, (…, k)."""
        return (uniform(location.shape, location, generator) < torch.sigmoid(location.double())).to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """p(1 − p), (…, k)."""
        return self.variance(location, log_scale)

    def at_boundary(self, location: Tensor) -> Tensor:
        """Whether p is below 1e-8 or above 1 − 1e-8, (…, k)."""
        return location.abs() > -math.log(BOUNDARY)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of the weighted share of ones, with half a row more of each kind."""
        share, more = weighted_mean(y, weight), half_row(weight)
        return torch.log(share + more) - torch.log1p(more - share), no_dispersion(weight)
