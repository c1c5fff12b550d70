"""What every bank of experts must do, as checks that raise; each takes a bank in float64 with random parameters."""

import json

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jacrev

from gatewise.exceptions import InputError
from gatewise.experts import build_experts
from gatewise.parts.draws import Draws

# At these sizes a singular value is either rounding or not: the tests' Jacobians have none in between.
NULL = 1e-11


def randomise(bank, seed=0, scale=1.0):
    """The bank in float64 with normal parameters, of standard deviation `scale` but for dispersions and inner biases.

    Those of hidden units are small so that every unit bends among the inputs: a relu that is off on all of them, or
    nowhere off, has null directions beyond the declared ones.
    """
    generator = torch.Generator().manual_seed(seed)
    bank = bank.double().requires_grad_(False)
    for name, parameter in bank.named_parameters():
        spread = 0.3 if name in ("log_scale", "inner_bias") else scale
        parameter.copy_(spread * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return bank.requires_grad_(True)


def inputs(bank, n, seed=1, scale=1.0):
    """Standard normal inputs (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, bank.n_features, dtype=torch.float64, generator=generator)


class _Location(nn.Module):
    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def forward(self, x):
        return self.bank.location(x)


def locations(bank, parameters, x):
    """The bank's locations at other parameters than its own."""
    called = {f"bank.{name}": value for name, value in parameters.items()}
    return functional_call(_Location(bank), called, (x,))


def described(bank):
    """The parameters that the bank describes itself: all but the dispersions."""
    return {name: value for name, value in bank.own_parameters().items() if name != "log_scale"}


def flat_jacobian(function, parameters):
    """Derivatives of a function of a parameter dictionary with values (n,), (n, parameters)."""
    jacobian = jacrev(function)(parameters)
    return torch.cat([jacobian[name].flatten(1) for name in parameters], dim=-1)


def location_jacobian(bank, n=200, scale=1.5):
    x = inputs(bank, n, scale=scale)
    return flat_jacobian(lambda parameters: locations(bank, parameters, x).reshape(-1), described(bank))


def rank(matrix):
    values = torch.linalg.svdvals(matrix)
    return int((values > NULL * values[0]).sum())


def assert_close(actual, expected, tolerance):
    """Agreement relative to the largest magnitude, as sums of terms that cancel have to be judged."""
    assert actual.shape == expected.shape
    largest = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=tolerance * largest)


def check_shapes(bank):
    """Any number of batch axes, one row at a time or all at once."""
    outputs = () if bank.n_outputs == 1 else (bank.n_outputs,)
    x = inputs(bank, 12)
    all_at_once = bank.location(x)
    assert all_at_once.shape == (12, bank.n_experts, *outputs)
    for batch in ((), (1,), (3, 4), (2, 1, 6), (0,)):
        rows = x[: int(np.prod(batch))]
        location, dispersion = bank(rows.reshape(*batch, bank.n_features))
        assert location.shape == (*batch, bank.n_experts, *outputs)
        assert_close(location.reshape(-1, bank.n_experts, *outputs), all_at_once[: len(rows)], 1e-14)
        shape = () if bank.n_dispersion == 1 else (bank.n_dispersion,)
        assert dispersion.shape == (bank.n_experts, *shape)


def check_gradients(bank, tolerance=1e-7):
    """First and second derivatives agree with central differences, and reach every parameter."""
    x = inputs(bank, 30)
    parameters = described(bank)
    weights = torch.cos(torch.arange(bank.location(x).numel(), dtype=torch.float64))

    def total(values):
        return (locations(bank, values, x).reshape(-1) * weights).sum()

    def gradient(values):
        return jacrev(total)(values)

    exact, second = gradient(parameters), jacrev(gradient)(parameters)
    step = 1e-5
    for name, value in parameters.items():
        assert bool((exact[name] != 0.0).all()), f"no gradient reaches {name}"
        for index in np.ndindex(*value.shape):
            moved = []
            for sign in (1.0, -1.0):
                other = value.clone()
                other[index] += sign * step
                moved.append({**parameters, name: other})
            difference = (total(moved[0]) - total(moved[1])) / (2.0 * step)
            assert_close(exact[name][index], difference, tolerance)
            up, down = gradient(moved[0]), gradient(moved[1])
            for other_name in parameters:
                curvature = (up[other_name] - down[other_name]) / (2.0 * step)
                assert_close(second[other_name][name][(..., *index)], curvature, 10 * tolerance)


def check_finite_at_singular_points(bank):
    """Values and gradients are finite where parameters or inputs are 0."""
    for factor in (0.0, 1.0):
        for x in (torch.zeros(2, bank.n_features, dtype=torch.float64), inputs(bank, 2)):
            parameters = {name: factor * value for name, value in described(bank).items()}
            assert torch.isfinite(locations(bank, parameters, x)).all()
            assert torch.isfinite(bank.identified(parameters)).all()
            for function in (lambda p, x=x: locations(bank, p, x).reshape(-1), bank.identified):
                assert torch.isfinite(flat_jacobian(function, parameters)).all()


