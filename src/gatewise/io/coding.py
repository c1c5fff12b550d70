"""From a table to numbers: which columns enter, how text is coded, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gatewise.exceptions import InputError
from gatewise.io.tables import Column, Table
from gatewise.messages import listed, shown

__all__ = [
    "LARGEST",
    "MAX_LEVELS",
    "CategoricalColumn",
    "ColumnCoding",
    "NumericColumn",
    "PredictionData",
    "TrainingData",
    "code_frame",
    "prepare_prediction",
    "prepare_training",
]

MAX_LEVELS = 50
"""The largest number of levels of a text column; more are an identifier or a typing error."""

LARGEST = 1e100
"""Numbers of this size or larger are refused: their squares and products would overflow."""

Missing = Literal["refuse", "drop"]


class NumericColumn(BaseModel):
    """A column of numbers, used as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["numeric"] = "numeric"
    name: str

    @property
    def coded_names(self) -> list[str]:
        """The names of its columns in the design."""
        return [self.name]


class CategoricalColumn(BaseModel):
    """A column of text: one indicator column for each level but the reference, which is the first level.

    Attributes:
        name: the column.
        levels: the levels in sorted order; at least two.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["categorical"] = "categorical"
    name: str
    levels: Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_LEVELS)]

    @model_validator(mode="after")
    def _levels_are_sorted(self) -> "CategoricalColumn":
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError("the levels must be distinct and in sorted order")
        return self

    @property
    def reference(self) -> str:
        """The level without an indicator."""
        return self.levels[0]

    @property
    def coded_names(self) -> list[str]:
        """The names of its columns in the design, `sex=male`."""
        return [f"{self.name}={level}" for level in self.levels[1:]]


class ColumnCoding(BaseModel):
    """How the columns of a table become the numeric design, kept with a model so that prediction does the same.

    Attributes:
        columns: one entry per column of the table, in order.

    Example:
        >>> coding = ColumnCoding(
        ...     columns=(NumericColumn(name="age"), CategoricalColumn(name="sex", levels=("female", "male")))
        ... )
        >>> coding.coded_names
        ['age', 'sex=male']
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[Annotated[NumericColumn | CategoricalColumn, Field(discriminator="kind")], ...]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "ColumnCoding":
        for names in ([column.name for column in self.columns], self.coded_names):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"two columns are named {twice!r} after coding")
        return self

    @property
    def coded_names(self) -> list[str]:
        """The names of the design's columns."""
        return [name for column in self.columns for name in column.coded_names]

    def coded(self, names: Sequence[str]) -> list[str]:
        """The design's columns that come from these columns of the table."""
        return [name for column in self.columns if column.name in names for name in column.coded_names]

    def notes(self) -> list[str]:
        """One sentence for each column that was coded."""
        return [
            f"coded the column {column.name!r} as {', '.join(map(repr, column.coded_names))}; "
            f"the reference level is {column.reference!r}, the first in sorted order"
            for column in self.columns
            if isinstance(column, CategoricalColumn)
        ]


@dataclass(frozen=True)
class TrainingData:
    """What a fit needs.

    Attributes:
        design: the coded features, float64 columns.
        target: the target, named: numbers, or labels of classes, text or whole numbers; a table if it has several
            columns.
        weights: row weights, or None.
        features: the design's columns that the experts see.
        gate_features: the design's columns that the gate sees.
        coding: how the design was made.
        positions: the line or row of the file for each row.
        unit: `"line"` or `"row"`.
        notes: what was coded, chosen and dropped, one sentence each.
        offset: what is added to the experts' locations, the logarithm of an exposure, or None.
    """

    design: pd.DataFrame
    target: pd.Series | pd.DataFrame
    weights: np.ndarray | None
    features: list[str]
    gate_features: list[str]
    coding: ColumnCoding
    positions: np.ndarray
    unit: str
    notes: tuple[str, ...]
    offset: np.ndarray | None = None


@dataclass(frozen=True)
class PredictionData:
    """What a prediction needs.

    Attributes:
        design: the coded features.
        target: the target, labels of classes as text, or None if the table does not have it; NaN or None in rows where
            it is blank.
        positions: the line or row of the file for each row.
        unit: `"line"` or `"row"`.
        notes: what was dropped or is blank, one sentence each.
        offset: what is added to the experts' locations, the logarithm of an exposure, or None.
    """

    design: pd.DataFrame
    target: pd.Series | pd.DataFrame | None
    positions: np.ndarray
    unit: str
    notes: tuple[str, ...]
    offset: np.ndarray | None = None


def _refuse_repeats(names: Sequence[str], what: str) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise InputError(f"the column {shown(name)} is named twice among the {what}; name it once")


