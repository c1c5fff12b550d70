"""Arrays are read as the columns of tables are: what is masked is missing, text and dates are no numbers."""

import numpy as np
import pytest

from gatewise import GatedClassifier, GatedRegressor
from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.fit import Constraints, FitOptions, fit
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts


@pytest.fixture
def rows(generator):
    x = generator.normal(size=(40, 2))
    return x, x[:, 0] + generator.normal(size=40)


def masked(array, place):
    mask = np.zeros(array.shape, dtype=bool)
    mask[place] = True
    return np.ma.masked_array(array, mask=mask)


def test_what_is_masked_is_missing(rows):
    x, y = rows
    regressor = GatedRegressor(n_experts=1)
    with pytest.raises(InputError, match=r"column 'x1' has the value nan in row 3 \(1 such values in all\)"):
        regressor.fit(masked(x, (3, 1)), y)
    with pytest.raises(InputError, match="column 'y' has the value nan in row 4"):
        regressor.fit(x, masked(y, 4))
    with pytest.raises(InputError, match="sample_weight is nan in row 5"):
        regressor.fit(x, y, sample_weight=masked(np.ones(40), 5))
    with pytest.raises(InputError, match="column 'offset' has the value nan in row 6"):
        GatedRegressor(n_experts=1, family="poisson").fit(x, np.ones(40), offset=masked(np.zeros(40), 6))
    with pytest.raises(InputError, match="init has no valid responsibilities in row 7"):
        GatedRegressor(n_experts=2, init=masked(np.full((40, 2), 0.5), (7, 0))).fit(x, y)
    fitted = regressor.fit(x, y)
    with pytest.raises(InputError, match="column 'x0' has the value nan in row 2"):
        fitted.predict(masked(x, (2, 0)))


@pytest.mark.parametrize("labels", [np.array(["a", "b"] * 20), np.arange(40) % 2, np.arange(40) % 2 == 0])
def test_masked_labels_are_missing(rows, labels):
    with pytest.raises(InputError, match=r"the target 'y' is missing \(None or NaN\) in row 8 \(1 such rows in all\)"):
        GatedClassifier(n_experts=1).fit(rows[0], masked(labels, 8))


def test_a_mask_that_hides_nothing_changes_nothing(rows):
    x, y = rows
    plain = GatedRegressor(n_experts=1).fit(x, y)
    same = GatedRegressor(n_experts=1).fit(np.ma.masked_array(x), np.ma.masked_array(y))
    assert same.log_likelihood_ == plain.log_likelihood_


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda x: x.astype(str), "'"),
        (lambda x: x.astype(bytes), "b'"),
        (lambda x: x.astype(str).astype(object), "'"),
        (lambda x: x.astype(str).tolist(), "'"),
        (lambda x: x.astype("datetime64[s]"), "datetime"),
        (lambda x: x.astype("timedelta64[s]"), "datetime"),
        (lambda x: np.ma.masked_array(x.astype(str)), "'"),
    ],
    ids=["text", "bytes", "objects", "lists", "dates", "spans", "masked text"],
)
def test_text_and_dates_are_no_numbers(rows, change, shown):
    x, y = rows
    with pytest.raises(InputError, match=f"X is not numeric: row 0 has .*{shown}"):
        GatedRegressor(n_experts=1).fit(change(x), y)
    fitted = GatedRegressor(n_experts=1).fit(x, y)
    with pytest.raises(InputError, match="X is not numeric"):
        fitted.predict(change(x))
    with pytest.raises(InputError, match="the target 'y' is not numeric: row 0 has"):
        fitted.fit(x, change(y))
    with pytest.raises(InputError, match="sample_weight is not numeric: row 0 has"):
        fitted.fit(x, y, sample_weight=change(np.ones(40)))


def test_rows_of_several_columns_are_named_by_their_rows(rows):
    x, _ = rows
    y = np.column_stack([x, x[:, 0]]).astype(object)
    y[5, 1] = "five"
    with pytest.raises(InputError, match="the target 'y' is not numeric: row 5 has 'five'"):
        GatedRegressor(n_experts=1, family="multivariate_gaussian").fit(x, y)


@pytest.mark.parametrize("constraints", [3, "gate.bias", {"frozen": {}}, [("gate.bias", (0,))]])
def test_constraints_of_another_kind(rows, constraints):
    with pytest.raises(InputError, match=r"constraints must be gatewise\.fit\.constraints\.Constraints or None, not"):
        GatedRegressor(constraints=constraints).fit(*rows)
    with pytest.raises(InputError, match="constraints must be"):
        FitOptions(constraints=constraints)


def test_constraints_that_say_nothing_of_a_model():
    with pytest.raises(InputError, match="frozen must be a dictionary from names to masks, not 3"):
        Constraints(frozen=3)
    for tied in (3, [3], ["gate.bias"]):
        with pytest.raises(InputError, match="tied must be groups of parameters"):
            Constraints(tied=tied)


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "gamma"])
def test_offsets_whose_exposures_are_no_numbers(rows, family):
    x, _ = rows
    y = np.arange(40.0) % 3 + 1.0
    fitted = GatedRegressor(n_experts=1, family=family).fit(x, y, offset=np.zeros(40))
    for offset in (800.0, -800.0):
        for first, rows_with_it in ((0, slice(None)), (5, slice(5, 6))):
            values = np.zeros(40)
            values[rows_with_it] = offset
            message = f"the offset is {offset:g} in row {first}: it is the logarithm of an exposure"
            with pytest.raises(InputError, match=message):
                GatedRegressor(n_experts=1, family=family).fit(x, y, offset=values)
            with pytest.raises(InputError, match=message):
                fitted.predict(x, offset=values)


def test_the_lower_door_reads_arrays_alike(rows):
    x, y = rows
    model = MixtureOfExperts(SoftmaxGate(2, 1), LinearExperts(2, 1), Gaussian())
    with pytest.raises(InputError, match="X is not numeric"):
        fit(model, x.astype(str), y)
    with pytest.raises(InputError, match="column 'y' has the value nan in row 1"):
        fit(model, x, masked(y, 1))
