"""The fused pass for any family against the plain formula and automatic differentiation, at infinity too."""

import mpmath
import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.kernels.joint_pass import joint_pass, joint_rows
from gatewise.kernels.mixture_pass import BLOCK
from gatewise.ops.joint_torch import fused_log_mixture, log_mixture_rows, plain_log_mixture
from gatewise.ops.log_space import log_softmax

INFINITY = np.inf
BOTH = pytest.mark.parametrize("normalised", [True, False], ids=["normalised", "joint"])


def problem(n=37, k=3, spread=1.0, seed=4):
    g = np.random.default_rng(seed)
    return spread * g.normal(size=(n, k)), spread * g.normal(size=(n, k)), g.uniform(0.5, 2.0, size=n)


def plain(logits, log_density, weight, normalised):
    """Value and gradients of the plain formula by automatic differentiation."""
    arguments = [torch.tensor(array, requires_grad=True) for array in (logits, log_density)]
    value = plain_log_mixture(*arguments, torch.tensor(weight), normalised)
    return value.item(), *(gradient.numpy() for gradient in torch.autograd.grad(value, arguments))


@BOTH
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 8])
def test_value_and_gradients_equal_the_plain_ones(k, spread, normalised):
    data = problem(n=2 * BLOCK + 9, k=k, spread=spread)
    (value, *gradients), (expected, *expected_gradients) = joint_pass(*data, normalised), plain(*data, normalised)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        # A difference of logits of size `spread` is rounded, and the exponential makes it a relative error.
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-15 * max(1.0, spread))


@BOTH
def test_rows_equal_fifty_digits(normalised):
    logits, log_density, _ = problem(n=20, k=4, spread=20.0)
    log_prob, weights, responsibilities = joint_rows(logits, log_density, normalised)
    with mpmath.workdps(50):
        for r in range(len(logits)):
            gate = [mpmath.exp(mpmath.mpf(value)) for value in logits[r]]
            joint = [a * mpmath.exp(mpmath.mpf(value)) for a, value in zip(gate, log_density[r], strict=True)]
            total, gate_total = mpmath.fsum(joint), mpmath.fsum(gate)
            expected = float(mpmath.log(total / gate_total if normalised else total))
            np.testing.assert_allclose(log_prob[r], expected, rtol=1e-13, atol=1e-14)
            np.testing.assert_allclose(weights[r], [float(a / gate_total) for a in gate], rtol=1e-13)
            np.testing.assert_allclose(responsibilities[r], [float(a / total) for a in joint], rtol=1e-13)


