"""The table of predictions agrees with the model's formulas, and survives being written."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from scipy.stats import norm

from gatewise.exceptions import InputError, OutputError
from gatewise.io.coding import PredictionData
from gatewise.io.model_folder import ModelMetadata, SavedModel
from gatewise.io.predictions import predict_table, write_table
from tests.mixture_reference import DISCRETE, FAMILY_CASES, ORDERED, random_mixture, targets


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


ROWS = pd.DataFrame({"b": [0.0, 1.0, -1.0], "a": [0.5, 2.0, 3.0]})
POSITIONS = np.array([2, 4, 5])


def table(case, target=None, offset=None, gate="softmax", level=0.8, **metadata):
    """The model, and its predictions for three rows."""
    options = {"normalised": False} if gate == "sigmoid" else {}
    model = random_mixture(gate=gate, case=case, gate_options=options)
    names = ModelMetadata(feature_names=("a", "b"), gate_feature_names=("a", "b"), target_name="y", **metadata)
    data = PredictionData(ROWS, target, POSITIONS, "row", ())
    return model, predict_table(SavedModel(model, names), data, level=level, offset=offset)


def points():
    return torch.tensor(np.array(ROWS[["a", "b"]]))


@pytest.mark.parametrize("case", list(FAMILY_CASES))
def test_every_family_has_its_columns(case):
    y = targets(case).numpy()
    target = pd.Series(y) if y.ndim == 1 else pd.DataFrame(y)
    model, frame = table(case, target)
    mean = model.mean(points()).numpy()
    weights = [f"weight_{i}" for i in (1, 2, 3)]
    if case in ("two classes", "three classes"):
        means = [f"probability_{j}" for j in range(mean.shape[1])]
        np.testing.assert_array_equal(frame[means], mean)
        np.testing.assert_allclose(frame[means].sum(axis=1), 1.0)
    elif mean.ndim == 2:
        means = ["mean_1", "mean_2"]
        np.testing.assert_array_equal(frame[means], mean)
    else:
        means = ["mean"]
        np.testing.assert_array_equal(frame["mean"], mean)
    interval = ["lower", "upper"] if case in ORDERED else []
    given = ["target"] if y.ndim == 1 else ["target_1", "target_2"]
    shares = [f"responsibility_{i}" for i in (1, 2, 3)]
    pit = ["pit"] if case in ORDERED and case not in DISCRETE else []
    assert list(frame.columns) == ["row", *means, *interval, *weights, *given, "log_density", *shares, *pit]
    np.testing.assert_array_equal(frame[given].to_numpy().reshape(y.shape), y)
    np.testing.assert_array_equal(frame["log_density"], model.log_prob(points(), targets(case)))
    np.testing.assert_allclose(frame[shares].sum(axis=1), 1.0)
    if interval:
        # (1 − 0.8)/2 is not 0.1 to the last digit.
        np.testing.assert_allclose(frame["lower"], model.quantile(points(), 0.1), rtol=1e-12)
        np.testing.assert_allclose(frame["upper"], model.quantile(points(), 0.9), rtol=1e-12)


@pytest.mark.parametrize(
    "target", [pd.Series(["no", "yes", "perhaps"]), pd.Series([0.0, 2.0, 1.0]), pd.Series([0, 2, 1])]
)
def test_classes_go_by_their_names(target):
    model, frame = table("three classes", target, class_names=("no", "perhaps", "yes"))
    shares = model.mean(points()).numpy()
    np.testing.assert_array_equal(frame[["probability_no", "probability_perhaps", "probability_yes"]], shares)
    # A class's log density is the logarithm of its probability.
    np.testing.assert_allclose(frame["log_density"], np.log(shares[[0, 1, 2], [0, 2, 1]]))
    assert frame["target"].tolist() == target.tolist()
    with pytest.raises(
        InputError, match=r"the target is 'never' in row 1, and the model knows the classes 'no', 'perh"
    ):
        table("three classes", pd.Series(["no", "never", "yes"]), class_names=("no", "perhaps", "yes"))


def test_two_named_classes_of_a_bernoulli_target():
    model, frame = table("bernoulli", pd.Series(["dead", "alive", "dead"]), class_names=("alive", "dead"))
    mean = model.mean(points()).numpy()
    np.testing.assert_array_equal(frame["probability_dead"], mean)
    np.testing.assert_allclose(frame["probability_alive"], 1.0 - mean)
    assert not {"mean", "lower", "upper"} & set(frame.columns)
    np.testing.assert_allclose(frame["log_density"], np.log([mean[0], 1.0 - mean[1], mean[2]]))


def test_weights_that_are_no_probabilities():
    model, frame = table("gaussian", pd.Series([0.0, 1.0, 2.0]), gate="sigmoid")
    assert list(frame.columns) == ["row", "mean", "weight_1", "weight_2", "weight_3"]
    np.testing.assert_array_equal(frame["mean"], model.mean(points()))
    assert (frame[["weight_1", "weight_2", "weight_3"]].sum(axis=1) - 1.0).abs().min() > 0.01


def test_a_named_offset_must_be_given_and_is_added():
    exposure = np.array([1.0, 2.0, 10.0])
    target = pd.Series([0.0, 3.0, 1.0])
    _, plain = table("poisson", target)
    model, frame = table("poisson", target, offset=np.log(exposure), offset_name="log_years")
    np.testing.assert_allclose(frame["mean"], exposure * plain["mean"])
    offset = torch.tensor(np.log(exposure))
    np.testing.assert_array_equal(frame["upper"], model.quantile(points(), 0.9, offset=offset))
    np.testing.assert_array_equal(
        frame["log_density"], model.log_prob(points(), torch.tensor([0.0, 3.0, 1.0]), offset=offset)
    )
    with pytest.raises(InputError, match="the model needs its offset, the column 'log_years'"):
        table("poisson", offset_name="log_years")
    with pytest.raises(InputError, match="fitted without an offset"):
        table("poisson", offset=np.log(exposure))


def test_targets_that_the_family_does_not_have_are_refused():
    with pytest.raises(InputError, match=r"the target is -1\.0 in row 2 .* for the poisson family"):
        table("poisson", pd.Series([0.0, 1.0, -1.0]))
    with pytest.raises(InputError, match="the categorical family"):
        table("three classes", pd.Series([0.0, 1.0, 3.0]))


def test_a_blank_class_is_blank():
    names = ("no", "perhaps", "yes")
    _, whole = table("three classes", pd.Series(["no", "no", "yes"]), class_names=names)
    _, found = table("three classes", pd.Series(["no", None, "yes"], dtype=object), class_names=names)
    about_y = ["target", "log_density", *(name for name in whole if name.startswith("responsibility"))]
    assert found.loc[1, about_y].isna().all()
    pd.testing.assert_frame_equal(found.drop(index=1), whole.drop(index=1))


def test_a_target_that_is_blank_in_one_of_its_columns_is_blank():
    values = np.array([[1.0, 2.0], [0.5, np.nan], [0.0, 1.0]])
    _, found = table("diagonal vector", values)
    assert found.loc[1, ["target_2", "log_density"]].isna().all()
    assert found.loc[[0, 2], "log_density"].notna().all()
