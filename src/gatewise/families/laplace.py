"""The Laplace family: a location and a scale, fitted by absolute deviations."""

import math

import torch
from torch import Tensor

from gatewise.families.base import FAMILIES, Family
from gatewise.families.elementwise import uniform
from gatewise.families.starts import one_where_zero, weighted_mean, weighted_median
from gatewise.families.targets import check_finite
from gatewise.parts.formulas import FamilyFormula, TheoryParameter
from gatewise.parts.spread import Spread


@FAMILIES.register
class Laplace(Family):
    """f(y | μ, b) = exp(−|y − μ|/b) / 2b, b the mean absolute deviation; the standard deviation is √2 b.

    The log density has a kink at y = μ; its gradient there is taken as 0. The curvature is 0 elsewhere, so that only
    the expected information, from the squared score, is of use as a weight.

    Example:
        >>> import torch
        >>> Laplace().log_density(torch.tensor([0.0]), torch.tensor([[0.0, 1.0]]), torch.zeros(2))
        tensor([[-0.6931, -1.6931]])
    """

    name = "laplace"
    formula = "exp(−|y − h|/b) / 2b"
    source = "Kotz, Kozubowski and Podgórski (2001), The Laplace Distribution and Generalizations, ch. 2"
    is_location_scale = True
    has_scale = True
    is_smooth = False

    @property
    def n_dispersion(self) -> int:
        """One: log b."""
        return 1

    @property
    def spread(self) -> Spread:
        """The mean absolute deviation b."""
        return Spread("log_scale", 1, "b", "residual scale")

    def check_target(self, y: Tensor) -> None:
        """Refuse NaN and infinities; every finite number has a density.

        Raises:
            InputError: there is such a value.
        """
        check_finite(y, self.name)

    def expression(self) -> FamilyFormula:
        """exp(−|y − h|/σ)/2σ."""
        import sympy

        from gatewise.families.densities import FINE, H, Y, real

        scale = TheoryParameter("σ", positive=True, atom="scale")
        distance = sympy.Piecewise((Y - H, Y > H), (H - Y, True))
        density = sympy.exp(-distance / scale.symbol) / (2 * scale.symbol)
        note = "σ is the mean absolute deviation; derivatives are those beside the kink at y = h"
        return FamilyFormula(self.name, (Y,), (H,), (scale,), density, real, FINE, note)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (…, k): −log 2 − log b − |y − μ|/b."""
        return -(y.unsqueeze(-1) - location).abs() * torch.exp(-log_scale) - log_scale - math.log(2.0)

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """The location itself, (…, k)."""
        return location

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """2b², (…, k)."""
        return (2.0 * torch.exp(2.0 * log_scale)).expand_as(location)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """½ exp(z) for z = (y − μ)/b < 0, else 1 − ½ exp(−z), (…, k)."""
        z = (y.unsqueeze(-1) - location) * torch.exp(-log_scale)
        half = 0.5 * torch.exp(-z.abs())
        return torch.where(z < 0.0, half, 1.0 - half)

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """μ + b log 2p for p < ½, else μ − b log 2(1 − p), (…, k)."""
        p = probability.unsqueeze(-1)
        z = torch.where(p < 0.5, torch.log(2.0 * p), -torch.log(2.0 - 2.0 * p))
        return location + torch.exp(log_scale) * z

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """μ + b (e₁ − e₂) with e₁ and e₂ exponential, (…, k)."""
        first, second = (-torch.log(uniform(location.shape, location, generator)) for _ in range(2))
        return location + torch.exp(log_scale) * (first - second).to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """1/b², the expected square of the score, (…, k)."""
        return torch.exp(-2.0 * log_scale).expand_as(location)

    def rescale_dispersion(self, log_scale: Tensor, scale: Tensor) -> Tensor:
        """Log b + log scale, with scale ()."""
        return log_scale + torch.log(scale)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted median, and the weighted mean deviation from it, 1 where that is 0: the maximum likelihood."""
        centre = weighted_median(y, weight)
        return centre, torch.log(one_where_zero(weighted_mean((y - centre).abs(), weight)))

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """The mean absolute deviation b."""
        return [("scale", True)]
