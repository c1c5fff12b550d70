"""The quadratic gate, polynomial and monomial, under the shared checks and against its formula."""

import pytest
import torch

from gatewise.gates import QuadraticGate
from gatewise.gates.quadratic_forms import from_matrix, monomial_names, monomials, to_matrix
from tests.gates.helpers import check_all, check_finite, check_null_space, inputs, randomise


@pytest.mark.parametrize("monomial", [False, True])
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_contract(d, k, monomial):
    gate = randomise(QuadraticGate(d, k, monomial=monomial))
    check_all(gate, inputs(gate))
    expected = 1 + d * (d + 1) // 2 + (0 if monomial else d)
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == expected


@pytest.mark.parametrize("monomial", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_null_space_with_many_features(k, monomial):
    gate = randomise(QuadraticGate(8, k, monomial=monomial), scale=0.2)
    check_null_space(gate, inputs(gate, n=120, scale=1.0))


def test_logits_equal_the_quadratic_form():
    gate = randomise(QuadraticGate(3, 2))
    x = inputs(gate, n=5)
    matrix = gate.atoms()["gate_quadratic"]
    assert torch.equal(matrix, matrix.mT)
    for row in x:
        for i in range(2):
            expected = row @ matrix[i] @ row + gate.weight[i] @ row + gate.bias[i]
            torch.testing.assert_close(gate.logits(row)[i], expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gate.slope_score(x) + gate.bias, gate.logits(x))
    monomial = randomise(QuadraticGate(3, 2, monomial=True))
    assert [name for name, _ in monomial.named_parameters()] == ["bias", "quadratic"]
    torch.testing.assert_close(monomial.logits(-x), monomial.logits(x))


def test_monomials_matrices_and_names_agree():
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coefficients = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrix = to_matrix(coefficients, 3)
    torch.testing.assert_close(torch.einsum("ni,kij,nj->nk", x, matrix, x), monomials(x) @ coefficients.T)
    assert torch.equal(from_matrix(matrix), coefficients)
    assert monomial_names(["u", "v", "w"]) == ["u²", "u*v", "u*w", "v²", "v*w", "w²"]
    assert (monomials(torch.tensor([2.0, 3.0, 5.0])) == torch.tensor([4.0, 6.0, 10.0, 9.0, 15.0, 25.0])).all()


def test_quantities_name_the_contrasts():
    quantities = QuadraticGate(2, 3).quantities(["x", "z"])
    assert [q.term for q in quantities[:6]] == ["(intercept)", "x", "z", "x²", "x*z", "z²"]
    assert {q.component for q in quantities} == {"gate 1 vs 3", "gate 2 vs 3"}
    assert [q.term for q in QuadraticGate(1, 2, monomial=True).quantities(["x"])] == ["(intercept)", "x²"]


def test_a_monomial_gate_follows_a_change_of_units_only():
    gate = randomise(QuadraticGate(2, 2, monomial=True))
    x, scale = inputs(gate), torch.tensor([2.0, 0.5], dtype=torch.float64)
    raw = {**gate.own_parameters(), "quadratic": gate.own_parameters()["quadratic"] / monomials(scale)}
    moved = QuadraticGate(2, 2, monomial=True).double()
    moved.assign_parameters(raw)
    torch.testing.assert_close(moved(x), gate(x / scale))
    # After a shift the logits have linear terms, odd in x, which no monomial gate has.
    shifted = gate(x - 1.0)
    assert (shifted - gate(-x - 1.0)).abs().max() > 0.1


def test_zero_parameters_and_inputs_are_regular():
    check_finite(QuadraticGate(2, 3), torch.zeros(4, 2))
