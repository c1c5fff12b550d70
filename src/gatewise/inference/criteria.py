"""Information criteria on the textbook scale: smaller is better."""

import math
from dataclasses import dataclass

from gatewise.fit import Baseline, FitResult

__all__ = ["Criteria", "baseline_criteria", "information_criteria"]


@dataclass(frozen=True)
class Criteria:
    """AIC = −2 ℓ + 2 p, BIC = −2 ℓ + p log n, ICL = BIC + 2 E, with n = Σ w and E the entropy of the responsibilities.

    AIC: Akaike (1974); BIC: Schwarz (1978); ICL in its BIC-type form: Biernacki, Celeux and Govaert (2000). Some
    packages print the negative or half of these; here smaller is better.
    """

    aic: float
    bic: float
    icl: float


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
