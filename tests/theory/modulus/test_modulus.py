"""Exponents, flat directions and their witnesses, at mixtures whose answer is known from algebra."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from gatewise.exceptions import InputError
from gatewise.theory.modulus import BoxInputs, CoordinateModulus, ModulusDesign, Search, TargetGrid, modulus
from gatewise.theory.modulus.problem import Problem
from gatewise.theory.modulus.special import LONG
from gatewise.theory.modulus.store import read_row, write_row
from gatewise.theory.splitting import fitted_at_truth
from tests.theory.modulus.helpers import LINE, SLOPE, mixture, quick


def hellinger(truth, fitted, rule):
    """√(½ E ∫ (√p − √p*)² dy) by SciPy's densities on a fine grid."""
    nodes, weights = rule
    y = np.linspace(-12.0, 12.0, 4001)
    total = 0.0
    for x, weight in zip(nodes, weights, strict=True):
        densities = []
        for model in (truth, fitted):
            inputs = torch.tensor([[x]], dtype=torch.float64)
            mean, log_scale = model.expert_parameters(inputs)
            share = model.log_weights(inputs).exp()[0].detach().numpy()
            parts = zip(share, mean[0].detach().numpy(), log_scale.exp().detach().numpy(), strict=True)
            densities.append(sum(w * stats.norm.pdf(y, m, s) for w, m, s in parts))
        total += 0.5 * weight * np.trapezoid((np.sqrt(densities[0]) - np.sqrt(densities[1])) ** 2, y)
    return math.sqrt(total)


def test_the_distance_is_the_hellinger_distance():
    truth = mixture("softmax", SLOPE)
    design = ModulusDesign(inputs=BoxInputs(nodes=12), targets=TargetGrid(nodes=241, low=-12.0, high=12.0))
    problem = Problem(truth, fitted_at_truth(truth, [0, 0, 1]), [0, 0, 1], design)
    point = np.random.default_rng(0).normal(scale=0.2, size=problem.coordinates.size).astype(LONG)
    values = problem.coordinates.parameters(point).astype(float)
    moved = fitted_at_truth(truth, [0, 0, 1])
    at = 0
    for part in (moved.gate, moved.experts):
        own = {}
        for name, value in part.own_parameters().items():
            own[name] = torch.from_numpy(values[at : at + value.numel()].reshape(value.shape))
            at += value.numel()
        part.assign_parameters(own)
    unit, share = np.polynomial.legendre.leggauss(12)
    assert abs(problem.distance.norm(point) - hellinger(truth, moved, (unit, share / 2))) < 1e-8


@pytest.mark.parametrize("distance", ["hellinger", "l2"])
@pytest.mark.parametrize("cells", [[0, 1], [0, 0, 1]])
def test_derivatives_against_differences(distance, cells):
    truth = mixture("softmax", SLOPE)
    problem = Problem(truth, fitted_at_truth(truth, cells), cells, quick(distance))
    point = np.random.default_rng(1).normal(scale=0.2, size=problem.coordinates.size).astype(LONG)
    step = LONG(1e-6)
    change = [
        (problem.distance.residual(point + step * e) - problem.distance.residual(point - step * e)) / (2 * step)
        for e in np.eye(problem.coordinates.size, dtype=LONG)
    ]
    assert np.abs(problem.distance.jacobian(point) - np.array(change, float).T).max() < 1e-10


def test_two_atoms_have_the_exponents_of_the_polynomial_system():
    found = modulus(
        mixture("softmax", SLOPE), 3, ["experts.bias", "experts.log_scale"], cells=[0, 0, 1], design=quick()
    )
    assert abs(found["experts.bias[0]"].exponent - 4) < 0.1
    assert abs(found["experts.log_scale[0]"].exponent - 2) < 0.1
    assert found["experts.bias[0]"].rate == "n^(-1/8)"
    for row in found:
        assert row.low <= row.exponent <= row.high
        assert row.is_exact
        assert row.quadrature < 0.01
        at = np.array(row.distances) / np.array(row.deltas) ** row.exponent
        assert np.allclose(at, row.scaled)


def test_linear_experts_in_least_squares_are_flat_with_a_witness():
    found = modulus(mixture("softmax", SLOPE), 3, ["experts.weight"], cells=[0, 0, 1], design=quick("l2", 16))
    row = found["experts.weight[0,0]"]
    assert row.is_flat
    assert row.rate == "none: not identified"
    witness = row.witness
    assert abs(abs(witness.displacement["experts.weight[0,0]"]) - 0.1) < 1e-12
    assert witness.symmetries == ()
    assert max(witness.distance, witness.finer) < 1e-16


def test_temperature_is_flat_along_the_declared_scale_and_exact_beside_it():
    truth = mixture("dense_to_sparse", SLOPE)
    found = modulus(truth, parameters=["gate.weight[0,0]", "gate.log_temperature[0]"], design=quick())
    for row in found:
        assert row.is_flat
        assert row.witness.symmetries == ("scale",)
        assert max(row.witness.distance, row.witness.finer) < 1e-16
        assert abs(row.modulo.exponent - 1) < 0.1
    assert found["gate.weight[0,0]"].modulo.held[-1] in ("gate.log_temperature[0]", "gate.weight[1,0]")
    assert "gate.log_temperature[0]" in found["gate.weight[0,0]"].modulo.held
    assert "scale" in found.to_text()


