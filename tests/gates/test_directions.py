import math

import pytest
import torch

from gatewise.gates.directions import distinct_rows, length, reflection, shared_shift, unit


def random_rows(k, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, d, dtype=torch.float64, generator=generator)


def test_length_and_direction():
    v = random_rows(7, 5)
    torch.testing.assert_close(length(v), v.norm(dim=-1, keepdim=True), rtol=1e-15, atol=0.0)
    torch.testing.assert_close(unit(v), v / v.norm(dim=-1, keepdim=True), rtol=1e-15, atol=1e-16)
    assert torch.autograd.gradcheck(length, v.requires_grad_())
    assert torch.autograd.gradcheck(unit, v)
    assert torch.autograd.gradgradcheck(length, v)
    assert torch.autograd.gradgradcheck(unit, v)


@pytest.mark.parametrize(("dtype", "huge", "small"), [(torch.float32, 1e30, 1e-30), (torch.float64, 1e200, 1e-200)])
def test_squares_neither_overflow_nor_vanish(dtype, huge, small):
    v = torch.tensor([[3.0, 4.0]], dtype=dtype)
    for factor in (huge, small):
        far = (factor * v).requires_grad_()
        torch.testing.assert_close(length(far), factor * length(v))
        torch.testing.assert_close(unit(far), unit(v))
        length(far).sum().backward()
        torch.testing.assert_close(far.grad, unit(v))


def test_zero_vectors_have_value_and_derivatives_zero():
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for function in (length, unit):
        assert function(v).abs().max() == 0.0
        (first,) = torch.autograd.grad(function(v).sum(), v, create_graph=True)
        assert first.abs().max() == 0.0
        jacobian = torch.autograd.functional.jacobian(function, v, create_graph=True)
        assert torch.isfinite(jacobian).all()


@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 1), (3, 2), (5, 2), (4, 8), (8, 3), (20, 5)])
def test_initial_rows_differ_in_direction_and_span(k, d):
    rows = distinct_rows(k, d)
    assert torch.equal(rows[: min(k, d)], torch.eye(d)[: min(k, d)])
    assert torch.linalg.matrix_rank(rows) == min(k, d)
    angles = unit(rows.double()) @ unit(rows.double()).T - torch.eye(k, dtype=torch.float64)
    if d > 1:
        assert angles.max() < 1.0 - 1e-4


@pytest.mark.parametrize("amount", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 3), (3, 8), (7, 8)])
def test_a_shared_shift_keeps_every_direction_a_unit_vector(k, d, amount):
    weight = random_rows(k, d)
    a = amount * random_rows(1, d - k, seed=1)[0]
    moved = shared_shift(k, d).act({"weight": weight}, a)["weight"]
    torch.testing.assert_close(length(moved), length(weight), rtol=1e-13, atol=1e-13)
    shift = unit(moved) - unit(weight)
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=1e-12, atol=1e-12)
    assert shift[0].norm() > 0.01


def test_a_shared_shift_near_the_start_is_the_parabola_of_the_closed_form():
    """T = W a' − (c/2) m with ‖a'‖ = sin θ/‖m‖ and c = ‖t‖² = 2 (1 − sqrt(1 − ‖a'‖²‖m‖²))/‖m‖², while θ < π/2."""
    k, d = 3, 6
    weight = random_rows(k, d)
    u = unit(weight)
    m = torch.linalg.lstsq(u, torch.ones(k, 1, dtype=torch.float64), driver="gelsd").solution[:, 0]
    a = 0.3 * random_rows(1, d - k, seed=1)[0]
    shift = (unit(shared_shift(k, d).act({"weight": weight}, a)["weight"]) - u)[0]
    angle = a.norm() * m.norm()
    assert angle < math.pi / 2
    inside = math.sin(angle) ** 2
    c = 2.0 * (1.0 - math.sqrt(1.0 - inside)) / (m @ m)
    assert (shift @ shift).item() == pytest.approx(c.item(), rel=1e-12)
    along = shift + 0.5 * c * m
    assert along.norm().item() == pytest.approx((math.sin(angle) / m.norm()).item(), rel=1e-12)
    torch.testing.assert_close(u @ along, torch.zeros(k, dtype=torch.float64), rtol=0.0, atol=1e-13)


def test_half_a_turn_of_the_shared_shift_is_the_reflection():
    k, d = 2, 4
    weight = random_rows(k, d)
    u = unit(weight)
    m = torch.linalg.pinv(u).sum(1)
    a = torch.tensor([math.pi / m.norm().item(), 0.0], dtype=torch.float64)
    moved = shared_shift(k, d).act({"weight": weight}, a)["weight"]
    torch.testing.assert_close(unit(moved), u - 2.0 * m / (m @ m), rtol=1e-12, atol=1e-12)


def test_the_reflection_undoes_itself():
    weight = random_rows(3, 3)
    once = reflection().act({"weight": weight}, torch.empty(0))
    assert (once["weight"] - weight).abs().max() > 0.1
    torch.testing.assert_close(reflection().act(once, torch.empty(0))["weight"], weight, rtol=1e-12, atol=1e-12)


def test_the_shift_is_differentiable_in_the_parameters_too():
    a = 0.4 * random_rows(1, 3, seed=1)[0]
    weight = random_rows(2, 5).requires_grad_()

    def unit_length(value):
        return unit(shared_shift(2, 5).act({"weight": value}, a)["weight"])

    # The basis may turn when the directions move, so that only what does not depend on it can be compared: the lengths
    # of the shift, and that the shift is common.
    assert torch.autograd.gradcheck(lambda value: (unit_length(value) - unit(value)).pow(2).sum(-1), weight)
