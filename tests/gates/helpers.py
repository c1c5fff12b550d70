"""What every gate must satisfy, as checks that take a gate whose parameters `randomise` has filled.

A test file of a gate is mostly calls of these, and closed forms of its own.
"""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, hessian, jacrev

from gatewise.exceptions import InputError
from gatewise.gates import GATES, build_gate
from gatewise.parts.draws import Draws
from gatewise.parts.parameters import Quantity

INVARIANCE = 1e-10
"""Largest change of a log-weight that counts as none."""


def randomise(gate, seed=0, scale=0.8):
    """The same gate in float64, its parameters drawn from N(0, scale²) in the order of `named_parameters`."""
    gate.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return gate


def inputs(gate, n=60, seed=100, scale=1.5):
    """Inputs (n, d) from N(0, scale²), float64."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, gate.n_features, dtype=torch.float64, generator=generator)


def features(gate):
    return [f"x{j}" for j in range(gate.n_features)]


def log_weights_at(gate, parameters, x):
    """The log-weights at other parameters; the gate's own are not touched."""
    return functional_call(gate, parameters, (x,))


def finite_part(values):
    """Impossible experts, log-weight −∞, count as 0: derivatives and differences are taken of the others."""
    return torch.where(torch.isfinite(values), values, torch.zeros_like(values))


def flatten(parameters):
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def unflatten(vector, like):
    pieces, start = {}, 0
    for name, value in like.items():
        pieces[name] = vector[start : start + value.numel()].reshape(value.shape)
        start += value.numel()
    return pieces


def numerical_rank(matrix, tolerance=1e-9):
    """How many singular values exceed `tolerance` times the largest; fails if one lies too close to tell."""
    if not matrix.numel():
        return 0
    values = torch.linalg.svdvals(matrix)
    if values[0] == 0.0:
        return 0
    share = values / values[0]
    doubtful = share[(share > 1e-2 * tolerance) & (share < 1e2 * tolerance)]
    assert not len(doubtful), f"the rank is not clear, singular values {share.tolist()}"
    return int((share > tolerance).sum())


def log_weight_jacobian(gate, x):
    """∂ log-weights / ∂ parameters at the gate's own, (n · k, number of parameters)."""
    own = gate.own_parameters()

    def flat(vector):
        return finite_part(log_weights_at(gate, unflatten(vector, own), x)).reshape(-1)

    return jacrev(flat)(flatten(own))


