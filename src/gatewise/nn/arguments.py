"""Checks of plain arguments, each with its sentence."""

import math

from gatewise.exceptions import InputError

__all__ = ["one_of", "positive", "whole"]


def one_of(name: str, value: object, words: tuple[str, ...]) -> None:
    """Refuse what is none of the words.

    Raises:
        InputError: it is none of them.
    """
    if value not in words:
        raise InputError(f"{name} must be one of {', '.join(map(repr, words))}, not {value!r}")


def whole(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number from `least` on.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number from {least} on, not {value!r}")


def positive(name: str, value: object) -> None:
    """Refuse what is not a positive, finite number.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        raise InputError(f"{name} must be a positive number, not {value!r}")
