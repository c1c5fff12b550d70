"""The door of the estimators: tables of any kind become float64 arrays, or an error that names column and row."""

import difflib
from collections.abc import Sequence
from numbers import Real
from typing import Any

import narwhals as nw
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from gatewise.exceptions import InputError
from gatewise.fit.rows import NOT_NUMERIC, real_numbers, unmasked
from gatewise.messages import listed, shown

__all__ = [
    "ColumnChoice",
    "chosen_columns",
    "class_labels",
    "feature_matrix",
    "label_vector",
    "missing_labels",
    "row_offset",
    "row_weights",
    "series_name",
    "target_columns",
    "target_vector",
]

ColumnChoice = Sequence[str | int] | np.ndarray | None

_WORDS = "code it as numbers, or fit names of classes with GatedClassifier"
_CODED = (
    'code its texts as numbers, for example with scikit-learn\'s OneHotEncoder(drop="first", sparse_output=False), or '
    "leave it out"
)
_NO_TARGET = "this estimator requires y to be passed, but the target y is None"


def feature_matrix(estimator: BaseEstimator, X: Any, *, reset: bool) -> np.ndarray:
    """X as a float64 matrix (n, d), its column names and their number kept or compared by scikit-learn's rules.

    Missing values become NaN; they are not refused here.

    Args:
        estimator: who gets, or has, `n_features_in_` and `feature_names_in_`.
        X: an array (n, d), or a pandas, polars or pyarrow table with numeric columns.
        reset: whether to set these attributes (in `fit`) or to compare with them.

    Raises:
        InputError: a column is not numeric (text and dates are no numbers, in arrays either) or there twice, the shape
            is wrong, or the columns are not `fit`'s.
        TypeError: X is sparse, or only some of its column names are text.
    """
    try:
        native = nw.from_native(X, pass_through=True)
        if isinstance(native, nw.LazyFrame):
            raise InputError("X is a lazy table: collect it first")
        matrix = _table_matrix(native) if isinstance(native, nw.DataFrame) else _without_text(X)
        matrix = check_array(matrix, dtype="float64", ensure_all_finite=False, estimator=estimator, input_name="X")
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    return matrix


