import numpy as np
import pytest
import torch

from gatewise.kernels.curvature import linear_hessian, linear_responsibilities, linear_score_gram
from gatewise.kernels.expectation import expectation_sums, gate_derivatives, gate_expectation
from gatewise.kernels.linear_pass import LinearPass
from gatewise.kernels.mixture_pass import BLOCK
from tests.kernels.linear_torch import TorchLinearPass

SIZES = (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17)


def problem(generator, n, same, k=3, q=3, p=4):
    design = np.vstack([np.ones(n), generator.normal(size=(p - 1, n))])
    gate_design = design if same else np.vstack([np.ones(n), generator.normal(size=(q - 1, n))])
    gate = generator.normal(size=(k, len(gate_design)))
    gate[-1] = 0.0
    parameters = (gate, generator.normal(size=(k, p)), 0.3 * generator.normal(size=k))
    weight = generator.uniform(0.5, 2.0, size=n)
    weight[::3] = 0.0 if n > 1 else 1.0
    return parameters, (gate_design, design, generator.normal(size=n), weight)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_hessian_over_several_blocks_equals_the_torch_path(generator, n, same):
    parameters, data = problem(generator, n, same)
    found = linear_hessian(LinearPass(*data), *parameters)
    expected = TorchLinearPass(*data, device="cpu", dtype=torch.float64).hessian(*parameters)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_the_gram_of_the_scores_is_the_sum_of_their_outer_products(generator, n, same, k):
    """Row by row: the gradient of one row alone is its score."""
    parameters, (gate_design, design, y, weight) = problem(generator, n, same, k=k)
    expected = 0.0
    for r in range(n):
        row = LinearPass(gate_design[:, r : r + 1], design[:, r : r + 1], y[r : r + 1], np.ones(1))
        _, gate, coefficients, log_scale = row(*parameters)
        score = np.concatenate([gate[:-1].ravel(), coefficients.ravel(), log_scale])
        expected = expected + weight[r] * np.outer(score, score)
    found = linear_score_gram(LinearPass(gate_design, design, y, weight), *parameters)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_expectation_sums_equal_einsum(generator, n, same, k):
    parameters, data = problem(generator, n, same, k=k)
    gate_design, design, y, weight = data
    sums = expectation_sums(*data, *parameters, same)
    pi, responsibilities, _, log_prob = linear_responsibilities(LinearPass(*data), *parameters)
    shares, residual = weight * responsibilities, y - parameters[1] @ design
    free = k - 1
    curvature = np.einsum("ar,ab->abr", pi, np.eye(k)) - np.einsum("ar,br->abr", pi, pi)
    information = np.einsum("abr,r,ir,jr->aibj", curvature[:free, :free], weight, gate_design, gate_design)
    expected = {
        "log_likelihood": log_prob @ weight,
        "mass": shares.sum(axis=1),
        "squares": (shares * residual**2).sum(axis=1),
        "moments": (shares * residual) @ design.T,
        "gram": np.einsum("kr,ir,jr->kij", shares, design, design),
        "gate_gradient": ((shares - weight * pi)[:free] @ gate_design.T).ravel(),
        "gate_information": information.reshape(free * len(gate_design), free * len(gate_design)),
    }
    for name, value in expected.items():
        # Sums of up to 800 terms of size one: 1e-12 is a few hundred units in the last place.
        np.testing.assert_allclose(getattr(sums, name), value, rtol=1e-11, atol=1e-12 * max(n, 10), err_msg=name)


@pytest.mark.parametrize("n", SIZES)
def test_gate_derivatives_equal_einsum(generator, n):
    (gate, _, _), (gate_design, _, _, weight) = problem(generator, n, same=False)
    k, size = len(gate), (len(gate) - 1) * len(gate_design)
    # Row by row in memory, as in fits: of another order the passes would be compiled once more.
    shares = np.ascontiguousarray(weight * generator.dirichlet(np.ones(k), size=n).T)
    logits = gate @ gate_design
    log_pi = logits - np.logaddexp.reduce(logits, axis=0)
    pi = np.exp(log_pi)
    curvature = np.einsum("ar,ab->abr", pi, np.eye(k)) - np.einsum("ar,br->abr", pi, pi)
    information = np.einsum("abr,r,ir,jr->aibj", curvature[:-1, :-1], weight, gate_design, gate_design)
    value, gradient, found = gate_derivatives(gate_design, shares, weight, gate)
    np.testing.assert_allclose(value, (shares * log_pi).sum(), rtol=1e-12)
    assert gate_expectation(gate_design, shares, weight, gate) == value
    np.testing.assert_allclose(gradient, ((shares - weight * pi)[:-1] @ gate_design.T).ravel(), atol=1e-12 * n)
    np.testing.assert_allclose(found, information.reshape(size, size), rtol=1e-11, atol=1e-12 * n)
