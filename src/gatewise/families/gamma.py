"""The gamma family with a log link: positive measurements with a constant coefficient of variation."""

import numpy as np
import torch
from torch import Tensor

from gatewise.families.base import FAMILIES, Family
from gatewise.families.elementwise import gamma_below, gamma_quantile, through_numpy, uniform
from gatewise.families.smooth import (
    bounded_log,
    exp_or_tangent,
    expm1_or_tangent,
    largest_log,
    stirling_rest,
    stirling_slopes,
)
from gatewise.families.starts import weighted_mean
from gatewise.families.targets import as_column, refuse
from gatewise.parts.formulas import FamilyFormula, TheoryParameter
from gatewise.parts.spread import Spread, coefficient_of_variation

_LOG_SHAPES = (-7.0, 20.0)


@FAMILIES.register
class Gamma(Family):
    """f(y | h, a) = (a/μ)ᵃ yᵃ⁻¹ exp(−a y/μ) / Γ(a) for y > 0, with mean μ = exp(h) and variance μ²/a.

    The dispersion is log a, a the shape: 1/√a is the coefficient of variation.

    Example:
        >>> import torch
        >>> Gamma().log_density(torch.tensor([2.0]), torch.tensor([[0.0, 1.0]]), torch.zeros(2))
        tensor([[-2.0000, -1.7358]])
    """

    name = "gamma"
    formula = "(a/μ)ᵃ yᵃ⁻¹ exp(−a y/μ) / Γ(a), μ = exp(h), variance μ²/a"
    source = "McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 8"
    log_link = True

    @property
    def n_dispersion(self) -> int:
        """One: log a."""
        return 1

    @property
    def spread(self) -> Spread:
        """The coefficient of variation 1/√a."""
        name = "coefficient of variation"
        return Spread("log_scale", 1, name, name, power=-0.5, of_rows=coefficient_of_variation)

    def check_target(self, y: Tensor) -> None:
        """Refuse targets that are not positive and finite.

        Raises:
            InputError: there is such a value.
        """
        bad = ~((y > 0.0) & torch.isfinite(y))
        refuse(bad, y, self.name, "positive and finite", "remove such rows, or use the gaussian or laplace family")

    def expression(self) -> FamilyFormula:
        """The gamma density with the mean eʰ."""
        import sympy

        from gatewise.families.densities import FINE, H, Y, positive

        shape = TheoryParameter("α", positive=True, atom="shape")
        alpha, rate = shape.symbol, shape.symbol * sympy.exp(-H)
        density = rate**alpha * Y ** (alpha - 1) * sympy.exp(-rate * Y) / sympy.gamma(alpha)
        note = "α is the shape, h the logarithm of the mean"
        return FamilyFormula(self.name, (Y,), (H,), (shape,), density, positive, FINE, note)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density, (…, k), without cancellation at large a; −∞ for targets that are not positive.

        With u = log y − h it is a (1 + u − exp(u)) − log y − (log Γ(a) − a log a + a).
        """
        value = as_column(y, location)
        known = (value > 0.0) & torch.isfinite(value)
        log_value = torch.log(torch.where(known, value, torch.ones_like(value)))
        shape = torch.exp(bounded_log(log_scale))
        ratio = log_value - location
        return torch.where(
            known, shape * (ratio - expm1_or_tangent(ratio)) - log_value - stirling_rest(shape), -torch.inf
        )

    @torch.no_grad()
    def closed_derivatives(
        self, y: Tensor, location: Tensor, log_scale: Tensor, with_second: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Derivatives by h and s = log a, those of `gamma_derivatives` with S = log Γ(a) − a log a + a."""
        # Only fits need it, and a model without numba starts faster.
        from gatewise.kernels.gamma_pass import gamma_derivatives

        bound = largest_log(location.dtype)
        shape = torch.exp(bounded_log(log_scale))
        slope, curvature = stirling_slopes(shape.numpy())
        rests = np.stack([stirling_rest(shape).numpy(), slope, curvature])
        # Where the shape is bounded nothing depends on s any more.
        inside = (log_scale.detach().abs() <= bound).double()
        value, first, second = gamma_derivatives(
            y.numpy(), location.numpy(), shape.numpy(), rests, inside.numpy(), bound, with_second
        )
        return (
            torch.from_numpy(value),
            torch.from_numpy(first),
            None if second is None else torch.from_numpy(second),
        )

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Mean μ = exp(h), (…, k)."""
        return exp_or_tangent(location)

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """μ²/a, (…, k), at most the largest number."""
        value = exp_or_tangent(location) ** 2 * torch.exp(-bounded_log(log_scale))
        return torch.clamp(value, max=torch.finfo(value.dtype).max)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y) by the incomplete gamma function, (…, k)."""
        return through_numpy(_below, location, as_column(y, location), location, bounded_log(log_scale))

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Inverse of the distribution function, (…, k)."""
        shape = torch.exp(bounded_log(log_scale))
        ratio = through_numpy(gamma_quantile, location, shape, probability.unsqueeze(-1))
        return exp_or_tangent(location) * ratio

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Positive numbers, (…, k), by inversion; the smallest normal number where a tiny shape underflows."""
        draws = uniform(location.shape, location, generator)
        shape = torch.exp(bounded_log(log_scale.detach())).double()
        ratio = through_numpy(gamma_quantile, draws, shape, draws)
        value = (exp_or_tangent(location.detach().double()) * ratio).to(location.dtype)
        return torch.clamp(value, min=torch.finfo(location.dtype).tiny)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Information a, (…, k)."""
        return torch.exp(bounded_log(log_scale)).expand_as(location)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the weighted mean, and of its square over the weighted variance, 0 where that is 0."""
        mean = weighted_mean(y, weight)
        square = weighted_mean((y / mean - 1.0) ** 2, weight)
        log_shape = torch.where(square > 0.0, -torch.log(square), torch.zeros_like(square))
        return torch.log(mean), torch.clamp(log_shape, *_LOG_SHAPES)

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """The shape a."""
        return [("shape", True)]


def _below(y: np.ndarray, location: np.ndarray, log_shape: np.ndarray) -> np.ndarray:
    ratio = np.exp(np.log(np.maximum(y, 0.0)) - location)
    return np.where(np.isnan(y), np.nan, gamma_below(np.exp(log_shape), ratio))
