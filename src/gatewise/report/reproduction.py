"""The Python with which a fit can be made again: loading, columns, the call, and what it must give."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gatewise import datasets
from gatewise.estimators.base import GatedEstimator
from gatewise.families import Family
from gatewise.fit.constraints import Constraints

__all__ = ["python_text"]

# Arrays of more numbers are named, not written out.
_WRITTEN_NUMBERS = 40
# What reading a file can raise that is no table, or a parquet file without a reader for it.
_UNREADABLE = (OSError, ValueError, ImportError)


@dataclass(frozen=True)
class _Source:
    """A table that a name stands for: how to load it, and its columns."""

    lines: list[str]
    frame: pd.DataFrame


def python_text(
    estimator: GatedEstimator,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    data_name: str | None = None,
) -> str:
    """Python that makes the fit again, with every option written out and the seed that was used.

    If `data_name` is the path of a CSV or parquet file, or a shipped data set, its columns are compared with the rows,
    and where they are equal the text says how to load them. Otherwise it says what the rows are, in a comment. It ends
    with the figure that the fit must give.

    Args:
        estimator: the fitted estimator.
        X: the features that it was fitted to.
        y: the target.
        sample_weight: of the rows, or None.
        offset: of the rows, or None.
        data_name: what the data are called.
    """
    source = _source(data_name)
    given = {"X": X, "y": y, "sample_weight": sample_weight, "offset": offset}
    given = {name: values for name, values in given.items() if values is not None}
    rows, unknown = [], []
    for name, values in given.items():
        expression = None if source is None else _expression(values, source.frame, logarithm=name == "offset")
        if expression is None:
            unknown.append(f"# {name}: {_described(name, values, estimator)}, as you made it")
        else:
            rows.append(f"{name} = {expression}")
    counted = len(X) if sample_weight is None else np.count_nonzero(sample_weight)
    if counted != estimator.result_.n_rows:
        unknown.append(f"# The fit was made to {estimator.result_.n_rows} rows, and these are {counted} others.")
    options, named = _options(estimator)
    unknown += [f"# {name}: {kind}, as you made it" for name, kind in named.items()]
    lines = [*(source.lines if source and rows else []), *rows, *unknown]
    extra = [f", {name}={name}" for name in given if name not in ("X", "y")]
    call = [f"{type(estimator).__name__}(", *options, f").fit(X, y{''.join(extra)})"]
    call[0] = f"fitted = {call[0]}"
    text = "\n".join([*lines, "", *call, *_figure(estimator)])
    return "\n".join([*_imports(estimator, text), "", text])


def _imports(estimator: GatedEstimator, text: str) -> list[str]:
    kind = type(estimator)
    home = "gatewise" if kind.__module__.startswith("gatewise.") else kind.__module__
    found = [f"from {home} import {kind.__name__}"]
    if "load(" in text:
        found.append("from gatewise.datasets import load")
    family = estimator.get_params(deep=False).get("family")
    if isinstance(family, Family) and type(family).__module__.startswith("gatewise."):
        found.append(f"from gatewise.families import {type(family).__name__}")
    if "Constraints(" in text:
        found.append("from gatewise.fit import Constraints")
    if "pd." in text:
        found.insert(0, "import pandas as pd")
    if "np." in text:
        found.insert(0, "import numpy as np")
    return found


def _source(data_name: str | None) -> _Source | None:
    if data_name is None:
        return None
    path = Path(data_name)
    if data_name in datasets.names() and not path.exists():
        return _Source([f"table = load({data_name!r}).frame"], datasets.load(data_name).frame)
    read = {".csv": "read_csv", ".parquet": "read_parquet"}.get(path.suffix.lower())
    if read is None or not path.is_file():
        return None
    try:
        frame = getattr(pd, read)(path)
    except _UNREADABLE:
        return None
    return _Source([f"table = pd.{read}({data_name!r})"], frame)


def _expression(values: Any, table: pd.DataFrame, *, logarithm: bool) -> str | None:
    """How the table's columns give these values, exactly; None if they do not."""
    names = getattr(values, "columns", None)
    if names is not None:
        names = list(names)
        known = len(set(names)) == len(names) and all(
            name in table and _equal(values[name], table[name]) for name in names
        )
        return f"table[{names!r}]" if known else None
    name = getattr(values, "name", None)
    if name is not None and name in table and _equal(values, table[name]):
        return f"table[{name!r}]"
    array = np.asarray(values)
    columns = [array] if array.ndim == 1 else list(array.T)
    found = [next((name for name in table if _equal(column, table[name])), None) for column in columns]
    if array.ndim not in (1, 2) or None in found:
        return _logarithm(values, table) if logarithm else None
    chosen = found[0] if array.ndim == 1 else found
    return f"table[{chosen!r}].to_numpy()"


