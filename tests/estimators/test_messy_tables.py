"""Small tables of all kinds (ties, indicators, heavy tails, exact fits, few rows): a fit answers with finite numbers.

The seeds were drawn freely, but for 93: a gate that separates while the experts themselves are not identified.
"""

import numpy as np
import pytest
import torch

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError

# What such a table may be refused for.
REFUSALS = ("is constant at", "linear combination", "rows with a positive weight", "every sample_weight is zero")
PROBABILITIES = (0.01, 0.5, 0.99)


def messy(seed):
    """A table (X, y, weights) and the options of its fit."""
    rng = np.random.default_rng(seed)
    n, d, k = int(rng.integers(1, 60)), int(rng.integers(0, 5)) + 1, int(rng.integers(1, 6))
    X = rng.normal(size=(n, d))
    kind = rng.integers(0, 6)
    X = {1: np.round(X), 2: np.exp(3.0 * X), 3: X > 0.0}.get(int(kind), X).astype(float)
    if rng.uniform() < 0.3:
        y = rng.normal(size=n)
    elif rng.uniform() < 0.5:
        y = np.round(2.0 * rng.normal(size=n))
    else:
        y = X @ np.ones(d) + 0.01 * rng.normal(size=n) * rng.integers(0, 2)
    weight = np.ones(n) if rng.uniform() < 0.5 else rng.integers(0, 3, size=n) * rng.choice([1.0, 0.1, 1e6])
    options = {
        "gate_features": [None, [], [0]][rng.integers(0, 3)],
        "gate_ridge": float(rng.integers(0, 2)),
        "variance_prior": [None, (1.0, 0.1)][rng.integers(0, 2)],
        "shared_scale": bool(rng.integers(0, 2)),
        "expert": ["linear", "constant"][rng.integers(0, 2)],
    }
    return X, y, weight, GatedRegressor(k, n_starts=int(rng.integers(1, 4)), random_state=seed, **options)


def refusal_of(estimator, X, y, weight):
    """Fit, and return the message of a refusal or None."""
    try:
        estimator.fit(X, y, sample_weight=weight)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
@pytest.mark.parametrize("seed", [*range(40), 93])
def test_a_fit_answers_with_finite_numbers_or_refuses_with_a_reason(seed):
    X, y, weight, estimator = messy(seed)
    refusal = refusal_of(estimator, X, y, weight)
    if refusal is not None:
        assert any(reason in refusal for reason in REFUSALS)
        return
    log_density = estimator.predict_log_density(X, y)
    # Ten digits of the log-likelihood survive the change from internal to user units on tables this tame.
    assert estimator.log_likelihood_ == pytest.approx(weight @ log_density, rel=1e-8, abs=1e-6)
    for answer in (estimator.predict(X), estimator.responsibilities(X, y), estimator.sample(X, 0)):
        assert np.isfinite(answer).all()
    quantiles = estimator.predict_quantile(X, PROBABILITIES)
    assert (np.diff(quantiles, axis=1) >= 0.0).all()
    gate_x = torch.tensor(X[:, [estimator.feature_names_.index(name) for name in estimator.gate_feature_names_]])
    for column, probability in enumerate(PROBABILITIES):
        reached = estimator.model_.distribution_function(torch.tensor(X), torch.tensor(quantiles[:, column]), gate_x)
        # σ on its floor beside a location of order 1 leaves about 1e-12 of a standard deviation.
        np.testing.assert_allclose(reached.numpy(), probability, atol=1e-7)
    assert estimator.summary().statistics["n_parameters"] == estimator.n_parameters_ == len(estimator.conf_int())
