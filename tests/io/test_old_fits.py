"""Fits that were saved before December 2026, when the default model had coordinates of its own."""

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, fit
from gatewise.fit.standardisation import Standardisation
from gatewise.io.fit_kinds import Packer, Unpacker
from tests.helpers import mixture

GENERATOR = np.random.default_rng(0)
X = np.array([1.0, 40.0]) * GENERATOR.normal(size=(80, 2)) + np.array([3.0, -200.0])
Y = 70.0 + np.where(X[:, 0] > 3.0, 5.0 * X[:, 0], -0.1 * X[:, 1]) + GENERATOR.normal(size=80)


def packed_as_before(result, packer, **changed):
    """What a file of then holds of a fit of today."""
    coordinates, k = result.coordinates, result.model.n_experts
    nothing = torch.zeros(coordinates.size, dtype=torch.float64)
    _, experts = coordinates.user_parameters(coordinates.full(nothing))
    slope = experts["weight"][0].numpy() if "weight" in experts else np.empty(0)
    x, gate_x = (
        Standardisation(*(each.numpy() for each in units)) if units is not None else Standardisation(*np.empty((2, 0)))
        for units in (coordinates.units.experts, coordinates.units.gate)
    )
    layout = {
        "n_experts": k,
        "gate_size": 1 + len(gate_x.mean),
        "expert_size": 1 + len(slope),
        "shared_scale": result.model.experts.shared_scale,
        **changed,
    }
    fields = {
        "features": x,
        "gate_features": gate_x,
        "baseline_intercept": float(experts["bias"][0]),
        "baseline_slope": slope,
        "target_scale": float(coordinates.units.target[1]),
    }
    packed = {name: packer.pack(value) for name, value in fields.items()}
    return {"$": "LinearCoordinates", "fields": {"layout": {"$": "Layout", "fields": layout}, **packed}}


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 2, 1), (2, 0, 3), (2, 2, 2, True), (2, 2, 2, False, True)], ids=str)
def test_they_mean_what_they_meant(sizes):
    result = fit(mixture(*sizes), X, Y, options=FitOptions(n_starts=1, max_iter=5))
    packer = Packer()
    packed = packed_as_before(result, packer)
    found, expected = Unpacker(packer.arrays, packer.shared).unpack(packed), result.coordinates
    names = (["a", "b"], ["a", "b"][: sizes[1]], "y")
    assert found.quantities(*names) == expected.quantities(*names)
    assert (found.size, found.n_gate) == (expected.size, expected.n_gate)
    np.testing.assert_allclose(found.estimates(result.theta), expected.estimates(result.theta), rtol=1e-12)
    np.testing.assert_allclose(found.jacobian(result.theta), expected.jacobian(result.theta), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("changed", [{"gate_size": 5}, {"expert_size": 2}, {"n_experts": "2"}, {"more": 1}], ids=str)
def test_what_does_not_fit_together_is_refused(changed):
    result = fit(mixture(2, 2, 2), X, Y, options=FitOptions(n_starts=1, max_iter=1))
    packer = Packer()
    packed = packed_as_before(result, packer, **changed)
    with pytest.raises(InputError, match=r"coordinates|layout"):
        Unpacker(packer.arrays, packer.shared).unpack(packed)
