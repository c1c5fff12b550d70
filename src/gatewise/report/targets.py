"""What kind of numbers a fitted model's targets are, and by which numbers a figure shows them."""

from enum import Enum, unique

import numpy as np

from gatewise.fit.result import FitResult

__all__ = ["TargetKind", "observed_numbers", "target_kind"]


@unique
class TargetKind(Enum):
    """What a target is to a figure: it decides what is drawn and which checks of the fit have a meaning."""

    NUMBER = "a number"
    COUNT = "a count"
    CLASS = "one of several classes"
    SHARE = "successes among a number of trials of the row's own"
    VECTOR = "several numbers"


def target_kind(result: FitResult) -> TargetKind:
    """The kind of the targets of a fit.

    Least squares knows only the mean, so there is no more to a target of one number than that.
    """
    family = result.model.family
    if family.event_size:
        return TargetKind.SHARE if family.is_discrete else TargetKind.VECTOR
    if result.kind == "least_squares":
        return TargetKind.NUMBER
    if family.n_codes:
        return TargetKind.CLASS
    return TargetKind.COUNT if family.is_discrete else TargetKind.NUMBER


def observed_numbers(kind: TargetKind, target: np.ndarray, n_classes: int) -> np.ndarray:
    """What was observed, number by number, beside the means of the model.

    Args:
        kind: of the targets.
        target: as the model takes them (n,) or (n, e).
        n_classes: C, 0 without classes.

    Returns:
        (n,): the target itself, or its successes over its trials; (n, e) for several numbers; (n, C) indicators of the
        classes.

    Example:
        >>> observed_numbers(TargetKind.CLASS, np.array([1.0, 0.0]), 2)
        array([[0., 1.],
               [1., 0.]])
    """
    if kind is TargetKind.CLASS:
        return np.eye(n_classes)[target.astype(int)]
    if kind is TargetKind.SHARE:
        return target[:, 0] / target[:, 1]
    return target