def _logarithm(values: Any, table: pd.DataFrame) -> str | None:
    """The column whose logarithm an offset is."""
    for name in table.select_dtypes("number"):
        column = table[name].to_numpy(dtype=float)
        if (column > 0.0).all() and _equal(values, np.log(column)):
            return f"np.log(table[{name!r}])"
    return None


def _equal(ours: Any, theirs: Any) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return ours.shape == theirs.shape and bool(np.all(ours == theirs))


def _described(name: str, values: Any, estimator: GatedEstimator) -> str:
    shape = " × ".join(str(size) for size in np.shape(values))
    if name == "X":
        return f"{shape} numbers, the columns {', '.join(map(repr, estimator.feature_names_))}"
    if name == "y":
        return f"{shape} values of {estimator.target_name_!r}"
    return f"log(exposure) of the {shape} rows" if name == "offset" else f"weights of the {shape} rows"


def _options(estimator: GatedEstimator) -> tuple[list[str], dict[str, str]]:
    """The options as lines of a call, and those that cannot be written out with what they are."""
    options = dict(estimator.get_params(deep=False), random_state=estimator.result_.seed)
    lines, named = [], {}
    for name, value in sorted(options.items()):
        written = _written(value)
        if written is None:
            named[name] = f"{type(value).__name__} {reprlib.repr(np.shape(value)) if np.ndim(value) else ''}".strip()
        lines.append(f"    {name}={name if written is None else written},")
    return lines, named


def _written(value: Any) -> str | None:
    """A value as Python reads it; None for what cannot be written so."""
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, np.generic):
        return _written(value.item())
    if isinstance(value, np.ndarray):
        inner = _written(value.tolist()) if value.size <= _WRITTEN_NUMBERS else None
        return None if inner is None else f"np.array({inner})"
    if isinstance(value, Mapping):
        pairs = [(_written(key), _written(entry)) for key, entry in value.items()]
        return None if any(None in pair for pair in pairs) else f"{{{', '.join(f'{k}: {v}' for k, v in pairs)}}}"
    if isinstance(value, Family) and type(value).__module__.startswith("gatewise."):
        return repr(value)
    if isinstance(value, Constraints):
        parts = {"frozen": _written(value.frozen), "tied": _written(value.tied)}
        return None if None in parts.values() else f"Constraints(frozen={parts['frozen']}, tied={parts['tied']})"
    if isinstance(value, tuple | list):
        return _sequence(value)
    return None


def _sequence(value: Sequence[Any]) -> str | None:
    entries = [_written(entry) for entry in value]
    if None in entries:
        return None
    inner = ", ".join(entry for entry in entries if entry is not None)
    if isinstance(value, tuple):
        return f"({inner}{',' if len(value) == 1 else ''})"
    return f"[{inner}]"


def _figure(estimator: GatedEstimator) -> list[str]:
    """The line that prints what the fit must give, with what it gave."""
    figures = estimator.summary().statistics
    name = "residual_sum_of_squares" if figures["objective"] == "least_squares" else "log_likelihood"
    return [f"print(fitted.summary().statistics[{name!r}])  # {figures[name]:.10g}"]
