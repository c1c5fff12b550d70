"""The rows of a fit, checked at the door: what cannot be used is refused with the column, the row and the value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.names import Names
from gatewise.fit.standardisation import Standardisation
from gatewise.messages import listed, shown
from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import dependent_columns, weighted_least_squares

__all__ = [
    "EPSILON",
    "LARGEST",
    "NOT_NUMERIC",
    "FitRows",
    "check_columns",
    "check_finite",
    "check_offset",
    "check_row_count",
    "checked_rows",
    "checked_weight",
    "real_numbers",
    "unmasked",
]

NOT_NUMERIC = "code it as numbers or leave it out"
"""What to do about a value that is no number."""

LARGEST = 1e100
"""Numbers of this size or larger are refused: their squares and products would overflow."""

# What varies by less loses its digits, or all of it, when it is squared.
_SMALLEST = 1e-100
# Standardised coefficients below this are rounding.
_IN_SUM = 1e-7
_MOST_IN_SUM = 6
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class FitRows:
    """Rows with a positive weight, in the user's units.

    Attributes:
        x: the experts' covariates (n, d).
        gate_x: the gate's covariates (n, d_gate).
        y: targets (n,), or (n, e) for a family whose targets have an axis.
        weight: frequencies (n,).
        offset: what is added to every expert's location (n,), or None.
        kept: which of the caller's rows these are, a mask.
        names: of the columns.
    """

    x: np.ndarray
    gate_x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    offset: np.ndarray | None
    kept: np.ndarray
    names: Names

    @cached_property
    def units(self) -> Standardisation:
        """Means and standard deviations of the experts' covariates."""
        return Standardisation.of(self.x, self.weight)

    @cached_property
    def gate_units(self) -> Standardisation:
        """Those of the gate's covariates: the same where these are the experts'."""
        return self.units if self.gate_x is self.x else Standardisation.of(self.gate_x, self.weight)


def checked_rows(
    model: MixtureOfExperts,
    x: np.ndarray,
    y: np.ndarray,
    gate_x: np.ndarray | None,
    sample_weight: np.ndarray | None,
    offset: np.ndarray | None = None,
    names: Names | None = None,
) -> FitRows:
    """Check the arrays and leave out rows of weight 0.

    Args:
        model: the prototype that says how many experts and features there are, and of which family the targets are.
        x: experts' covariates (n, d).
        y: targets (n,) or (n, e).
        gate_x: gate's covariates (n, d_gate); None for x, or for nothing if the gate has no features.
        sample_weight: non-negative row weights (n,), or None for ones. They count as frequencies.
        offset: added to every location (n,), for families with a log link, or None.
        names: of the columns, for messages; None for those of arrays.

    Raises:
        InputError: something about the data cannot be used.
    """
    x, y = _matrix("X", x), real_numbers("the target", y)
    own = x[:, :0] if model.gate.n_features == 0 else x
    gate_x = own if gate_x is None else _matrix("the gate's X", gate_x)
    names = names or Names.numbered(x.shape[1], gate_x.shape[1])
    _check_shapes(model, x, y, gate_x)
    tables = [(x, names.features)] if gate_x is x else [(x, names.features), (gate_x, names.gate_features)]
    for each, called in tables:
        check_finite(each, called)
    columns = y.reshape(len(y), -1)
    check_finite(columns, [names.target] if y.ndim == 1 else [f"{names.target}[{j}]" for j in range(columns.shape[1])])
    weight = checked_weight(sample_weight, len(y))
    kept = weight > 0.0
    model.family.check_target(torch.tensor(y))
    if offset is not None:
        offset = _checked_offset(model, offset, len(y))[kept]
    kept_x = _rows_of(x, kept)
    kept_gate_x = kept_x if gate_x is x else _rows_of(gate_x, kept)
    rows = FitRows(kept_x, kept_gate_x, y[kept], weight[kept], offset, kept, names)
    check_row_count(model.n_experts, len(rows.y))
    for each, (_, called) in zip((rows.x, rows.gate_x), tables, strict=False):
        _refuse_tiny(each, called)
    _refuse_tiny(rows.y.reshape(len(rows.y), -1), [names.target] * columns.shape[1])
    _refuse_constant_edge(model, rows)
    return rows


