"""Columns of a table in other roles than features: several targets, classes, exposures and offsets."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from gatewise.exceptions import InputError
from gatewise.io.coding import prepare_prediction, prepare_training
from gatewise.io.model_config import ModelMetadata
from gatewise.io.model_folder import SavedModel
from gatewise.io.predictions import predict_table
from gatewise.io.reading import parse_csv
from gatewise.model import MixtureOfExperts

TEXT = """x,kind,code,wins,games,years
0.5,rock,2,1,3,1.0
1.5,sand,-1,2,4,0.5
2.5,rock,10,0,2,2.0
"""


def table(text: str = TEXT):
    return parse_csv(text.encode(), "d.csv")


def coding():
    return prepare_training(table(), "code", features=["x"]).coding


def test_a_target_of_several_columns_is_a_table():
    data = prepare_training(table(), ["wins", "games"], features=["x"])
    expected = pd.DataFrame({"wins": [1.0, 2.0, 0.0], "games": [3.0, 4.0, 2.0]})
    pd.testing.assert_frame_equal(data.target, expected)
    assert data.offset is None
    again = prepare_prediction(table(), data.coding, ("wins", "games"))
    pd.testing.assert_frame_equal(again.target, expected)
    half = prepare_prediction(table(), data.coding, ("wins", "lost"))
    assert half.target is None


def test_classes_are_text_or_whole_numbers():
    named = prepare_training(table(), "kind", features=["x"], classes=True)
    assert named.target.tolist() == ["rock", "sand", "rock"]
    numbered = prepare_training(table(), "code", features=["x"], classes=True)
    assert numbered.target.dtype == np.int64
    assert numbered.target.tolist() == [2, -1, 10]
    # A prediction knows classes by their names.
    assert prepare_prediction(table(), coding(), "code", classes=True).target.tolist() == ["2", "-1", "10"]
    assert prepare_prediction(table(), coding(), "kind", classes=True).target.tolist() == ["rock", "sand", "rock"]


def test_an_exposure_becomes_its_logarithm_and_an_offset_stays():
    data = prepare_training(table(), "wins", features=["x"], exposure="years")
    np.testing.assert_array_equal(data.offset, np.log([1.0, 0.5, 2.0]))
    exposed = prepare_prediction(table(), data.coding, "wins", exposure="years")
    np.testing.assert_array_equal(exposed.offset, np.log([1.0, 0.5, 2.0]))
    added = prepare_prediction(table(), data.coding, "wins", offset="years")
    np.testing.assert_array_equal(added.offset, [1.0, 0.5, 2.0])


def test_features_are_the_columns_without_a_role():
    data = prepare_training(table(TEXT.replace("-1", "1")), ["wins", "games"], weights="code", exposure="years")
    assert data.features == ["x", "kind=sand"]
    assert data.notes[0] == "features: 'x', 'kind' (all columns but the target, the weights and the exposure)"
    assert (
        "(all columns but the target and the exposure)" in prepare_training(table(), "wins", exposure="years").notes[0]
    )


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"target": ["wins", "wins"]}, TEXT, "the column 'wins' is named twice among the columns of the target"),
        ({"target": ["wins", "x"]}, TEXT, "the column 'x' is the target and cannot be a feature too"),
        ({"target": ["wins", "kind"]}, TEXT, "the target 'kind' must be numeric but is 'rock'"),
        ({"target": ["kind", "code"], "classes": True}, TEXT, "classes are one column, and the target has 2: name one"),
        (
            {"target": "years", "classes": True},
            TEXT,
            "line 3 of the file: the target 'years' must name classes, by text or whole numbers, but is '0.5'",
        ),
        ({"exposure": "x"}, TEXT, "the column 'x' is the exposure and cannot be a feature too"),
        ({"exposure": "kind"}, TEXT, "the exposure 'kind' must be numeric but is 'rock'"),
        ({"exposure": "years"}, TEXT.replace("0.5\n", "0\n"), r"line 3 .*: the exposure 'years' is not positive \(0\)"),
        ({"exposure": "years"}, TEXT.replace("0.5\n", "\n"), "missing values in 1 of 3 rows, by column: 'years'"),
        (
            {"target": "kind", "classes": True},
            TEXT.replace("sand", ""),
            "missing values in 1 of 3 rows, by column: 'ki",
        ),
    ],
)
def test_roles_that_cannot_be_used(options, text, message):
    arguments = {"target": "wins", "features": ["x"], **options}
    with pytest.raises(InputError, match=message):
        prepare_training(table(text), **arguments)


NAMES = {"feature_names": ("x",), "gate_feature_names": ("x",), "target_name": "y"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"exposure_name": "x"}, "the exposure 'x' is the target or among the features"),
        ({"exposure_name": "y"}, "the exposure 'y' is the target or among the features"),
        ({"exposure_name": "a", "offset_name": "b"}, "there are both an offset and an exposure"),
        ({"target_columns": ("a", "x")}, "the target 'x' is among the features"),
        ({"target_columns": ("a", "a")}, r"the columns \['a', 'a'\] of the target are not distinct"),
        ({"target_columns": ("a",)}, "at least 2 items"),
        ({"objective": "both"}, "Input should be 'likelihood' or 'least_squares'"),
    ],
)
def test_metadata_that_disagree(names, message):
    with pytest.raises(ValidationError, match=message):
        ModelMetadata(**NAMES, **names)


def test_metadata_that_do_not_fit_the_model():
    gaussian = MixtureOfExperts.build("softmax", "linear", "gaussian", 1, 2)
    with pytest.raises(InputError, match="the metadata name the exposure 'years', and the gaussian family takes none"):
        ModelMetadata(**NAMES, exposure_name="years").check_fits(gaussian)
    with pytest.raises(InputError, match=r"the metadata name 2 columns of the target, and Gaussian\(\) takes 1"):
        ModelMetadata(**NAMES, target_columns=("a", "b")).check_fits(gaussian)
    assert ModelMetadata(**NAMES, target_columns=("a", "b")).target_names == ("a", "b")
    assert ModelMetadata(**NAMES).target_names == ("y",)


def test_predictions_take_the_offset_of_the_data_and_need_one():
    model = MixtureOfExperts.build("softmax", "linear", "poisson", 1, 2).double()
    saved = SavedModel(model, ModelMetadata(**NAMES, exposure_name="years"))
    exposed = prepare_prediction(table(), coding(), "wins", exposure="years")
    # All parameters are 0: the mean is the exposure itself.
    np.testing.assert_allclose(predict_table(saved, exposed)["mean"], [1.0, 0.5, 2.0], rtol=1e-14)
    with pytest.raises(InputError, match="the model needs its offset, the column 'years'"):
        predict_table(saved, prepare_prediction(table(), coding(), "wins"))
    with pytest.raises(InputError, match="the model was fitted without an offset, and one is given"):
        predict_table(SavedModel(model, ModelMetadata(**NAMES)), exposed)


def test_least_squares_has_no_distribution():
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", 1, 2).double()
    data = prepare_prediction(table(), coding(), "wins")
    saved = SavedModel(model, ModelMetadata(**NAMES, objective="least_squares"))
    assert list(predict_table(saved, data)) == ["line", "mean", "weight_1", "weight_2"]
    assert "log_density" in predict_table(SavedModel(model, ModelMetadata(**NAMES)), data)
