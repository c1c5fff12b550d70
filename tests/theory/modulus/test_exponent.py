"""The rule by which an exponent is read off distances."""

import numpy as np
import pytest

from gatewise.theory.modulus.design import Extrapolation
from gatewise.theory.modulus.exponent import fit_exponent

FLOOR = 1e-19
DELTAS = np.geomspace(0.3, 1e-4, 8)


def test_a_drift_with_the_box_is_extrapolated():
    found = fit_exponent(DELTAS, DELTAS**3 * np.exp(-2 * np.sqrt(DELTAS)), FLOOR, Extrapolation())
    assert found.slopes[0] < 2.7
    assert abs(found.value - 3) < 0.005
    assert found.low <= 3 <= found.high
    assert found.flags == ()


def test_distances_near_the_floor_are_left_out():
    values = np.maximum(DELTAS**6, 2e-18)
    found = fit_exponent(DELTAS, values, FLOOR, Extrapolation())
    assert abs(found.value - 6) < 0.01
    assert any("above the rounding floor" in flag for flag in found.flags)


def test_flat_from_the_start_and_after_one_failure():
    assert fit_exponent(DELTAS, np.full(8, FLOOR), FLOOR, Extrapolation()).is_flat
    failed = np.full(8, FLOOR)
    failed[0] = 1e-5
    assert fit_exponent(DELTAS, failed, FLOOR, Extrapolation()).is_flat


def test_a_steep_fall_is_not_called_flat():
    found = fit_exponent(DELTAS[:4], np.array([1e-12, 1e-16, FLOOR, FLOOR]), FLOOR, Extrapolation())
    assert not found.is_flat
    assert np.isnan(found.value)
    assert found.flags == ("too few distances above the rounding floor",)


def test_zero_at_large_displacements_only_is_another_copy():
    values = DELTAS**2
    values[:2] = FLOOR
    found = fit_exponent(DELTAS, values, FLOOR, Extrapolation())
    assert abs(found.value - 2) < 0.01
    assert "copy of the truth" in found.flags[0]


@pytest.mark.parametrize("place", [4, 6])
def test_jumps_are_flagged(place):
    values = DELTAS**2
    values[place] *= 3
    found = fit_exponent(DELTAS, values, FLOOR, Extrapolation())
    assert any("jump" in flag for flag in found.flags)
    assert found.high - found.low > 0.3
