"""Options of any size are refused with a sentence, or fitted: never a traceback, never a message without end."""

import numpy as np
import pytest

from gatewise import GatedRegressor
from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, fit

# float(10**400) overflows, and Python writes no integer of more than 4,300 digits.
HUGE = {"30": 10**30, "400": 10**400, "5000": 10**5000, "minus 400": -(10**400)}


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(12)
    x = generator.normal(size=(60, 1))
    return x, np.round(np.abs(4.0 * x[:, 0] + generator.normal(size=60)) + 0.5)


def refusal(rows, **options):
    with pytest.raises(InputError) as caught:
        GatedRegressor(2, **options).fit(*rows)
    message = str(caught.value)
    assert len(message) < 500
    return message


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("name", ["tol", "time_limit", "scale_floor", "gate_ridge", "expert_ridge", "device"])
def test_arguments(name, value):
    # The first is a float; only a share cannot be that large.
    if value == 10**30 and name not in ("scale_floor", "device"):
        FitOptions(**{name: value})
        return
    with pytest.raises(InputError) as caught:
        FitOptions(**{name: value})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("model", [[1.0] * 1000, GatedRegressor(2), None])
def test_what_is_no_model(rows, model):
    with pytest.raises(InputError, match="model must be a MixtureOfExperts, not ") as caught:
        fit(model, *rows)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
def test_numbers_of_experts_trials_targets_and_classes(rows, value):
    with pytest.raises(InputError, match=r"at least|must be") as caught:
        GatedRegressor(value).fit(*rows)
    assert len(str(caught.value)) < 500
    assert "give a whole number from 1 to 9,007" in refusal(rows, family="binomial", family_options={"trials": value})
    refusal(rows, family="multivariate_gaussian", family_options={"n_targets": value})
    refusal(rows, family="categorical", family_options={"n_classes": value})


@pytest.mark.parametrize("value", [1e100, 1e308, 10**200], ids=["1e100", "1e308", "10**200"])
def test_ridges_and_priors_that_would_overflow(rows, value):
    for options in ({"gate_ridge": value}, {"expert_ridge": value}, {"variance_prior": (1.0, value)}):
        assert "take one below 1e+100" in refusal(rows, **options)


def test_targets_and_responsibilities_that_are_no_floats(rows):
    x, y = rows
    with pytest.raises(InputError, match="column 'y' has the value inf in row 3"):
        GatedRegressor(1).fit(x, [*y[:3].tolist(), 10**400, *y[4:].tolist()])
    assert "no valid responsibilities in row 0" in refusal(rows, init=[[10**400, 1]] * 60)


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
@pytest.mark.parametrize("gate", ["dense_to_sparse", "activation_dense_to_sparse"])
def test_temperatures_at_the_edge(rows, gate):
    message = refusal(rows, gate=gate, gate_options={"temperature": 1e-320})
    assert "must be positive and finite, from 1e-100 to 1e+100" in message
    # Gradients overflow at the kinks of such a gate: the fit says by its status that it went nowhere.
    cold = GatedRegressor(2, gate=gate, gate_options={"temperature": 1e-30}, n_starts=1, max_iter=100, random_state=0)
    assert np.isfinite(cold.fit(*rows).log_likelihood_)