def _taken(targets: Sequence[str], weights: str | None, exposure: str | None) -> dict[str, str]:
    """The columns that have a role already, and the role."""
    taken = dict.fromkeys(targets, "the target")
    if weights is not None:
        taken[weights] = "the weights"
    if exposure is not None:
        taken[exposure] = "the exposure"
    return taken


def _choose_features(
    table: Table, features: Sequence[str] | None, taken: dict[str, str]
) -> tuple[list[str], list[str]]:
    if features is None:
        left_out = table.leave_out_unnamed()
        chosen = [name for name in table.names if name not in taken]
        roles = list(dict.fromkeys(taken.values()))
        others = " and ".join([*([", ".join(roles[:-1])] if roles[:-1] else []), roles[-1]])
        return chosen, [*left_out, f"features: {', '.join(map(repr, chosen))} (all columns but {others})"]
    _refuse_repeats(features, "features")
    _refuse_roles(features, "feature", taken)
    return list(features), []


def _refuse_roles(names: Sequence[str], role: str, taken: dict[str, str]) -> None:
    for name in names:
        if name in taken:
            raise InputError(f"the column {shown(name)} is {taken[name]} and cannot be a {role} too; leave it out")


def _class_column(table: Table, name: str) -> Column:
    """A column of labels of classes: text, or whole numbers."""
    column = table.column(name)
    if column.is_number:
        there = np.flatnonzero(~column.missing)
        bad = there[~((np.abs(column.values[there]) < 2**53) & (column.values[there] % 1.0 == 0.0))]
        if len(bad):
            raise InputError(
                f"{table.where(bad[0])}: the target {shown(name)} must name classes, by text or whole numbers, but is "
                f"{shown(str(column.shown[bad[0]]))}; correct that value, or choose another family"
            )
    return column


def _target_columns(table: Table, targets: Sequence[str], classes: bool) -> list[Column]:
    _refuse_repeats(targets, "columns of the target")
    if classes and len(targets) > 1:
        raise InputError(f"classes are one column, and the target has {len(targets)}: name one")
    return [_class_column(table, name) if classes else table.number_column(name, "target") for name in targets]


def _target(columns: Sequence[Column], rows: np.ndarray, classes: bool) -> pd.Series | pd.DataFrame:
    if len(columns) > 1:
        return pd.DataFrame({column.name: column.values[rows] for column in columns})
    values = columns[0].values[rows]
    return pd.Series(values.astype(np.int64) if classes and columns[0].is_number else values, name=columns[0].name)


def _blanked(known: pd.Series | pd.DataFrame, classes: bool, there: np.ndarray) -> pd.Series | pd.DataFrame:
    """The target of all rows from that of those where it is there; classes as text."""
    if classes:
        known = pd.Series([str(label) for label in known], name=known.name, dtype=object)
    known.index = pd.Index(np.flatnonzero(there))
    found = known.reindex(np.arange(len(there)))
    return found.where(there, None) if classes else found


def _log_exposure(table: Table, column: Column, rows: np.ndarray) -> np.ndarray:
    values = column.values[rows]
    if not (values > 0.0).all():
        first = rows[~(values > 0.0)][0]
        raise InputError(
            f"{table.where(first)}: the exposure {shown(column.name)} is not positive ({column.shown[first]}); "
            "correct it, or leave such rows out"
        )
    return np.log(values)


def _complete_rows(table: Table, columns: Sequence[Column], missing: Missing) -> tuple[np.ndarray, list[str]]:
    """The indices of the rows without a missing value, and what was dropped."""
    if missing not in ("refuse", "drop"):
        raise InputError(f"missing values can be handled by 'refuse' or 'drop', not {shown(missing)}")
    incomplete = np.zeros(table.n_rows, dtype=bool)
    for column in columns:
        incomplete |= column.missing
    if not incomplete.any():
        return np.arange(table.n_rows), []
    counts = ", ".join(f"{column.name!r} ({column.missing.sum()})" for column in columns if column.missing.any())
    rows = f"{incomplete.sum()} of {table.n_rows} rows"
    if missing == "refuse":
        first = int(np.flatnonzero(incomplete)[0])
        raise InputError(
            f"{table.where(first)}: missing values in {rows}, by column: {counts}; fill them in, or leave these rows "
            'out with missing="drop"'
        )
    if incomplete.all():
        raise InputError(f"{table.source}: every row has a missing value, by column: {counts}; no row is left")
    return np.flatnonzero(~incomplete), [f"dropped {rows} with missing values, by column: {counts}"]


