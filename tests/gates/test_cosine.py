import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import CosineGate
from tests.gates.helpers import (
    check_all,
    check_finite,
    check_null_space,
    check_symmetries,
    features,
    inputs,
    log_weights_at,
    randomise,
)


@pytest.mark.parametrize("d", [2, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
def test_contract(d, k):
    gate = randomise(CosineGate(d, k))
    check_all(gate, inputs(gate))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + k + max(d - k, 0)


@pytest.mark.parametrize(("d", "p"), [(2, 2), (3, 2), (3, 3), (8, 2), (8, 4)])
@pytest.mark.parametrize("k", [2, 3])
def test_contract_with_a_projection(d, p, k):
    gate = randomise(CosineGate(d, k, temperature=0.5, projection=p))
    check_all(gate, inputs(gate))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + k + max(p - k, 0) + p * (p - 1) // 2 + 1


@pytest.mark.parametrize("options", [{}, {"projection": 2}])
def test_one_expert(options):
    gate = randomise(CosineGate(3, 1, **options))
    check_all(gate, inputs(gate))


def test_more_experts_than_features():
    for options in ({}, {"projection": 2}):
        gate = randomise(CosineGate(3, 6, **options))
        check_null_space(gate, inputs(gate))
        check_symmetries(gate, inputs(gate))


def test_one_feature_is_a_sign():
    gate = randomise(CosineGate(1, 3))
    x = torch.tensor([[0.1], [5.0], [-2.0]], dtype=torch.float64)
    expected = torch.sign(x) * torch.sign(gate.weight[:, 0]) + gate.bias
    torch.testing.assert_close(gate.logits(x), expected)
    check_null_space(gate, inputs(gate))
    check_symmetries(gate, inputs(gate))


def test_logits_are_cosines():
    gate = randomise(CosineGate(3, 4))
    x = inputs(gate)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    cosine = x.numpy() @ weight.T
    cosine /= np.linalg.norm(weight, axis=1) * np.linalg.norm(x.numpy(), axis=1)[:, None]
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), cosine + bias, rtol=1e-12)
    np.testing.assert_allclose(gate.slope_score(x).detach().numpy(), cosine, rtol=1e-12, atol=1e-14)


def test_logits_with_a_projection_and_a_temperature():
    gate = randomise(CosineGate(5, 3, temperature=0.2, projection=2))
    x = inputs(gate)
    weight, bias = gate.weight.detach().numpy(), gate.bias.detach().numpy()
    projected = x.numpy() @ gate.projection_matrix.detach().numpy().T
    cosine = projected @ weight.T
    cosine /= np.linalg.norm(weight, axis=1) * np.linalg.norm(projected, axis=1)[:, None]
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), cosine / 0.2 + bias, rtol=1e-12)
    assert gate.atoms()["gate_projection"].shape == (3, 2, 5)


def test_lengths_have_no_effect():
    gate = randomise(CosineGate(3, 4))
    x = inputs(gate)
    torch.testing.assert_close(gate(1e150 * x), gate(x))
    torch.testing.assert_close(gate(1e-150 * x), gate(x))
    assert (gate(x + 1.0) - gate(x)).abs().max() > 0.1


@pytest.mark.parametrize(("d", "k"), [(3, 2), (8, 2), (8, 3)])
def test_a_shift_of_all_directions_adds_one_function_of_x_to_all_logits(d, k):
    gate = randomise(CosineGate(d, k))
    own, x = gate.own_parameters(), inputs(gate)
    shift = next(symmetry for symmetry in gate.symmetries() if symmetry.name == "shared shift")
    assert shift.dimension == d - k
    moved = shift.act(own, torch.linspace(0.5, 2.0, d - k, dtype=torch.float64))
    other = CosineGate(d, k).double()
    other.assign_parameters(moved)
    change = (other.logits(x) - gate.logits(x)).detach()
    assert change.abs().max() > 0.1
    assert (change - change[:, :1]).abs().max() < 1e-12
    assert (other(x) - gate(x)).abs().max() < 1e-10
    torch.testing.assert_close(moved["weight"].norm(dim=1), own["weight"].norm(dim=1))


@pytest.mark.parametrize(("d", "k", "reflected"), [(3, 3, True), (3, 2, False), (2, 3, False)])
def test_a_reflection_is_left_where_there_are_as_many_experts_as_features(d, k, reflected):
    names = [symmetry.name for symmetry in CosineGate(d, k).symmetries() if not symmetry.dimension]
    assert names == ["reflection"] * reflected


