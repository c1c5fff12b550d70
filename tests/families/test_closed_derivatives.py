"""Log-densities and derivatives in closed form say what the formulas say, in the tails too."""

import mpmath
import numpy as np
import pytest
import torch

from gatewise.families import Categorical, Gamma, Poisson
from gatewise.families.smooth import stirling_slopes
from gatewise.ops.channels_torch import channel_derivatives
from tests.families.cases import ALL, random_problem, tensor

CANONICAL = {"poisson": Poisson(), "categorical_2": Categorical(2), "categorical_4": Categorical(4)}
CLOSED = {**CANONICAL, "gamma": Gamma()}
NONE = torch.zeros(3, 0, dtype=torch.float64)
closed = pytest.mark.parametrize("family", CLOSED.values(), ids=CLOSED)
canonical = pytest.mark.parametrize("family", CANONICAL.values(), ids=CANONICAL)


def by_differentiation(family, y, location, log_scale):
    return channel_derivatives(family.log_density, y, location, log_scale)


def test_other_families_leave_it_to_automatic_differentiation():
    named = {family.name for family in CLOSED.values()}
    for family in ALL.values():
        y, location, log_scale = random_problem(family)
        assert (family.closed_derivatives(y, location, log_scale, True) is not None) == (family.name in named), family


@closed
@pytest.mark.parametrize("spread", [1.0, 30.0, 600.0])
def test_value_and_derivatives_are_those_of_the_formula(family, spread):
    y, location, log_scale = random_problem(family, batch=(400,))
    location = spread * location
    value, first, _ = family.closed_derivatives(y, location, log_scale, True)
    expected, expected_first, _ = by_differentiation(family, y, location, log_scale)
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-300)
    torch.testing.assert_close(first, expected_first, rtol=1e-11, atol=1e-300)


@closed
def test_second_derivatives_agree_with_automatic_differentiation(family):
    y, location, log_scale = random_problem(family, batch=(50,))
    second = family.closed_derivatives(y, location, log_scale, True)[2]
    # PyTorch's trigamma, which the formula of a family with a shape needs, is right to eight digits.
    close = 1e-12 if family.n_dispersion == 0 else 1e-7
    torch.testing.assert_close(second, by_differentiation(family, y, location, log_scale)[2], rtol=close, atol=0.0)


@canonical
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_minus_the_second_derivative_is_the_information(family, spread):
    # Automatic differentiation rounds the second derivatives of a tail to 0; the information does not.
    y, location, log_scale = random_problem(family, batch=(50,))
    second = family.closed_derivatives(y, spread * location, log_scale, True)[2]
    information = family.information(spread * location, log_scale)
    torch.testing.assert_close(-second.reshape(information.shape), information, rtol=1e-12, atol=1e-16)


@closed
def test_second_derivatives_only_where_they_are_wanted(family):
    y, location, log_scale = random_problem(family)
    value, first, second = family.closed_derivatives(y, location, log_scale, False)
    full = family.closed_derivatives(y, location, log_scale, True)
    assert second is None
    assert torch.equal(value, full[0])
    assert torch.equal(first, full[1])


@closed
def test_targets_that_cannot_be_have_no_density_and_no_slope(family):
    y = tensor([-1.0, 0.5 if family.is_discrete else 0.0, float("nan"), float("inf")])
    _, location, log_scale = random_problem(family, batch=(4,))
    value, first, second = family.closed_derivatives(y, location, log_scale, True)
    assert (value == -torch.inf).all()
    assert (first == 0.0).all()
    assert (second == 0.0).all()


def test_counts_beyond_the_table_of_factorials():
    y = tensor([254.0, 255.0, 256.0, 1e6])
    location = tensor([[5.0], [5.0], [5.0], [13.0]])
    found = Poisson().closed_derivatives(y, location, NONE[:1], False)[0]
    torch.testing.assert_close(found, Poisson().log_density(y, location, NONE[:1]), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("log_shape", [-30.0, -5.0, 0.0, 2.7, 2.8, 9.0, 25.0])
def test_slopes_of_stirlings_rest_by_sixty_digits(log_shape):
    """From 16 on a series: at a = e^25 the plain formula a (ψ(a) − log a) has lost six digits."""
    with mpmath.workdps(60):
        a = mpmath.exp(mpmath.mpf(log_shape))
        slope = a * (mpmath.digamma(a) - mpmath.log(a))
        curvature = slope + a * a * mpmath.polygamma(1, a) - a
    found = stirling_slopes(np.exp([log_shape]))
    np.testing.assert_allclose(found[0], [float(slope)], rtol=1e-12)
    # Below 16 it is a sum of three terms of size 1 that almost cancel.
    np.testing.assert_allclose(found[1], [float(curvature)], rtol=1e-11, atol=1e-15 if log_shape < 2.75 else 0.0)


def test_a_shape_beyond_its_bound_has_no_derivative():
    y, location = tensor([1.0]), tensor([[0.5]])
    for log_shape in (-400.0, 400.0):
        _, first, second = Gamma().closed_derivatives(y, location, tensor([log_shape]), True)
        assert first[0, 0, 1] == 0.0
        assert (second[0, 0, 1] == 0.0).all()
        assert (second[0, 0, :, 1] == 0.0).all()
