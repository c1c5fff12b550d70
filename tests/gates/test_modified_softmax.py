import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import ModifiedSoftmaxGate, SoftmaxGate
from gatewise.parts import activations
from tests.gates.helpers import check_all, check_finite, features, inputs, randomise

TRANSFORMS = {
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "tanh": np.tanh,
    "cos": np.cos,
    "cube": lambda x: x**3,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
def test_contract(d, k):
    gate = randomise(ModifiedSoftmaxGate(d, k))
    check_all(gate, inputs(gate))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + d


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_logits_are_linear_in_the_transformed_inputs(transform):
    gate = randomise(ModifiedSoftmaxGate(3, 4, transform))
    x = inputs(gate, scale=0.8)
    check_all(gate, x)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    expected = TRANSFORMS[transform](x.numpy()) @ weight.T
    np.testing.assert_allclose(gate.slope_score(x).detach().numpy(), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), expected + bias, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("d", "k"), [(0, 2), (1, 1), (3, 1)])
def test_no_features_and_one_expert(d, k):
    gate = randomise(ModifiedSoftmaxGate(d, k))
    check_all(gate, inputs(gate), exempt=("weight",))


def test_the_identity_brings_back_the_plain_gate():
    modified, plain = randomise(ModifiedSoftmaxGate(2, 3, "identity")), randomise(SoftmaxGate(2, 3))
    x = inputs(plain)
    assert torch.equal(modified(x), plain(x))


def test_a_registered_function_can_be_the_transform(monkeypatch):
    monkeypatch.setitem(activations._ACTIVATIONS, "sine", torch.sin)
    gate = randomise(ModifiedSoftmaxGate(2, 2, "sine"))
    x = inputs(gate)
    torch.testing.assert_close(gate.logits(x), torch.sin(x) @ gate.weight.T + gate.bias)
    assert [quantity.term for quantity in gate.quantities(features(gate))] == ["(intercept)", "sine(x0)", "sine(x1)"]


def test_derivatives_at_zero_are_finite():
    check_finite(ModifiedSoftmaxGate(2, 3, "cube"), torch.zeros(4, 2))


def test_an_unknown_transform_is_refused():
    with pytest.raises(InputError, match="unknown activation 'square'"):
        ModifiedSoftmaxGate(1, 2, "square")
