"""How good answers are, and how well their probabilities say so."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.early_exit.outputs import EarlyExitOutput

__all__ = [
    "ECE_ESTIMATOR",
    "ExitScores",
    "Scores",
    "exit_scores",
    "expected_calibration_error",
    "reliability_curve",
    "scores_of",
]

ECE_BINS = 15
ECE_ESTIMATOR = f"expected calibration error: {ECE_BINS} bins of equal numbers, all samples pooled, mean |gap|"
"""The estimator's name. Averaged over mini-batches, as in the paper's released code, it would be larger."""

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Scores:
    """Of the answers of n samples.

    Attributes:
        n: samples.
        accuracy: share of right answers.
        cost: mean relative cost.
        ece: see `ECE_ESTIMATOR`.
        bias: mean confidence − accuracy, signed: positive is too confident.
        bias_error: standard error of the bias.
        brier: mean of Σ_c (p_c − 1[y = c])².
        log_loss: mean of −log p_y, in nats.
        near: samples with a decision within 1e-6 of its threshold.
    """

    n: int
    accuracy: float
    cost: float
    ece: float
    bias: float
    bias_error: float
    brier: float
    log_loss: float
    near: int


@dataclass(frozen=True)
class ExitScores:
    """Of the samples that left at one exit.

    Attributes:
        exit: its number, from 1 on.
        n: samples.
        share: of all samples.
        accuracy: of those who left there; not a number if nobody did.
        confidence: their mean largest probability.
        low: lower end of the interval of confidence − accuracy, 95 %, normal.
        high: its upper end.
    """

    exit: int
    n: int
    share: float
    accuracy: float
    confidence: float
    low: float
    high: float


def expected_calibration_error(confidence: Tensor, correct: Tensor, bins: int = ECE_BINS) -> float:
    """Σ_b n_b/n |mean confidence − accuracy in bin b|, with bins of equal numbers of samples by confidence.

    Args:
        confidence: (n,), largest probabilities.
        correct: (n,), whether the answer is right.
        bins: how many; fewer if there are fewer samples.

    Example:
        >>> confidence, correct = torch.tensor([0.9, 0.9, 0.6, 0.6]), torch.tensor([1, 1, 0, 1])
        >>> round(expected_calibration_error(confidence, correct, bins=2), 4)
        0.1
    """
    n = len(confidence)
    if not n:
        return float("nan")
    order = confidence.argsort(stable=True)
    gap = (confidence.double() - correct.double())[order]
    return float(sum(abs(float(part.sum())) for part in gap.tensor_split(min(bins, n))) / n)


def reliability_curve(confidence: Tensor, correct: Tensor, bins: int = ECE_BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of samples of the bins of `expected_calibration_error`."""
    order = confidence.argsort(stable=True)
    parts = order.tensor_split(max(1, min(bins, len(order))))
    return [
        (float(confidence[part].double().mean()), float(correct[part].double().mean()), len(part))
        for part in parts
        if len(part)
    ]


def scores_of(output: EarlyExitOutput, y: Tensor) -> Scores:
    """The scores of answers for known classes (n,).

    Example:
        >>> n = 4
        >>> output = EarlyExitOutput(torch.tensor([[9.0, 0.0]] * n), torch.zeros(n), torch.ones(n), torch.zeros(n))
        >>> round(scores_of(output, torch.tensor([0, 0, 1, 1])).bias, 3)
        0.5
    """
    log_p = torch.log_softmax(output.logits.double(), -1)
    p = log_p.exp()
    confidence, answers = p.max(-1)
    correct = (answers == y).double()
    gap = confidence - correct
    of_class = p.gather(1, y[:, None]).squeeze(1)
    return Scores(
        n=len(y),
        accuracy=float(correct.mean()),
        cost=float(output.cost.mean()),
        ece=expected_calibration_error(confidence, correct),
        bias=float(gap.mean()),
        bias_error=float(gap.std(correction=0)) / max(1, len(y)) ** 0.5,
        brier=float(((p * p).sum(-1) - 2.0 * of_class + 1.0).mean()),
        log_loss=float(-log_p.gather(1, y[:, None]).mean()),
        near=int(output.near.sum()),
    )


def exit_scores(output: EarlyExitOutput, y: Tensor, n_exits: int) -> list[ExitScores]:
    """Confidence and accuracy of the samples that left at each exit, (L,) rows."""
    confidence, answers = output.logits.double().softmax(-1).max(-1)
    gap = confidence - (answers == y).double()
    rows = []
    for exit in range(n_exits):
        own = output.exit_index == exit
        n = int(own.sum())
        mean = float(gap[own].mean()) if n else float("nan")
        error = float(gap[own].std(correction=0)) / n**0.5 if n else float("nan")
        sure = float(confidence[own].mean()) if n else float("nan")
        rows.append(
            ExitScores(
                exit + 1, n, n / max(1, len(y)), sure - mean, sure, mean - _NORMAL_95 * error, mean + _NORMAL_95 * error
            )
        )
    return rows
