"""The Laplace gate under the shared checks, at its centres, and where its centres act like biases."""

import math

import pytest
import torch

from gatewise.gates import LaplaceGate
from tests.gates.helpers import (
    check_all,
    check_finite,
    check_null_space,
    inputs,
    log_weight_jacobian,
    numerical_rank,
    randomise,
)


@pytest.mark.parametrize("d", [0, 1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_contract(d, k):
    gate = randomise(LaplaceGate(d, k))
    check_all(gate, inputs(gate), exempt=("centre",) if d == 0 else ())
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == (1 if k > 1 else 1 + d)


@pytest.mark.parametrize("k", [2, 3])
def test_null_space_with_many_features(k):
    gate = randomise(LaplaceGate(8, k))
    check_null_space(gate, inputs(gate, n=200))


def test_weights_equal_the_formula():
    gate = randomise(LaplaceGate(2, 3))
    x = inputs(gate, n=4)
    for row in x:
        score = [-math.dist(gate.centre[i].tolist(), row.tolist()) + gate.bias[i].item() for i in range(3)]
        total = sum(math.exp(value) for value in score)
        expected = torch.tensor([math.exp(value) / total for value in score], dtype=torch.float64)
        torch.testing.assert_close(gate(row).exp(), expected, rtol=1e-12, atol=0.0)


def test_isometries_of_x_keep_the_gate():
    gate = randomise(LaplaceGate(2, 3))
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    shift = torch.tensor([5.0, -3.0], dtype=torch.float64)
    moved = LaplaceGate(2, 3).double()
    moved.assign_parameters({"centre": gate.centre.detach() @ turn.T + shift, "bias": gate.bias.detach()})
    x = inputs(gate)
    torch.testing.assert_close(moved(x @ turn.T + shift), gate(x), rtol=1e-12, atol=1e-12)


def test_at_a_centre_the_gradient_is_the_subgradient_of_smallest_norm():
    gate = randomise(LaplaceGate(2, 2))
    x = gate.centre[0].detach().clone().requires_grad_(True)
    gate.logits(x)[0].backward()
    assert (x.grad == 0.0).all()
    assert (gate.centre.grad == 0.0).all()
    assert gate.logits(x)[0] == gate.bias[0]
    check_finite(gate, gate.centre.detach())
    # All parameters 0, as a new gate has them, and x = 0.
    check_finite(LaplaceGate(3, 2), torch.zeros(2, 3))
    second = torch.func.hessian(lambda point: gate.logits(point).sum())(gate.centre[0].detach())
    assert torch.isfinite(second).all()


def test_near_a_centre_distances_keep_their_digits():
    gate = LaplaceGate(1, 2).double()
    x = torch.tensor([1e-150], dtype=torch.float64, requires_grad=True)
    value = gate.logits(x)[0]
    value.backward()
    assert value.item() == pytest.approx(-1e-150, rel=1e-12)
    # Both centres are 0: only the first logit was differentiated.
    assert x.grad.item() == pytest.approx(-1.0, rel=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_centres_on_one_side_of_all_inputs_act_like_biases(k):
    """With d = 1 and x < W for all, −|W − x| + β is x − W + β: 2k parameters, k − 1 functions."""
    gate = randomise(LaplaceGate(1, k))
    x = gate.centre.detach().min() - 0.1 - inputs(gate).abs()
    rank = numerical_rank(log_weight_jacobian(gate, x))
    assert rank == k - 1
    check_null_space(gate, x, further=k)
    # Inputs on both sides of one centre make that centre known.
    first = gate.centre.detach().sort(dim=0).values[0]
    both = torch.cat([x, (first + 1e-3).unsqueeze(0)])
    assert numerical_rank(log_weight_jacobian(gate, both)) == k


def test_quantities_are_centres_and_bias_contrasts():
    names = [(q.component, q.term) for q in LaplaceGate(2, 2).quantities(["x", "z"])]
    assert names == [
        ("gate 1", "x"),
        ("gate 1", "z"),
        ("gate 2", "x"),
        ("gate 2", "z"),
        ("gate 1 vs 2", "(intercept)"),
    ]
