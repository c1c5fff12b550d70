"""The Gaussian family for targets of several columns."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.families.base import FAMILIES, Family
from gatewise.families.starts import one_where_zero, weighted_mean
from gatewise.families.targets import check_finite, whole_number
from gatewise.messages import shown
from gatewise.parts.spread import Spread

_MOST_TARGETS = 10_000


@FAMILIES.register
class MultivariateGaussian(Family):
    """f(y | μ, L) = exp(−½ ‖L⁻¹(y − μ)‖²) / ((2π)^{e/2} det L) for targets y (…, e), with covariance Σ = LLᵀ.

    L is lower triangular with a positive diagonal. The dispersions of an expert are log L₁₁, …, log Lₑₑ and then, with
    a full covariance, the entries of L below the diagonal row by row: L₂₁, L₃₁, L₃₂, …; (k, e) or (k, e(e + 1)/2)
    numbers. With a diagonal covariance log Lⱼⱼ is the logarithm of the standard deviation of column j.

    Args:
        n_targets: e, at least 2.
        covariance: "full" or "diagonal".

    Raises:
        InputError: e is above 10,000, or less than 2, where the family is `Gaussian`, or the covariance is neither.

    Example:
        >>> import torch
        >>> family = MultivariateGaussian(2)
        >>> log_scale = torch.tensor([[0.0, 0.0, 0.75]])
        >>> family.covariance_matrix(log_scale)
        tensor([[[1.0000, 0.7500],
                 [0.7500, 1.5625]]])
        >>> family.log_density(torch.zeros(5, 2), torch.zeros(5, 1, 2), log_scale).shape
        torch.Size([5, 1])
    """

    name = "multivariate_gaussian"
    formula = "N(y | h, LLᵀ), L lower triangular; or with a diagonal covariance"
    source = (
        "Anderson (2003), An Introduction to Multivariate Statistical Analysis, 3rd ed., ch. 2; log-Cholesky "
        "parameters: Pinheiro and Bates (1996), Statistics and Computing 6"
    )
    is_location_scale = True

    def __init__(self, n_targets: int, covariance: str = "full") -> None:
        if n_targets == 1:
            raise InputError("n_targets of the multivariate_gaussian family is 1: use the gaussian family")
        self.n_targets = whole_number("n_targets", n_targets, 2, _MOST_TARGETS, self.name)
        if covariance not in ("full", "diagonal"):
            raise InputError(
                f'covariance of the {self.name} family is {shown(covariance)}: choose "full" or "diagonal"'
            )
        self.covariance = covariance

    def options(self) -> dict[str, Any]:
        """The number of columns, and the form of the covariance."""
        return {"n_targets": self.n_targets, "covariance": self.covariance}

    @property
    def n_outputs(self) -> int:
        """One location for each column, e."""
        return self.n_targets

    @property
    def event_size(self) -> int:
        """The number of columns, e."""
        return self.n_targets

    @property
    def n_dispersion(self) -> int:
        """One for each column, and e(e − 1)/2 more, below the diagonal, if the covariance is full."""
        e = self.n_targets
        return e if self.covariance == "diagonal" else e * (e + 1) // 2

    @property
    def spread(self) -> Spread:
        """The standard deviation in the narrowest direction; the diagonal of L is what bounds it."""
        return Spread(
            "log_scale",
            self.n_targets,
            "standard deviation in some direction",
            "residual standard deviation there",
            factor=self._factor,
        )

    def cholesky(self, log_scale: Tensor) -> Tensor:
        """L, (k, s) ↦ (k, e, e)."""
        e = self.n_targets
        if self.covariance == "diagonal":
            return torch.diag_embed(torch.exp(log_scale))
        # Every entry of L is one of (exp of the log-diagonal, the entries below it, 0), picked by its place.
        values = torch.cat(
            [torch.exp(log_scale[..., :e]), log_scale[..., e:], torch.zeros_like(log_scale[..., :1])], -1
        )
        place = torch.full((e, e), values.shape[-1] - 1, device=log_scale.device)
        row, column = self._below()
        place[row, column] = torch.arange(e, e + len(row), device=log_scale.device)
        place[torch.arange(e), torch.arange(e)] = torch.arange(e, device=log_scale.device)
        return values[..., place]

    def covariance_matrix(self, log_scale: Tensor) -> Tensor:
        """Σ = LLᵀ of each expert, (k, s) ↦ (k, e, e)."""
        factor = self.cholesky(log_scale)
        return factor @ factor.mT

    def _factor(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.cholesky(parameters["log_scale"])

    def _below(self) -> Tensor:
        return torch.tril_indices(self.n_targets, self.n_targets, -1)

    def check_target(self, y: Tensor) -> None:
        """Refuse NaN and infinities, and targets that do not have e columns.

        Raises:
            InputError: there is such a value, or another number of columns.
        """
        if y.ndim == 0 or y.shape[-1] != self.n_targets:
            raise InputError(
                f"the targets have shape {tuple(y.shape)}: {self!r} takes {self.n_targets} columns, (rows, "
                f"{self.n_targets})"
            )
        check_finite(y, self.name)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (…, k): −½ e log 2π − Σⱼ log Lⱼⱼ − ½ ‖L⁻¹(y − μ)‖²."""
        residual = y.unsqueeze(-2) - location
        e = self.n_targets
        constant = 0.5 * e * math.log(2.0 * math.pi) + log_scale[..., :e].sum(-1)
        if self.covariance == "diagonal":
            white = residual * torch.exp(-log_scale)
            return -0.5 * (white * white).sum(-1) - constant
        # The rows are the right-hand sides of k triangular systems.
        columns = residual.reshape(-1, *residual.shape[-2:]).permute(1, 2, 0)
        white = torch.linalg.solve_triangular(self.cholesky(log_scale), columns, upper=False)
        return -0.5 * (white * white).sum(-2).T.reshape(residual.shape[:-1]) - constant

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """The location itself, (…, k, e)."""
        return location

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Variance of each column, the diagonal of Σ, (…, k, e)."""
        factor = self.cholesky(log_scale)
        return (factor * factor).sum(-1).expand_as(location)

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """μ + L ε with ε standard normal, (…, k, e)."""
        noise = torch.randn(location.shape, generator=generator, dtype=location.dtype, device=location.device)
        return location + (self.cholesky(log_scale) @ noise.unsqueeze(-1)).squeeze(-1)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Σ⁻¹, (…, k, e, e)."""
        factor = self.cholesky(log_scale)
        unit = torch.eye(self.n_targets, dtype=factor.dtype, device=factor.device).expand_as(factor)
        inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
        return (inverse.mT @ inverse).expand(*location.shape, self.n_targets)

    def rescale_dispersion(self, log_scale: Tensor, scale: Tensor) -> Tensor:
        """Row j of L times scaleⱼ, with scale () or (e,)."""
        e = self.n_targets
        scale = scale.expand(e)
        diagonal = log_scale[..., :e] + torch.log(scale)
        if self.covariance == "diagonal":
            return diagonal
        return torch.cat([diagonal, log_scale[..., e:] * scale[self._below()[0]]], -1)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted means (e,), and L of the weighted covariance.

        A column that is constant has the standard deviation 1. Correlations are drawn towards 0 by a hair, so that
        columns that depend linearly on each other have an L too.
        """
        share = (weight / weight.sum()).unsqueeze(-1)
        mean = weighted_mean(y, weight)
        centred = y - mean
        deviation = one_where_zero((share * centred**2).sum(0)).sqrt()
        if self.covariance == "diagonal":
            return mean, deviation.log()
        unit = centred / deviation
        hair = math.sqrt(torch.finfo(unit.dtype).eps)
        correlation = (1.0 - hair) * ((share * unit).T @ unit)
        correlation = correlation - torch.diag(torch.diag(correlation)) + torch.eye(len(mean)).to(correlation)
        factor = deviation.unsqueeze(-1) * torch.linalg.cholesky(correlation)
        row, column = self._below()
        return mean, torch.cat([torch.diagonal(factor).log(), factor[row, column]])

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """Standard deviations of the columns, and correlations with a full covariance."""
        terms = [(f"scale[{j}]", True) for j in range(self.n_targets)]
        if self.covariance == "diagonal":
            return terms
        return [*terms, *((f"correlation[{j},{i}]", False) for i, j in self._below().T.tolist())]

    def natural_dispersion(self, log_scale: Tensor) -> Tensor:
        """Standard deviations (k, e), followed by correlations in the order of the entries of L, (k, s)."""
        if self.covariance == "diagonal":
            return torch.exp(log_scale)
        sigma = self.covariance_matrix(log_scale)
        deviation = torch.diagonal(sigma, dim1=-2, dim2=-1).sqrt()
        row, column = self._below()
        return torch.cat([deviation, sigma[..., row, column] / (deviation[..., row] * deviation[..., column])], -1)