def test_identified_functions_by_hand():
    gate = randomise(CosineGate(3, 2))
    u = gate.weight.detach() / gate.weight.detach().norm(dim=1, keepdim=True)
    values = gate.identified(gate.own_parameters())
    torch.testing.assert_close(values, torch.cat([(gate.bias[:1] - gate.bias[1:]).detach(), u[0] - u[1]]))
    names = [(q.component, q.term) for q in gate.quantities(features(gate))]
    terms = ["(intercept)", "direction x0", "direction x1", "direction x2"]
    assert names == [("gate 1 vs 2", term) for term in terms]

    gate = randomise(CosineGate(2, 2))
    u = gate.weight.detach() / gate.weight.detach().norm(dim=1, keepdim=True)
    values = gate.identified(gate.own_parameters())
    torch.testing.assert_close(values, torch.cat([(gate.bias[:1] - gate.bias[1:]).detach(), u[0], u[1]]))
    names = [(q.component, q.term) for q in gate.quantities(features(gate))]
    directions = [(f"gate {i}", f"direction x{j}") for i in (1, 2) for j in (0, 1)]
    assert names == [("gate 1 vs 2", "(intercept)"), *directions]


def test_what_is_identified_with_a_projection_gives_the_logits_back():
    """Cosine = cᵢᵀx / sqrt(xᵀMx) with cᵢ = Pᵀuᵢ/‖P‖ and M = PᵀP/‖P‖²."""
    gate = randomise(CosineGate(3, 2, projection=2))
    values = gate.identified(gate.own_parameters())
    intercept, c, upper = values[0], values[1:7].reshape(2, 3), values[7:]
    metric = torch.zeros(3, 3, dtype=torch.float64)
    metric[tuple(torch.triu_indices(3, 3))] = upper
    metric = metric + metric.triu(1).T
    assert metric.trace().item() == pytest.approx(1.0)
    x = inputs(gate)
    cosine = x @ c.T / torch.einsum("ni,ij,nj->n", x, metric, x).sqrt()[:, None]
    difference = gate.logits(x)[:, 0] - gate.logits(x)[:, 1]
    torch.testing.assert_close(cosine[:, 0] - cosine[:, 1] + intercept, difference.detach())
    assert [q.term for q in gate.quantities(features(gate))[7:]] == [
        "metric x0, x0",
        "metric x0, x1",
        "metric x0, x2",
        "metric x1, x1",
        "metric x1, x2",
        "metric x2, x2",
    ]


@pytest.mark.parametrize("options", [{}, {"projection": 2, "temperature": 0.1}])
def test_singular_points(options):
    gate = randomise(CosineGate(3, 2, **options))
    zero = torch.zeros(2, 3, dtype=torch.float64)
    torch.testing.assert_close(gate.logits(zero), gate.bias.expand(2, -1))
    check_finite(gate, zero)
    with torch.no_grad():
        gate.weight[0] = 0.0
    own, x = gate.own_parameters(), inputs(gate)
    torch.testing.assert_close(gate.logits(x)[:, 0], gate.bias[0].expand(len(x)))
    check_finite(gate, x)
    gate(x)[:, 0].sum().backward()
    assert gate.weight.grad[0].abs().max() == 0.0
    at_zero = zero.clone().requires_grad_()
    log_weights_at(gate, own, at_zero)[:, 0].sum().backward()
    assert at_zero.grad.abs().max() == 0.0


def test_initial_gates_are_regular():
    for d, k in ((2, 5), (4, 2), (8, 20)):
        gate = CosineGate(d, k).double()
        check_finite(gate, inputs(gate))
        assert (gate(inputs(gate)).std(0) > 0.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "needs a feature"),
        ({"temperature": 0.0}, "positive and finite"),
        ({"projection": 1}, "from 2 to 3 dimensions, not 1"),
        ({"projection": 4}, "from 2 to 3 dimensions, not 4"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        CosineGate(**{"n_features": 3, "n_experts": 2, **arguments})


def test_scales_settle_at_length_one_without_any_effect():
    gate = CosineGate(2, 3, temperature=0.5).double()
    far = torch.tensor([[3e4, -4e4], [0.0, 2e-7], [0.0, 0.0]], dtype=torch.float64)
    gate.assign_parameters({"weight": far, "bias": torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)})
    (scales,) = [symmetry for symmetry in gate.symmetries() if symmetry.name == "scale"]
    own = gate.own_parameters()
    settled = scales.act(own, scales.settling(own))
    expected = torch.tensor([[0.6, -0.8], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(settled["weight"], expected, rtol=1e-14, atol=0.0)
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = torch.func.functional_call(gate, settled, (x,))
    torch.testing.assert_close(logits, gate(x), rtol=1e-12, atol=1e-12)
