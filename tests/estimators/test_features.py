"""Experts and gate may see different columns: the classical model with concomitant variables."""

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, fit
from tests.helpers import mixture


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(31)
    frame = pd.DataFrame(generator.uniform(-1.0, 1.0, size=(500, 3)), columns=["dose", "age", "noise"])
    rising = generator.uniform(size=500) < 1.0 / (1.0 + np.exp(-4.0 * frame["age"]))
    y = np.where(rising, 1.0 + 2.0 * frame["dose"], -frame["dose"]) + 0.2 * generator.normal(size=500)
    return frame, pd.Series(y, name="response")


def test_columns_go_where_they_were_sent(table):
    frame, y = table
    regressor = GatedRegressor(2, gate_features=["age"], expert_features=["dose"], n_starts=4, random_state=0)
    regressor.fit(frame, y)
    alone = fit(
        mixture(1, 1, 2),
        frame[["dose"]].to_numpy(),
        y.to_numpy(),
        gate_x=frame[["age"]].to_numpy(),
        options=FitOptions(n_starts=4, seed=0),
    )
    assert regressor.log_likelihood_ == alone.log_likelihood
    assert regressor.expert_feature_names_ == ["dose"]
    assert regressor.gate_feature_names_ == ["age"]
    assert regressor.feature_names_ == ["dose", "age", "noise"]
    assert regressor.expert_coef_.shape == (2, 1)
    terms = regressor.parameters_.groupby("component")["term"].agg(list)
    assert terms["gate 1 vs 2"] == ["(intercept)", "age"]
    assert terms["expert 1"] == ["(intercept)", "dose", "scale"]
    shuffled = frame.assign(noise=0.5)
    np.testing.assert_array_equal(regressor.predict(shuffled), regressor.predict(frame))


def test_default_gate_sees_what_the_experts_see(table):
    frame, y = table
    regressor = GatedRegressor(2, expert_features=[0, "age"], n_starts=2, random_state=0).fit(frame, y)
    assert regressor.gate_feature_names_ == regressor.expert_feature_names_ == ["dose", "age"]


def test_unknown_expert_feature_is_named(table):
    with pytest.raises(InputError, match="expert_features has 'sex', which is not a column of X"):
        GatedRegressor(expert_features=["sex"]).fit(*table)
