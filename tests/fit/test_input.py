"""Bad data and options: one clear error each, that names the place."""

import numpy as np
import pytest

from gatewise.exceptions import InputError
from gatewise.families import Gaussian
from gatewise.fit import FitOptions, fit
from gatewise.fit.build import path_of
from gatewise.fit.names import Names
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from tests.helpers import mixture

X = np.arange(20.0)[:, None] ** [1, 2]
Y = np.cos(np.arange(20.0))


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_DATA = {
    r"column 'x1' has the value nan in row 3 \(1 such values in all\)": (changed(X, (3, 1), np.nan), Y, None),
    "column 'x0' has the value inf in row 0": (changed(X, (0, 0), np.inf), Y, None),
    "column 'y' has the value -inf in row 7": (X, changed(Y, 7, -np.inf), None),
    r"rescale columns that reach 1e100": (X * 1e99, Y, None),
    "column 'x1' is constant at 4: remove it": (changed(X, (slice(None), 1), 4.0), Y, None),
    "column 'x1' is a linear combination of the columns before it": (
        np.column_stack([X[:, 0], 3 * X[:, 0] - 1]),
        Y,
        None,
    ),
    "the target 'y' is constant at 2: there is nothing to explain": (X, np.full(20, 2.0), None),
    "X has 20 rows, the gate's X 20 and y has shape": (X, Y[:-1], None),
    "X must be a table": (X[:, 0], Y, None),
    "the experts take 2 features and the gate 2; got 1": (X[:, :1], Y, None),
    "sample_weight is -1.0 in row 2: weights must be finite and not negative": (X, Y, changed(np.ones(20), 2, -1)),
    "sample_weight is nan in row 0": (X, Y, np.full(20, np.nan)),
    r"sample_weight has shape \(3,\)": (X, Y, np.ones(3)),
    "every sample_weight is zero": (X, Y, np.zeros(20)),
    "2 experts need at least 2 rows": (X, Y, np.eye(20)[0]),
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_bad_data(message):
    x, y, weight = BAD_DATA[message]
    with pytest.raises(InputError, match=message):
        fit(mixture(2, 2, 2), x, y, sample_weight=weight)


def test_collinear_gate_column_is_named_with_the_users_names():
    gate_x = np.column_stack([X[:, 0], 2.0 * X[:, 0]])
    with pytest.raises(InputError, match="column 'twice' is a linear combination"):
        fit(mixture(2, 2, 2), X, Y, gate_x=gate_x, names=Names(["a", "b"], ["once", "twice"], "target"))


BAD_OPTIONS = {
    'n_starts must be a whole number of at least 1, or "auto", not 0': {"n_starts": 0},
    "max_iter must be a whole number of at least 0, not 1.5": {"max_iter": 1.5},
    "seed must be a whole number of at least 0, not -1": {"seed": -1},
    "n_threads must be a whole number of at least 1, not True": {"n_threads": True},
    "tol must be a positive number, not nan": {"tol": float("nan")},
    "time_limit must be a positive number of seconds or None, not 0": {"time_limit": 0},
    "scale_floor must lie strictly between 0 and 1, not 1.0": {"scale_floor": 1.0},
    "gate_ridge must be a non-negative number, not -0.1": {"gate_ridge": -0.1},
    r"variance_prior must be two positive numbers \(a, b\)": {"variance_prior": (1.0, 0.0)},
    "unknown solver 'adam': choose one of auto, newton, quasi-newton": {"solver": "adam"},
    "unknown dtype 'int8'": {"dtype": "int8"},
}


@pytest.mark.parametrize("message", BAD_OPTIONS)
def test_bad_options(message):
    with pytest.raises(InputError, match=message):
        FitOptions(**BAD_OPTIONS[message])


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("best", "unknown init 'best': choose one of auto, split, lines, half_spaces, kmeans"),
        (np.ones((19, 2)), r"init has shape \(19, 2\)"),
        (changed(np.ones((20, 2)), (4, 0), -1.0), "no valid responsibilities in row 4"),
        (changed(np.ones((20, 2)), 5, 0.0), "no valid responsibilities in row 5"),
    ],
)
def test_bad_init(init, message):
    with pytest.raises(InputError, match=message):
        fit(mixture(2, 2, 2), X, Y, options=FitOptions(init=init))


def test_classes_of_ones_own_take_the_general_path():
    class OtherGate(SoftmaxGate):
        pass

    class OtherFamily(Gaussian):
        pass

    model = MixtureOfExperts(OtherGate(2, 1), mixture(2, 2, 1).experts, OtherFamily())
    assert path_of(model) == "fused"
    assert path_of(mixture(2, 2, 1)) == "compiled"
    plain, own = fit(mixture(2, 2, 1), X, Y), fit(model, X, Y)
    assert own.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-9)
