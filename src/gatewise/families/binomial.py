"""The binomial family: successes among a known number of trials."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.families.base import BOUNDARY, FAMILIES, Family
from gatewise.families.elementwise import smallest_count, through_numpy
from gatewise.families.smooth import log_sigmoid
from gatewise.families.starts import half_row, no_dispersion
from gatewise.families.targets import as_column, is_count, refuse, whole_number

# Above it float64 does not hold every count.
_MOST_TRIALS = 2**53


@FAMILIES.register
class Binomial(Family):
    """P(Y = y | h, n) = (n choose y) pʸ (1 − p)ⁿ⁻ʸ with p = 1/(1 + exp(−h)).

    With `trials` n given, targets are the counts of successes (…), and mean and variance are those of the count. With
    `trials=None` every target tells its own number of trials, (…, 2) = (successes, trials); a location alone does not
    know it, so mean, variance and information are those of one trial (`information_factor` gives the trials), and there
    is neither a distribution function nor a quantile nor a sample.

    Args:
        trials: n, at least 1, or None if the targets tell.

    Raises:
        InputError: the number of trials is less than 1, or above 2⁵³.

    Example:
        >>> import torch
        >>> Binomial(trials=2).log_density(torch.tensor([1.0]), torch.zeros(1, 1), torch.zeros(1, 0)).exp()
        tensor([[0.5000]])
        >>> Binomial().log_density(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1), torch.zeros(1, 0)).exp()
        tensor([[0.5000]])
    """

    name = "binomial"
    formula = "(n choose y) pʸ (1 − p)ⁿ⁻ʸ, p = 1/(1 + exp(−h))"
    source = "McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 4"
    is_discrete = True

    def __init__(self, trials: int | None = None) -> None:
        self.trials = None if trials is None else whole_number("trials", trials, 1, _MOST_TRIALS, self.name)

    def options(self) -> dict[str, Any]:
        """The number of trials."""
        return {"trials": self.trials}

    @property
    def event_size(self) -> int:
        """2, successes and trials, if the targets tell their trials, else 0."""
        return 2 if self.trials is None else 0

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.trials is None:
            return y[..., 0], y[..., 1]
        return y, torch.full_like(y, self.trials)

    def _known_trials(self, what: str) -> int:
        if self.trials is None:
            raise InputError(
                f"the {self.name} family has no {what} without a number of trials: the locations do not tell it; give "
                "it, trials=10 for example, or work with the mean, which is the probability of success"
            )
        return self.trials

    def check_target(self, y: Tensor) -> None:
        """Refuse targets that are not counts from 0 to the number of trials, or have no trials.

        Raises:
            InputError: there is such a value, or the targets do not have two columns with `trials=None`.
        """
        if self.trials is None and (y.ndim == 0 or y.shape[-1] != 2):
            raise InputError(
                f"the targets have shape {tuple(y.shape)}: {self!r} takes two columns, (successes, trials); give the "
                "number of trials, trials=10 for example, if it is the same in all rows"
            )
        count, trials = self._split(y)
        bad = ~(is_count(count) & is_count(trials) & (count <= trials) & (trials >= 1))
        if self.trials is None:
            refuse(
                bad, y, self.name, "(successes, trials) with 0 ≤ successes ≤ trials and trials ≥ 1", "remove such rows"
            )
        else:
            rule = f"counts 0, …, {self.trials}"
            refuse(bad, y, self.name, rule, f"remove such rows, or raise trials above {self.trials}")

    def is_extreme(self, y: Tensor) -> Tensor:
        """No success, or nothing but successes."""
        count, trials = self._split(y)
        return (count == 0.0) | (count == trials)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log P(Y = y), (…, k); −∞ for targets that are no such counts."""
        count, trials = (as_column(part, location) for part in self._split(y))
        known = is_count(count) & is_count(trials) & (count <= trials)
        count = torch.where(known, count, torch.zeros_like(count))
        trials = torch.where(known, trials, torch.zeros_like(trials))
        rest = trials - count
        choices = torch.lgamma(trials + 1.0) - torch.lgamma(count + 1.0) - torch.lgamma(rest + 1.0)
        return torch.where(known, choices + count * log_sigmoid(location) + rest * log_sigmoid(-location), -torch.inf)

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Mean count n p, (…, k); the probability p of success if the targets tell their trials."""
        return (self.trials or 1) * torch.sigmoid(location)

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Variance n p(1 − p), (…, k); with n = 1, of one trial, if the targets tell their trials."""
        return (self.trials or 1) * torch.sigmoid(location) * torch.sigmoid(-location)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y), (…, k), by the incomplete beta function.

        Raises:
            InputError: the number of trials is not known.
        """
        below = _below(self._known_trials("distribution function"))
        return through_numpy(below, location, as_column(y, location), location)

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """The smallest count y with P(Y ≤ y) ≥ probability, (…, k).

        Raises:
            InputError: the number of trials is not known.
        """
        trials = self._known_trials("quantile")
        below = _below(trials)

        def search(p: np.ndarray, h: np.ndarray) -> np.ndarray:
            success = special.expit(h)
            deviation = np.sqrt(trials * success * special.expit(-h))
            guess = trials * success + deviation * np.clip(special.ndtri(p), -40.0, 40.0)
            return smallest_count(below, p, guess, 0.1 * deviation, trials, h)

        return through_numpy(search, location, probability.unsqueeze(-1), location)

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts, (…, k).

        Raises:
            InputError: the number of trials is not known.
        """
        trials = self._known_trials("sample")
        probability = torch.sigmoid(location.detach().double())
        draws = torch.binomial(torch.full_like(probability, trials), probability, generator=generator)
        return draws.to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Information n p(1 − p), (…, k); of one trial if the targets tell their trials."""
        return self.variance(location, log_scale)

    def information_factor(self, y: Tensor) -> Tensor:
        """The trials of each target, (…), if the targets tell them, else 1."""
        return super().information_factor(y) * (y[..., 1] if self.trials is None else 1.0)

    def at_boundary(self, location: Tensor) -> Tensor:
        """Whether p is below 1e-8 or above 1 − 1e-8, (…, k)."""
        return location.abs() > -math.log(BOUNDARY)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of the weighted successes over the weighted trials, with half a row's trial more of each kind."""
        count, trials = (part.to(weight.dtype) for part in self._split(y))
        share, more = (weight @ count) / (weight @ trials), half_row(weight * trials)
        return torch.log(share + more) - torch.log1p(more - share), no_dispersion(weight)


def _below(trials: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def below(y: np.ndarray, h: np.ndarray) -> np.ndarray:
        count = np.floor(y)
        inside = np.clip(count, 0.0, trials - 1.0)
        value = special.betainc(trials - inside, inside + 1.0, special.expit(-h))
        return np.where(count < 0.0, 0.0, np.where(count >= trials, 1.0, value))

    return below
