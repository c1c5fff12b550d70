"""How narrow an expert's distribution is: what runs to 0 where the density of a few rows grows without bound."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Spread", "coefficient_of_variation", "standard_deviation"]


def standard_deviation(rows: Tensor, weight: Tensor) -> Tensor:
    """The weighted standard deviation of each column of (n,) or (n, e), (1,) or (e,)."""
    columns = rows.reshape(len(rows), -1)
    share = weight / weight.sum()
    return (share @ (columns - share @ columns) ** 2).sqrt()


def coefficient_of_variation(rows: Tensor, weight: Tensor) -> Tensor:
    """The weighted standard deviation over the weighted mean of positive numbers (n,), (1,)."""
    share = weight / weight.sum()
    return standard_deviation(rows / (share @ rows), weight)


@dataclass(frozen=True)
class Spread:
    """The numbers of an expert that say how narrow its density is: log spread = power · entry.

    A density has no bound if such a number can run away: an expert that passes exactly through a few rows becomes
    narrower there without end. A fit holds each spread above a share of its value in the one-expert fit.

    Attributes:
        parameter: the name of the parameter (k,) or (k, s) that holds them.
        count: how many entries of an expert's row are such numbers; they come first.
        name: what a reader calls the spread, "σ".
        whole: what that of the one-expert fit is called, "residual standard deviation".
        power: 1 where an entry is the logarithm of the spread itself.
        factor: where spreads belong to a covariance Σ = LLᵀ, parameters ↦ L (k, e, e); then the narrowest direction
            counts, whichever it is.
        of_rows: rows and weights ↦ the spreads (count,) of all rows, when nothing explains them.

    Example:
        >>> spread = Spread("log_scale", 1, "σ", "residual standard deviation")
        >>> scales = {"log_scale": torch.tensor([1.0, 2.0]).log()}
        >>> spread.relative(scales, {"log_scale": torch.tensor([4.0]).log()})
        tensor([0.2500, 0.5000])
    """

    parameter: str
    count: int
    name: str
    whole: str
    power: float = 1.0
    factor: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    of_rows: Callable[[Tensor, Tensor], Tensor] = standard_deviation

    def logarithms(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The logarithms of the spreads, (k, count)."""
        rows = parameters[self.parameter]
        return self.power * rows.reshape(len(rows), -1)[:, : self.count]

    def relative(self, parameters: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """The smallest spread of each expert over that of a reference, (k,).

        Of covariances, the smallest ratio of the standard deviations in any one direction: the smallest singular value
        of R⁻¹L, R being the factor of the reference.

        Args:
            parameters: of k experts.
            reference: the same of one expert.
        """
        if self.factor is None:
            return (self.logarithms(parameters) - self.logarithms(reference)).exp().amin(-1)
        factor = self.factor(parameters)
        whitened = torch.linalg.solve_triangular(self.factor(reference).expand_as(factor), factor, upper=False)
        return torch.linalg.svdvals(whitened)[:, -1]
