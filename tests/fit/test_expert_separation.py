"""Experts whose probabilities or means run to the boundary are named; what does not is reported given them."""

import numpy as np
import pytest

from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.inference import Names, parameter_table
from gatewise.model import MixtureOfExperts

NAMES = Names(["x"], ["x"], "y")


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).normal(size=(300, 1))


def test_a_perfectly_separated_logistic_expert(x):
    result = fit(MixtureOfExperts.build("softmax", "linear", "bernoulli", 1, 1), x, (x[:, 0] > 0.1).astype(float))
    assert result.status is FitStatus.EXPERT_SEPARATED
    assert "Expert 1" in result.findings[0].message
    assert "expert_ridge=1" in result.findings[0].message
    assert parameter_table(result, NAMES)["standard_error"].isna().all()


def test_classes_that_separate(x):
    y = np.digitize(x[:, 0], [-0.5, 0.5]).astype(float)
    model = MixtureOfExperts.build("softmax", "linear", "categorical", 1, 1, family_options={"n_classes": 3})
    assert fit(model, x, y).status is FitStatus.EXPERT_SEPARATED


def test_an_expert_of_zeros_and_one_of_counts(x):
    """Zeros on the left, counts of about 20 on the right: the mean of one expert runs to 0, the other's is as alone."""
    generator = np.random.default_rng(4)
    right = x[:, 0] > 0.0
    y = np.where(right, generator.poisson(20.0, 300), 0).astype(float)
    model = MixtureOfExperts.build("softmax", "constant", "poisson", 1, 2)
    result = fit(model, x, y, options=FitOptions(n_starts=4))
    codes = {finding.code for finding in result.findings}
    assert FitStatus.EXPERT_SEPARATED in codes
    table = parameter_table(result, NAMES)
    experts = table[table["component"].str.startswith("expert")].reset_index(drop=True)
    counted = int(experts["estimate"].argmax())
    mean = y[right].mean()
    assert experts["estimate"][counted] == pytest.approx(np.log(mean), abs=1e-6)
    # The standard error of the logarithm of a Poisson mean.
    assert experts["standard_error"][counted] == pytest.approx(1.0 / np.sqrt(mean * right.sum()), rel=1e-5)
    assert np.isnan(experts["standard_error"][1 - counted])


def test_a_ridge_gives_finite_coefficients(x):
    model = MixtureOfExperts.build("softmax", "linear", "bernoulli", 1, 1)
    result = fit(model, x, (x[:, 0] > 0.1).astype(float), options=FitOptions(expert_ridge=1.0))
    assert result.status is FitStatus.CONVERGED
    table = parameter_table(result, NAMES)
    assert table["standard_error"].notna().all()
    assert table["estimate"].abs().max() < 20.0


@pytest.mark.parametrize("seed", range(5))
def test_no_alarm_where_nothing_separates(seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(400, 1))
    first = generator.uniform(size=400) < 1.0 / (1.0 + np.exp(-1.5 * x[:, 0]))
    y = generator.poisson(np.exp(np.where(first, 1.5 + 0.4 * x[:, 0], -0.2))).astype(float)
    model = MixtureOfExperts.build("softmax", "linear", "poisson", 1, 2)
    result = fit(model, x, y, options=FitOptions(n_starts=4))
    assert result.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert FitStatus.EXPERT_SEPARATED not in [finding.code for finding in result.findings]


def test_a_ridge_holds_slopes_and_an_expert_of_zeros_still_separates(x):
    """The intercept is not under the ridge: it runs off by itself, and that is what the status must say."""
    generator = np.random.default_rng(5)
    never = generator.uniform(size=300) < 0.4
    y = np.where(never, 0, generator.poisson(20.0, 300)).astype(float)
    model = MixtureOfExperts.build("softmax", "linear", "poisson", 1, 2, n_gate_features=0)
    result = fit(model, x, y, options=FitOptions(n_starts=4, expert_ridge=1.0))
    assert result.status is FitStatus.EXPERT_SEPARATED
    table = parameter_table(result, Names(["x"], [], "y")).set_index(["component", "term"])["standard_error"]
    assert np.isfinite(table["expert 1"]).all()
    assert table["expert 2"].isna().all()
