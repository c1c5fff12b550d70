"""What a user gave is shown in one line of bounded length, and a name that is nearly right gets a suggestion."""

import numpy as np
import pandas as pd
import pytest

from gatewise import datasets
from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.exceptions import InputError
from gatewise.fit import FitOptions
from gatewise.messages import choose, listed, shown

X = np.arange(60.0).reshape(30, 2) ** 0.5
Y = np.arange(30.0) % 7
LONG = [{"a" * 300: list(range(500))}] * 100


class Broken:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [LONG, "x" * 10_000, np.arange(1e5), {"a": LONG}, Broken(), pd.DataFrame(X)])
def test_any_value_is_shown_in_a_short_line(value):
    text = shown(value)
    assert len(text) <= 120
    assert "\n" not in text


@pytest.mark.parametrize("value", ["a", 1.5, (1, 2), ["a", None], {"b": 1}, True, 7, "ß"])
def test_short_values_are_shown_as_python_writes_them(value):
    assert shown(value) == repr(value)


PARAMETERS = [name for name in GatedRegressor().get_params() if name not in ("verbose", "shared_scale", "random_state")]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", [LONG, {"a": LONG}], ids=["list", "dictionary"])
def test_a_parameter_of_the_wrong_kind_is_refused_in_few_words(name, value):
    with pytest.raises((InputError, TypeError)) as refused:
        GatedRegressor(**{"n_starts": 1, "random_state": 0, name: value}).fit(X, Y)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize("estimator", [GatedRegressor(1), GatedClassifier(1)])
@pytest.mark.parametrize("value", [LONG, {"a": LONG}, [Broken()] * 30, "x" * 10_000, ["x" * 10_000] * 30])
def test_data_of_the_wrong_kind_are_refused_in_few_words(estimator, value):
    for arguments in ((value, Y), (X, value), (X, Y, value)):
        with pytest.raises((InputError, TypeError)) as refused:
            estimator.fit(*arguments)
        assert len(str(refused.value)) < 700


def test_many_columns_are_not_all_listed():
    frame = pd.DataFrame(np.ones((3, 5000)), columns=[f"column {j}" for j in range(5000)])
    with pytest.raises(InputError, match=r"'column 19' and 4980 more: did you mean 'column 77'\?"):
        GatedRegressor(1, gate_features=["colum 77"]).fit(frame, [1.0, 2.0, 4.0])
    assert listed(range(3)) == "0, 1, 2"


@pytest.mark.parametrize(
    ("parameters", "meant"),
    [
        ({"family": "poison"}, "poisson"),
        ({"family": "Gamma"}, "gamma"),
        ({"gate": "softmx"}, "softmax"),
        ({"gate": "top-k"}, "top_k"),
        ({"expert": "linaer"}, "linear"),
        ({"family": "binomial", "family_options": {"trails": 3}}, "trials"),
        ({"n_starts": 1, "init": "splitt"}, "split"),
        ({"objective": "least-squares"}, "least_squares"),
        ({"expert_features": [0, "x1."]}, "x1"),
    ],
)
def test_a_name_that_is_nearly_right_gets_a_suggestion(parameters, meant):
    with pytest.raises(InputError, match=rf"did you mean '{meant}'\?"):
        GatedRegressor(**parameters).fit(X, Y)


def test_a_data_set_and_a_file_get_a_suggestion(refused):
    with pytest.raises(
        InputError, match=r"there is no data set 'ethanl': did you mean 'ethanol'\? choose one of aphids"
    ):
        datasets.load("ethanl")
    assert "did you mean 'ethanol'? check the name, or choose one of" in refused("fit", "ethanl", "--target", "NO")
    assert "unknown family 'poison': did you mean 'poisson'?" in refused(
        "fit", "ethanol", "--target", "NO", "--family", "poison"
    )


def test_what_is_like_nothing_is_only_answered_by_the_list():
    assert choose("zzz", ["a", "b"]) == "choose one of a, b"
    assert choose(["a"], ["a", "b"]) == "choose one of a, b"
    assert choose("normal", ["binomial", "gaussian"]) == "choose one of binomial, gaussian"
    with pytest.raises(InputError, match="unknown dtype 'int': choose one of float64, float32"):
        FitOptions(dtype="int")


def test_an_integer_that_python_does_not_write_is_described():
    assert shown(10**5000) == "<an integer of 16610 bits>"
