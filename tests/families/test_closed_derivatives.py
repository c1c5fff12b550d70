"""Compiled log-densities and their derivatives say what the formulas say, in the tails too."""

import pytest
import torch

from gatewise.families import Categorical, Poisson
from gatewise.ops.channels_torch import channel_derivatives
from tests.families.cases import ALL, random_problem, tensor

CLOSED = {"poisson": Poisson(), "categorical_2": Categorical(2), "categorical_4": Categorical(4)}
NONE = torch.zeros(3, 0, dtype=torch.float64)
closed = pytest.mark.parametrize("family", CLOSED.values(), ids=CLOSED)


def by_differentiation(family, y, location):
    return channel_derivatives(family.log_density, y, location, NONE)


def test_other_families_leave_it_to_automatic_differentiation():
    named = {family.name for family in CLOSED.values()}
    for family in ALL.values():
        y, location, _ = random_problem(family)
        assert (family.closed_derivatives(y, location, True) is not None) == (family.name in named), family


@closed
@pytest.mark.parametrize("spread", [1.0, 30.0, 600.0])
def test_value_and_derivatives_are_those_of_the_formula(family, spread):
    y, location, _ = random_problem(family, batch=(400,))
    location = spread * location
    value, first, _ = family.closed_derivatives(y, location, True)
    expected, expected_first, _ = by_differentiation(family, y, location)
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-300)
    torch.testing.assert_close(first, expected_first, rtol=1e-11, atol=1e-300)


@closed
def test_second_derivatives_agree_with_automatic_differentiation(family):
    y, location, _ = random_problem(family, batch=(50,))
    second = family.closed_derivatives(y, location, True)[2]
    torch.testing.assert_close(second, by_differentiation(family, y, location)[2], rtol=1e-12, atol=0.0)


@closed
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_minus_the_second_derivative_is_the_information(family, spread):
    # Automatic differentiation rounds the second derivatives of a tail to 0; the information does not.
    y, location, log_scale = random_problem(family, batch=(50,))
    second = family.closed_derivatives(y, spread * location, True)[2]
    information = family.information(spread * location, log_scale)
    torch.testing.assert_close(-second.reshape(information.shape), information, rtol=1e-12, atol=1e-16)


@closed
def test_second_derivatives_only_where_they_are_wanted(family):
    y, location, _ = random_problem(family)
    value, first, second = family.closed_derivatives(y, location, False)
    full = family.closed_derivatives(y, location, True)
    assert second is None
    assert torch.equal(value, full[0])
    assert torch.equal(first, full[1])


@closed
def test_targets_that_cannot_be_have_no_density_and_no_slope(family):
    y = tensor([-1.0, 0.5, float("nan"), float("inf")])
    _, location, _ = random_problem(family, batch=(4,))
    value, first, second = family.closed_derivatives(y, location, True)
    assert (value == -torch.inf).all()
    assert (first == 0.0).all()
    assert (second == 0.0).all()


def test_counts_beyond_the_table_of_factorials():
    y = tensor([254.0, 255.0, 256.0, 1e6])
    location = tensor([[5.0], [5.0], [5.0], [13.0]])
    found = Poisson().closed_derivatives(y, location, False)[0]
    torch.testing.assert_close(found, Poisson().log_density(y, location, NONE[:1]), rtol=1e-13, atol=0.0)
