"""Information criteria on the textbook scale, smaller is better, and what stands for them in least squares."""

import math
from dataclasses import dataclass

import numpy as np

from gatewise.fit import Baseline, FitResult

__all__ = [
    "Criteria",
    "SquaredErrors",
    "baseline_criteria",
    "baseline_errors",
    "information_criteria",
    "squared_errors",
]


@dataclass(frozen=True)
class Criteria:
    """AIC = −2 ℓ + 2 p, BIC = −2 ℓ + p log n, ICL = BIC + 2 E, with n = Σ w and E the entropy of the responsibilities.

    AIC: Akaike (1974); BIC: Schwarz (1978); ICL in its BIC-type form: Biernacki, Celeux and Govaert (2000). ICL is that
    by entropy; the one by classification takes −Σ w log rᵢ at the largest rᵢ of each row in place of E, and is never
    larger. Some packages print the negative or half of these; here smaller is better. Least squares has no likelihood:
    all are NaN.
    """

    aic: float
    bic: float
    icl: float


@dataclass(frozen=True)
class SquaredErrors:
    """How near a regression function m comes to the targets, in the units of y.

    Attributes:
        residual_sum: Σ w ‖y − m(x)‖².
        residual_deviation: √(Σ w ‖y − m(x)‖² / (e Σ w − p)), the residual standard deviation, for targets of e columns
            and p parameters; NaN without degrees of freedom.
        total_sum: Σ w ‖y − ȳ‖² around the weighted mean ȳ.
    """

    residual_sum: float
    residual_deviation: float
    total_sum: float

    @property
    def r_squared(self) -> float:
        """The share of the squares around the mean that m explains, 1 − residual_sum / total_sum; NaN without any."""
        return 1.0 - self.residual_sum / self.total_sum if self.total_sum > 0.0 else math.nan


def information_criteria(result: FitResult) -> Criteria:
    """The criteria of a fit.

    Example:
        >>> import numpy as np
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.fit import fit
        >>> from gatewise.gates import SoftmaxGate
        >>> from gatewise.model import MixtureOfExperts
        >>> y = np.array([1.0, 2.0, 4.0, 3.0])
        >>> one = MixtureOfExperts(SoftmaxGate(1, 1), LinearExperts(1, 1), Gaussian())
        >>> criteria = information_criteria(fit(one, np.arange(4.0)[:, None], y))
        >>> round(criteria.aic, 4), criteria.bic == criteria.icl
        (14.1575, True)
    """
    return _criteria(result.log_likelihood, result.n_parameters, result.total_weight, result.entropy)


def baseline_criteria(baseline: Baseline, total_weight: float) -> Criteria:
    """The criteria of the one-expert fit; its entropy is 0."""
    return _criteria(baseline.log_likelihood, baseline.n_parameters, total_weight, 0.0)


def _criteria(log_likelihood: float, n_parameters: int, total_weight: float, entropy: float) -> Criteria:
    bic = -2.0 * log_likelihood + n_parameters * math.log(total_weight)
    return Criteria(aic=-2.0 * log_likelihood + 2.0 * n_parameters, bic=bic, icl=bic + 2.0 * entropy)


def squared_errors(y: np.ndarray, mean: np.ndarray, weight: np.ndarray, n_parameters: int) -> SquaredErrors:
    """The squared errors of a regression function.

    Args:
        y: targets (n,) or (n, e).
        mean: m(x), of the same shape.
        weight: row weights (n,).
        n_parameters: p.

    Example:
        >>> y = np.array([1.0, 2.0, 4.0, 3.0])
        >>> errors = squared_errors(y, 1.3 + 0.8 * np.arange(4.0), np.ones(4), n_parameters=2)
        >>> round(errors.residual_sum, 2), round(errors.residual_deviation, 2), round(errors.r_squared, 2)
        (1.8, 0.95, 0.64)
    """
    columns, fitted = y.reshape(len(y), -1), mean.reshape(len(y), -1)
    residual_sum = float(weight @ ((columns - fitted) ** 2).sum(axis=1))
    centre = np.average(columns, axis=0, weights=weight)
    total_sum = float(weight @ ((columns - centre) ** 2).sum(axis=1))
    return SquaredErrors(
        residual_sum, _deviation(residual_sum, weight.sum() * columns.shape[1], n_parameters), total_sum
    )


def baseline_errors(result: FitResult, errors: SquaredErrors) -> SquaredErrors:
    """The squared errors of the one-expert fit, on the same rows as those of the fit itself."""
    residual_sum = -2.0 * result.baseline.objective
    columns = max(result.model.family.event_size, 1)
    deviation = _deviation(residual_sum, result.total_weight * columns, result.baseline.n_parameters)
    return SquaredErrors(residual_sum, deviation, errors.total_sum)


def _deviation(residual_sum: float, n_numbers: float, n_parameters: int) -> float:
    freedom = n_numbers - n_parameters
    return math.sqrt(residual_sum / freedom) if freedom > 0.0 else math.nan
