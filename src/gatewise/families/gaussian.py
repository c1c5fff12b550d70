"""The Gaussian family, with the scale of each expert as a standard deviation."""

import math

import torch
from torch import Tensor

from gatewise.families.base import FAMILIES, Family
from gatewise.families.starts import one_where_zero
from gatewise.families.targets import check_finite
from gatewise.parts.formulas import FamilyFormula, TheoryParameter


@FAMILIES.register
class Gaussian(Family):
    """f(y | μ, σ) = exp(−(y − μ)² / 2σ²) / (σ √(2π)), σ a standard deviation.

    The theory of softmax-gated mixtures (Nguyen, Nguyen and Ho 2023, arXiv:2305.03288, §1) writes the variance as σ;
    `MixtureOfExperts.atoms` converts.

    Example:
        >>> import torch
        >>> Gaussian().log_density(torch.tensor([0.0]), torch.tensor([[0.0, 1.0]]), torch.zeros(2))
        tensor([[-0.9189, -1.4189]])
    """

    name = "gaussian"
    formula = "N(y | h, σ²), σ a standard deviation"
    source = "Nguyen, Nguyen and Ho (2023), arXiv:2305.03288, §1"
    is_location_scale = True
    has_scale = True
    is_least_squares = True

    @property
    def n_dispersion(self) -> int:
        """One: log σ."""
        return 1

    def check_target(self, y: Tensor) -> None:
        """Refuse NaN and infinities; every finite number has a density.

        Raises:
            InputError: there is such a value.
        """
        check_finite(y, self.name)

    def expression(self) -> FamilyFormula:
        """exp(−(y − h)²/2s)/√(2πs)."""
        import sympy

        from gatewise.families.densities import FINE, H, Y, real

        variance = TheoryParameter("s", positive=True, atom="variance")
        density = sympy.exp(-((Y - H) ** 2) / (2 * variance.symbol)) / sympy.sqrt(2 * sympy.pi * variance.symbol)
        return FamilyFormula(self.name, (Y,), (H,), (variance,), density, real, FINE, "s is the variance")

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (…, k): −½ log 2π − log σ − ½ ((y − μ)/σ)²."""
        residual = (y.unsqueeze(-1) - location) * torch.exp(-log_scale)
        return -0.5 * residual * residual - log_scale - 0.5 * math.log(2.0 * math.pi)

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """The location itself, (…, k)."""
        return location

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """σ², (…, k)."""
        return torch.exp(2.0 * log_scale).expand_as(location)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Φ((y − μ)/σ), (…, k)."""
        # PyTorch's own normal distribution function loses its digits below −6 standard deviations.
        return 0.5 * torch.erfc((location - y.unsqueeze(-1)) * torch.exp(-log_scale) * math.sqrt(0.5))

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """μ + σ Φ⁻¹(p), (…, k)."""
        return location + torch.exp(log_scale) * torch.special.ndtri(probability).unsqueeze(-1)

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """μ + σ ε with ε standard normal, (…, k)."""
        noise = torch.randn(location.shape, generator=generator, dtype=location.dtype, device=location.device)
        return location + torch.exp(log_scale) * noise

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """1/σ², (…, k)."""
        return torch.exp(-2.0 * log_scale).expand_as(location)

    def rescale_dispersion(self, log_scale: Tensor, scale: Tensor) -> Tensor:
        """Log σ + log scale, with scale ()."""
        return log_scale + torch.log(scale)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean, and the logarithm of the weighted standard deviation, of 1 where that is 0."""
        share = weight / weight.sum()
        mean = share @ y
        variance = share @ (y - mean) ** 2
        return mean, 0.5 * one_where_zero(variance).log()

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """The standard deviation σ."""
        return [("scale", True)]
