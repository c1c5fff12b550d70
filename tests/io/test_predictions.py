"""The table of predictions agrees with the model's formulas, and survives being written."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import norm

from gatewise.exceptions import InputError, OutputError
from gatewise.io.coding import PredictionData
from gatewise.io.model_folder import ModelMetadata, SavedModel
from gatewise.io.predictions import predict_table, write_table


@pytest.fixture
def saved(make_model):
    metadata = ModelMetadata(feature_names=("a", "b"), gate_feature_names=("b",), target_name="y")
    return SavedModel(make_model(k=2), metadata)


@pytest.fixture
def data():
    design = pd.DataFrame({"b": [0.0, 1.0, -1.0], "a": [0.5, 2.0, 3.0]})
    target = pd.Series([0.1, 1.0, -2.0], name="y")
    return PredictionData(design, target, np.array([2, 4, 5]), "line", ())


def test_predictions_are_those_of_the_formulas(saved, data):
    frame = predict_table(saved, data, level=0.8)
    arrays = {name: array.numpy() for name, array in saved.model.state_dict().items()}
    x, y = data.design[["a", "b"]].to_numpy(), data.target.to_numpy()
    weights = softmax(x[:, 1:] @ arrays["gate.weight"].T + arrays["gate.bias"], axis=1)
    centres = x @ arrays["experts.weight"].T + arrays["experts.bias"]
    scales = np.exp(arrays["experts.log_scale"])
    densities = weights * norm.pdf(y[:, None], centres, scales)
    expected = {
        "line": [2, 4, 5],
        "mean": (weights * centres).sum(1),
        "weight_1": weights[:, 0],
        "weight_2": weights[:, 1],
        "target": y,
        "log_density": np.log(densities.sum(1)),
        "responsibility_1": densities[:, 0] / densities.sum(1),
        "responsibility_2": densities[:, 1] / densities.sum(1),
        "pit": (weights * norm.cdf(y[:, None], centres, scales)).sum(1),
    }
    for name, values in expected.items():
        # The same double-precision formulas in another order.
        np.testing.assert_allclose(frame[name], values, rtol=1e-12, err_msg=name)
    for name, probability in (("lower", 0.1), ("upper", 0.9)):
        reached = (weights * norm.cdf(frame[name].to_numpy()[:, None], centres, scales)).sum(1)
        np.testing.assert_allclose(reached, probability, rtol=1e-12)
    assert list(frame.columns) == [*list(expected)[:2], "lower", "upper", *list(expected)[2:]]


def test_without_the_target_there_is_nothing_about_it(saved, data):
    unknown = PredictionData(data.design, None, data.positions, "row", ())
    frame = predict_table(saved, unknown)
    assert list(frame.columns) == ["row", "mean", "lower", "upper", "weight_1", "weight_2"]
    pd.testing.assert_frame_equal(frame[["mean", "lower"]], predict_table(saved, data)[["mean", "lower"]])


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_levels_are_probabilities(saved, data, level):
    with pytest.raises(InputError, match="the level of an interval must lie strictly between 0 and 1"):
        predict_table(saved, data, level=level)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_written_tables_keep_every_digit(tmp_path, saved, data, suffix):
    frame = predict_table(saved, data)
    path = tmp_path / f"p.{suffix}"
    write_table(path, frame)
    back = pd.read_parquet(path) if suffix == "parquet" else pd.read_csv(path)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    with pytest.raises(OutputError, match="it exists"):
        write_table(path, frame)
    write_table(path, frame.iloc[:1], overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path, saved, data):
    with pytest.raises(
        InputError, match=r"cannot tell the format of '.*p\.xlsx': let the name end in \.csv or \.parquet"
    ):
        write_table(tmp_path / "p.xlsx", predict_table(saved, data))
    assert list(tmp_path.iterdir()) == []