def check_shapes(gate):
    """Any number of batch axes, none and empty ones too, in float32 and float64; a row does not see its neighbours."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        typed = copy.deepcopy(gate).to(dtype)
        x = inputs(gate, n=6).to(dtype)
        whole = typed(x)
        assert whole.shape == (6, gate.n_experts)
        assert whole.dtype == dtype
        assert typed.logits(x).dtype == dtype
        row_by_row = torch.stack([typed(row) for row in x])
        assert row_by_row.shape == whole.shape
        torch.testing.assert_close(row_by_row, whole, rtol=tolerance, atol=tolerance)
        grid = typed(x.reshape(2, 1, 3, gate.n_features))
        assert grid.shape == (2, 1, 3, gate.n_experts)
        torch.testing.assert_close(grid.reshape(6, -1), whole, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(typed(x[:1]), whole[:1], rtol=tolerance, atol=tolerance)
        assert typed(x[:0]).shape == (0, gate.n_experts)
    single, double = copy.deepcopy(gate).float(), copy.deepcopy(gate).double()
    x = inputs(gate, n=6)
    torch.testing.assert_close(single(x.float()).double(), double(x), rtol=2e-4, atol=2e-4)


def check_normalised(gate, x):
    """Weights sum to one where the gate says so, and are the softmax of the logits; else the logits are the answer."""
    log_weights, logits = gate(x), gate.logits(x)
    if gate.normaliser == "none":
        assert torch.equal(log_weights, logits)
        return
    torch.testing.assert_close(log_weights.exp().sum(-1), torch.ones_like(log_weights[..., 0]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_weights, torch.log_softmax(logits, -1), rtol=1e-11, atol=1e-11)


def difference_quotient(function, vector, direction, step=1e-3):
    """The derivative along a direction from four values, with an error of order step⁴."""
    near = (function(vector + step * direction) - function(vector - step * direction)) / (2.0 * step)
    far = (function(vector + 2.0 * step * direction) - function(vector - 2.0 * step * direction)) / (4.0 * step)
    return (4.0 * near - far) / 3.0


def check_gradients(gate, x, exempt=(), rtol=1e-7, atol=1e-7):
    """Autograd's first and second derivatives in every parameter, and in x, equal difference quotients.

    The function is a random projection of the log-weights. Gradients must reach all parameters but `exempt`.
    """
    own = gate.own_parameters()
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn((*x.shape[:-1], gate.n_experts), dtype=torch.float64, generator=generator)

    def value(vector):
        return (weight * finite_part(log_weights_at(gate, unflatten(vector, own), x))).sum()

    start = flatten(own)
    gradient = grad(value)(start)
    curvature = hessian(value)(start)
    basis = torch.eye(len(start), dtype=torch.float64)
    quotients = torch.stack([difference_quotient(value, start, e) for e in basis])
    torch.testing.assert_close(gradient, quotients, rtol=rtol, atol=atol)
    second = torch.stack([difference_quotient(grad(value), start, e) for e in basis])
    torch.testing.assert_close(curvature, second, rtol=rtol, atol=10.0 * atol)
    if gate.n_experts > 1:
        for name, part in unflatten(gradient, own).items():
            assert name in exempt or part.abs().max() > 1e-6, f"no gradient reaches {name}"

    def of_input(flat_x):
        return (weight * finite_part(gate(flat_x.reshape(x.shape)))).sum().detach()

    leaf = x.detach().clone().requires_grad_(True)
    (weight * finite_part(gate(leaf))).sum().backward()
    flat_x = x.reshape(-1)
    for index in range(min(len(flat_x), 12)):
        direction = torch.zeros_like(flat_x)
        direction[index] = 1.0
        expected = difference_quotient(of_input, flat_x, direction)
        torch.testing.assert_close(leaf.grad.reshape(-1)[index], expected, rtol=rtol, atol=atol)


def check_finite(gate, x):
    """Values and first derivatives are finite at these inputs and the gate's own parameters, in both precisions."""
    for dtype in (torch.float32, torch.float64):
        typed = copy.deepcopy(gate).to(dtype)
        leaf = x.to(dtype).clone().requires_grad_(True)
        value = typed(leaf)
        assert torch.isfinite(value).all()
        (value * torch.arange(1.0, gate.n_experts + 1.0, dtype=dtype)).sum().backward()
        assert torch.isfinite(leaf.grad).all()
        for name, parameter in typed.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def move(symmetry, parameters, generator, size):
    """A random point of the orbit; an action that holds near 0 only says NaN beyond, and is then taken nearer."""
    amount = size * torch.randn(symmetry.dimension, dtype=torch.float64, generator=generator)
    for _ in range(12):
        moved = symmetry.act(parameters, amount)
        if all(torch.isfinite(value).all() for value in moved.values()):
            return moved
        amount = amount / 2.0
    raise AssertionError(f"{symmetry.name} is not finite even for small amounts")


def check_symmetries(gate, x, size=0.7):
    """Every declared symmetry leaves the log-weights alone, and a continuous one the identified functions too."""
    own = {name: value.clone() for name, value in gate.own_parameters().items()}
    before, identified = gate(x).detach(), gate.identified(own)
    generator = torch.Generator().manual_seed(3)
    for symmetry in gate.symmetries():
        if symmetry.dimension:
            still = symmetry.act(own, torch.zeros(symmetry.dimension, dtype=torch.float64))
            assert set(still) == set(own)
            for name in own:
                torch.testing.assert_close(still[name], own[name], rtol=1e-13, atol=1e-13)
        for _ in range(3):
            moved = move(symmetry, own, generator, size)
            assert set(moved) == set(own)
            assert all(moved[name].shape == own[name].shape for name in own)
            distance = torch.cat([(moved[name] - own[name]).reshape(-1) for name in own]).abs().max()
            assert distance > 1e-6, f"{symmetry.name} moves nothing"
            after = log_weights_at(gate, moved, x)
            assert torch.equal(torch.isfinite(after), torch.isfinite(before)), symmetry.name
            change = (finite_part(after) - finite_part(before)).abs().max().item()
            assert change <= INVARIANCE, f"{symmetry.name} changes a log-weight by {change}"
            if symmetry.dimension:
                torch.testing.assert_close(gate.identified(moved), identified, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, own[name]) for name, value in gate.own_parameters().items()), "the gate was changed"


