"""The table of formulas against the torch modules, number by number, and its derivatives against differences."""

import mpmath
import numpy as np
import pytest
import sympy
import torch

from gatewise.exceptions import InputError
from gatewise.experts import CallableExperts, build_experts
from gatewise.families import build_family
from gatewise.gates import build_gate
from gatewise.model import MixtureOfExperts
from gatewise.parts.expressions import ACTIVATIONS, formula_of
from gatewise.theory.identifiability.parts import formula_part
from gatewise.theory.identifiability.ridge import ridge

GATES = [
    ("softmax", {}),
    ("modified_softmax", {"transform": "tanh"}),
    ("modified_softmax", {"transform": "cos"}),
    ("dense_to_sparse", {}),
    ("dense_to_sparse", {"temperature": 0.3, "free_temperature": False}),
    ("activation_dense_to_sparse", {"activation": "sigmoid"}),
    ("activation_dense_to_sparse", {"activation": "gelu", "temperature": 0.7, "free_temperature": False}),
    ("cosine", {}),
    ("cosine", {"temperature": 0.3}),
    ("perturbed_cosine", {"tau1": 0.2, "tau2": 0.5}),
    ("sigmoid", {}),
    ("sigmoid", {"normalised": False}),
    ("laplace", {}),
    ("gaussian", {}),
    ("gaussian", {"joint": False, "covariance": "diagonal"}),
    ("quadratic", {}),
    ("quadratic", {"monomial": True}),
    ("top_k", {"inner": "cosine", "n_active": 3}),
]
EXPERTS = [
    ("linear", {}),
    ("constant", {}),
    ("polynomial", {"power": 3}),
    ("polynomial_basis", {"degree": 3}),
    *(("feed_forward", {"hidden": 2, "activation": name}) for name in sorted(ACTIVATIONS)),
    ("feed_forward", {"hidden": 1, "activation": "tanh", "output_bias": True}),
]
FAMILIES = [
    ("gaussian", {}),
    ("laplace", {}),
    ("student_t", {}),
    ("student_t", {"df": 3.0}),
    ("poisson", {}),
    ("gamma", {}),
    ("negative_binomial", {}),
    ("bernoulli", {}),
    ("categorical", {"n_classes": 2}),
    ("categorical", {"n_classes": 3}),
]


