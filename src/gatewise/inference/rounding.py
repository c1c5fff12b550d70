"""How numbers of a fit are written: as many digits as their standard errors leave them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gatewise.ops.printable import printable

__all__ = ["MISSING", "Cells", "Table", "aligned", "cells", "p_value", "rounded", "significant"]

MISSING = "–"
_DIGITS_OF_ERROR = 2
_DIGITS_WITHOUT_ERROR = 4
_MOST_DECIMALS = 7
_LARGEST = 1e9
# Columns whose numbers have decimals of their own.
_DECIMALS = {"z": 2, "weight": 3, "effective rows": 1}
_CRITERIA = ("mixture", "one expert")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Table:
    """A table with names and numbers, not yet text.

    Attributes:
        name: what it is in a word: "parameters", "experts", "fit" or "boundary".
        heading: what stands above it.
        frame: its columns.
        errors: for columns whose numbers are rounded by something, one number per row: their standard errors.
        digits: how many significant digits of these are written.
    """

    name: str
    heading: str
    frame: pd.DataFrame
    errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    digits: int = _DIGITS_OF_ERROR


@dataclass(frozen=True)
class Cells:
    """A table as text: the names of its columns, whether they are numbers, and its rows."""

    header: list[str]
    numeric: list[bool]
    rows: list[list[str]]


def cells(table: Table) -> Cells:
    """The table's cells as they are written, the same for every rendering."""
    columns, numeric = [], []
    for name in table.frame.columns:
        column, error = table.frame[name], table.errors.get(str(name))
        is_number = bool(pd.api.types.is_numeric_dtype(column))
        numeric.append(is_number)
        if pd.api.types.is_integer_dtype(column) or not is_number:
            shown = [str(value) for value in column]
        elif error is None:
            shown = [_plain(str(name), float(value)) for value in column]
        else:
            shown = [rounded(float(value), float(by), table.digits) for value, by in zip(column, error, strict=True)]
        columns.append([printable(cell) for cell in shown])
    return Cells(
        [str(name) for name in table.frame.columns], numeric, [list(row) for row in zip(*columns, strict=True)]
    )


def rounded(value: float, error: float, digits: int = _DIGITS_OF_ERROR) -> str:
    """A number to the decimal place of the last significant digit of its standard error.

    Args:
        value: the number.
        error: its standard error; without one (NaN, 0, infinite) the number has four significant digits.
        digits: the significant digits of the error.

    Example:
        >>> rounded(1.91322, 0.022886), rounded(0.022886, 0.022886), rounded(0.02, 0.0996), rounded(12345.6, 321.0)
        ('1.913', '0.023', '0.02', '12346')
        >>> rounded(-1.234567e-9, 3.21e-11), rounded(78208.1, float("nan")), rounded(float("-inf"), 1.0)
        ('-1.235e-09', '78208', '-∞')
    """
    if not math.isfinite(value):
        return _not_finite(value)
    if not (math.isfinite(error) and error > 0.0):
        return significant(value)
    # The error as it is written has the exponent that counts: 0.0996 is 0.10.
    exponent = int(f"{error:.{digits - 1}e}".partition("e")[2])
    decimals = digits - 1 - exponent
    if decimals <= _MOST_DECIMALS and max(abs(value), error) < _LARGEST:
        return _fixed(value, max(decimals, 0))
    if round(value, decimals) == 0.0:
        return "0"
    return f"{value:.{max(0, math.floor(math.log10(abs(value))) + decimals)}e}"


def significant(value: float, digits: int = _DIGITS_WITHOUT_ERROR) -> str:
    """A number that has no standard error.

    Example:
        >>> significant(-39.8312), significant(0.0), significant(1.23456e-7), significant(float("nan"))
        ('-39.83', '0', '1.235e-07', '–')
    """
    if not math.isfinite(value):
        return _not_finite(value)
    if value == 0.0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if -digits <= exponent < 9:
        return _fixed(value, max(digits - 1 - exponent, 0))
    return f"{value:.{digits - 1}e}"


def p_value(value: float) -> str:
    """A probability under a hypothesis, to three decimals.

    Example:
        >>> p_value(0.04126), p_value(1e-9), p_value(float("nan"))
        ('0.041', '<0.001', '–')
    """
    if math.isnan(value):
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def aligned(column: Sequence[str], blank: str = " ") -> list[str]:
    """Numbers of a column brought below each other at their points by blanks after them.

    Example:
        >>> aligned(["2.7", "-0.125", "3", "–"])
        ['2.7  ', '-0.125', '3    ', '–']
    """
    fractions = [len(cell.partition(".")[2]) for cell in column if _NUMBER.fullmatch(cell)]
    longest = max(fractions, default=0)
    padded = []
    for cell in column:
        missing = 0
        if longest and _NUMBER.fullmatch(cell):
            missing = longest - len(cell.partition(".")[2]) + ("." not in cell)
        padded.append(cell + blank * missing)
    return padded


def _plain(column: str, value: float) -> str:
    """A number without a standard error, by what its column is."""
    if not math.isfinite(value):
        return _not_finite(value)
    if column == "p":
        return p_value(value)
    if column in _DECIMALS:
        return _fixed(value, _DECIMALS[column])
    if column in _CRITERIA:
        if value.is_integer() and abs(value) < 1e6:
            return f"{value:.0f}"
        return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.5g}"
    return significant(value)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return MISSING
    return "∞" if value > 0.0 else "-∞"
