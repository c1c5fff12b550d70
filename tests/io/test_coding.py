"""Columns become numbers, and what cannot be fitted is refused by name and place."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from gatewise.exceptions import InputError
from gatewise.io.coding import CategoricalColumn, ColumnCoding, NumericColumn, prepare_prediction, prepare_training
from gatewise.io.reading import parse_csv

TEXT = """y,x,sex,w
1,0.5,male,1
2,1.5,female,2

4,NA,other,0
3,2.5,female,1.5
"""


def table(text: str = TEXT):
    return parse_csv(text.encode(), "d.csv")


def test_text_is_coded_against_the_first_level():
    data = prepare_training(table(), "y", weights="w", missing="drop")
    expected = pd.DataFrame({"x": [0.5, 1.5, 2.5], "sex=male": [1.0, 0.0, 0.0]})
    pd.testing.assert_frame_equal(data.design, expected)
    assert data.target.name == "y"
    assert data.target.tolist() == [1.0, 2.0, 3.0]
    assert data.weights is not None
    assert data.weights.tolist() == [1.0, 2.0, 1.5]
    assert data.positions.tolist() == [2, 3, 6]
    assert data.gate_features == ["x", "sex=male"]
    assert data.notes == (
        "features: 'x', 'sex' (all columns but the target and the weights)",
        "dropped 1 of 4 rows with missing values, by column: 'x' (1)",
        "coded the column 'sex' as 'sex=male'; the reference level is 'female', the first in sorted order",
    )


def test_three_levels_and_a_gate_of_its_own():
    data = prepare_training(table(), "y", features=["sex", "w"], gate_features=["sex"])
    assert list(data.design.columns) == ["sex=male", "sex=other", "w"]
    assert data.design["sex=other"].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert data.gate_features == ["sex=male", "sex=other"]
    assert prepare_training(table(), "y", features=["w"], gate_features=[]).gate_features == []


def test_missing_values_of_unused_columns_do_not_matter():
    data = prepare_training(table(), "y", features=["w"])
    assert len(data.design) == 4
    assert data.notes == ()


REFUSED = {
    "missing column": ({"features": ["z"]}, TEXT, r"d\.csv has no column 'z'; its columns are 'y', 'x', 'sex', 'w'"),
    "missing target": ({"target": "z"}, TEXT, r"d\.csv has no column 'z'"),
    "missing gate feature": ({"features": ["w"], "gate_features": ["z"]}, TEXT, r"d\.csv has no column 'z'"),
    "no feature": ({"features": []}, TEXT, "there is no feature: name at least one column to explain the target by"),
    "only a target": ({}, "y\n1\n2\n", "there is no feature"),
    "feature twice": ({"features": ["w", "w"]}, TEXT, "the column 'w' is named twice among the features; name it once"),
    "gate feature twice": (
        {"features": ["w"], "gate_features": ["w", "w"]},
        TEXT,
        "named twice among the gate features",
    ),
    "target as feature": ({"features": ["y"]}, TEXT, "the column 'y' is the target and cannot be a feature too"),
    "weights as feature": ({"features": ["w"], "weights": "w"}, TEXT, "the column 'w' is the weights and cannot be"),
    "target as gate feature": (
        {"features": ["w"], "gate_features": ["y"]},
        TEXT,
        "the column 'y' is the target and cannot be a gate feature too",
    ),
    "text target": (
        {"target": "sex"},
        TEXT,
        r"d\.csv, line 2 of the file: the target 'sex' must be numeric but is 'male'; name another column, or",
    ),
    "text in the target": (
        {},
        "y,x\n1,1\n2,2\n\nthree,3\n",
        r"d\.csv, line 5 of the file: the target 'y' must be numeric but is 'three'",
    ),
    "text in the weights": (
        {"weights": "w"},
        "y,x,w\n1,1,1\n2,2,heavy\n",
        r"d\.csv, line 3 of the file: the weights column 'w' must be numeric but is 'heavy'",
    ),
    "mixed feature": (
        {},
        "y,x\n1,1\n2,two\n",
        r"d\.csv: the column 'x' mixes text and numbers, 'two' in line 3 of the file and '1' in line 2; correct",
    ),
    "missing values": (
        {},
        "y,x,z\n1,1,1\n,2,1\n3,,1\n4,,1\n",
        r"d\.csv, line 3 of the file: missing values in 3 of 4 rows, by column: 'y' \(1\), 'x' \(2\); fill them in, or "
        'leave these rows out with missing="drop"',
    ),
    "nothing left": (
        {"missing": "drop"},
        "y,x\n1,\n,2\n",
        r"d\.csv: every row has a missing value, by column: 'y' \(1\), 'x' \(1\); no row is left",
    ),
    "bad choice": ({"missing": "ignore"}, TEXT, "missing values can be handled by 'refuse' or 'drop', not 'ignore'"),
    "NaN": (
        {},
        "y,x\n1,1\n2,NaN\n",
        r"d\.csv, line 3 of the file: the column 'x' is not a finite number below 1e\+100 but 'NaN'; correct",
    ),
    "infinity": ({}, "y,x\n1,1\n-inf,3\n", r"line 3 of the file: the column 'y' is not a finite number .* but '-inf'"),
    "overflow": (
        {},
        "y,x\n1,1\n2,1e400\n",
        r"line 3 of the file: the column 'x' is not a finite number .* but '1e400'",
    ),
    "too large": ({}, "y,x\n1,1\n2,-1e100\n", r"line 3 of the file: the column 'x' is not a finite .* but '-1e100'"),
    "negative weight": (
        {"weights": "w"},
        "y,x,w\n1,1,1\n2,2,-0.5\n",
        r"d\.csv, line 3 of the file: the weight 'w' is negative \(-0\.5\)",
    ),
    "one level": (
        {},
        "y,x\n1,a\n2,a\n",
        r"d\.csv: the column 'x' has the same value in every row, 'a'; leave it out",
    ),
    "51 levels": (
        {},
        "y,x\n" + "".join(f"{i},level{i}\n" for i in range(51)),
        r"d\.csv: the column 'x' has 51 distinct texts, more than 50: is it an identifier or a date\?",
    ),
    "collision": (
        {},
        "y,x,x=b\n1,a,2\n2,b,3\n",
        "the column 'x=b' is named twice among the features after coding",
    ),
}


@pytest.mark.parametrize(("options", "text", "pattern"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(options, text, pattern):
    with pytest.raises(InputError, match=pattern):
        prepare_training(table(text), **{"target": "y", **options})


def test_fifty_levels_are_accepted():
    data = prepare_training(table("y,x\n" + "".join(f"{i},level{i:02}\n" for i in range(50))), "y")
    assert data.design.shape == (50, 49)


def test_a_nan_in_a_dropped_row_does_not_matter():
    data = prepare_training(table("y,x\n1,1\n2,2\n,nan\n"), "y", missing="drop")
    assert data.design["x"].tolist() == [1.0, 2.0]


@pytest.fixture
def coding():
    return prepare_training(table(), "y", features=["sex", "w"]).coding


def test_prediction_codes_in_the_same_way(coding):
    data = prepare_prediction(table("w,extra,sex\n5,?,other\n6,?,female\n"), coding, "y")
    assert list(data.design.columns) == ["sex=male", "sex=other", "w"]
    assert data.design.to_numpy().tolist() == [[0.0, 1.0, 5.0], [0.0, 0.0, 6.0]]
    assert data.target is None


def test_prediction_takes_the_target_if_it_is_there(coding):
    data = prepare_prediction(table("w,sex,y\n5,other,1\n6,female,2\n"), coding, "y")
    assert data.target is not None
    assert data.target.tolist() == [1.0, 2.0]
    empty = prepare_prediction(table("w,sex,y\n5,other,\n6,female,\n"), coding, "y")
    assert empty.target is None


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("w,y\n5,1\n", r"d\.csv has no column 'sex'"),
        (
            "w,sex\n5,male\n5,unknown\n",
            r"d\.csv, line 3 of the file: the column 'sex' has the level 'unknown', which the model has not seen; it "
            "knows 'female', 'male', 'other'",
        ),
        ("w,sex\n5,1\n", "the column 'sex' has the level '1', which the model has not seen"),
        ("w,sex\nheavy,male\n", r"line 2 of the file: the feature 'w' must be numeric but is 'heavy'"),
        ("w,sex\n,male\n", r"missing values in 1 of 1 rows, by column: 'w' \(1\)"),
        ("w,sex\ninf,male\n", r"line 2 of the file: the column 'w' is not a finite number"),
    ],
)
def test_prediction_refuses(coding, text, pattern):
    with pytest.raises(InputError, match=pattern):
        prepare_prediction(table(text), coding, "y")


def test_a_target_that_is_blank_in_some_rows_is_blank_there(coding):
    text = "w,sex,y\n1,male,\n2,male,3\n,male,4\n"
    data = prepare_prediction(table(text), coding, "y", missing="drop")
    assert data.positions.tolist() == [2, 3]
    np.testing.assert_array_equal(data.target, [np.nan, 3.0])
    dropped, blank = data.notes
    assert dropped == "dropped 1 of 3 rows with missing values, by column: 'w' (1)"
    assert blank == "the target 'y' is blank in 1 of 2 rows: predicted without it"
    with pytest.raises(InputError, match=r"missing values in 1 of 3 rows, by column: 'w' \(1\)"):
        prepare_prediction(table(text), coding, "y")
    for values in (["", "b"], ["", "2"]):
        named = prepare_prediction(table("w,sex,y\n1,male,{}\n2,male,{}\n".format(*values)), coding, "y", classes=True)
        assert named.target.tolist() == [None, values[1]]
    with pytest.raises(InputError, match="line 3 of the file: the column 'y' is not a finite number"):
        prepare_prediction(table("w,sex,y\n1,male,\n2,male,inf\n"), coding, "y")


def test_prediction_drops_rows_and_says_where_the_others_are(coding):
    data = prepare_prediction(table("w,sex\n,male\n2,male\n"), coding, "y", missing="drop")
    assert data.positions.tolist() == [3]
    assert data.notes == ("dropped 1 of 2 rows with missing values, by column: 'w' (1)",)


def test_levels_that_look_like_numbers_stay_text():
    coding = ColumnCoding(columns=(CategoricalColumn(name="code", levels=("1", "2")),))
    data = prepare_prediction(table("code\n2\n1\n"), coding, "y")
    np.testing.assert_array_equal(data.design["code=2"], [1.0, 0.0])


def test_the_coding_survives_json(coding):
    assert ColumnCoding.model_validate_json(coding.model_dump_json()) == coding


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: CategoricalColumn(name="a", levels=("y", "x")), "distinct and in sorted order"),
        (lambda: CategoricalColumn(name="a", levels=("x",)), "at least 2"),
        (lambda: CategoricalColumn(name="a", levels=tuple(f"{i:02}" for i in range(51))), "at most 50"),
        (lambda: ColumnCoding(columns=(NumericColumn(name="a"),) * 2), "two columns are named 'a' after coding"),
        (lambda: ColumnCoding.model_validate({"columns": [], "more": 1}), "Extra inputs are not permitted"),
    ],
)
def test_a_damaged_coding_is_refused(make, pattern):
    with pytest.raises(ValidationError, match=pattern):
        make()