def target_vector(y: Any) -> tuple[np.ndarray, str]:
    """Y as a float64 vector (n,), and its name: that of a series or of a table's only column, else "y".

    Missing values become NaN; they are not refused here. A column vector is taken with scikit-learn's warning.

    Raises:
        InputError: y is None, not numeric, or not one-dimensional.
    """
    if y is None:
        raise InputError(_NO_TARGET)
    native = nw.from_native(y, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(native, nw.Series):
        name = "y" if native.name in (None, "") else str(native.name)
        return _numbers(native, f"the target {shown(name)}", _WORDS), name
    name = "y"
    if isinstance(native, nw.DataFrame):
        name = str(native.columns[0]) if len(native.columns) == 1 else "y"
        y = _table_matrix(native)
    try:
        vector = column_or_1d(unmasked(y), warn=True, input_name="y")
    except ValueError as error:
        raise InputError(str(error)) from error
    return real_numbers(f"the target {shown(name)}", vector, _WORDS), name


def target_columns(y: Any) -> tuple[np.ndarray, list[str]]:
    """Y as a float64 matrix (n, e), and the names of its columns, "y[0]", "y[1]", … where it has none.

    Missing values become NaN; they are not refused here.

    Raises:
        InputError: y is None, not numeric, or not a table.
    """
    if y is None:
        raise InputError(_NO_TARGET)
    native = nw.from_native(y, eager_only=True, pass_through=True)
    if isinstance(native, nw.DataFrame):
        return _table_matrix(native), [str(name) for name in native.columns]
    matrix = np.asanyarray(y)
    if matrix.ndim != 2:
        raise InputError(f"y has shape {matrix.shape}: targets with several columns are a table (rows, columns)")
    return real_numbers("the target 'y'", matrix), [f"y[{j}]" for j in range(matrix.shape[1])]


def class_labels(y: Any) -> tuple[np.ndarray, str]:
    """Y as a vector (n,) of class labels of their own type, and its name as in `target_vector`.

    Raises:
        InputError: y is None, not one-dimensional, has missing values, numbers that are no labels, or labels of mixed
            kinds.
    """
    labels, name = label_vector(y)
    absent = np.flatnonzero(missing_labels(labels))
    if len(absent):
        raise InputError(
            f"the target {shown(name)} is missing (None or NaN) in row {absent[0]} ({len(absent)} such rows in all): "
            "remove such rows"
        )
    try:
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise InputError(
                f"the target {shown(name)} contains infinity: labels of classes are names or whole numbers"
            )
        check_classification_targets(labels)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    except TypeError as error:
        raise InputError(f"the labels of {shown(name)} cannot be sorted: make them all text, or all numbers") from error
    return labels, name


def missing_labels(labels: np.ndarray) -> np.ndarray:
    """Which labels are None or NaN, (n,)."""
    return np.array([label is None or label != label for label in labels.tolist()], dtype=bool)


def label_vector(y: Any) -> tuple[np.ndarray, str]:
    """Y as a vector (n,) of labels as they come, some perhaps missing, and its name as in `target_vector`.

    Raises:
        InputError: y is None, or not one-dimensional.
    """
    if y is None:
        raise InputError(_NO_TARGET)
    native = nw.from_native(y, eager_only=True, allow_series=True, pass_through=True)
    name = "y"
    if isinstance(native, nw.DataFrame):
        if len(native.columns) != 1:
            raise InputError(f"y has {len(native.columns)} columns: labels of classes are one column")
        native = native[native.columns[0]]
    if isinstance(native, nw.Series):
        name = "y" if native.name in (None, "") else str(native.name)
        y = native.to_list()
    if isinstance(y, list) and any(label is None or label != label for label in y):
        # NumPy would write a NaN among texts as the text "nan".
        y = np.array(y, dtype=object)
    try:
        return column_or_1d(unmasked(y), warn=True, input_name="y"), name
    except ValueError as error:
        raise InputError(str(error)) from error


def row_offset(offset: Any, n: int) -> np.ndarray | None:
    """An offset as a float64 array (n,), one number standing for all rows, or None.

    Raises:
        InputError: it is not numeric, or not one number for each row.
    """
    if offset is None:
        return None
    native = nw.from_native(offset, eager_only=True, series_only=True, pass_through=True)
    what = "the offset"
    values = _numbers(native, what) if isinstance(native, nw.Series) else real_numbers(what, offset)
    if values.shape not in ((), (n,)):
        raise InputError(f"the offset has shape {values.shape}; it must be one number for each of the {n} rows")
    return np.broadcast_to(values, (n,)).copy()


def series_name(values: Any) -> str | None:
    """The name of a series, or None where there is none.

    Example:
        >>> import pandas as pd
        >>> series_name(pd.Series([1.0], name="log_years")), series_name([1.0])
        ('log_years', None)
    """
    native = nw.from_native(values, eager_only=True, series_only=True, pass_through=True)
    return str(native.name) if isinstance(native, nw.Series) and native.name not in (None, "") else None


def row_weights(sample_weight: Any) -> np.ndarray | None:
    """Row weights as a float64 array of whatever shape they have, or None.

    Raises:
        InputError: they are not numeric.
    """
    if sample_weight is None:
        return None
    native = nw.from_native(sample_weight, eager_only=True, series_only=True, pass_through=True)
    if isinstance(native, nw.Series):
        return _numbers(native, "sample_weight")
    return real_numbers("sample_weight", sample_weight)


def chosen_columns(option: str, chosen: ColumnChoice, names: list[str]) -> list[int]:
    """The columns that an option chooses: all for None, none for an empty list, otherwise those named or numbered.

    Args:
        option: the option's name, for messages.
        chosen: its value.
        names: the columns of X.

    Raises:
        InputError: a name or an index is unknown or given twice.

    Example:
        >>> chosen_columns("gate_features", ["b", 0], ["a", "b"])
        [1, 0]
    """
    if chosen is None:
        return list(range(len(names)))
    if isinstance(chosen, str) or not isinstance(chosen, Sequence | np.ndarray):
        raise InputError(f"{option} must be a list of column names or indices, or None, not {shown(chosen)}")
    columns = []
    for entry in chosen:
        column = _chosen_column(option, entry, names)
        if column in columns:
            raise InputError(f"{option} has the column {shown(names[column])} twice: name it once")
        columns.append(column)
    return columns


def _chosen_column(option: str, entry: object, names: list[str]) -> int:
    if isinstance(entry, str):
        if entry not in names:
            close = difflib.get_close_matches(entry, names, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "name one of them"
            raise InputError(
                f"{option} has {shown(entry)}, which is not a column of X; its columns are {listed(names)}: {advice}"
            )
        return names.index(entry)
    if not isinstance(entry, int | np.integer) or isinstance(entry, bool):
        raise InputError(f"{option} has {shown(entry)}, which is neither a column name nor an index")
    if not 0 <= entry < len(names):
        raise InputError(f"{option} has the index {entry}, but X has the columns 0 to {len(names) - 1}")
    return int(entry)


def _table_matrix(table: nw.DataFrame[Any]) -> np.ndarray:
    textual = [series.name for series in table.iter_columns() if not _is_numeric(series)]
    if textual:
        listed = ", ".join(repr(name) for name in textual)
        first = table[textual[0]]
        is_text = any(isinstance(value, str) for value in first.to_list())
        what = f"column {listed}" if len(textual) == 1 else f"the first of the columns {listed}"
        _numbers(first, what, _CODED if is_text else NOT_NUMERIC)
    columns = [_numbers(series, f"column {series.name!r}") for series in table.iter_columns()]
    return np.column_stack(columns) if columns else np.empty(table.shape)


def _without_text(X: Any) -> Any:
    """An array of numbers as it is, what is masked as NaN; one of text or dates is refused, as columns of tables are.

    What is no array of numbers for another reason is left for scikit-learn to refuse.
    """
    try:
        array = np.asanyarray(X)
    except ValueError:
        return X
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind in "USMm":
        return real_numbers("X", array, _CODED if array.dtype.kind in "US" else NOT_NUMERIC)
    if array.dtype.kind == "O" and array.ndim:
        for place, value in np.ndenumerate(array):
            if isinstance(value, str | bytes):
                raise InputError(f"X is not numeric: row {place[0]} has {shown(value)}; {_CODED}")
    return X


def _is_numeric(series: nw.Series[Any]) -> bool:
    if series.dtype == nw.Object:
        return all(value is None or isinstance(value, Real) for value in series.to_list())
    return series.dtype.is_numeric() or series.dtype == nw.Boolean


def _numbers(series: nw.Series[Any], what: str, advice: str = NOT_NUMERIC) -> np.ndarray:
    """A series as float64, missing values as NaN."""
    if series.dtype.is_numeric() or series.dtype == nw.Boolean:
        return series.cast(nw.Float64).to_numpy()
    return real_numbers(what, np.array(series.to_list(), dtype=object), advice)