def check_symmetries(bank):
    """Declared symmetries change parameters but not locations; the continuous ones start at the identity."""
    x, own = inputs(bank, 20), bank.own_parameters()
    before = locations(bank, own, x)
    generator = torch.Generator().manual_seed(5)
    for symmetry in bank.symmetries():
        amount = 0.3 * torch.randn(symmetry.dimension, dtype=torch.float64, generator=generator)
        moved = symmetry.act(own, amount)
        assert set(moved) == set(own), symmetry.name
        assert torch.equal(moved["log_scale"], own["log_scale"])
        assert_close(locations(bank, moved, x), before, 1e-10)
        assert max(float((moved[name] - own[name]).abs().max()) for name in described(bank)) > 1e-3, symmetry.name
        assert symmetry.name
        assert symmetry.sentence
        if symmetry.dimension:
            at_zero = symmetry.act(own, torch.zeros(symmetry.dimension, dtype=torch.float64))
            for name, value in own.items():
                assert_close(at_zero[name], value, 1e-13)
            assert_close(bank.identified(moved), bank.identified(own), 1e-10)
            tangents = symmetry.tangents(described(bank))
            assert tangents.shape == (symmetry.dimension, sum(value.numel() for value in described(bank).values()))
            assert rank(tangents) == symmetry.dimension
            jacobian = location_jacobian(bank)
            along = (jacobian @ tangents.T).abs().max()
            assert along < 1e-11 * jacobian.abs().max() * tangents.abs().max(), symmetry.name


def continuous_dimension(bank):
    """The dimension of the declared orbit through the present parameters."""
    tangents = [symmetry.tangents(described(bank)) for symmetry in bank.symmetries() if symmetry.dimension]
    return rank(torch.cat(tangents)) if tangents else 0


def check_null_space(bank, further=0):
    """The locations at many inputs have the null directions that are declared, and `further` more."""
    jacobian = location_jacobian(bank)
    assert jacobian.shape[1] - rank(jacobian) == continuous_dimension(bank) + further


def check_identified(bank):
    """Identified functions are determined by the locations, and determine them, to first order."""
    own = described(bank)
    by_location, by_name = location_jacobian(bank), flat_jacobian(bank.identified, own)
    expected = rank(by_location)
    assert rank(by_name) == expected
    scaled = torch.cat([by_location / by_location.norm(), by_name / by_name.norm()])
    assert rank(scaled) == expected
    features = [f"x{j}" for j in range(bank.n_features)]
    outputs = [""] if bank.n_outputs == 1 else [f"y[{j}]" for j in range(bank.n_outputs)]
    quantities = bank.quantities(features, outputs)
    assert len(quantities) == len(bank.identified(own))
    assert len(set(quantities)) == len(quantities)
    assert {quantity.component for quantity in quantities} == {f"expert {i + 1}" for i in range(bank.n_experts)}


def check_unstandardise(bank, tolerance=1e-12):
    """Parameters for original inputs give what the given ones gave for standardised ones, or it is refused."""
    own, x = bank.own_parameters(), inputs(bank, 15)
    shift = torch.linspace(-0.6, 0.9, bank.n_features, dtype=torch.float64)
    scale = torch.linspace(0.7, 1.6, bank.n_features, dtype=torch.float64)
    if not bank.affine_equivariant:
        with_error(bank.unstandardise, own, shift, scale)
        return
    moved = bank.unstandardise(own, shift, scale)
    assert set(moved) == set(own)
    assert torch.equal(moved["log_scale"], own["log_scale"])
    assert_close(locations(bank, moved, x), locations(bank, own, (x - shift) / scale), tolerance)
    jacobian = flat_jacobian(
        lambda p: torch.cat([v.reshape(-1) for v in bank.unstandardise(p, shift, scale).values()]), own
    )
    assert rank(jacobian) == len(jacobian), "an affine change of inputs loses nothing"


def check_change_output(bank, tolerance=1e-12):
    """Locations become shift + scale · location as far as the bank says they can."""
    own, x = bank.own_parameters(), inputs(bank, 15)
    shift = torch.linspace(-0.8, 1.5, bank.n_outputs, dtype=torch.float64)
    scale = torch.linspace(0.4, 2.5, bank.n_outputs, dtype=torch.float64)
    if bank.output_change == "none":
        with_error(bank.change_output, own, shift, scale)
        return
    if bank.output_change == "scale":
        with_error(bank.change_output, own, shift, scale)
        shift = torch.zeros_like(shift)
    moved = bank.change_output(own, shift, scale)
    assert torch.equal(moved["log_scale"], own["log_scale"])
    before = locations(bank, own, x).reshape(15, bank.n_experts, bank.n_outputs)
    after = locations(bank, moved, x).reshape(15, bank.n_experts, bank.n_outputs)
    assert_close(after, shift + scale * before, tolerance)


