"""Tables of every kind give one fit; what cannot be read is named."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import DataConversionWarning

from gatewise.estimators import GatedRegressor
from gatewise.estimators.inputs import chosen_columns
from gatewise.exceptions import InputError


def regressor(**options):
    return GatedRegressor(**{"n_starts": 2, "random_state": 0, **options})


def frames(X, names=("a", "b")):
    columns = {name: X[:, j] for j, name in enumerate(names)}
    return {"pandas": pd.DataFrame(columns), "polars": pl.DataFrame(columns), "pyarrow": pa.table(columns)}


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_tables_give_the_fit_of_the_array_bit_for_bit(sample, kind):
    expected = regressor().fit(sample.X, sample.y)
    table = frames(sample.X)[kind]
    series = {"pandas": pd.Series, "polars": lambda y, name: pl.Series(name, y), "pyarrow": lambda y, name: pa.array(y)}
    y = series[kind](sample.y, name="height")
    fitted = regressor().fit(table, y)
    assert fitted.log_likelihood_ == expected.log_likelihood_
    np.testing.assert_array_equal(fitted.predict(table), expected.predict(sample.X))
    np.testing.assert_array_equal(fitted.responsibilities(table, y), expected.responsibilities(sample.X, sample.y))
    assert list(fitted.feature_names_in_) == fitted.feature_names_ == ["a", "b"]
    assert fitted.target_name_ == ("y" if kind == "pyarrow" else "height")
    assert expected.feature_names_ == ["x0", "x1"]
    assert expected.target_name_ == "y"
    assert not hasattr(expected, "feature_names_in_")


def test_names_of_the_columns_reach_the_parameters(sample):
    fitted = regressor(gate_features=["b"]).fit(frames(sample.X)["polars"], sample.y)
    assert fitted.gate_feature_names_ == ["b"]
    table = fitted.parameters_
    assert list(table.loc[table.component == "gate 1 vs 2", "term"]) == ["(intercept)", "b"]
    assert list(table.loc[table.component == "expert 1", "term"]) == ["(intercept)", "a", "b", "scale"]


def test_integers_booleans_and_nullable_columns_are_numbers(sample):
    X = np.column_stack([sample.X[:, 0] > 0.0, np.round(3.0 * sample.X[:, 1])])
    expected = regressor().fit(X, sample.y)
    table = pd.DataFrame(
        {"a": pd.array(X[:, 0].astype(bool), dtype="boolean"), "b": pd.array(X[:, 1].astype(int), dtype="Int64")}
    )
    objects = pd.DataFrame({"a": X[:, 0].astype(bool), "b": pd.Series(list(X[:, 1]), dtype=object)})
    for X_other in (table, objects, pl.DataFrame({"a": X[:, 0] > 0.0, "b": X[:, 1].astype(int)})):
        assert regressor().fit(X_other, sample.y).log_likelihood_ == expected.log_likelihood_


def test_integer_column_names_of_pandas_are_positions(sample):
    fitted = regressor(gate_features=[1]).fit(pd.DataFrame(sample.X), sample.y)
    assert fitted.gate_feature_names_ == ["x1"]


def test_a_column_vector_is_taken_with_scikit_learns_warning(sample):
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        fitted = regressor().fit(sample.X, sample.y[:, None])
    assert fitted.log_likelihood_ == regressor().fit(sample.X, sample.y).log_likelihood_
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        assert regressor().fit(sample.X, pl.DataFrame({"height": sample.y})).target_name_ == "height"


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_text_columns_are_named_with_their_first_text(kind):
    columns = {"a": [1.0, 2.0, 4.0], "city": ["Oslo", "Bern", "Oslo"], "b": ["u", "v", "w"]}
    table = pd.DataFrame(columns) if kind == "pandas" else pl.DataFrame(columns)
    with pytest.raises(
        InputError,
        match=r"first of the columns 'city', 'b' is not numeric: row 0 has 'Oslo'; code .*OneHotEncoder",
    ):
        regressor().fit(table, [1.0, 2.0, 3.0])


def test_numbers_as_text_and_dates_are_not_numbers():
    table = pd.DataFrame({"a": ["1", "2"], "day": pd.to_datetime(["2020-01-01", "2020-01-02"])})
    with pytest.raises(InputError, match="the first of the columns 'a', 'day' is not numeric: row 0 has '1'"):
        regressor().fit(table, [1.0, 2.0])
    with pytest.raises(InputError, match="the target 'y' is not numeric: row 1 has 'b'"):
        regressor().fit([[1.0], [2.0]], np.array([1.0, "b"], dtype=object))
    with pytest.raises(InputError, match="sample_weight is not numeric: row 0 has '1'"):
        regressor().fit([[1.0], [2.0], [4.0]], [1.0, 2.0, 1.0], sample_weight=["1", "2", "1"])


def test_a_column_that_is_there_twice_is_named():
    table = pd.DataFrame([[1.0, 2.0], [3.0, 5.0]], columns=["a", "a"])
    with pytest.raises(InputError, match="'a' 2 times"):
        regressor().fit(table, [1.0, 2.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named_by_column_and_row(sample, value):
    fitted = regressor().fit(frames(sample.X)["pandas"], sample.y)
    X = sample.X.copy()
    X[7, 1] = value
    table = frames(X)["pandas"]
    message = rf"column 'b' has the value {value} in row 7 \(1 such values in all\): remove or impute rows with NaN"
    with pytest.raises(InputError, match=message):
        regressor().fit(table, sample.y)
    with pytest.raises(InputError, match=message):
        fitted.predict(table)
    y = pd.Series(sample.y, name="height")
    y[3] = value
    message = rf"column 'height' has the value {value} in row 3"
    with pytest.raises(InputError, match=message):
        regressor().fit(sample.X, y)
    with pytest.raises(InputError, match=r"column 'y' has the value .* in row 3"):
        fitted.score_log_density(frames(sample.X)["pandas"], y)


def test_missing_values_of_nullable_columns_are_nan():
    message = "column 'a' has the value nan in row 1"
    for table in (
        pl.DataFrame({"a": [1, None, 3]}),
        pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64")}),
        pd.DataFrame({"a": pd.Series([1, None, 3], dtype=object)}),
    ):
        with pytest.raises(InputError, match=message):
            regressor().fit(table, [1.0, 2.0, 1.5])


def test_columns_at_predict_must_be_those_of_fit(sample):
    table = frames(sample.X)["polars"]
    fitted = regressor().fit(table, sample.y)
    with pytest.raises(InputError, match="Feature names must be in the same order as they were in fit"):
        fitted.predict(table.select("b", "a"))
    with pytest.raises(InputError, match=r"seen at fit time, yet now missing:\n- b"):
        fitted.gate_weights(table.select("a"))
    with pytest.raises(InputError, match=r"unseen at fit time:\n- c"):
        fitted.expert_means(table.rename({"b": "c"}))
    with pytest.raises(InputError, match="X has 1 features, but GatedRegressor is expecting 2 features as input"):
        regressor().fit(sample.X, sample.y).predict(sample.X[:, :1])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(fitted.predict(sample.X), fitted.predict(table))


def test_bad_shapes(sample):
    fitted = regressor().fit(sample.X, sample.y)
    with pytest.raises(InputError, match="Expected 2D array, got 1D array instead"):
        regressor().fit(sample.y, sample.y)
    with pytest.raises(InputError, match="X has 200 rows and y 199: they must be the same"):
        regressor().fit(sample.X, sample.y[1:])
    with pytest.raises(InputError, match="X has 200 rows and y 199: they must be the same"):
        fitted.responsibilities(sample.X, sample.y[1:])
    with pytest.raises(InputError, match=r"y should be a 1d array, got an array of shape \(200, 2\)"):
        regressor().fit(sample.X, sample.X)
    with pytest.raises(InputError, match="requires y to be passed, but the target y is None"):
        regressor().fit(sample.X, None)
    with pytest.raises(InputError, match=r"Found array with 0 sample\(s\)"):
        fitted.predict(sample.X[:0])
    with pytest.raises(InputError, match=r"Found array with 0 feature\(s\)"):
        regressor().fit(pd.DataFrame(index=range(5)), np.arange(5.0))
    with pytest.raises(InputError, match="X is a lazy table: collect it first"):
        regressor().fit(pl.DataFrame({"a": sample.y}).lazy(), sample.y)
    with pytest.raises(TypeError, match="Sparse data was passed for X"):
        regressor().fit(csr_array(sample.X), sample.y)
    with pytest.raises(InputError, match=r"sample_weight has shape \(3,\); it must be one number for each of the 200"):
        regressor().fit(sample.X, sample.y, sample_weight=[1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("gate_features", "expected"),
    [
        (None, [0, 1, 2]),
        ([], []),
        (["c", "a"], [2, 0]),
        ([2, 0], [2, 0]),
        (("b", 0), [1, 0]),
        (np.array([1]), [1]),
        (np.array(["b"], dtype=object), [1]),
    ],
)
def test_gate_columns_by_name_and_by_index(gate_features, expected):
    assert chosen_columns("gate_features", gate_features, ["a", "b", "c"]) == expected


@pytest.mark.parametrize(
    ("gate_features", "message"),
    [
        (["z"], r"gate_features has 'z', which is not a column of X; its columns are 'a', 'b': name one of them"),
        ([2], r"gate_features has the index 2, but X has the columns 0 to 1"),
        ([-1], r"gate_features has the index -1, but X has the columns 0 to 1"),
        (["a", 0], r"gate_features has the column 'a' twice: name it once"),
        ([True], r"gate_features has True, which is neither a column name nor an index"),
        ([0.0], r"gate_features has 0.0, which is neither a column name nor an index"),
        ("a", r"gate_features must be a list of column names or indices, or None, not 'a'"),
        (0, r"gate_features must be a list of column names or indices, or None, not 0"),
    ],
)
def test_gate_columns_that_are_not_there(gate_features, message):
    with pytest.raises(InputError, match=message):
        chosen_columns("gate_features", gate_features, ["a", "b"])
