"""Quantiles of mixtures of distributions whose distribution functions are known."""

import numpy as np
import pytest
from scipy import stats

from gatewise.ops.mixture_quantile import continuous_quantile, discrete_quantile

EPSILON = float(np.finfo(float).eps)


def mixture_of(components, weights):
    """The distribution function by row, and its components."""

    def distribution(y, rows):
        return sum(w[rows] * c.cdf(y) for w, c in zip(weights, components, strict=True))

    return distribution


def ends(components, n, probability):
    each = np.array([c.ppf(probability) for c in components])
    return np.full(n, each.min()), np.full(n, each.max())


@pytest.mark.parametrize("probability", [1e-6, 0.2, 0.5, 0.999])
def test_continuous_quantiles_are_roots(probability):
    components = [stats.norm(-3.0, 0.1), stats.norm(4.0, 2.0)]
    share = np.linspace(0.0, 1.0, 11)
    distribution = mixture_of(components, [share, 1.0 - share])
    found = continuous_quantile(distribution, *ends(components, 11, probability), probability)
    np.testing.assert_allclose(distribution(found, np.arange(11)), probability, rtol=1e-9)
    # All the weight on one component: its own quantile.
    np.testing.assert_allclose(found[[0, -1]], [components[1].ppf(probability), components[0].ppf(probability)])


def test_one_component_is_not_searched():
    low = np.array([1.0, 2.0])

    def never(y, rows):
        raise AssertionError("nothing to search")

    assert continuous_quantile(never, low, low, 0.3) is low


@pytest.mark.parametrize("probability", [1e-6, 0.2, 0.5, 0.999])
def test_discrete_quantiles_are_the_smallest_counts_that_reach(probability):
    components = [stats.poisson(2.0), stats.poisson(1e6), stats.binom(30, 0.4)]
    weights = np.random.default_rng(1).dirichlet(np.ones(3), size=40).T
    distribution = mixture_of(components, weights)
    rows = np.arange(40)
    found = discrete_quantile(distribution, *ends(components, 40, probability), probability, EPSILON)
    assert (found == np.floor(found)).all()
    assert (distribution(found, rows) >= probability).all()
    assert (distribution(found - 1.0, rows) < probability).all()


def test_a_shortfall_by_rounding_counts_as_reached_and_a_larger_one_does_not():
    for shortfall, expected in ((1e-16, 0.0), (1e-12, 1.0)):
        found = discrete_quantile(
            lambda y, rows, lack=shortfall: np.where(y >= 1.0, 1.0, 0.5 - lack),
            np.array([0.0]),
            np.array([1.0]),
            0.5,
            EPSILON,
        )
        assert found.tolist() == [expected]


@pytest.mark.parametrize("high", [1e300, np.inf])
def test_brackets_without_end_are_left(high):
    # Whole numbers above 2^53 are not all there: the search ends at neighbouring floating numbers.
    found = discrete_quantile(
        lambda y, rows: np.where(y >= 1e290, 1.0, 0.0), np.array([0.0]), np.array([high]), 0.5, EPSILON
    )
    assert found[0] == pytest.approx(1e290 if np.isfinite(high) else np.inf)


def test_no_rows():
    nothing = np.zeros(0)
    assert discrete_quantile(lambda y, rows: y, nothing, nothing, 0.5, EPSILON).shape == (0,)
    assert continuous_quantile(lambda y, rows: y, nothing, nothing, 0.5).shape == (0,)