@BOTH
@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_same_bits_for_any_number_of_threads(n, normalised):
    logits, log_density, weight = problem(n=n)
    log_density[:: n // 2 + 1, 0] = -INFINITY
    alone = joint_pass(logits, log_density, weight, normalised)
    rows_alone = joint_rows(logits, log_density, normalised)
    np.testing.assert_allclose(weight @ rows_alone[0], alone[0], rtol=1e-13)
    np.testing.assert_allclose(weight[:, None] * rows_alone[2], alone[2], rtol=1e-15)
    for n_threads in (2, 3, 7):
        together = joint_pass(logits, log_density, weight, normalised, n_threads)
        rows_together = joint_rows(logits, log_density, normalised, n_threads)
        for ours, theirs in zip((*together, *rows_together), (*alone, *rows_alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_each_row_is_computed_by_itself():
    logits, log_density, _ = problem(n=BLOCK + 40, k=3)
    log_density[[3, BLOCK + 5]] = -INFINITY
    logits[7, 1] = -INFINITY
    whole = joint_rows(logits, log_density)
    order = np.random.default_rng(1).permutation(len(logits))
    for ours, theirs in zip(joint_rows(logits[order], log_density[order]), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs[order])


@BOTH
def test_an_expert_without_weight_has_no_part(normalised):
    logits, log_density, weight = problem(n=2 * BLOCK + 9, k=4)
    # Two logits kept in each row, as by a top-2 gate; what left-out experts think of the target does not matter.
    left_out = np.argsort(np.random.default_rng(2).normal(size=logits.shape), axis=1)[:, :2]
    np.put_along_axis(logits, left_out, -INFINITY, axis=1)
    value, gate_gradient, gradient = joint_pass(logits, log_density, weight, normalised)
    kept = np.isfinite(logits)
    assert kept.sum() == 2 * len(logits)
    np.testing.assert_array_equal(gradient[~kept], 0.0)
    np.testing.assert_array_equal(gate_gradient[~kept], 0.0)
    short = [array[kept].reshape(-1, 2) for array in (logits, log_density)]
    expected, *expected_gradients = joint_pass(*short, weight, normalised)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    for ours, theirs in zip((gate_gradient, gradient), expected_gradients, strict=True):
        np.testing.assert_allclose(ours[kept].reshape(-1, 2), theirs, rtol=1e-12, atol=1e-15)
    other = np.where(kept, log_density, -INFINITY)
    for ours, theirs in zip(joint_pass(logits, other, weight, normalised)[1:], (gate_gradient, gradient), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(plain(logits, log_density, weight, normalised)[1:], (gate_gradient, gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@BOTH
def test_impossible_rows_are_minus_infinity_with_the_gate_as_responsibility(normalised):
    logits, log_density, weight = problem(n=BLOCK + 3)
    impossible = [1, BLOCK + 2]
    log_density[impossible] = -INFINITY
    logits[BLOCK + 2, 0] = -INFINITY
    log_prob, weights, responsibilities = joint_rows(logits, log_density, normalised)
    ordinary = np.setdiff1d(np.arange(len(logits)), impossible)
    assert (log_prob[impossible] == -INFINITY).all()
    assert np.isfinite(log_prob[ordinary]).all()
    np.testing.assert_array_equal(responsibilities[impossible], weights[impossible])
    np.testing.assert_allclose(weights, log_softmax(torch.tensor(logits)).exp().numpy(), rtol=1e-13)
    np.testing.assert_allclose(responsibilities.sum(axis=1), 1.0, rtol=1e-14)
    value, gate_gradient, gradient = joint_pass(logits, log_density, weight, normalised)
    assert value == -INFINITY
    np.testing.assert_array_equal(gradient[impossible], weight[impossible, None] * weights[impossible])
    expected = 0.0 if normalised else gradient[impossible]
    np.testing.assert_allclose(gate_gradient[impossible], expected, rtol=0.0, atol=1e-16)


@BOTH
def test_disjoint_supports_are_impossible_too(normalised):
    logits, log_density = np.array([[0.0, -INFINITY]]), np.array([[-INFINITY, 0.0]])
    log_prob, weights, responsibilities = joint_rows(logits, log_density, normalised)
    assert log_prob[0] == -INFINITY
    np.testing.assert_array_equal(weights, [[1.0, 0.0]])
    np.testing.assert_array_equal(responsibilities, [[1.0, 0.0]])


@BOTH
@pytest.mark.parametrize("infinity", [INFINITY, -INFINITY])
def test_infinite_tops_are_those_of_the_plain_formula(infinity, normalised):
    _, log_density, weight = problem(n=2)
    logits = np.array([[infinity, infinity, -INFINITY], [0.3, 0.1, 0.2]])
    log_prob, weights, responsibilities = joint_rows(logits, log_density, normalised)
    expected = log_mixture_rows(torch.tensor(logits), torch.tensor(log_density), normalised)
    np.testing.assert_allclose(log_prob, expected.numpy(), rtol=1e-14)
    shares = [0.5, 0.5, 0.0] if infinity > 0.0 else [1.0 / 3.0] * 3
    np.testing.assert_allclose(weights[0], shares)
    _, _, gradient = joint_pass(logits, log_density, weight, normalised)
    np.testing.assert_allclose(gradient, plain(logits, log_density, weight, normalised)[2], rtol=1e-13)
    np.testing.assert_allclose(gradient, weight[:, None] * responsibilities, rtol=1e-15)


@BOTH
def test_infinite_density_takes_the_row(normalised):
    logits, log_density, weight = problem(n=2)
    log_density[0, 1] = INFINITY
    log_prob, _, responsibilities = joint_rows(logits, log_density, normalised)
    assert log_prob[0] == INFINITY
    assert np.isfinite(log_prob[1])
    np.testing.assert_array_equal(responsibilities[0], [0.0, 1.0, 0.0])
    expected = plain(logits, log_density, weight, normalised)[2]
    np.testing.assert_allclose(weight[:, None] * responsibilities, expected, rtol=1e-13)


@BOTH
@pytest.mark.parametrize("expert", [0, 1, 2])
@pytest.mark.parametrize("others", [0.0, -INFINITY])
@pytest.mark.parametrize("place", ["logit", "density"])
def test_nan_stays_in_its_row(place, others, expert, normalised):
    logits, log_density = np.zeros((3, 3)), np.zeros((3, 3))
    spoiled = logits if place == "logit" else log_density
    spoiled[1] = others
    spoiled[1, expert] = np.nan
    log_prob, _, responsibilities = joint_rows(logits, log_density, normalised)
    np.testing.assert_array_equal(np.isnan(log_prob), [False, True, False])
    np.testing.assert_allclose(responsibilities[[0, 2]], 1.0 / 3.0)
    assert np.isnan(responsibilities[1]).any()


@BOTH
def test_rows_of_weight_zero_add_nothing(normalised):
    logits, log_density, weight = problem(n=BLOCK + 20)
    weight[::3] = 0.0
    log_density[::6] = -INFINITY
    kept = weight > 0.0
    value, *gradients = joint_pass(logits, log_density, weight, normalised)
    expected, *expected_gradients = joint_pass(logits[kept], log_density[kept], weight[kept], normalised)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(plain(logits, log_density, weight, normalised)[0], expected, rtol=1e-13)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_array_equal(ours[kept], theirs)
        np.testing.assert_array_equal(ours[~kept], 0.0)


def test_no_rows_sum_to_zero():
    value, *gradients = joint_pass(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), n_threads=3)
    assert value == 0.0
    assert all(gradient.shape == (0, 2) for gradient in gradients)


@BOTH
def test_derivatives_pass_gradcheck_to_second_order(normalised):
    logits, log_density, weight = (torch.tensor(array) for array in problem(n=5))
    arguments = (logits.requires_grad_(), log_density.requires_grad_())

    def function(*arguments):
        return fused_log_mixture(*arguments, weight, normalised)

    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


@BOTH
def test_second_derivatives_are_not_lost_beside_other_terms(normalised):
    logits, log_density, weight = (torch.tensor(array) for array in problem(n=4))
    start, square = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), 0.5
    hessians = [
        torch.autograd.functional.hessian(
            lambda b, f=function: f(logits + b, log_density * b, weight, normalised) + square * (b * b).sum(), start
        )
        for function in (fused_log_mixture, plain_log_mixture)
    ]
    torch.testing.assert_close(*hessians, rtol=1e-12, atol=1e-12)


def test_fused_function_hands_on_what_comes_from_above():
    logits, log_density, weight = (torch.tensor(array) for array in problem(n=BLOCK + 9))
    expert = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    gradients = []
    for function in (fused_log_mixture, plain_log_mixture):
        # Only one side needs a gradient; the density comes transposed in memory and through more arithmetic.
        parameter = expert.clone().requires_grad_()
        value = function(logits, (log_density.T.contiguous().T * parameter).exp(), weight)
        gradients.append(torch.autograd.grad(-3.0 * value, parameter)[0])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_gradients_may_be_asked_for_twice():
    logits, log_density, weight = (torch.tensor(array) for array in problem(n=6))
    value = fused_log_mixture(logits.requires_grad_(), log_density, weight)
    first = torch.autograd.grad(value, logits, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], first, rtol=0.0, atol=0.0)


def test_fused_function_refuses_what_only_the_plain_path_can_do():
    zero = torch.zeros(2, 2)
    with pytest.raises(TypeError, match=r"float64 on the CPU, not torch\.float32"):
        fused_log_mixture(zero, zero, zero[0])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"\(4, 2\) and log-densities \(4, 1\)"):
        joint_pass(np.zeros((4, 2)), np.zeros((4, 1)), np.ones(4))
    with pytest.raises(InputError, match=r"one \(n, k\) for both"):
        joint_rows(np.zeros(4), np.zeros(4))
    with pytest.raises(InputError, match="each of the 4 rows"):
        joint_pass(np.zeros((4, 2)), np.zeros((4, 2)), np.ones(5))
