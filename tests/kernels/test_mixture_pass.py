"""The compiled pass against a plain double loop, finite differences and the torch path, in easy and in hard places."""

import numpy as np
import pytest
import torch

from gatewise.kernels.curvature import linear_hessian, linear_responsibilities
from gatewise.kernels.linear_pass import LinearPass
from gatewise.kernels.mixture_pass import BLOCK
from gatewise.kernels.products import weighted_gram
from tests.helpers import brute_force_log_likelihood
from tests.kernels.linear_torch import TorchLinearPass

HARD = (
    "ordinary",
    "saturated gate",
    "scale near its floor",
    "zero weights",
    "offset",
    "constant weights",
    "one expert",
)


def problem(case, n=37, k=3, q=3, p=2, seed=5):
    g = np.random.default_rng(seed)
    if case == "one expert":
        k = 1
    if case == "constant weights":
        q = 1
    gate_design = np.vstack([np.ones(n), g.normal(size=(q - 1, n))])
    design = np.vstack([np.ones(n), g.normal(size=(p - 1, n))])
    y, weight = g.normal(size=n), g.uniform(0.5, 2.0, size=n)
    gate, coefficients, log_scale = g.normal(size=(k, q)), g.normal(size=(k, p)), 0.3 * g.normal(size=k)
    if case == "saturated gate":
        gate *= 60.0
    if case == "scale near its floor":
        # Rows on the line of the narrow expert, as where a start runs onto the floor.
        log_scale[0] = np.log(1.1e-3)
        y[::2] = coefficients[0] @ design[:, ::2] + 1e-3 * g.normal(size=len(y[::2]))
    if case == "zero weights":
        weight[::3] = 0.0
    if case == "offset":
        design[1:] += 1e4
        y += coefficients.mean(axis=0) @ design
    return gate, coefficients, log_scale, (gate_design, design, y, weight)


@pytest.mark.parametrize("case", HARD)
def test_value_equals_the_brute_force_sum(case):
    gate, coefficients, log_scale, data = problem(case)
    found = LinearPass(*data)(gate, coefficients, log_scale)[0]
    # With an offset of 1e4 the locations themselves carry 1e4 * 1e-16 of rounding, and z divides it by σ.
    rtol = 1e-11 if case == "offset" else 1e-13
    expected = brute_force_log_likelihood(gate, coefficients, log_scale, *data)
    np.testing.assert_allclose(found, expected, rtol=rtol)


def numerical_gradient(function, theta):
    """Central differences with Richardson extrapolation: error O(h⁴)."""
    gradient = np.empty(len(theta))
    for j in range(len(theta)):
        h = 1e-4 * max(1.0, abs(theta[j]))

        def central(step, j=j):
            up, down = theta.copy(), theta.copy()
            up[j] += step
            down[j] -= step
            return (function(up) - function(down)) / (up[j] - down[j])

        gradient[j] = (4.0 * central(0.5 * h) - central(h)) / 3.0
    return gradient


@pytest.mark.parametrize("case", HARD)
def test_gradient_equals_finite_differences(case):
    gate, coefficients, log_scale, data = problem(case)
    compiled = LinearPass(*data)
    shapes = (gate.shape, coefficients.shape, log_scale.shape)
    edges = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])

    def split(theta):
        return [theta[a:b].reshape(s) for a, b, s in zip(edges[:-1], edges[1:], shapes, strict=True)]

    # Near the floor z reaches 1e3, so a step must be small against σ: work in units in which it is.
    units = np.ones(edges[-1])
    if case == "scale near its floor":
        units[:] = 1e-3
    if case == "offset":
        units[edges[1] : edges[2]] = 1e-4
    theta = np.concatenate([gate.ravel(), coefficients.ravel(), log_scale])
    value, *gradients = compiled(*split(theta))
    analytic = np.concatenate([g.ravel() for g in gradients]) * units
    numeric = numerical_gradient(lambda t: compiled(*split(theta + units * t))[0], np.zeros(len(theta)))
    # 1e-6 of the largest component; differencing itself costs |value| * 1e-16 / 1e-4 on small ones.
    np.testing.assert_allclose(numeric, analytic, rtol=1e-6, atol=1e-6 * np.abs(analytic).max() + 1e-11 * abs(value))


@pytest.mark.parametrize("case", HARD)
def test_torch_path_gives_the_same_value_gradient_hessian_and_responsibilities(case):
    gate, coefficients, log_scale, data = problem(case)
    compiled, plain = LinearPass(*data), TorchLinearPass(*data, device="cpu", dtype=torch.float64)
    arguments = (gate, coefficients, log_scale)
    rtol = 1e-9 if case in ("offset", "scale near its floor") else 1e-12
    for ours, theirs in zip(compiled(*arguments), plain(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())
    ours, theirs = linear_hessian(compiled, *arguments), plain.hessian(*arguments)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())
    weights, responsibilities, _, log_prob = linear_responsibilities(compiled, *arguments)
    np.testing.assert_allclose(log_prob @ data[3], compiled(*arguments)[0], rtol=1e-13)
    for ours, theirs in zip((weights, responsibilities), plain.responsibilities(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9 if case == "offset" else 1e-12)


def test_float32_follows_float64_to_its_own_precision():
    gate, coefficients, log_scale, data = problem("ordinary", n=300)
    found = TorchLinearPass(*data, device="cpu", dtype=torch.float32)(gate, coefficients, log_scale)
    for ours, theirs in zip(found, LinearPass(*data)(gate, coefficients, log_scale), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_same_bits_for_any_number_of_threads(n):
    gate, coefficients, log_scale, data = problem("ordinary", n=n)
    alone = LinearPass(*data, n_threads=1)(gate, coefficients, log_scale)
    for n_threads in (2, 3, 7):
        together = LinearPass(*data, n_threads=n_threads)(gate, coefficients, log_scale)
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_impossible_rows_are_minus_infinity_with_the_gate_as_responsibility():
    gate, coefficients, log_scale, (gate_design, design, y, weight) = problem("ordinary", n=4)
    y[1] = 1e200
    compiled = LinearPass(gate_design, design, y, weight)
    weights, responsibilities, _, log_prob = linear_responsibilities(compiled, gate, coefficients, log_scale)
    assert log_prob[1] == -np.inf
    assert np.isfinite(log_prob[[0, 2, 3]]).all()
    np.testing.assert_array_equal(responsibilities[:, 1], weights[:, 1])


def test_gram_equals_einsum(generator):
    n, k, q = 700, 4, 3
    design, channels = generator.normal(size=(q, n)), generator.uniform(size=(k, n))
    np.testing.assert_allclose(
        weighted_gram(design, channels), np.einsum("cr,ir,jr->cij", channels, design, design), rtol=1e-11, atol=1e-11
    )
