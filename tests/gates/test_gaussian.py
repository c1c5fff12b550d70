"""The Gaussian gate, joint and conditional, under the shared checks and against SciPy's densities."""

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import multivariate_normal

from gatewise.exceptions import InputError
from gatewise.gates import GaussianGate, QuadraticGate
from tests.gates.helpers import (
    check_atoms,
    check_basis,
    check_finite,
    check_gradients,
    check_identified_matches_quantities,
    check_normalised,
    check_null_space,
    check_options_round_trip,
    check_permutations,
    check_route,
    check_shapes,
    check_symmetries,
    check_unstandardise,
    flatten,
    inputs,
    log_weights_at,
    numerical_rank,
    randomise,
    unflatten,
)

COVARIANCES = ("full", "diagonal")


class Logits(torch.nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def forward(self, x):
        return self.gate.logits(x)


def parameter_count(gate):
    return sum(parameter.numel() for parameter in gate.parameters())


def logits_jacobian(gate, x):
    """∂ logits / ∂ parameters: the joint model sees the logits themselves."""
    own = gate.own_parameters()

    def flat(vector):
        moved = unflatten(vector, own)
        return torch.func.functional_call(Logits(gate), {f"gate.{n}": v for n, v in moved.items()}, (x,)).reshape(-1)

    return torch.func.jacrev(flat)(flatten(own))


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("d", [0, 1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_contract_of_the_conditional_gate(d, k, covariance):
    gate = randomise(GaussianGate(d, k, joint=False, covariance=covariance), scale=0.5)
    empty = tuple(name for name, parameter in gate.named_parameters() if not parameter.numel())
    x = inputs(gate)
    check_shapes(gate)
    check_normalised(gate, x)
    check_gradients(gate, x[:9], exempt=empty, rtol=1e-6, atol=1e-6)
    for check in (
        check_symmetries,
        check_null_space,
        check_permutations,
        check_unstandardise,
        check_basis,
        check_route,
    ):
        check(gate, x)
    for check in (check_options_round_trip, check_identified_matches_quantities, check_atoms):
        check(gate)
    expected = 1 + d + (d * (d + 1) // 2 if covariance == "full" else d)
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == expected


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("k", [2, 3])
def test_null_space_of_the_conditional_gate_with_many_features(k, covariance):
    gate = randomise(GaussianGate(8, k, joint=False, covariance=covariance), scale=0.2)
    check_null_space(gate, inputs(gate, n=150, scale=1.0))
    check_symmetries(gate, inputs(gate))


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
def test_null_space_of_the_joint_gate(d, k, covariance):
    gate = randomise(GaussianGate(d, k, covariance=covariance), scale=0.3)
    x = inputs(gate, n=150)
    jacobian = logits_jacobian(gate, x)
    rank = numerical_rank(jacobian)
    own = gate.own_parameters()
    assert parameter_count(gate) - rank == 1 == sum(symmetry.dimension for symmetry in gate.symmetries())
    assert (jacobian @ gate.symmetries()[0].tangents(own).T).abs().max() < 1e-10
    identified = torch.func.jacrev(lambda vector: gate.identified(unflatten(vector, own)))(flatten(own))
    assert len(identified) == rank == numerical_rank(identified)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_contract_of_the_joint_gate(d, covariance):
    gate = randomise(GaussianGate(d, 3, covariance=covariance), scale=0.5)
    assert gate.is_joint
    x = inputs(gate)
    check_shapes(gate)
    for check in (check_normalised, check_symmetries, check_permutations, check_unstandardise, check_route):
        check(gate, x)
    for check in (check_options_round_trip, check_identified_matches_quantities, check_atoms):
        check(gate)
    x = inputs(gate, n=1)[0]
    shift, scale = torch.full((d,), 2.0, dtype=torch.float64), torch.full((d,), 3.0, dtype=torch.float64)
    scale[0] = -0.5
    raw = GaussianGate(d, 3, covariance=covariance).double()
    raw.assign_parameters(gate.unstandardise(gate.own_parameters(), shift, scale))
    # A density of x is the density of (x − shift)/scale over |scale|.
    expected = gate.logits((x - shift) / scale) - scale.abs().log().sum()
    torch.testing.assert_close(raw.logits(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("d", [1, 2, 4])
def test_logits_are_joint_log_densities(d, covariance):
    gate = randomise(GaussianGate(d, 3, covariance=covariance), scale=0.6)
    x = inputs(gate, n=7)
    atoms = {name: value.numpy() for name, value in gate.atoms().items()}
    assert np.exp(atoms["gate_log_weight"]).sum() == pytest.approx(1.0, abs=1e-14)
    for i in range(3):
        density = multivariate_normal(atoms["gate_centre"][i], atoms["gate_covariance"][i])
        expected = atoms["gate_log_weight"][i] + density.logpdf(x.numpy())
        np.testing.assert_allclose(gate.logits(x).detach().numpy()[:, i], expected, rtol=1e-11)
    if covariance == "diagonal":
        off = atoms["gate_covariance"] * (1.0 - np.eye(d))
        assert (off == 0.0).all()


def test_the_joint_density_integrates_to_one():
    gate = randomise(GaussianGate(1, 3), scale=0.5)

    def density(value):
        return torch.logsumexp(gate.logits(torch.tensor([value], dtype=torch.float64)), -1).exp().item()

    assert integrate.quad(density, -30, 30, limit=200)[0] == pytest.approx(1.0, abs=1e-9)


def test_the_conditional_gate_is_the_quadratic_gate_of_its_contrasts():
    gate = randomise(GaussianGate(3, 3, joint=False), scale=0.5)
    contrasts = gate.identified(gate.own_parameters()).reshape(2, -1)
    assert [q.term for q in gate.quantities(["a", "b", "c"])] == [
        q.term for q in QuadraticGate(3, 3).quantities(["a", "b", "c"])
    ]
    last = torch.zeros(1, contrasts.shape[1], dtype=torch.float64)
    coefficients = torch.cat([contrasts, last])
    quadratic = QuadraticGate(3, 3).double()
    quadratic.assign_parameters(
        {"bias": coefficients[:, 0], "weight": coefficients[:, 1:4], "quadratic": coefficients[:, 4:]}
    )
    x = inputs(gate)
    torch.testing.assert_close(quadratic(x), gate(x), rtol=1e-10, atol=1e-10)
    diagonal = randomise(GaussianGate(2, 2, joint=False, covariance="diagonal"))
    assert [q.term for q in diagonal.quantities(["x", "z"])] == ["(intercept)", "x", "z", "x²", "z²"]


def test_the_common_quadratic_function_stays_valid_far_from_zero():
    gate = randomise(GaussianGate(2, 2, joint=False), scale=0.5)
    x = inputs(gate)
    (symmetry,) = gate.symmetries()
    for sign in (-1.0, 1.0):
        amount = sign * torch.tensor([3.0, 2.0, -2.0, 50.0, 10.0, 50.0], dtype=torch.float64)
        moved = symmetry.act(gate.own_parameters(), amount)
        torch.testing.assert_close(log_weights_at(gate, moved, x), gate(x).detach(), rtol=1e-9, atol=1e-9)


def test_quantities_of_the_joint_gate():
    quantities = GaussianGate(2, 2).quantities(["x", "variance z"])
    terms = ["x", "variance z", "variance x", "variance variance z", "covariance x variance z"]
    assert [(q.component, q.term) for q in quantities] == [
        ("gate 1 vs 2", "log weight"),
        *(("gate 1", term) for term in terms),
        *(("gate 2", term) for term in terms),
    ]
    assert [q.positive for q in quantities] == [False, *2 * [False, False, True, True, False]]


def test_a_new_gate_is_regular_everywhere():
    check_finite(GaussianGate(2, 2, joint=False), torch.zeros(3, 2))
    check_finite(GaussianGate(2, 2), torch.full((1, 2), 30.0))


def test_unknown_covariances_are_refused():
    with pytest.raises(InputError, match="'full' or 'diagonal', not 'spherical'"):
        GaussianGate(2, 2, covariance="spherical")
