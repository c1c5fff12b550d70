"""What a model says about each row of a table, as a table."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gatewise.exceptions import InputError
from gatewise.io.atomic import write_file
from gatewise.io.coding import PredictionData, TrainingData
from gatewise.io.model_folder import SavedModel

__all__ = ["check_level", "check_table_name", "predict_table", "write_table"]


def check_level(level: float) -> None:
    """Refuse a level that is not the probability of an interval.

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of an interval must lie strictly between 0 and 1, not {level}")


@torch.no_grad()
def predict_table(saved: SavedModel, data: TrainingData | PredictionData, *, level: float = 0.9) -> pd.DataFrame:
    """The mixture's predictions, one row per row of the data.

    The columns are `line` or `row` (where the row is in the file), `mean` E[y | x], `lower` and `upper` (the mixture's
    own quantiles at (1 ∓ level)/2), `weight_1` … `weight_k` πᵢ(x), and where the target is known `target`,
    `log_density` log p(y | x), `responsibility_1` … `responsibility_k` P(expert i | x, y) and `pit` P(Y ≤ y | x), the
    probability integral transform.

    Args:
        saved: the model and the names of its inputs.
        data: the coded rows.
        level: the probability of the interval, strictly between 0 and 1.

    Raises:
        InputError: `level` is not a probability.
    """
    check_level(level)
    model, metadata = saved.model, saved.metadata
    dtype = model.experts.log_scale.dtype
    # Copies: the arrays behind a frame may be read-only or run backwards, which torch does not take.
    x = torch.tensor(np.array(data.design[list(metadata.feature_names)]), dtype=dtype)
    gate_x = torch.tensor(np.array(data.design[list(metadata.gate_feature_names)]), dtype=dtype)
    experts = range(1, model.n_experts + 1)
    weights = model.log_weights(x, gate_x).exp().numpy()
    columns = {
        data.unit: data.positions,
        "mean": model.mean(x, gate_x).numpy(),
        "lower": model.quantile(x, (1.0 - level) / 2.0, gate_x).numpy(),
        "upper": model.quantile(x, (1.0 + level) / 2.0, gate_x).numpy(),
        **{f"weight_{i}": weights[:, i - 1] for i in experts},
    }
    if data.target is not None:
        y = torch.tensor(np.array(data.target), dtype=dtype)
        shares = model.responsibilities(x, y, gate_x).numpy()
        columns |= {
            "target": data.target.to_numpy(),
            "log_density": model.log_prob(x, y, gate_x).numpy(),
            **{f"responsibility_{i}": shares[:, i - 1] for i in experts},
            "pit": model.distribution_function(x, y, gate_x).numpy(),
        }
    return pd.DataFrame(columns)


def check_table_name(path: str | os.PathLike[str]) -> None:
    """Refuse a file name that does not say which kind of table it is.

    Raises:
        InputError: the name ends neither in .csv nor in .parquet.
    """
    if Path(path).suffix not in (".csv", ".parquet"):
        raise InputError(f"cannot tell the format of {str(path)!r}: let the name end in .csv or .parquet")


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
