"""What a model says about each row of a table, as a table."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gatewise.exceptions import InputError
from gatewise.files import write_file
from gatewise.io.checks import check_level, check_table_name
from gatewise.io.coding import PredictionData, TrainingData
from gatewise.io.model_folder import SavedModel
from gatewise.messages import listed, shown

__all__ = ["predict_table", "write_table"]


@torch.no_grad()
def predict_table(
    saved: SavedModel,
    data: TrainingData | PredictionData,
    *,
    level: float = 0.95,
    offset: np.ndarray | None = None,
) -> pd.DataFrame:
    """The mixture's predictions, one row per row of the data.

    The columns are

    - `line` or `row`, where the row is in the file;
    - `mean` E[y | x], or `mean_1` … `mean_e` for targets with several columns, or `probability_<class>` for classes, by
      their names if the metadata have them, else by their codes;
    - `lower` and `upper`, the mixture's own quantiles at (1 ∓ level)/2, if the target is a number;
    - `weight_1` … `weight_k` πᵢ(x).

    Where the target is known, and the weights are probabilities, there are also

    - `target`, or `target_1` …;
    - `log_density` log p(y | x), a log probability for counts and classes;
    - `responsibility_1` … `responsibility_k` P(expert i | x, y);
    - `pit` P(Y ≤ y | x), the probability integral transform, if the target is a number that is not discrete.

    In rows where the target is blank these are NaN.

    The weights of a gate that is not normalised are no probabilities: its model has `mean`, the regression function,
    and `weight_1` … only. So has one that was fitted by least squares, which gives no distribution.

    Args:
        saved: the model and the names of its inputs.
        data: the coded rows; the target as numbers, or by the names of its classes; NaN or None where it is blank.
        level: the probability of the interval, strictly between 0 and 1.
        offset: what is added to the experts' locations (n,), for a model with an offset or an exposure, whose logarithm
            this is; None for that of the data.

    Raises:
        InputError: `level` is not a probability; the model needs an offset and there is none, or the other way round; a
            target is none that the family has.
    """
    check_level(level)
    model, metadata = saved.model, saved.metadata
    dtype = model.experts.log_scale.dtype
    # Copies: the arrays behind a frame may be read-only or run backwards, which torch does not take.
    x = torch.tensor(np.array(data.design[list(metadata.feature_names)]), dtype=dtype)
    gate_x = torch.tensor(np.array(data.design[list(metadata.gate_feature_names)]), dtype=dtype)
    offset = data.offset if offset is None else offset
    named = metadata.offset_name or metadata.exposure_name
    if (offset is None) != (named is None):
        raise InputError(
            f"the model needs its offset, the column {shown(named)}"
            if offset is None
            else "the model was fitted without an offset, and one is given"
        )
    added = None if offset is None else torch.tensor(np.array(offset), dtype=dtype)
    weights = model.log_weights(x, gate_x).exp().numpy()
    columns = {data.unit: data.positions, **_means(saved, model.mean(x, gate_x, added).numpy())}
    has_density = model.is_normalised and metadata.objective == "likelihood"
    has_quantiles = has_density and model.has_quantiles and metadata.class_names is None
    if has_quantiles:
        columns["lower"] = model.quantile(x, (1.0 - level) / 2.0, gate_x, added).numpy()
        columns["upper"] = model.quantile(x, (1.0 + level) / 2.0, gate_x, added).numpy()
    columns |= _numbered("weight", weights)
    if data.target is not None and has_density:
        target = np.array(data.target)
        known = np.array(pd.DataFrame(target).notna().all(axis=1))
        y = torch.tensor(_coded(target[known], metadata.class_names), dtype=dtype)
        model.family.check_target(y)
        rows = (x[known], y, gate_x[known], None if added is None else added[known])
        columns |= {"target": target} if target.ndim == 1 else _numbered("target", target)
        columns["log_density"] = _spread(model.log_prob(*rows), known)
        columns |= _numbered("responsibility", _spread(model.responsibilities(*rows), known))
        if has_quantiles and not model.family.is_discrete:
            columns["pit"] = _spread(model.distribution_function(*rows), known)
    return pd.DataFrame(columns)


def _spread(values: torch.Tensor, known: np.ndarray) -> np.ndarray:
    """Values of the known rows among all rows, NaN in the others."""
    found = np.full((len(known), *values.shape[1:]), np.nan)
    found[known] = values.numpy()
    return found


def _numbered(what: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of an array (n, m) as `what_1` … `what_m`."""
    return {f"{what}_{i}": values[:, i - 1] for i in range(1, values.shape[1] + 1)}


def _means(saved: SavedModel, mean: np.ndarray) -> dict[str, np.ndarray]:
    n_classes, names = saved.model.family.n_codes, saved.metadata.class_names
    if n_classes and (mean.ndim > 1 or names is not None):
        # A Bernoulli mean is the probability of class 1 alone.
        shares = mean if mean.ndim > 1 else np.stack([1.0 - mean, mean], axis=-1)
        return {f"probability_{name}": shares[:, j] for j, name in enumerate(names or range(n_classes))}
    return {"mean": mean} if mean.ndim == 1 else _numbered("mean", mean)


def _coded(target: np.ndarray, class_names: tuple[str, ...] | None) -> np.ndarray:
    """Targets as numbers: a class by its place among the names, or the codes that are there already."""
    if class_names is None or target.dtype.kind in "biuf":
        return target
    codes = pd.Index(class_names, dtype=object).get_indexer(target.astype(object))
    if (codes < 0).any():
        first = int(np.flatnonzero(codes < 0)[0])
        raise InputError(
            f"the target is {shown(target[first])} in row {first}, and the model knows the classes "
            f"{listed(class_names)}: leave such rows out, or leave out the target"
        )
    return codes


def write_table(path: str | os.PathLike[str], frame: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write a table as CSV or parquet, by the name's suffix, whole or not at all; numbers keep every digit.

    Args:
        path: a name that ends in .csv or .parquet.
        frame: the table; its index is left out.
        overwrite: whether a file that exists may be replaced.

    Raises:
        InputError: the name ends otherwise.
        OutputError: the file cannot be written, or exists.
    """
    check_table_name(path)
    if Path(path).suffix == ".csv":
        content = frame.to_csv(index=False, lineterminator="\n").encode()
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        content = buffer.getvalue()
    write_file(path, content, overwrite=overwrite)