def with_error(function, *arguments):
    """The call must end in an InputError."""
    try:
        function(*arguments)
    except InputError:
        return
    raise AssertionError("this must be refused")


def check_rebuild(bank):
    """Name, sizes and options, as JSON has them, give the bank back; also without memory for the weights."""
    plain = json.loads(json.dumps({**bank.sizes(), **bank.options()}))
    again = build_experts(bank.name, bank.n_features, bank.n_experts, **plain).double()
    assert type(again) is type(bank)
    assert repr(again) == repr(bank)
    again.assign_parameters(bank.own_parameters())
    x = inputs(bank, 5)
    assert torch.equal(again.location(x), bank.location(x))
    with torch.device("meta"):
        shell = build_experts(bank.name, bank.n_features, bank.n_experts, **plain)
    shell.load_state_dict(bank.state_dict(), assign=True)
    assert torch.equal(shell.location(x), bank.location(x))
    with_error(lambda: build_experts(bank.name, 1, 2, no_such_option=1))


def check_permute(bank):
    """Experts change places with all they own, and atoms and per_expert agree on what that is."""
    order = [*range(1, bank.n_experts), 0]
    own, x = bank.own_parameters(), inputs(bank, 6)
    moved = bank.permute(own, order)
    assert torch.equal(locations(bank, moved, x), locations(bank, own, x)[:, order])
    if bank.shared_scale:
        assert torch.equal(moved["log_scale"], own["log_scale"])
    else:
        assert torch.equal(moved["log_scale"], own["log_scale"][order])
    assert set(bank.per_expert) == set(described(bank))
    with_error(bank.permute, own, [0] * bank.n_experts if bank.n_experts > 1 else [1])
    for name, atom in bank.atoms().items():
        assert len(atom) == bank.n_experts, name
        assert not atom.requires_grad
    for value in bank.atoms().values():
        value.fill_(7.0)
    assert torch.equal(bank.location(x), locations(bank, own, x)), "atoms must be copies"


def check_precision(bank):
    """Float32 stays float32 in every function and agrees with float64."""
    x, own = inputs(bank, 9), bank.own_parameters()
    single = {name: value.float() for name, value in own.items()}
    low = locations(bank, single, x.float())
    assert low.dtype == torch.float32
    assert_close(low.double(), locations(bank, own, x), 1e-4)
    assert bank.identified(single).dtype == torch.float32
    one = torch.ones(bank.n_features)
    if bank.affine_equivariant:
        assert {value.dtype for value in bank.unstandardise(single, one, 2.0 * one).values()} == {torch.float32}
    if bank.output_change != "none":
        outputs = torch.ones(bank.n_outputs)
        moved = bank.change_output(single, 0.0 * outputs, 2.0 * outputs)
        assert {value.dtype for value in moved.values()} == {torch.float32}
    for symmetry in bank.symmetries():
        assert {value.dtype for value in symmetry.act(single, torch.zeros(symmetry.dimension)).values()} == {
            torch.float32
        }


def check_basis(bank):
    """Where there is a basis, the location is its product with the coefficients."""
    x, own = inputs(bank, 8), bank.own_parameters()
    basis = bank.basis(x)
    if basis is None:
        with_error(bank.coefficients, own)
        return
    coefficients = bank.coefficients(own)
    outputs = () if bank.n_outputs == 1 else (bank.n_outputs,)
    assert coefficients.shape == (bank.n_experts, *outputs, basis.shape[-1])
    assert_close(torch.einsum("nq,k...q->nk...", basis, coefficients), bank.location(x), 1e-13)


def check_start(bank):
    """A fit's first values are all there but the dispersions, and finite; the same draws give the same ones."""
    x, generator = inputs(bank, 30), torch.Generator().manual_seed(3)
    shares = torch.rand(30, bank.n_experts, dtype=torch.float64, generator=generator)
    design = bank.start_design(x)
    outputs = () if bank.n_outputs == 1 else (bank.n_outputs,)
    coefficients = None
    if design is not None:
        coefficients = torch.randn(bank.n_experts, *outputs, design.shape[1], dtype=torch.float64, generator=generator)
    draws = [Draws(np.random.default_rng(0), np.arange(bank.n_features), np.arange(30), np.ones(30)) for _ in range(2)]
    found, again = (bank.start(x, shares, coefficients, one) for one in draws)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in described(bank).items()
    }
    assert all(torch.isfinite(value).all() and torch.equal(value, again[name]) for name, value in found.items())
    if bank.basis(x) is not None:
        assert_close(bank.coefficients({**bank.own_parameters(), **found}), coefficients, 1e-12)


CHECKS = [
    check_shapes,
    check_gradients,
    check_finite_at_singular_points,
    check_symmetries,
    check_null_space,
    check_identified,
    check_unstandardise,
    check_change_output,
    check_rebuild,
    check_permute,
    check_precision,
    check_basis,
    check_start,
]
