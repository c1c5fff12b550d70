import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import SigmoidGate
from tests.gates.helpers import check_all, check_finite, inputs, randomise


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_contract(d, k, normalised):
    gate = randomise(SigmoidGate(d, k, normalised))
    check_all(gate, inputs(gate))
    alone = normalised and k == 1
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == (d + 1 if alone else 0)


@pytest.mark.parametrize("normalised", [True, False])
def test_weights_are_logistic_functions(normalised):
    gate = randomise(SigmoidGate(3, 4, normalised))
    x = inputs(gate)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    expected = 1.0 / (1.0 + np.exp(-(x.numpy() @ weight.T + bias)))
    if normalised:
        expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(gate(x).exp().detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(gate.slope_score(x).detach().numpy(), x.numpy() @ weight.T, rtol=1e-12)
    by_hand = np.column_stack([bias, weight]).reshape(-1)
    np.testing.assert_array_equal(gate.identified(gate.own_parameters()).numpy(), by_hand)


def test_unnormalised_weights_may_have_any_sum():
    gate = randomise(SigmoidGate(2, 3, normalised=False))
    total = gate(inputs(gate, scale=4.0)).exp().sum(-1)
    assert total.min() < 1.0 < total.max()
    weights, indices, log_weights = gate.route(inputs(gate), 2)
    assert torch.equal(weights, log_weights.gather(-1, indices).exp())


@pytest.mark.parametrize("normalised", [True, False])
def test_far_arguments_keep_their_digits(normalised):
    gate = SigmoidGate(1, 2, normalised).double()
    gate.assign_parameters({"weight": torch.tensor([[1.0], [2.0]]), "bias": torch.zeros(2)})
    x = torch.tensor([[-700.0], [700.0], [-1e6], [1e6]], dtype=torch.float64)
    expected = torch.tensor([[-700.0, -1400.0], [0.0, 0.0], [-1e6, -2e6], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gate.logits(x), expected, rtol=1e-15, atol=1e-300)
    check_finite(gate, x)


def test_without_features_only_the_unnormalised_gate_makes_sense():
    gate = randomise(SigmoidGate(0, 3, normalised=False))
    check_all(gate, inputs(gate), exempt=("weight",))
    with pytest.raises(InputError, match="take the softmax gate"):
        SigmoidGate(0, 3)