def drawn(module, seed=0):
    """The module in double precision at random parameters."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    own = module.own_parameters()
    module.assign_parameters({n: v + 0.4 * torch.randn(v.shape, generator=generator) for n, v in own.items()})
    return module


def read(formula, atoms, row):
    """Values for the parameters of a formula from arrays by name."""
    return {own.symbol: float(np.asarray(atoms[own.atom])[(row, *own.place)]) for own in formula.parameters}


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize(("name", "options"), GATES)
def test_scores_are_the_logits_up_to_a_number_for_each_expert(name, options, d):
    gate = drawn(build_gate(name, d, 3, **options))
    formula = formula_of(gate)
    atoms = {key: value.numpy() for key, value in gate.atoms().items()}
    x = torch.randn(5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = gate.logits(x).detach().numpy()
    for expert in range(3):
        values = read(formula, atoms, expert)
        score = sympy.lambdify([*formula.x, *values], formula.values[0], modules="mpmath")
        found = np.array([float(score(*row, *values.values())) for row in x.tolist()])
        rest = logits[:, expert] - found
        assert np.ptp(rest) < 1e-12
        if name == "sigmoid":
            assert abs(rest[0]) < 1e-12


def test_a_leaf_of_a_tree_is_a_product_of_two_gates():
    gate = drawn(build_gate("hierarchical", 2, 4, inner="laplace"))
    formula = formula_of(gate)
    atoms = {key: value.numpy() for key, value in gate.atoms().items()}
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = [read(formula, atoms, expert) for expert in (0, 1)]
    score = sympy.lambdify([*formula.x, *values[0]], formula.values[0], modules="mpmath")
    first, second = (np.array([float(score(*row, *one.values())) for row in x.tolist()]) for one in values)
    logits = gate.logits(x).detach().numpy()
    # Of leaves of one group all normalisers cancel.
    assert np.ptp(logits[:, 0] - logits[:, 1] - (first - second)) < 1e-12


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize(("name", "options"), EXPERTS)
def test_locations_are_those_of_the_bank(name, options, d):
    outputs = 2 if name != "polynomial_basis" else 1
    experts = drawn(build_experts(name, d, 2, n_outputs=outputs, **options))
    formula = formula_of(experts)
    atoms = {key: value.numpy() for key, value in experts.atoms().items()}
    x = torch.randn(5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    location = experts.location(x).detach().numpy().reshape(5, 2, outputs)
    values = read(formula, atoms, 1)
    function = sympy.lambdify([*formula.x, *values], formula.values, modules="mpmath")
    found = np.array([[float(one) for one in function(*row, *values.values())] for row in x.tolist()])
    np.testing.assert_allclose(found, location[:, 1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_densities_are_those_of_the_family(name, options):
    family = build_family(name, **options)
    formula = formula_of(family)
    m, s = family.n_outputs, family.n_dispersion
    model = MixtureOfExperts(
        build_gate("softmax", 0, 1), build_experts("constant", 1, 1, n_outputs=m, n_dispersion=s), family
    ).double()
    with torch.no_grad():
        model.experts.bias.copy_(torch.linspace(0.3, 0.7, m).reshape(model.experts.bias.shape))
        model.experts.log_scale.copy_(torch.linspace(-0.4, 0.5, max(s, 1))[:s].reshape(model.experts.log_scale.shape))
    atoms = model.atoms()
    arrays = {**atoms.dispersion, "variance": atoms.variance}
    values = read(formula, arrays, 0)
    location = model.experts.bias.detach().reshape(-1).tolist()
    density = sympy.lambdify([*formula.y, *formula.location, *values], formula.density, modules="mpmath")
    for number in (0, 1, formula.n_targets - 1):
        target = [float(value) for value in formula.targets(number)]
        y = torch.tensor([float(np.argmax(target)) if len(target) > 1 else target[0]], dtype=torch.float64)
        expected = model.log_prob(torch.zeros(1, 1, dtype=torch.float64), y).exp().item()
        assert float(density(*target, *location, *values.values())) == pytest.approx(expected, rel=1e-12)


def test_the_ridge_expert_is_what_a_user_would_write():
    experts = CallableExperts(
        2, 1, function=lambda x, eta: torch.tanh(x @ eta["a"] + eta["b"]), shapes={"a": (2,), "b": ()}
    )
    experts = drawn(experts)
    formula = ridge(2, "tanh")
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = [*experts.a[0].tolist(), experts.b[0].item()]
    function = sympy.lambdify([*formula.x, *(own.symbol for own in formula.parameters)], formula.values[0])
    found = [float(function(*row, *values)) for row in x.tolist()]
    np.testing.assert_allclose(found, experts.location(x)[:, 0].detach().numpy(), rtol=1e-13)


@pytest.mark.parametrize("activation", ["unknown", 3])
def test_a_ridge_expert_needs_a_formula(activation):
    with pytest.raises(InputError, match="no formula for the activation"):
        ridge(1, activation)
    with pytest.raises(InputError, match="needs a feature"):
        ridge(0)


def test_derivatives_agree_with_differences_in_many_digits():
    with mpmath.workdps(50):
        formula = formula_of(build_gate("gaussian", 2, 2))
        part = formula_part(formula, 40)
        point = np.array([mpmath.mpf(n) / 10 for n in (3, -4, 11, 1, 9)], dtype=object)
        x = np.array([[mpmath.mpf(1) / 3, mpmath.mpf(2) / 7]], dtype=object)
        found = part.derivatives(x, point)
        function = sympy.lambdify(
            [*formula.x, *(own.symbol for own in formula.parameters)], formula.values[0], "mpmath"
        )
        for order in np.ndindex(5, 5):
            times = [0, 0, *(sum(place == i for place in order) for i in range(5))]
            expected = mpmath.diff(function, (*x[0], *point), tuple(times))
            assert abs(found.second[(0, 0, *order)] - expected) < mpmath.mpf(10) ** -15
