"""What families ask of targets, and the messages when they are not met."""

from typing import Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["as_column", "check_counts", "check_finite", "is_count", "positive_number", "refuse", "whole_number"]


def refuse(bad: Tensor, y: Tensor, family: str, rule: str, remedy: str) -> None:
    """Raise for the first row in which `bad` holds.

    Args:
        bad: a mask of the shape of y, or of y without its last axis.
        y: targets.
        family: the family's name.
        rule: what targets must be, to follow "targets must be".
        remedy: what to do.

    Raises:
        InputError: `bad` holds somewhere.
    """
    if not bool(bad.any()):
        return
    first = torch.nonzero(bad)[0].tolist()
    place = f"row {first[0]}" if len(first) == 1 else f"row {tuple(first)}" if first else "the only row"
    value = y[tuple(first)].tolist()
    raise InputError(
        f"the target is {value} in {place} ({int(bad.sum())} such rows in all), but for the {family} family targets "
        f"must be {rule}: {remedy}"
    )


def check_finite(y: Tensor, family: str) -> None:
    """Refuse targets that are NaN or infinite.

    Raises:
        InputError: there is such a value.
    """
    bad = ~torch.isfinite(y)
    refuse(bad, y, family, "finite numbers", "remove or impute such rows")


def is_count(y: Tensor) -> Tensor:
    """Whether each target is a whole number from 0 on."""
    return (y >= 0.0) & (y == torch.floor(y)) & torch.isfinite(y)


def check_counts(y: Tensor, family: str) -> None:
    """Refuse targets that are not whole numbers from 0 on.

    Raises:
        InputError: there is such a value.
    """
    refuse(
        ~is_count(y),
        y,
        family,
        "counts 0, 1, 2, …",
        "remove rows without a count; measurements need the gaussian or gamma family",
    )


def as_column(y: Tensor, location: Tensor) -> Tensor:
    """Targets (…) as (…, 1), against the experts' axis; whole numbers in the locations' precision."""
    return y.to(torch.promote_types(y.dtype, location.dtype)).unsqueeze(-1)


def whole_number(name: str, value: Any, smallest: int, largest: int, family: str) -> int:
    """An option that must be a whole number.

    Raises:
        InputError: it is none, too small or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise InputError(
            f"{name} of the {family} family is {shown(value)}: give a whole number from {smallest} to {largest:,}"
        )
    return value


def positive_number(name: str, value: Any, family: str) -> float:
    """An option that must be a positive finite number.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
        raise InputError(f"{name} of the {family} family is {shown(value)}: give a positive finite number")
    return float(value)
