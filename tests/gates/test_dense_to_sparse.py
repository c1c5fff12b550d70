import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import DenseToSparseGate, SoftmaxGate
from gatewise.gates.temperature import TemperedGate
from tests.gates.helpers import check_all, check_finite, inputs, randomise


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
def test_contract(d, k, free):
    gate = randomise(DenseToSparseGate(d, k, temperature=0.7, free_temperature=free))
    check_all(gate, inputs(gate))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + d + free


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize(("d", "k"), [(0, 2), (2, 1)])
def test_no_features_and_one_expert(d, k, free):
    gate = randomise(DenseToSparseGate(d, k, free_temperature=free))
    check_all(gate, inputs(gate), exempt=("weight",))


def test_logits_are_divided_by_the_temperature():
    gate = randomise(DenseToSparseGate(3, 4))
    x = inputs(gate)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    tau = math.exp(gate.log_temperature.item())
    expected = (x.numpy() @ weight.T + bias) / tau
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(gate.slope_score(x).detach().numpy(), x.numpy() @ weight.T / tau, rtol=1e-12)
    np.testing.assert_allclose(
        gate.identified(gate.own_parameters()).numpy(),
        np.concatenate([[(bias[i] - bias[3]) / tau, *(weight[i] - weight[3]) / tau] for i in range(3)]),
        rtol=1e-12,
    )
    assert gate.atoms()["gate_temperature"].tolist() == pytest.approx([tau] * 4)


def test_temperature_one_is_the_plain_gate():
    gate, plain = randomise(DenseToSparseGate(2, 3, free_temperature=False)), randomise(SoftmaxGate(2, 3))
    x = inputs(plain)
    assert torch.equal(gate(x), plain(x))


def test_a_temperature_near_zero_gives_all_to_the_largest():
    gate = randomise(DenseToSparseGate(2, 4, free_temperature=False))
    x = inputs(gate, n=500)
    gate.set_temperature(1.0)
    best, runner_up = gate.logits(x).topk(2, dim=-1).values.unbind(-1)
    winner = gate.logits(x).argmax(-1)
    for tau in (1e-1, 1e-2, 1e-3):
        gate.set_temperature(tau)
        lost = 1.0 - gate(x).exp().gather(-1, winner[:, None])[:, 0]
        # The others share at most 3 exp(−gap/τ) of what the first has.
        assert (lost <= 3.0 * torch.exp(-(best - runner_up) / tau) + 1e-15).all()
    gate.set_temperature(1e-12)
    assert torch.equal(gate(x).exp().round(), torch.nn.functional.one_hot(winner, 4).double())
    check_finite(gate, x)


def test_a_high_temperature_shares_equally():
    gate = randomise(DenseToSparseGate(2, 4))
    gate.set_temperature(1e12)
    x = inputs(gate)
    torch.testing.assert_close(gate(x).exp(), torch.full((len(x), 4), 0.25, dtype=torch.float64))


def test_a_free_temperature_is_a_parameter_and_a_fixed_one_is_saved_with_the_state():
    free = DenseToSparseGate(2, 3, temperature=0.1)
    fixed = DenseToSparseGate(2, 3, temperature=0.1, free_temperature=False)
    assert set(dict(free.named_parameters())) == {"weight", "bias", "log_temperature"}
    assert free.log_temperature.shape == (1,)
    assert set(dict(fixed.named_parameters())) == {"weight", "bias"}
    assert fixed.options() == {"temperature": 0.1, "free_temperature": False}
    fixed.set_temperature(0.3)
    again = DenseToSparseGate.of(2, 3, **fixed.options())
    assert again.temperature().item() == pytest.approx(0.1)
    again.load_state_dict(fixed.state_dict())
    assert torch.equal(again.log_temperature, fixed.log_temperature)
    assert again.double().temperature().item() == pytest.approx(0.3, rel=1e-15)


def test_a_fixed_temperature_survives_float32_to_the_last_digit():
    gate = DenseToSparseGate(2, 3, temperature=0.1, free_temperature=False)
    assert gate(torch.ones(2)).dtype == torch.float32
    assert gate.double().temperature().item() == pytest.approx(0.1, rel=1e-15)


def test_only_a_fixed_temperature_leaves_the_gate_linear():
    free, fixed = DenseToSparseGate(2, 3), DenseToSparseGate(2, 3, free_temperature=False)
    assert free.basis(torch.ones(2)) is None
    assert fixed.basis(torch.ones(2)).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="not linear in its parameters while the temperature is free"):
        free.coefficients(free.own_parameters())


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_must_be_positive_and_finite(value):
    with pytest.raises(InputError, match="must be positive and finite"):
        DenseToSparseGate(1, 2, temperature=value)
    with pytest.raises(InputError, match="must be positive and finite"):
        DenseToSparseGate(1, 2).set_temperature(value)


def test_the_common_base_is_no_gate_of_its_own():
    with pytest.raises(TypeError, match="abstract"):
        TemperedGate(1, 2)