def test_an_undeclared_null_direction_is_found():
    """With one input, and all inputs on one side, a Laplace gate's centre acts like its bias."""
    truth = mixture("laplace", {"centre": [[0.2], [3.0]], "bias": [0.5, 0.0]})
    found = modulus(truth, parameters=["gate.centre[1,0]"], design=quick(nodes=5))
    assert found["gate.centre[1,0]"].is_flat
    (direction,) = found.null_directions
    assert set(direction) == {"gate.centre[1,0]", "gate.bias.mass[0]"}


def free_split(problem, moves):
    """The distance when named coordinates move by these amounts and all others stay."""
    point = np.zeros(problem.coordinates.size, LONG)
    for name, amount in moves.items():
        point[problem.coordinates.index(name)] = amount
    return problem.distance.norm(point)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_experts_that_can_be_split_freely(activation):
    """Output weights of a network, and (a, b) of a relu along its ray: copies with 1 ± δ are the same function."""
    a, b, v = np.array([1.2, -0.8]), np.array([0.4, 0.2]), np.array([1.5, -1.0])
    values = {"inner_weight": a[:, None, None].tolist(), "inner_bias": b[:, None].tolist()}
    truth = mixture(
        "softmax",
        SLOPE,
        "feed_forward",
        {**values, "outer_weight": v[:, None].tolist()},
        expert_options={"hidden": 1, "activation": activation},
    )
    problem = Problem(truth, fitted_at_truth(truth, [0, 0, 1]), [0, 0, 1], quick("l2", 6))
    weights = {"experts.outer_weight[0,0]": 0.1, "experts.outer_weight[1,0]": -0.1}
    assert free_split(problem, weights) < 1e-16
    along = {
        f"experts.inner_{name}": LONG(sign) * LONG(0.1) * LONG(value)
        for sign, i in ((1, 0), (-1, 1))
        for name, value in ((f"weight[{i},0,0]", a[0]), (f"bias[{i},0]", b[0]))
    }
    assert (free_split(problem, along) < 1e-16) == (activation == "relu")


@pytest.mark.slow
def test_kinks_give_a_fractional_exponent():
    truth = mixture("laplace", {"centre": [[0.2], [3.0]], "bias": [0.5, 0.0]}, expert_values=LINE)
    design = quick(nodes=4, largest=0.03, smallest=3e-4, per_decade=2)
    found = modulus(truth, 3, ["gate.centre"], cells=[0, 0, 1], design=design)
    assert abs(found["gate.centre[0,0]"].exponent - 1.5) < 0.1


@pytest.mark.slow
def test_every_allocation_is_measured_and_held_parameters_stay():
    truth = mixture("softmax", SLOPE)
    design = ModulusDesign(
        distance="l2",
        inputs=BoxInputs(nodes=16),
        window=quick(largest=0.1, smallest=1e-2).window,
        search=Search(starts=1, polish=1),
    )
    found = modulus(truth, 3, ["gate.weight"], design=design, hold=["experts.weight", "experts.bias"])
    assert [row.cells for row in found] == [(0, 0, 1), (0, 1, 1)]
    assert all("experts.bias[2]" in row.held for row in found)


def test_workers_and_the_store_do_not_change_a_bit(tmp_path):
    truth = mixture("softmax", SLOPE)
    design = quick("l2", largest=0.1, smallest=5e-2)
    names = ["experts.weight[0,0]", "experts.bias[1]"]
    one = modulus(truth, parameters=names, design=design, out=tmp_path)
    two = modulus(truth, parameters=names, design=design, jobs=2)
    again = modulus(truth, parameters=names, design=design, out=tmp_path)
    for first, second, third in zip(one, two, again, strict=True):
        assert first.distances == second.distances == third.distances
        assert first.minimisers == second.minimisers == third.minimisers
        assert first.seconds == third.seconds
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_named(tmp_path):
    row = CoordinateModulus("b", (0,), 4.0, 3.9, math.nan, False, *[()] * 10)
    write_row(tmp_path, {"name": "b"}, row)
    again = read_row(tmp_path, {"name": "b"})
    assert math.isnan(again.high)
    assert (again.exponent, again.cells, again.deltas) == (row.exponent, row.cells, row.deltas)
    assert read_row(tmp_path, {"name": "b", "cells": [0]}) is None
    (file,) = tmp_path.iterdir()
    file.write_text("{}")
    with pytest.raises(InputError, match="delete it"):
        read_row(tmp_path, {"name": "b"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fit_k": 1}, "at least 2"),
        ({"fit_k": 3, "cells": [0, 0, 0]}, "at least once"),
        ({"parameters": ["experts.height"]}, "experts.weight"),
        ({"hold": ["experts.height"]}, "to hold"),
        ({"parameters": ["experts.bias[7]"]}, "experts.bias"),
    ],
)
def test_bad_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        modulus(mixture("softmax", SLOPE), **{"design": quick(), **change})


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="double"):
        modulus(mixture("softmax", SLOPE).float(), design=quick())
    with pytest.raises(InputError, match="distance = 'l2'"):
        modulus(mixture("sigmoid", SLOPE, gate_options={"normalised": False}), design=quick())
    with pytest.raises(InputError, match="fitted mixture"):
        modulus(mixture("top_k", {"inner.weight": [[1.0], [0.0]]}), 3, design=quick())