def _refuse_not_finite(table: Table, columns: Sequence[Column], rows: np.ndarray) -> None:
    for column in columns:
        bad = rows[~(np.abs(column.values[rows]) < LARGEST)] if column.is_number else rows[:0]
        if len(bad):
            raise InputError(
                f"{table.where(bad[0])}: the column {shown(column.name)} is not a finite number below {LARGEST:g} but "
                f"{shown(str(column.shown[bad[0]]))}; correct that value, or leave the column out"
            )


def _code_column(table: Table, column: Column, rows: np.ndarray) -> NumericColumn | CategoricalColumn:
    if column.is_number:
        return NumericColumn(name=column.name)
    levels = sorted(set(column.values[rows]))
    if len(levels) < 2:
        raise InputError(
            f"{table.source}: the column {shown(column.name)} has the same value in every row, {shown(levels[0])}; "
            "leave it out"
        )
    if len(levels) > MAX_LEVELS:
        raise InputError(
            f"{table.source}: the column {shown(column.name)} has {len(levels)} distinct texts, more than "
            f"{MAX_LEVELS}: is it an identifier or a date? leave it out, or merge levels"
        )
    return CategoricalColumn(name=column.name, levels=tuple(levels))


def _design(table: Table, coding: ColumnCoding, columns: dict[str, Column], rows: np.ndarray) -> pd.DataFrame:
    design: dict[str, np.ndarray] = {}
    for entry in coding.columns:
        values = columns[entry.name].values[rows]
        if isinstance(entry, NumericColumn):
            design[entry.name] = values
            continue
        codes = pd.Index(entry.levels, dtype=object).get_indexer(values)
        if (codes < 0).any():
            first = int(np.flatnonzero(codes < 0)[0])
            raise InputError(
                f"{table.where(rows[first])}: the column {shown(entry.name)} has the level {shown(values[first])}, "
                f"which the model has not seen; it knows {listed(entry.levels)}"
            )
        for place, name in enumerate(entry.coded_names, start=1):
            design[name] = (codes == place).astype(np.float64)
    return pd.DataFrame(design, index=pd.RangeIndex(len(rows)))


def prepare_training(
    table: Table,
    target: str | Sequence[str],
    *,
    features: Sequence[str] | None = None,
    gate_features: Sequence[str] | None = None,
    weights: str | None = None,
    exposure: str | None = None,
    classes: bool = False,
    missing: Missing = "refuse",
) -> TrainingData:
    r"""Choose the columns of a table, code its text and refuse what cannot be fitted.

    Args:
        table: as read by `read_table`.
        target: the column to explain, or several.
        features: the columns to explain it by; None for all but those that have another role.
        gate_features: the columns that the gate sees, features or not; None for the features, empty for constant
            weights.
        weights: the column of row weights, numbers that are not negative.
        exposure: the column of exposures, positive numbers, whose logarithm is the offset.
        classes: whether the target names classes, by text or whole numbers; otherwise it is numeric.
        missing: `"refuse"` missing values in these columns, or `"drop"` their rows.

    Raises:
        InputError: there is no feature; a column is missing, named twice or in two roles, not numeric where it must be,
            mixes numbers and text, has one level or more than 50, or a missing, infinite or NaN value; a weight is
            negative; an exposure is not positive.

    Example:
        >>> from gatewise.io.reading import parse_csv
        >>> table = parse_csv(b"y,x,sex\n1,2,f\n3,1,m\n", "data.csv")
        >>> data = prepare_training(table, "y")
        >>> list(data.design.columns), data.notes[1]
        (['x', 'sex=m'], "coded the column 'sex' as 'sex=m'; the reference level is 'f', the first in sorted order")
    """
    targets = [target] if isinstance(target, str) else list(target)
    taken = _taken(targets, weights, exposure)
    chosen, notes = _choose_features(table, features, taken)
    if not chosen:
        raise InputError("there is no feature: name at least one column to explain the target by")
    gate = chosen if gate_features is None else list(gate_features)
    _refuse_repeats(gate, "gate features")
    _refuse_roles(gate, "gate feature", taken)
    response = _target_columns(table, targets, classes)
    columns = {name: table.column(name) for name in [*chosen, *(name for name in gate if name not in chosen)]}
    weight = None if weights is None else table.number_column(weights, "weights column")
    exposed = None if exposure is None else table.number_column(exposure, "exposure")
    used = [*response, *columns.values(), *(column for column in (weight, exposed) if column is not None)]
    rows, dropped = _complete_rows(table, used, missing)
    _refuse_not_finite(table, used, rows)
    row_weights = None if weight is None else weight.values[rows]
    if weight is not None and (weight.values[rows] < 0).any():
        first = rows[weight.values[rows] < 0][0]
        raise InputError(
            f"{table.where(first)}: the weight {shown(weights)} is negative ({weight.shown[first]}); weights are "
            "numbers that are not negative"
        )
    entries = tuple(_code_column(table, column, rows) for column in columns.values())
    names = [name for entry in entries for name in entry.coded_names]
    _refuse_repeats(names, "features after coding")
    coding = ColumnCoding(columns=entries)
    return TrainingData(
        design=_design(table, coding, columns, rows),
        target=_target(response, rows, classes),
        weights=row_weights,
        features=coding.coded(chosen),
        gate_features=coding.coded(gate),
        coding=coding,
        positions=table.positions[rows],
        unit=table.unit,
        notes=(*table.notes, *notes, *dropped, *coding.notes()),
        offset=None if exposed is None else _log_exposure(table, exposed, rows),
    )