def check_null_space(gate, x, further=0):
    """The declared continuous symmetries are all there is, and `identified` separates what they leave.

    The rank of the Jacobian of the log-weights at the gate's parameters is taken over many inputs. `further` counts
    null directions that are documented but belong to no declared symmetry.
    """
    own = gate.own_parameters()
    count = sum(value.numel() for value in own.values())
    jacobian = log_weight_jacobian(gate, x)
    rank = numerical_rank(jacobian)
    declared = sum(symmetry.dimension for symmetry in gate.symmetries())
    assert count - rank == declared + further, f"{count - rank} null directions, {declared} declared"

    tangents = [symmetry.tangents(own) for symmetry in gate.symmetries() if symmetry.dimension]
    stacked = torch.cat(tangents) if tangents else torch.zeros(0, count, dtype=torch.float64)
    assert numerical_rank(stacked) == declared
    torch.testing.assert_close(jacobian @ stacked.T, torch.zeros(len(jacobian), declared, dtype=torch.float64))

    identified = jacrev(lambda vector: gate.identified(unflatten(vector, own)))(flatten(own))
    torch.testing.assert_close(
        identified @ stacked.T, torch.zeros(len(identified), declared, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    if not further:
        assert numerical_rank(identified) == rank, "the identified functions do not say all that the weights do"


def check_permutations(gate, x):
    """Allowed orders of the experts put the log-weights into the same order, others are refused."""
    own, before = gate.own_parameters(), gate(x)
    for order in itertools.islice(itertools.permutations(range(gate.n_experts)), 130):
        if gate.allows(order):
            after = log_weights_at(gate, gate.permute(own, order), x)
            torch.testing.assert_close(after, before[..., list(order)], rtol=1e-11, atol=1e-11)
        else:
            with pytest.raises(InputError, match="order"):
                gate.permute(own, order)
    assert gate.allows(list(range(gate.n_experts)))
    for wrong in ([0] * (gate.n_experts + 1), list(range(1, gate.n_experts + 1))):
        assert not gate.allows(wrong)


def check_unstandardise(gate, x):
    """Parameters found at (x − shift)/scale are taken to x, or refused if the gate is not affine equivariant."""
    generator = torch.Generator().manual_seed(11)
    shift = torch.randn(gate.n_features, dtype=torch.float64, generator=generator)
    scale = torch.randn(gate.n_features, dtype=torch.float64, generator=generator).exp()
    own = gate.own_parameters()
    if not gate.affine_equivariant:
        with pytest.raises(InputError, match="not equivariant"):
            gate.unstandardise(own, shift, scale)
        return
    raw = gate.unstandardise(own, shift, scale)
    assert set(raw) == set(own)
    torch.testing.assert_close(log_weights_at(gate, raw, x), gate((x - shift) / scale), rtol=1e-10, atol=1e-10)


def check_basis(gate, x):
    """Where the gate is linear, the logits are basis times coefficients, which are linear in the parameters."""
    own = gate.own_parameters()
    basis = gate.basis(x)
    if basis is None:
        with pytest.raises(InputError, match="not linear"):
            gate.coefficients(own)
        return
    coefficients = gate.coefficients(own)
    torch.testing.assert_close(basis @ coefficients.T, gate.logits(x), rtol=1e-12, atol=1e-12)
    doubled = gate.coefficients({name: 2.0 * value for name, value in own.items()})
    torch.testing.assert_close(doubled, 2.0 * coefficients)


def check_options_round_trip(gate):
    """Registered; rebuilt from its options as JSON, with its state it gives the same bits; printable."""
    assert GATES[gate.name] is type(gate)
    plain = json.loads(json.dumps(gate.options()))
    assert plain == gate.options()
    rebuilt = build_gate(gate.name, gate.n_features, gate.n_experts, **plain).double()
    assert rebuilt.options() == gate.options()
    rebuilt.load_state_dict(gate.state_dict())
    assert torch.equal(rebuilt(inputs(gate)), gate(inputs(gate)))
    assert f"n_features={gate.n_features}" in repr(gate)
    assert gate.formula
    assert gate.source
    with pytest.raises(InputError, match="no_such_option"):
        type(gate).of(gate.n_features, gate.n_experts, no_such_option=1)


def check_route(gate, x):
    """The route's experts are the ones of largest weight, and their weights those of `forward`, normalised again."""
    log_weights = gate(x)
    most = gate.own_top_k or gate.n_experts
    for top_k in (None, *range(1, most + 1)):
        weights, indices, all_log_weights = gate.route(x, top_k)
        chosen = top_k or most
        assert torch.equal(all_log_weights, log_weights)
        assert weights.shape == indices.shape == (*x.shape[:-1], chosen)
        expected = log_weights.exp().gather(-1, indices)
        largest = log_weights.exp().sort(-1, descending=True).values[..., :chosen]
        torch.testing.assert_close(expected, largest, rtol=0.0, atol=0.0)
        if gate.normaliser == "softmax":
            expected = expected / expected.sum(-1, keepdim=True)
        torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-12)
    for wrong in (0, most + 1):
        with pytest.raises(InputError, match="top_k"):
            gate.route(x, wrong)


def check_identified_matches_quantities(gate):
    """As many names as numbers, no two alike; what is called positive is."""
    values = gate.identified(gate.own_parameters())
    quantities = gate.quantities(features(gate))
    assert values.shape == (len(quantities),)
    assert all(isinstance(quantity, Quantity) for quantity in quantities)
    assert len({(quantity.component, quantity.term) for quantity in quantities}) == len(quantities)
    positive = torch.tensor([quantity.positive for quantity in quantities], dtype=torch.bool)
    assert (values[positive] > 0.0).all()


def check_atoms(gate):
    """One row per expert in every array, not tied to the parameters."""
    atoms = gate.atoms()
    assert atoms
    for name, value in atoms.items():
        assert name.startswith("gate_"), name
        assert len(value) == gate.n_experts, name
        assert not value.requires_grad, name
        for parameter in gate.parameters():
            assert not value.numel() or value.data_ptr() != parameter.data_ptr(), name


def check_precision(gate):
    """In float32 every function of the parameters answers in float32."""
    single = copy.deepcopy(gate).float()
    own = single.own_parameters()
    assert single.identified(own).dtype == torch.float32
    answers = [single.permute(own, list(range(gate.n_experts)))]
    if gate.affine_equivariant:
        answers.append(single.unstandardise(own, torch.zeros(gate.n_features), torch.ones(gate.n_features)))
    for symmetry in single.symmetries():
        answers.append(symmetry.act(own, torch.zeros(symmetry.dimension)))
        assert symmetry.tangents(own).shape == (symmetry.dimension, len(flatten(own)))
    for answer in answers:
        assert all(value.dtype == torch.float32 for value in answer.values())


def check_start(gate, x):
    """A fit's first values are all there, and a model can be evaluated at them; the same draws give the same ones."""
    generator = torch.Generator().manual_seed(3)
    shares = torch.rand(len(x), gate.n_experts, dtype=torch.float64, generator=generator).softmax(-1)
    n, d = x.shape
    draws = [Draws(np.random.default_rng(0), np.arange(d), np.arange(n), np.ones(n)) for _ in range(2)]
    found, again = (gate.start(x, shares, one) for one in draws)
    own = gate.own_parameters()
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in own.items()}
    assert all(torch.isfinite(value).all() and torch.equal(value, again[name]) for name, value in found.items())
    assert not torch.isnan(log_weights_at(gate, found, x)).any()


def check_all(gate, x, exempt=(), further=0):
    """All of the above but `check_finite`, which needs the gate's own singular points."""
    check_shapes(gate)
    check_normalised(gate, x)
    check_gradients(gate, x[:9], exempt)
    check_symmetries(gate, x)
    check_null_space(gate, x, further)
    check_permutations(gate, x)
    check_unstandardise(gate, x)
    check_basis(gate, x)
    check_options_round_trip(gate)
    check_route(gate, x)
    check_identified_matches_quantities(gate)
    check_atoms(gate)
    check_precision(gate)
    check_start(gate, x)