def _rows_of(table: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Some rows, in contiguous memory; where that are all of them, they are not copied."""
    return np.ascontiguousarray(table) if kept.all() else table[kept]


def _refuse_tiny(columns: np.ndarray, names: Sequence[str]) -> None:
    """Refuse columns (n, d) in such small units that their squares underflow.

    Raises:
        InputError: there is one.
    """
    spread = np.ptp(columns, axis=0)
    tiny = np.flatnonzero((spread > 0.0) & (spread < _SMALLEST))
    if len(tiny):
        raise InputError(
            f"column {shown(names[tiny[0]])} varies by {spread[tiny[0]]:.2g} only, so little that squares underflow: "
            "rescale it, to a unit in which it varies by about 1"
        )


def _refuse_constant_edge(model: MixtureOfExperts, rows: FitRows) -> None:
    """Refuse a discrete target that is the same everywhere and the least or most that it can be.

    Its likelihood has no maximum, whatever the model: no finite location gives counts that are all 0.

    Raises:
        InputError: the target is such.
    """
    first = rows.y.reshape(len(rows.y), -1)[:, 0]
    if np.ptp(first) == 0.0 and bool(model.family.is_extreme(torch.tensor(rows.y)).all()):
        raise InputError(
            f"the target {shown(rows.names.target)} is constant at {first[0]:g}: there is nothing to explain"
        )


def check_row_count(n_experts: int, n_rows: int) -> None:
    """Refuse fewer rows with a positive weight than there are experts.

    Raises:
        InputError: there are fewer, or only one.
    """
    smallest = max(n_experts, 2)
    if n_rows < smallest:
        need = "expert needs" if n_experts == 1 else "experts need"
        raise InputError(
            f"{shown(n_experts)} {need} at least {shown(smallest)} rows with a positive weight; there are {n_rows}: "
            f"n_samples = {n_rows}"
        )


def _matrix(what: str, values: np.ndarray) -> np.ndarray:
    array = real_numbers(what, values)
    if array.ndim != 2:
        raise InputError(f"{what} must be a table (rows, columns); got an array of shape {array.shape}")
    return array


def real_numbers(what: str, values: Any, advice: str = NOT_NUMERIC) -> np.ndarray:
    """An array as float64, what is masked or None as NaN; text and dates are never read as numbers.

    Args:
        what: what messages call it.
        values: an array, masked or not, or what NumPy makes one of.
        advice: what to do about an entry that is no number.

    Raises:
        InputError: an entry is no real number.

    Example:
        >>> real_numbers("x", np.ma.masked_array([1, 2], mask=[False, True]))
        array([ 1., nan])
    """
    try:
        array = np.asanyarray(values)
    except ValueError as error:
        raise InputError(f"{what} is no array of numbers: {error}") from None
    if array.dtype.kind in "biuf":
        numbers = array.astype(float)
        return numbers.filled(np.nan) if isinstance(numbers, np.ma.MaskedArray) else np.asarray(numbers)
    plain = unmasked(array).astype(object)
    for place, value in np.ndenumerate(plain):
        if value is not None and not isinstance(value, Real):
            row = f"row {place[0]} has {shown(value)}" if place else f"it is {shown(value)}"
            raise InputError(f"{what} is not numeric: {row}; {advice}")
    found = [np.nan if value is None else _as_float(value) for value in plain.ravel()]
    return np.array(found, dtype=float).reshape(plain.shape)


def _as_float(value: Any) -> float:
    """The number, infinite where it is too large for one: it is refused like other infinities."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def unmasked(array: Any) -> Any:
    """A masked array as one of objects, None where it is masked; anything else as it is."""
    if not isinstance(array, np.ma.MaskedArray):
        return array
    entries = np.array(array.data, dtype=object)
    entries[np.ma.getmaskarray(array)] = None
    return entries


def _check_shapes(model: MixtureOfExperts, x: np.ndarray, y: np.ndarray, gate_x: np.ndarray) -> None:
    event = (model.family.event_size,) if model.family.event_size else ()
    if y.ndim != 1 + len(event) or y.shape[1:] != event or len(y) != len(x) or len(gate_x) != len(x):
        wanted = f"(rows, {event[0]})" if event else "(rows,)"
        raise InputError(
            f"X has {len(x)} rows, the gate's X {len(gate_x)} and y has shape {y.shape}; the {model.family.name} "
            f"family needs {wanted}: make them agree"
        )
    if x.shape[1] != model.experts.n_features or gate_x.shape[1] != model.gate.n_features:
        raise InputError(
            f"the experts take {model.experts.n_features} features and the gate {model.gate.n_features}; "
            f"got {x.shape[1]} and {gate_x.shape[1]} columns"
        )


def check_finite(columns: np.ndarray, names: Sequence[str]) -> None:
    """Refuse NaN, infinities and numbers whose squares overflow, (n, d), naming the column and the row.

    Raises:
        InputError: there is such a value.
    """
    bad = ~(np.abs(columns) < LARGEST)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"column {shown(names[column])} has the value {columns[row, column]} in row {row} ({int(bad.sum())} such "
            "values in all): remove or impute rows with NaN or infinity, and rescale columns that reach 1e100"
        )