def prepare_prediction(
    table: Table,
    coding: ColumnCoding,
    target: str | Sequence[str],
    *,
    offset: str | None = None,
    exposure: str | None = None,
    classes: bool = False,
    missing: Missing = "refuse",
) -> PredictionData:
    r"""Code a table as the training table was; the target is taken if it is there, and may be blank in some rows.

    Args:
        table: as read by `read_table`.
        coding: the model's.
        target: the name of the model's target, or the names of its columns.
        offset: the column of the offset, if the model has one.
        exposure: the column of exposures, whose logarithm is the offset, if the model has them.
        classes: whether the target names classes.
        missing: as in `prepare_training`.

    Raises:
        InputError: a column is missing or has another type than in training, a level was not seen in training, or a
            value is missing, infinite or NaN, or an exposure not positive.

    Example:
        >>> from gatewise.io.reading import parse_csv
        >>> coding = ColumnCoding(columns=(CategoricalColumn(name="sex", levels=("f", "m")),))
        >>> data = prepare_prediction(parse_csv(b"sex,y\nm,2\nf,3\n", "data.csv"), coding, "y")
        >>> data.design["sex=m"].tolist(), data.target.tolist()
        ([1.0, 0.0], [2.0, 3.0])
        >>> prepare_prediction(parse_csv(b"sex,y\nm,\nf,3\n", "data.csv"), coding, "y").target.tolist()
        [nan, 3.0]
    """
    columns = {
        entry.name: table.number_column(entry.name, "feature")
        if isinstance(entry, NumericColumn)
        else table.text_column(entry.name)
        for entry in coding.columns
    }
    used = list(columns.values())
    targets = [target] if isinstance(target, str) else list(target)
    response = _target_columns(table, targets, classes) if all(name in table.names for name in targets) else []
    if any(column.missing.all() for column in response):
        response = []
    exposed = None if exposure is None else table.number_column(exposure, "exposure")
    shifted = None if offset is None else table.number_column(offset, "offset")
    used += [column for column in (exposed, shifted) if column is not None]
    rows, dropped = _complete_rows(table, used, missing)
    _refuse_not_finite(table, used, rows)
    blank = np.zeros(table.n_rows, dtype=bool)
    for column in response:
        blank |= column.missing
    _refuse_not_finite(table, response, rows[~blank[rows]])
    known, blanks = None, []
    if response:
        known = _blanked(_target(response, rows[~blank[rows]], classes), classes, ~blank[rows])
        if blank[rows].any():
            listed = ", ".join(map(repr, targets))
            blanks = [f"the target {listed} is blank in {blank[rows].sum()} of {len(rows)} rows: predicted without it"]
    added = None if shifted is None else shifted.values[rows]
    if exposed is not None:
        added = _log_exposure(table, exposed, rows)
    return PredictionData(
        design=_design(table, coding, columns, rows),
        target=known,
        positions=table.positions[rows],
        unit=table.unit,
        notes=(*table.notes, *dropped, *blanks),
        offset=added,
    )


def code_frame(frame: nw.DataFrame[Any], coding: ColumnCoding) -> pd.DataFrame:
    """The design of a table in memory, coded as the training table was; its columns are found by name.

    Args:
        frame: a table of any library that narwhals knows.
        coding: the model's.

    Raises:
        InputError: as `prepare_prediction`; rows are counted from 0.

    Example:
        >>> coding = ColumnCoding(columns=(CategoricalColumn(name="sex", levels=("f", "m")),))
        >>> code_frame(nw.from_native(pd.DataFrame({"sex": ["m", "f"]})), coding)["sex=m"].tolist()
        [1.0, 0.0]
    """
    known = [column.name for column in coding.columns if column.name in frame.columns]
    try:
        arrow = frame.select(known).to_arrow()
    except (pa.ArrowException, TypeError) as error:
        raise InputError(f"the columns of X cannot be read: {error}") from error
    arrays = dict(zip(arrow.column_names, arrow.columns, strict=True))
    return prepare_prediction(Table("X", arrays, np.arange(len(frame)), "row"), coding, []).design
