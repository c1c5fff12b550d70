"""Student's t family: a location and a scale, with tails as heavy as the degrees of freedom say."""

import math
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from gatewise.families.base import FAMILIES, Family
from gatewise.families.elementwise import gamma_quantile, through_numpy, uniform
from gatewise.families.smooth import bounded_log, largest_log, log_gamma_increment, log_gamma_increment_slopes
from gatewise.families.starts import one_where_zero, weighted_mean, weighted_median
from gatewise.families.targets import as_column, check_finite, positive_number
from gatewise.parts.formulas import FamilyFormula, TheoryParameter
from gatewise.parts.spread import Spread

_START = 5.0


@FAMILIES.register
class StudentT(Family):
    """f(y | μ, σ, ν) = Γ((ν + 1)/2) / (Γ(ν/2) √(νπ) σ) · (1 + (y − μ)²/(νσ²))^{−(ν + 1)/2}.

    σ is a scale, not a standard deviation: the variance is σ²ν/(ν − 2) for ν > 2 and infinite for ν ≤ 2. The mean is μ
    for ν > 1; for ν ≤ 1 there is none, and mean and variance are NaN. The dispersions of an expert are log σ, and log ν
    if the degrees of freedom are free.

    Args:
        df: ν, fixed for all experts; or None, and every expert has its own.

    Raises:
        InputError: ν is not positive and finite.

    Example:
        >>> import torch
        >>> StudentT(df=1.0).log_density(torch.tensor([0.0]), torch.tensor([[0.0, 1.0]]), torch.zeros(2))
        tensor([[-1.1447, -1.8379]])
        >>> StudentT().natural_dispersion(torch.tensor([[0.0, 1.0]]))
        tensor([[1.0000, 2.7183]])
    """

    name = "student_t"
    formula = "Student's t with location h, scale σ and ν degrees of freedom"
    source = "Lange, Little and Taylor (1989), Journal of the American Statistical Association 84"
    is_location_scale = True
    has_scale = True
    is_log_concave = False

    def __init__(self, df: float | None = None) -> None:
        self.df = None if df is None else positive_number("df", df, self.name)

    def options(self) -> dict[str, Any]:
        """The degrees of freedom, None if free."""
        return {"df": self.df}

    @property
    def n_dispersion(self) -> int:
        """One, log σ, or two, log σ and log ν."""
        return 1 if self.df is not None else 2

    def _split(self, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Log σ and log ν, (k,) each."""
        if self.df is not None:
            return log_scale, bounded_log(torch.full_like(log_scale, math.log(self.df)))
        return log_scale[..., 0], bounded_log(log_scale[..., 1])

    @property
    def spread(self) -> Spread:
        """The scale σ; the degrees of freedom do not lift the density without bound."""
        return Spread("log_scale", 1, "σ", "residual scale")

    def check_target(self, y: Tensor) -> None:
        """Refuse NaN and infinities; every finite number has a density.

        Raises:
            InputError: there is such a value.
        """
        check_finite(y, self.name)

    def expression(self) -> FamilyFormula:
        """Student's t at (y − h)/σ."""
        import sympy

        from gatewise.families.densities import FINE, H, Y, real
        from gatewise.parts.expressions import rational

        scale = TheoryParameter("σ", positive=True, atom="scale")
        own = () if self.df is not None else (TheoryParameter("ν", positive=True, atom="degrees of freedom"),)
        df = own[0].symbol if own else rational(str(self.df))
        square = ((Y - H) / scale.symbol) ** 2 / df
        constant = sympy.gamma((df + 1) / 2) / (sympy.gamma(df / 2) * sympy.sqrt(df * sympy.pi) * scale.symbol)
        density = constant * (1 + square) ** (-(df + 1) / 2)
        note = "σ is the scale and ν the degrees of freedom" if own else "σ is the scale"
        return FamilyFormula(self.name, (Y,), (H,), (scale, *own), density, real, FINE, note)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (…, k): −log σ − ½ log 2π + rest(ν) − ½ (ν + 1) log(1 + w²), w = (y − μ)/(σ√ν).

        Here rest(ν) = log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log(ν/2) tends to 0 as ν → ∞. For |w| > 1 the last logarithm is
        2 log|w| + log(1 + w⁻²), which does not overflow.
        """
        log_sigma, log_df = self._split(log_scale)
        df = torch.exp(log_df)
        rest = log_gamma_increment(0.5 * df, torch.full_like(df, 0.5))
        w = (as_column(y, location) - location) * torch.exp(-log_sigma - 0.5 * log_df)
        far = w.abs() > 1.0
        near, distant = torch.where(far, torch.ones_like(w), w), torch.where(far, w.abs(), torch.ones_like(w))
        inverse = 1.0 / distant
        logarithm = torch.where(
            far, 2.0 * torch.log(distant) + torch.log1p(inverse * inverse), torch.log1p(near * near)
        )
        return rest - 0.5 * math.log(2.0 * math.pi) - log_sigma - 0.5 * (df + 1.0) * logarithm

    @torch.no_grad()
    def closed_derivatives(
        self, y: Tensor, location: Tensor, log_scale: Tensor, with_second: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Derivatives by μ, log σ and, if ν is free, log ν.

        With z = (y − μ)/σ, w = z/√ν, s = w²/(1 + w²), r = w/(1 + w²) and u = 1/(σ√ν) the first are (ν + 1) u r,
        (ν + 1) s − 1 and rest′ − ½ν log(1 + w²) + ½ (ν + 1) s, where rest is that of `log_density`.
        """
        value = self.log_density(y, location, log_scale).numpy()
        log_sigma, log_df = (part.numpy() for part in self._split(log_scale))
        df, unit = np.exp(log_df), np.exp(-log_sigma - 0.5 * log_df)
        w = (y.unsqueeze(-1).numpy() - location.numpy()) * unit
        with np.errstate(divide="ignore"):
            far = np.abs(w) > 1.0
            # Of |w| and 1/|w| the smaller one has a square that does not overflow.
            q = np.where(far, 1.0 / w, w)
        lesser = q * q / (1.0 + q * q)
        share, other = np.where(far, 1.0 - lesser, lesser), np.where(far, lesser, 1.0 - lesser)
        ratio, more = q / (1.0 + q * q), df + 1.0
        n_channels = 1 + self.n_dispersion
        first = np.empty((*value.shape, n_channels))
        first[..., 0] = more * unit * ratio
        first[..., 1] = more * share - 1.0
        second = np.empty((*value.shape, n_channels, n_channels)) if with_second else None
        if second is not None:
            second[..., 0, 0] = -more * unit * unit * other * (other - share)
            second[..., 0, 1] = second[..., 1, 0] = -2.0 * more * unit * ratio * other
            second[..., 1, 1] = -2.0 * more * share * other
        if self.df is None:
            rest = log_gamma_increment_slopes(0.5 * df, np.full_like(df, 0.5))
            logarithm = np.where(far, np.log1p(q * q) - 2.0 * np.log(np.where(far, np.abs(q), 1.0)), np.log1p(q * q))
            # Where ν is bounded nothing depends on it any more.
            inside = np.abs(log_scale[..., 1].numpy()) <= largest_log(log_scale.dtype)
            first[..., 2] = inside * (rest[0] - 0.5 * df * logarithm + 0.5 * more * share)
            if second is not None:
                second[..., 0, 2] = second[..., 2, 0] = inside * unit * ratio * (df * share - other)
                second[..., 1, 2] = second[..., 2, 1] = inside * share * (more * share - 1.0)
                by_df = rest[1] - 0.5 * df * logarithm + df * share - 0.5 * more * share * other
                second[..., 2, 2] = inside * by_df
        return (
            torch.from_numpy(value),
            torch.from_numpy(first),
            None if second is None else torch.from_numpy(second),
        )

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """μ, (…, k); NaN for ν ≤ 1."""
        return torch.where(torch.exp(self._split(log_scale)[1]) > 1.0, location, torch.nan)

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """σ²ν/(ν − 2), (…, k); infinite for 1 < ν ≤ 2, NaN for ν ≤ 1."""
        log_sigma, log_df = self._split(log_scale)
        df = torch.exp(log_df)
        exists = df > 2.0
        safe = torch.where(exists, df, torch.full_like(df, 3.0))
        finite = torch.exp(2.0 * log_sigma) * (safe / (safe - 2.0))
        other = torch.where(df > 1.0, torch.inf, torch.nan).to(finite.dtype)
        return torch.where(exists, finite, other).expand_as(location)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y), (…, k)."""
        log_sigma, log_df = self._split(log_scale)
        z = (as_column(y, location) - location) * torch.exp(-log_sigma)
        return through_numpy(special.stdtr, location, torch.exp(log_df), z)

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Inverse of the distribution function, (…, k)."""
        log_sigma, log_df = self._split(log_scale)
        z = through_numpy(_quantile, location, torch.exp(log_df), probability.unsqueeze(-1))
        return location + torch.exp(log_sigma) * z

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """μ + σ ε/√g, (…, k), with ε standard normal and g a gamma variable of mean 1 and shape ν/2."""
        log_sigma, log_df = self._split(log_scale.detach())
        noise = torch.randn(location.shape, generator=generator, dtype=torch.float64, device=location.device)
        draws = uniform(location.shape, location, generator)
        mixing = through_numpy(gamma_quantile, draws, 0.5 * torch.exp(log_df), draws)
        smallest = torch.finfo(mixing.dtype).tiny
        return location + torch.exp(log_sigma) * (noise / torch.clamp(mixing, min=smallest).sqrt()).to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """(ν + 1)/((ν + 3) σ²), (…, k)."""
        log_sigma, log_df = self._split(log_scale)
        df = torch.exp(log_df)
        return (torch.exp(-2.0 * log_sigma) * ((df + 1.0) / (df + 3.0))).expand_as(location)

    def rescale_dispersion(self, log_scale: Tensor, scale: Tensor) -> Tensor:
        """Log σ + log scale, with scale (); ν stays."""
        if self.df is not None:
            return log_scale + torch.log(scale)
        return torch.stack([log_scale[..., 0] + torch.log(scale), log_scale[..., 1]], -1)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted median, the scale whose quartiles are the weighted median deviation apart from it, and ν = 5.

        Where half of the weight is at the median the scale is the mean deviation, and 1 where that is 0.
        """
        centre = weighted_median(y, weight)
        deviation = (y - centre).abs()
        quartile = float(special.stdtrit(_START if self.df is None else self.df, 0.75))
        scale = weighted_median(deviation, weight) / quartile
        scale = torch.where(scale > 0.0, scale, one_where_zero(weighted_mean(deviation, weight)))
        if self.df is not None:
            return centre, torch.log(scale)
        return centre, torch.log(torch.stack([scale, torch.full_like(scale, _START)]))

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """The scale σ, and the degrees of freedom ν if they are free."""
        return [("scale", True)] if self.df is not None else [("scale", True), ("degrees of freedom", True)]


def _quantile(df: np.ndarray, probability: np.ndarray) -> np.ndarray:
    # SciPy overflows where the quantile's square does. So far out the tail is its leading term, and z > 0 has
    # P(Z > z) = ½ x^(ν/2) / (ν/2 · B(ν/2, ½)) with x = ν/z².
    tail = np.minimum(probability, 1.0 - probability)
    half = 0.5 * df
    log_z = 0.5 * np.log(df) - (np.log(2.0 * tail) + np.log(half) + special.betaln(half, 0.5)) / df
    far = np.copysign(np.exp(log_z), probability - 0.5)
    z = np.where(log_z - 0.5 * np.log(df) > math.log(1e9), far, special.stdtrit(df, probability))
    ends = np.where(probability == 0.0, -np.inf, np.where(probability == 1.0, np.inf, np.nan))
    return np.where((probability > 0.0) & (probability < 1.0), z, ends)