def checked_weight(sample_weight: np.ndarray | None, n: int) -> np.ndarray:
    """One weight per row, (n,): ones without `sample_weight`.

    Raises:
        InputError: not one number per row, one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return np.ones(n)
    weight = real_numbers("sample_weight", sample_weight)
    if weight.shape != (n,):
        raise InputError(f"sample_weight has shape {weight.shape}; it must be one number for each of the {n} rows")
    bad = ~((weight >= 0.0) & (weight < LARGEST))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"sample_weight is {weight[row]} in row {row}: weights must be finite and not negative")
    if not weight.any():
        raise InputError("every sample_weight is zero: at least one row must count")
    return weight


def check_columns(
    x: np.ndarray, standardised: Standardisation, design: np.ndarray, weight: np.ndarray, names: Sequence[str]
) -> None:
    """Refuse constant columns and columns that are linear combinations of those before them.

    Args:
        x: the columns (n, d).
        standardised: their means and scales.
        design: (1 + d, n), standardised, with a row of ones.
        weight: (n,).
        names: of the columns.

    Raises:
        InputError: there is such a column.
    """
    # Rounding at a distance of `offset` standard deviations from zero leaves this much of a column undetermined.
    offset = np.abs(standardised.mean) / standardised.scale
    constant = np.ptp(x, axis=0) <= 8.0 * EPSILON * np.abs(standardised.mean)
    if constant.any():
        column = int(np.flatnonzero(constant)[0])
        raise InputError(
            f"column {shown(names[column])} is constant at {x[0, column]:g}: remove it, the intercept is always there"
        )
    tolerance = 1e-10 + 8.0 * EPSILON * float(offset.max(initial=0.0))
    dependent = dependent_columns(design, weight, tolerance)
    if dependent:
        sums = "; ".join(_combination(standardised, design, weight, names, dependent, row) for row in dependent)
        named = ", ".join(shown(names[row - 1]) for row in dependent)
        few = "column {} is a linear combination of the columns before it, {}: remove it"
        many = "columns {} are linear combinations of the columns before them, {}: remove them"
        raise InputError((few if len(dependent) == 1 else many).format(named, sums))


def _combination(
    standardised: Standardisation,
    design: np.ndarray,
    weight: np.ndarray,
    names: Sequence[str],
    dependent: list[int],
    row: int,
) -> str:
    """Of which columns a dependent one is the sum, in the user's units: "'c' = 'a' + 2 'b' - 1"."""
    earlier = [other for other in range(row) if other not in dependent]
    internal = weighted_least_squares(design[earlier], design[row], weight)
    own = standardised.scale[row - 1]
    partners = [(place - 1, c) for place, c in zip(earlier, internal, strict=True) if place and abs(c) > _IN_SUM]
    factors = {column: c * own / standardised.scale[column] for column, c in partners}
    constant = standardised.mean[row - 1] - sum(factor * standardised.mean[c] for c, factor in factors.items())
    largest = sorted(factors, key=lambda column: -abs(factors[column] * standardised.scale[column]))[:_MOST_IN_SUM]
    terms = [(factors[column], shown(names[column])) for column in sorted(largest)]
    if len(factors) > _MOST_IN_SUM:
        return f"{shown(names[row - 1])} of {listed(names[column] for column in sorted(factors))}"
    if abs(constant) > _IN_SUM * max(own, abs(standardised.mean[row - 1])):
        terms.append((constant, ""))
    return f"{shown(names[row - 1])} = {_sum(terms)}"


def _sum(terms: list[tuple[float, str]]) -> str:
    text = ""
    for factor, name in terms:
        size = f"{abs(factor):.6g}"
        product = name if name and size == "1" else f"{size} {name}".rstrip()
        minus, plus = (" - ", " + ") if text else ("-", "")
        text += (minus if factor < 0.0 else plus) + product
    return text


def _checked_offset(model: MixtureOfExperts, offset: np.ndarray, n: int) -> np.ndarray:
    if not model.family.log_link:
        raise InputError(
            f"the {model.family.name} family has no offset: only families with a log link do, where it is log(exposure)"
        )
    values = real_numbers("the offset", offset)
    if values.shape != (n,):
        raise InputError(f"the offset has shape {values.shape}; it must be one number for each of the {n} rows")
    check_offset(values)
    return values


def check_offset(offset: np.ndarray) -> None:
    """Refuse offsets (n,) whose exposures are no numbers that could be used.

    Raises:
        InputError: one is NaN or infinite, or the logarithm of an exposure beyond 1e-100 or 1e100.
    """
    check_finite(offset[:, None], ["offset"])
    bad = np.abs(offset) > math.log(LARGEST)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"the offset is {offset[row]:g} in row {row}: it is the logarithm of an exposure, which must lie between "
            "1e-100 and 1e100; count the exposures in another unit"
        )
