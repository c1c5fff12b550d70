"""The search finds exponents that are known, in functions that do not show them."""

import numpy as np
import pytest

from gatewise.theory.modulus.design import ModulusDesign, Search, Window
from gatewise.theory.modulus.exponent import fit_exponent
from gatewise.theory.modulus.profile import Space, profile
from tests.theory.modulus.controls import LONG, Control

SPACE = Space(displaced=0, held=(), shares=(), groups=(0, 0, 0, 1, 1, 1, 2, 2))
QUICK = ModulusDesign(search=Search(starts=2), window=Window(largest=0.3, smallest=1e-3, per_decade=3))


def measured(control, design):
    found = profile(control, SPACE, design)
    return fit_exponent(found.deltas, found.values, control.floor, design.extrapolation)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, np.inf])
def test_derivatives_of_the_controls(exponent):
    control = Control(exponent, seed=3)
    point = np.random.default_rng(0).normal(scale=0.3, size=control.size).astype(LONG)
    step = LONG(1e-7)
    change = [
        (control.residual(point + step * e) - control.residual(point - step * e)) / (2 * step)
        for e in np.eye(control.size, dtype=LONG)
    ]
    assert np.abs(control.jacobian(point) - np.array(change, float).T).max() < 1e-9


@pytest.mark.parametrize("exponent", [1.0, 1.5, 3.0, 6.0])
def test_exponents_are_found(exponent):
    found = measured(Control(exponent, seed=1), QUICK)
    assert abs(found.value - exponent) < 0.05
    assert found.low <= exponent <= found.high
    assert found.flags == ()


def test_a_flat_direction_is_called_flat():
    found = measured(Control(np.inf, seed=1), QUICK)
    assert found.is_flat
    assert np.isnan(found.value)


@pytest.mark.slow
def test_blind_controls():
    """Each seed hides each function in its own coordinates, in an order that the search does not know."""
    design = ModulusDesign()
    for seed in range(10, 15):
        order = np.random.default_rng(seed).permutation([1.0, 1.5, 2.0, 3.0, 4.0, 6.0, np.inf])
        for place, exponent in enumerate(order):
            found = measured(Control(exponent, seed=100 * seed + place), design)
            if np.isinf(exponent):
                assert found.is_flat, seed
            else:
                assert abs(found.value - exponent) < 0.05, (seed, exponent, found.value)
                assert found.low <= exponent <= found.high, (seed, exponent, found.low, found.high)
