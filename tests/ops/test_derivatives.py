"""Values with two derivatives of functions of a vector: closed forms, and functions without a second derivative."""

import pytest
import torch

from gatewise.ops.derivatives import two_derivatives

POINT = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
SLOPES = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROUNDING = {"rtol": 1e-13, "atol": 1e-13}


def test_an_exponential_of_a_linear_form():
    with torch.no_grad():
        value, first, second = two_derivatives(lambda p: (SLOPES @ p).exp(), POINT)
    expected = (SLOPES @ POINT).exp()
    torch.testing.assert_close(value, expected, **ROUNDING)
    torch.testing.assert_close(first, expected[..., None] * SLOPES, **ROUNDING)
    outer = SLOPES[..., :, None] * SLOPES[..., None, :]
    torch.testing.assert_close(second, expected[..., None, None] * outer, **ROUNDING)
    assert not any(found.requires_grad for found in (value, first, second))


@pytest.mark.parametrize("size", [0, 3])
def test_a_constant_has_derivatives_of_0(size):
    value, first, second = two_derivatives(lambda p: torch.ones(4, 2, dtype=torch.float64), POINT[:size])
    assert torch.equal(value, torch.ones(4, 2, dtype=torch.float64))
    assert torch.equal(first, torch.zeros(4, 2, size, dtype=torch.float64))
    assert torch.equal(second, torch.zeros(4, 2, size, size, dtype=torch.float64))


def test_a_linear_function_has_a_second_derivative_of_0():
    _, first, second = two_derivatives(lambda p: SLOPES @ p, POINT)
    torch.testing.assert_close(first, SLOPES, **ROUNDING)
    assert torch.equal(second, torch.zeros(4, 2, 3, 3, dtype=torch.float64))


def test_entries_without_effect_stay_at_0():
    _, first, second = two_derivatives(lambda p: p[:1] ** 2, POINT)
    torch.testing.assert_close(first, torch.tensor([[0.6, 0.0, 0.0]], dtype=torch.float64), **ROUNDING)
    expected = torch.zeros(1, 3, 3, dtype=torch.float64)
    expected[0, 0, 0] = 2.0
    torch.testing.assert_close(second, expected, **ROUNDING)
