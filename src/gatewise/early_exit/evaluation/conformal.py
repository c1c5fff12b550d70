"""Sets of classes that hold the right one with a promised probability, for answers of several exits."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gatewise.early_exit.outputs import ExitLogits
from gatewise.exceptions import InputError
from gatewise.nn.arguments import one_of

__all__ = ["ConformalExits", "Strategy", "coverage_band"]

Strategy = Literal["pooled", "strict", "per_exit"]


@dataclass(frozen=True)
class ConformalExits:
    """{c : 1 − p_c ≤ q_l} for a sample that left at exit l, q_l a quantile of 1 − p_y of calibration data.

    With m calibration scores q is the ⌈(m + 1)(1 − α)⌉-th smallest, and +∞ (all classes) where there are too few.

    "pooled": one q from the scores of the exits that answered. "strict": q_l from those samples that left at l.
    "per_exit": q_l from all samples' scores at l, whoever leaves there. The first promises a coverage of 1 − α over all
    samples, the second at each exit; the third promises nothing, since those who leave are not like all others. At an
    exit with fewer than `least` calibration samples of its own "strict" takes all samples' scores and promises nothing
    there (Regol, Chataoui and Coates 2024, as their code does it).

    The calibration data must have chosen nothing else: no temperature, no threshold, no λ.

    Attributes:
        strategy: as above.
        alpha: α.
        thresholds: q (L,).
        counts: (L,), the calibration scores behind each q.
        promises: (L,), whether the coverage at that exit is promised; of "pooled" it is that of all samples together.

    Example:
        >>> first = torch.zeros(99, dtype=torch.long)
        >>> outputs = ExitLogits(torch.zeros(99, 1, 2), first)
        >>> conformal = ConformalExits.fit(outputs, first, alpha=0.1)
        >>> conformal.thresholds.tolist(), conformal.sets(outputs.logits[:, 0], first)[0].tolist()
        ([0.5], [True, True])
    """

    strategy: Strategy
    alpha: float
    thresholds: Tensor
    counts: tuple[int, ...]
    promises: tuple[bool, ...]

    @classmethod
    def fit(
        cls,
        outputs: ExitLogits,
        exit_index: Tensor,
        alpha: float = 0.05,
        strategy: Strategy = "pooled",
        least: int = 20,
    ) -> "ConformalExits":
        """Thresholds from calibration data.

        Args:
            outputs: logits of all exits, divided by temperatures if the policy is calibrated, with classes.
            exit_index: where the samples leave.
            alpha: the share of sets that may miss the right class.
            strategy: as above.
            least: for "strict".

        Raises:
            InputError: α is not between 0 and 1, or there is no such strategy.
        """
        one_of("strategy", strategy, get_args(Strategy))
        if not 0.0 < alpha < 1.0:
            raise InputError(f"alpha must lie between 0 and 1, not {alpha!r}")
        y = outputs.labels()
        n_exits = outputs.n_exits
        target = y[:, None, None].expand(-1, n_exits, 1)
        scores = 1.0 - outputs.logits.double().softmax(-1).gather(-1, target).squeeze(-1)
        gated = scores.gather(1, exit_index[:, None]).squeeze(1)
        own = [exit_index == exit for exit in range(n_exits)]
        if strategy == "pooled":
            chosen = [gated] * n_exits
            promises = [True] * n_exits
        else:
            strict = [strategy == "strict" and int(mask.sum()) >= least for mask in own]
            chosen = [gated[own[exit]] if strict[exit] else scores[:, exit] for exit in range(n_exits)]
            promises = strict
        thresholds = torch.tensor([_quantile(each, alpha) for each in chosen], dtype=torch.float64)
        return cls(strategy, alpha, thresholds, tuple(len(each) for each in chosen), tuple(promises))

    def sets(self, logits: Tensor, exit_index: Tensor) -> Tensor:
        """Which classes are in the set of each sample, (n, C).

        Args:
            logits: (n, C), of the exits that answered.
            exit_index: (n,).
        """
        return 1.0 - logits.double().softmax(-1) <= self.thresholds[exit_index][:, None]

    def covered(self, logits: Tensor, exit_index: Tensor, y: Tensor) -> Tensor:
        """Whether the sets hold the right class, (n,)."""
        return self.sets(logits, exit_index).gather(1, y[:, None]).squeeze(1)


def _quantile(scores: Tensor, alpha: float) -> float:
    # 1e-9: (19 + 1)(1 − 0.05) is 19, and in floats a little more.
    place = math.ceil((len(scores) + 1) * (1.0 - alpha) - 1e-9)
    return math.inf if place > len(scores) else float(scores.sort().values[place - 1])


def coverage_band(n_test: int, n_calibration: int, alpha: float, level: float) -> tuple[float, float]:
    """Where the share of covered test samples lies with a probability of `level` or more.

    Given m calibration scores without ties the number of covered ones among n new samples is beta-binomial(n; a,
    m + 1 − a), a = ⌈(m + 1)(1 − α)⌉: the threshold is random too, so that a band of a plain binomial is too narrow.
    Equal tails; sums of exact probabilities, by logarithms of gamma functions.

    Args:
        n_test: n.
        n_calibration: m.
        alpha: α.
        level: of the band, such as 0.999.

    Raises:
        InputError: a number below 1.

    Example:
        >>> [round(edge, 3) for edge in coverage_band(1000, 500, 0.1, 0.999)]
        [0.84, 0.947]
    """
    if n_test < 1 or n_calibration < 1:
        raise InputError("a band needs at least one calibration and one test sample")
    a = math.ceil((n_calibration + 1) * (1.0 - alpha) - 1e-9)
    b = n_calibration + 1 - a
    if b < 1:
        return 1.0, 1.0
    k = torch.arange(n_test + 1, dtype=torch.float64)
    first, second, n = (torch.tensor(float(value), dtype=torch.float64) for value in (a, b, n_test))

    def log_beta(p: Tensor, q: Tensor) -> Tensor:
        return torch.lgamma(p) + torch.lgamma(q) - torch.lgamma(p + q)

    choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    mass = (choose + log_beta(k + first, n - k + second) - log_beta(first, second)).exp()
    cumulative = mass.cumsum(0)
    tail = (1.0 - level) / 2.0
    low = int((cumulative < tail).sum())
    high = int((cumulative < 1.0 - tail).sum())
    return low / n_test, min(high, n_test) / n_test
