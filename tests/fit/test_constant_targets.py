"""Targets without information, and weights that leave little: both are said in so many words."""

import numpy as np
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import FitWarning, InputError

X = np.random.default_rng(0).normal(size=(60, 1))


@pytest.mark.parametrize(
    ("family", "y", "options"),
    [
        ("poisson", np.zeros(60), None),
        ("negative_binomial", np.zeros(60), None),
        ("bernoulli", np.zeros(60), None),
        ("bernoulli", np.ones(60), None),
        ("binomial", np.full(60, 3.0), {"trials": 3}),
        ("binomial", np.column_stack([np.zeros(60), 1.0 + np.arange(60) % 4]), None),
    ],
)
def test_counts_that_are_all_at_an_edge_are_constant(family, y, options):
    for k in (1, 2):
        with pytest.raises(InputError, match=r"the target 'y' is constant at [013]: there is nothing to explain"):
            GatedRegressor(k, family=family, family_options=options).fit(X, y)


def test_rows_of_weight_zero_do_not_make_a_target_vary():
    y, weight = np.zeros(60), np.ones(60)
    y[0], weight[0] = 5.0, 0.0
    with pytest.raises(InputError, match="the target 'y' is constant at 0"):
        GatedRegressor(1, family="poisson").fit(X, y, sample_weight=weight)


def test_weights_that_sum_to_one_are_to_be_scaled_to_n():
    random = np.random.default_rng(0)
    y = np.where(random.uniform(size=60) < 0.5, 1.0 + 2.0 * X[:, 0], -X[:, 0]) + 0.1 * random.normal(size=60)
    estimator = GatedRegressor(2, n_starts=2, random_state=0)
    with pytest.warns(FitWarning, match=r"weights of the 60 rows sum to 1\. .*, scale them to n"):
        estimator.fit(X, y, sample_weight=np.full(60, 1.0 / 60.0))
    with pytest.warns(FitWarning) as warned:
        estimator.fit(X, y, sample_weight=np.full(60, 1.0))
    assert "sum to" not in str(warned[0].message)
