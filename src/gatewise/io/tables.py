"""A table as it was read: columns that get their type, or refuse it with the place named, when they are asked for.

Places are named as the user sees them: the line of a CSV file (the header of an ordinary file is line 1), or the row of
a parquet table (the first is row 1).
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gatewise.exceptions import InputError
from gatewise.messages import listed, shown

__all__ = ["MISSING_WORDS", "OTHER_SEPARATOR", "SEPARATOR", "Array", "Column", "Table", "names_rows"]

MISSING_WORDS = ("", "NA", "N/A", "null", "NULL")
"""The fields of a CSV file that mean a missing value."""

Array: TypeAlias = Any
"""A `pyarrow.ChunkedArray`; pyarrow has no types of its own."""

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NOT_FINITE = r"^(?i:[+-]?(nan|inf|infinity))$"
_BOOLEANS = (("False", "True"), ("FALSE", "TRUE"), ("false", "true"))
SEPARATOR = re.compile(r"[;\t|]")
OTHER_SEPARATOR = "the fields of the file are not separated by commas: save it with commas"


@dataclass(frozen=True)
class Column:
    """One column, typed.

    Attributes:
        name: its name.
        is_number: whether `values` are numbers; otherwise they are text.
        values: float64 or str objects, (n,); undefined where missing.
        missing: where there is no value, (n,).
        shown: the values as the file shows them, for messages.
    """

    name: str
    is_number: bool
    values: np.ndarray
    missing: np.ndarray
    shown: Array = field(repr=False)


@dataclass(frozen=True)
class Table:
    """A table as it was read; columns get their type when they are asked for, so that unused ones cannot fail.

    Attributes:
        source: what messages call it.
        arrays: the columns by name; all text if the file was CSV.
        positions: line (CSV) or row (parquet) of each row, (n,).
        unit: `"line"` or `"row"`.
        notes: what was left out on reading, one sentence each.
        unnamed: the places (from 1) of columns without a name, which cannot be used.
        names_rows: whether the first of these is the first column and names the rows, as R and pandas write it (CSV).
    """

    source: str
    arrays: dict[str, Array] = field(repr=False)
    positions: np.ndarray = field(repr=False)
    unit: str
    notes: tuple[str, ...] = ()
    unnamed: tuple[int, ...] = ()
    names_rows: bool = False

    @property
    def names(self) -> list[str]:
        """The names of the columns, in their order."""
        return list(self.arrays)

    @cached_property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(self.positions)

    def where(self, index: int) -> str:
        """How messages name the row with that index: `data.csv, line 7 of the file`."""
        whole = "of the file" if self.unit == "line" else "of the table"
        return f"{self.source}, {self.unit} {self.positions[index]} {whole}"

    def array(self, name: str) -> Array:
        """The column as it was read.

        Raises:
            InputError: there is no such column; the message lists those that are there.
        """
        if name in self.arrays:
            return self.arrays[name]
        advice = "name one of them"
        close = difflib.get_close_matches(name, self.names, n=1)
        if close:
            advice = f"did you mean {close[0]!r}?"
        elif len(self.names) == 1 and SEPARATOR.search(self.names[0]):
            advice = OTHER_SEPARATOR
        raise InputError(f"{self.source} has no column {shown(name)}; its columns are {listed(self.names)}: {advice}")

    def leave_out_unnamed(self) -> list[str]:
        """The names of the rows are left out where all columns are to be used; other unnamed columns are refused.

        Returns:
            One sentence, or none.

        Raises:
            InputError: there is such a column.
        """
        others = self.unnamed[1:] if self.names_rows else self.unnamed
        if others:
            raise InputError(
                f"{self.source}: column {others[0]} has no name; name it, leave it out (a row index written by "
                "pandas or R is left out with index=False or row.names=FALSE), or say which columns are the features"
            )
        return ["left out the first column, which has no name and names the rows"] if self.names_rows else []

    def check(self, names: Iterable[str]) -> None:
        r"""Refuse columns that are not there, or that hold neither numbers nor text, without reading their values.

        Args:
            names: of the columns that will be asked for.

        Raises:
            InputError: as in `array`, or the type of a parquet column is neither number, text nor boolean.

        Example:
            >>> from gatewise.io.reading import parse_csv
            >>> parse_csv(b"y,x\n1,2\n", "data.csv").check(["y", "x"])
        """
        for name in names:
            _holds_numbers(self, name, self.array(name).type)

    def column(self, name: str) -> Column:
        """The column as numbers if every value is one, as text if none is.

        Raises:
            InputError: there is no such column, its type is neither number, text nor boolean, or it mixes numbers and
                text.
        """
        array = self.array(name)
        if self.unit == "row":
            return _typed_column(self, name, array)
        numeric, numbers = _numbers(array)
        missing = array.is_null().to_numpy()
        if (numeric | missing).all():
            return Column(name, True, numbers, missing, array)
        if numeric.any():
            raise self._mixed(name, array, numeric, np.flatnonzero(~numeric & ~missing))
        return Column(name, False, _objects(array), missing, array)

    def _mixed(self, name: str, array: Array, numeric: np.ndarray, textual: np.ndarray) -> InputError:
        """What is wrong with a column of numbers and text: one of each, and what NaN is taken for."""
        number, text = int(np.flatnonzero(numeric)[0]), int(textual[0])
        advice = "correct the odd ones, or leave the column out"
        if not _is_digits(array)[numeric].any():
            words = ", ".join(repr(word) for word in MISSING_WORDS if word)
            advice = (
                "the latter counts as a number that is not finite, not as a missing value, which is an empty field or "
                f"one of {words}: correct these, or leave the column out"
            )
        return InputError(
            f"{self.source}: the column {shown(name)} mixes text and numbers, {shown(array[text].as_py())} in "
            f"{self.unit} {self.positions[text]} of the file and {shown(array[number].as_py())} in {self.unit} "
            f"{self.positions[number]}; {advice}"
        )

    def number_column(self, name: str, role: str = "column") -> Column:
        """The column as numbers, true and false as 1 and 0.

        Args:
            name: the column.
            role: what messages call it.

        Raises:
            InputError: there is no such column, or a value is not a number; the message names the first.
        """
        array = self.array(name)
        missing = array.is_null().to_numpy()
        if self.unit == "row":
            column = _typed_column(self, name, array)
            numeric = np.full(self.n_rows, column.is_number)
        else:
            numeric, numbers = _numbers(array)
            column = Column(name, True, numbers, missing, array)
        if (numeric | missing).all():
            return column
        words = _objects(array.cast(pa.string()))
        for false, true in _BOOLEANS:
            if (missing | (words == false) | (words == true)).all():
                return Column(name, True, np.where(words == true, 1.0, 0.0), missing, array)
        first = int(np.flatnonzero(~numeric & ~missing)[0])
        advice = "correct that value, or name another column"
        if role == "target" and not numeric[~missing].any():
            advice = "name another column, or choose the categorical family, whose targets are names of classes"
        raise InputError(
            f"{self.where(first)}: the {role} {shown(name)} must be numeric but is {shown(words[first])}; {advice}"
        )

    def text_column(self, name: str) -> Column:
        """The column as text, also if every value of a CSV file looks like a number.

        Raises:
            InputError: there is no such column, or it is a parquet column of another type than text or boolean.
        """
        array = self.array(name)
        if self.unit == "line":
            return Column(name, False, _objects(array), array.is_null().to_numpy(), array)
        column = _typed_column(self, name, array)
        if column.is_number and not column.missing.all():
            raise InputError(
                f"{self.source}: the column {shown(name)} holds numbers ({array.type}) where text is needed; "
                "convert it to text"
            )
        return column


def _is_digits(array: Array) -> np.ndarray:
    """Where a text is a number made of digits."""
    found = pc.call_function("match_substring_regex", [array], pc.MatchSubstringOptions(_NUMBER))
    return found.fill_null(False).to_numpy()


def _numbers(array: Array) -> tuple[np.ndarray, np.ndarray]:
    """Where a text is a number, nan and inf among them, and the numbers."""
    is_digits = pc.call_function("match_substring_regex", [array], pc.MatchSubstringOptions(_NUMBER))
    is_word = pc.call_function("match_substring_regex", [array], pc.MatchSubstringOptions(_NOT_FINITE))
    digits = pc.call_function("if_else", [is_digits, array, pa.scalar(None, pa.string())])
    values = digits.cast(pa.float64()).to_numpy(zero_copy_only=False)
    word = is_word.fill_null(False).to_numpy()
    # nan and inf are refused by name if the column is used: any value that is not finite stands for them.
    return is_digits.fill_null(False).to_numpy() | word, np.where(word, np.inf, values)


def names_rows(array: Array) -> bool:
    """Whether a column of text can be the names of the rows: whole numbers or words, none missing, no two alike."""
    numeric, numbers = _numbers(array)
    whole = not numeric.any() or (numeric.all() and all(map(float.is_integer, numbers.tolist())))
    return bool(whole) and array.null_count == 0 and len(array.unique()) == len(array)


def _objects(array: Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)


def _typed_column(table: Table, name: str, array: Array) -> Column:
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    missing = array.is_null().to_numpy()
    if _holds_numbers(table, name, array.type):
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return Column(name, True, values, missing, array)
    return Column(name, False, _objects(array.cast(pa.string())), missing, array)


def _holds_numbers(table: Table, name: str, kind: Any) -> bool:
    """Whether a column of this type of Arrow's holds numbers; otherwise it holds text or booleans, or is refused."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return True
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return False
    raise InputError(
        f"{table.source}: the column {shown(name)} has the type {kind}, which is neither number, text nor boolean; "
        "convert it, or leave it out"
    )
