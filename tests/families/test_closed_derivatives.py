"""Log-densities and derivatives in closed form say what the formulas say, in the tails too."""

import mpmath
import numpy as np
import pytest
import torch

from gatewise.families import Categorical, Gamma, NegativeBinomial, Poisson, StudentT
from gatewise.families.smooth import stirling_slopes
from gatewise.ops.channels_torch import channel_derivatives
from tests.families.cases import ALL, random_problem, tensor

CANONICAL = {"poisson": Poisson(), "categorical_2": Categorical(2), "categorical_4": Categorical(4)}
# Log-densities on part of the line only: elsewhere they are −∞, and the slopes 0.
SUPPORTED = {**CANONICAL, "gamma": Gamma(), "negative_binomial": NegativeBinomial()}
CLOSED = {**SUPPORTED, "student_t": StudentT(), "student_t_5": StudentT(5.0)}
# Derivatives by r or ν are sums of terms of size 1 that can cancel; the rest are products.
ROUNDING = {"negative_binomial": 1e-14, "student_t": 1e-14}
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
    torch.testing.assert_close(first, expected_first, rtol=1e-11, atol=ROUNDING.get(family.name, 1e-300))


@closed
def test_second_derivatives_agree_with_automatic_differentiation(family):
    y, location, log_scale = random_problem(family, batch=(50,))
    second = family.closed_derivatives(y, location, log_scale, True)[2]
    # PyTorch's trigamma, which the formula of a family with a shape needs, is right to eight digits.
    close = 1e-12 if family.n_dispersion == 0 else 1e-7
    sums = 1e-8 if family.name in ROUNDING else 0.0
    torch.testing.assert_close(second, by_differentiation(family, y, location, log_scale)[2], rtol=close, atol=sums)


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


@pytest.mark.parametrize("family", SUPPORTED.values(), ids=SUPPORTED)
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


def _student_t(y, location, log_sigma, log_df):
    df, z = mpmath.exp(log_df), (y - location) / mpmath.exp(log_sigma)
    rest = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(df * mpmath.pi) / 2
    return rest - log_sigma - (df + 1) / 2 * mpmath.log1p(z * z / df)


def _negative_binomial(y, location, log_size):
    size = mpmath.exp(log_size)
    choices = mpmath.loggamma(y + size) - mpmath.loggamma(size) - mpmath.loggamma(y + 1) - y * log_size
    return choices + y * location - (size + y) * mpmath.log1p(mpmath.exp(location - log_size))


@pytest.mark.parametrize(
    ("family", "formula", "y", "channels"),
    [
        (StudentT(), _student_t, 1.0, (0.0, 0.0, 0.5)),
        (StudentT(), _student_t, 1e6, (0.0, 0.0, 1.0)),
        (StudentT(), _student_t, 50.0, (0.0, 0.0, -5.0)),
        (StudentT(), _student_t, 0.5, (0.2, 1.0, 12.0)),
        (StudentT(), _student_t, 2.0, (0.0, 0.0, 30.0)),
        (NegativeBinomial(), _negative_binomial, 0.0, (0.0, 0.0)),
        (NegativeBinomial(), _negative_binomial, 7.0, (2.0, -5.0)),
        (NegativeBinomial(), _negative_binomial, 1e6, (13.0, 3.0)),
        (NegativeBinomial(), _negative_binomial, 100.0, (4.0, 20.0)),
        (NegativeBinomial(), _negative_binomial, 3.0, (1.0, 30.0)),
    ],
)
def test_derivatives_of_families_with_a_shape_by_sixty_digits(family, formula, y, channels):
    n_channels = len(channels)
    orders = np.eye(n_channels, dtype=int)
    with mpmath.workdps(60):
        point = tuple(map(mpmath.mpf, channels))

        def derivative(order):
            return float(mpmath.diff(lambda *at: formula(mpmath.mpf(y), *at), point, tuple(map(int, order))))

        expected_first = [derivative(orders[i]) for i in range(n_channels)]
        expected_second = [[derivative(orders[i] + orders[j]) for j in range(n_channels)] for i in range(n_channels)]
    dispersions = tensor([channels[1:]]) if n_channels == 3 else tensor(channels[1:])
    _, first, second = family.closed_derivatives(tensor([y]), tensor([[channels[0]]]), dispersions, True)
    # Terms as large as the target cancel in the first derivative by log r.
    rounding = 1e-16 * max(y, 30.0)
    np.testing.assert_allclose(first[0, 0], expected_first, rtol=1e-13, atol=rounding)
    np.testing.assert_allclose(second[0, 0], expected_second, rtol=1e-13, atol=rounding)


@pytest.mark.parametrize(
    ("family", "dispersion"),
    [(Gamma(), ()), (NegativeBinomial(), ()), (StudentT(), (0.3,))],
    ids=("gamma", "negative_binomial", "student_t"),
)
def test_a_shape_beyond_its_bound_has_no_derivative(family, dispersion):
    y, location = tensor([1.0]), tensor([[0.5]])
    for log_shape in (-400.0, 400.0):
        log_scale = tensor([[*dispersion, log_shape]]) if dispersion else tensor([log_shape])
        _, first, second = family.closed_derivatives(y, location, log_scale, True)
        assert first[0, 0, -1] == 0.0
        assert (second[0, 0, -1] == 0.0).all()
        assert (second[0, 0, :, -1] == 0.0).all()
