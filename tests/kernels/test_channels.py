"""The exact Hessian by channels against automatic differentiation of the plain formula, for several families."""

import math

import numpy as np
import pytest
import torch
from torch.func import hessian, vmap

from gatewise.exceptions import InputError
from gatewise.kernels import channels
from gatewise.kernels.channels import channel_hessian, fisher_gram
from gatewise.kernels.curvature import linear_hessian
from gatewise.kernels.joint_pass import joint_rows
from gatewise.kernels.linear_pass import LinearPass
from gatewise.kernels.mixture_pass import BLOCK
from gatewise.ops.channels_torch import channel_derivatives
from gatewise.ops.joint_torch import plain_log_mixture

HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def gaussian(y, location, log_scale):
    residual = (y.unsqueeze(-1) - location) * torch.exp(-log_scale)
    return -0.5 * residual * residual - log_scale - HALF_LOG_2_PI


def poisson(y, location, log_scale):
    y = y.unsqueeze(-1)
    return y * location - torch.exp(location) - torch.lgamma(y + 1.0)


def categorical(y, location, log_scale):
    """Three classes, the last one the reference."""
    logits = torch.cat([location, torch.zeros_like(location[..., :1])], dim=-1)
    indicator = (y.unsqueeze(-1) == torch.arange(3)).to(location.dtype)
    return (indicator.unsqueeze(-2) * torch.log_softmax(logits, -1)).sum(-1)


def tangled(y, location, log_scale):
    """No density, but two locations and three dispersions that all meet, the latter in a matrix per expert."""
    diagonal = torch.exp(log_scale[:, :2])
    factor = torch.diag_embed(diagonal) + torch.tensor([[0.0, 0.0], [1.0, 0.0]]).to(diagonal) * log_scale[:, 2:, None]
    white = (factor @ (y.unsqueeze(-1) - location).unsqueeze(-1)).squeeze(-1)
    return -0.5 * (white * white).sum(-1) + log_scale[:, 0] + torch.tanh(location[..., 0] * location[..., 1])


# name: (log-density, m, s, how targets are drawn)
FAMILIES = {
    "gaussian": (gaussian, 1, 1, lambda g, n: g.normal(size=n)),
    "poisson": (poisson, 1, 0, lambda g, n: g.poisson(2.0, size=n).astype(float)),
    "categorical": (categorical, 2, 0, lambda g, n: g.integers(3, size=n).astype(float)),
    # One number per location, on both locations.
    "tangled": (lambda y, h, s: tangled(y.unsqueeze(-1), h, s), 2, 3, lambda g, n: g.normal(size=n)),
}
EVERY_FAMILY = pytest.mark.parametrize("family", list(FAMILIES))
BOTH = pytest.mark.parametrize("normalised", [True, False], ids=["normalised", "joint"])


class Problem:
    """Data and parameters of a mixture with linear channels, and both ways to its Hessian."""

    def __init__(self, family, k=3, n=41, q=3, p=2, same_design=False, seed=6):
        g = np.random.default_rng(seed)
        self.log_density, self.n_outputs, self.n_dispersion, draw = FAMILIES[family]
        self.design = np.column_stack([np.ones(n), g.normal(size=(n, p - 1))])
        self.gate_design = self.design if same_design else np.column_stack([np.ones(n), g.normal(size=(n, q - 1))])
        self.weight = g.uniform(0.5, 2.0, size=n)
        self.y = torch.tensor(draw(g, n))
        # Added to the logits: −∞ leaves an expert out, as a top-K gate does.
        self.mask = np.zeros((n, k))
        q = self.gate_design.shape[1]
        self.shapes = [(k, q), (k, self.n_outputs, p), (k, self.n_dispersion)]
        self.theta = 0.7 * g.normal(size=sum(math.prod(shape) for shape in self.shapes))

    def parameters(self, theta):
        sizes = [math.prod(shape) for shape in self.shapes]
        return [part.reshape(shape) for part, shape in zip(theta.split(sizes), self.shapes, strict=True)]

    def channels(self, theta):
        gate, coefficients, dispersion = self.parameters(theta)
        logits = torch.tensor(self.gate_design) @ gate.T + torch.tensor(self.mask)
        location = torch.einsum("rp,kmp->rkm", torch.tensor(self.design), coefficients)
        return (
            logits,
            location[..., 0] if self.n_outputs == 1 else location,
            dispersion[:, 0] if self.n_dispersion == 1 else dispersion,
        )

    def automatic(self, normalised):
        def objective(theta):
            logits, *own = self.channels(theta)
            return plain_log_mixture(logits, self.log_density(self.y, *own), torch.tensor(self.weight), normalised)

        return hessian(objective)(torch.tensor(self.theta)).numpy()

    def arguments(self, normalised):
        logits, *own = self.channels(torch.tensor(self.theta))
        value, first, second = (t.numpy() for t in channel_derivatives(self.log_density, self.y, *own))
        _, weights, responsibilities = joint_rows(logits.numpy(), value, normalised)
        return [self.gate_design, self.design, self.weight, weights, responsibilities, first, second, self.n_outputs]

    def by_channels(self, normalised):
        return channel_hessian(*self.arguments(normalised), normalised)


def assert_close(found, expected, rtol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@BOTH
@pytest.mark.parametrize("same_design", [False, True], ids=["two designs", "one design"])
@pytest.mark.parametrize("k", [1, 2, 3])
@EVERY_FAMILY
def test_hessian_equals_automatic_differentiation(family, k, same_design, normalised):
    problem = Problem(family, k=k, same_design=same_design)
    found = problem.by_channels(normalised)
    assert_close(found, problem.automatic(normalised))
    np.testing.assert_array_equal(found, found.T)


@BOTH
@EVERY_FAMILY
def test_experts_left_out_by_the_gate_do_not_count(family, normalised):
    problem = Problem(family)
    out = np.random.default_rng(9).integers(3, size=len(problem.mask))
    problem.mask[np.arange(len(out)), out] = -np.inf
    problem.weight[::5] = 0.0
    expected = problem.automatic(normalised)
    arguments = problem.arguments(normalised)
    assert_close(channel_hessian(*arguments, normalised), expected)
    # Nor do their derivatives, or those of rows without weight, even where they do not exist.
    absent = ~np.isfinite(problem.mask) | (problem.weight == 0.0)[:, None]
    arguments[5][absent], arguments[6][absent] = np.inf, np.nan
    assert_close(channel_hessian(*arguments, normalised), expected)


def test_equals_the_hessian_of_the_gaussian_pass():
    problem = Problem("gaussian", n=2 * BLOCK + 9)
    gate, coefficients, log_scale = (part.numpy() for part in problem.parameters(torch.tensor(problem.theta)))
    data = LinearPass(problem.gate_design.T, problem.design.T, problem.y.numpy(), problem.weight)
    expected = linear_hessian(data, gate, coefficients[:, 0], log_scale[:, 0])
    q = gate.shape[1]
    last_gate_row = slice(2 * q, 3 * q)
    found = np.delete(problem.by_channels(True), last_gate_row, axis=0)
    assert_close(np.delete(found, last_gate_row, axis=1), expected, rtol=1e-12)


def test_softmax_weights_leave_common_gate_coefficients_free():
    problem = Problem("categorical", n=60)
    found = problem.by_channels(True)
    q = problem.shapes[0][1]
    common = np.zeros((q, len(found)))
    for j in range(q):
        common[j, [j, q + j, 2 * q + j]] = 1.0
    np.testing.assert_allclose(common @ found, 0.0, atol=1e-12 * np.abs(found).max())


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
@pytest.mark.parametrize("same_design", [False, True])
def test_rows_add_up(n, same_design):
    problem = Problem("tangled", n=n, k=2, same_design=same_design)
    arguments = problem.arguments(True)
    whole = channel_hessian(*arguments)
    cut = n // 3
    parts = [
        channel_hessian(*(array[rows] for array in arguments[:-1]), problem.n_outputs)
        for rows in (slice(0, cut), slice(cut, n))
    ]
    assert_close(parts[0] + parts[1], whole, rtol=1e-12)
    transposed = [np.asfortranarray(array) for array in arguments[:-1]]
    np.testing.assert_array_equal(channel_hessian(*transposed, problem.n_outputs), whole)


def test_wide_models_take_shorter_blocks(monkeypatch):
    # Ten experts over ten classes and 129 columns: the arrays of one block still fit in 50 MB.
    rows = channels._block_rows(10, 9, 129, 129)
    products, pairs = 2 * 129 * 130 // 2 + 129 * 129, 100 * 101 // 2 + 10 * 81
    assert 16 <= rows < BLOCK
    assert 8 * rows * (products + pairs) < 50e6
    assert channels._block_rows(3, 2, 9, 9) == BLOCK
    problem = Problem("tangled", n=150)
    ordinary = problem.by_channels(True)
    monkeypatch.setattr(channels, "_ROOM", 1)
    assert channels._block_rows(3, 2, 9, 9) == 16
    assert_close(problem.by_channels(True), ordinary, rtol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    arguments = Problem("poisson").arguments(True)
    for position, name in enumerate(["gate_design", "design", "weight", "weights"]):
        short = [*arguments[:position], arguments[position][1:], *arguments[position + 1 :]]
        with pytest.raises(InputError, match=rf"^{name} has shape"):
            channel_hessian(*short)
    with pytest.raises(InputError, match="second has shape"):
        channel_hessian(*arguments[:6], arguments[6][..., 0], 1)
    with pytest.raises(InputError, match="n_outputs is 2"):
        channel_hessian(*arguments[:7], 2)


def derivatives_row_by_row(log_density, y, location, log_scale):
    """First and second derivatives of each entry by all parameters, then the expert's own channels picked out."""
    n, k = location.shape[:2]
    m, s = location[0, 0].numel(), log_scale[0].numel()

    def one_row(channels, y):
        row_location = channels[:, :m].reshape(location.shape[1:])
        return log_density(y, row_location, channels[:, m:].reshape(log_scale.shape))

    joined = torch.cat([location.reshape(n, k, m), log_scale.reshape(1, k, s).expand(n, k, s)], dim=-1)
    first = vmap(torch.func.jacrev(one_row))(joined, y)
    second = vmap(hessian(one_row))(joined, y)
    own = range(k)
    return (
        torch.stack([first[:, i, i] for i in own], 1),
        torch.stack([second[:, i, i, :, i] for i in own], 1),
    )


@EVERY_FAMILY
def test_channel_derivatives_equal_those_of_each_row_alone(family):
    problem = Problem(family, n=7)
    _, *own = problem.channels(torch.tensor(problem.theta))
    value, first, second = channel_derivatives(problem.log_density, problem.y, *own)
    torch.testing.assert_close(value, problem.log_density(problem.y, *own), rtol=0.0, atol=0.0)
    expected_first, expected_second = derivatives_row_by_row(problem.log_density, problem.y, *own)
    torch.testing.assert_close(first, expected_first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(second, expected_second, rtol=1e-12, atol=1e-12)
    assert not any(derivative.requires_grad for derivative in (value, first, second))


def test_gaussian_derivatives_are_the_closed_ones():
    g = torch.Generator().manual_seed(2)
    y, location = torch.randn(5, dtype=torch.float64, generator=g), torch.randn(5, 3, dtype=torch.float64, generator=g)
    log_scale = torch.tensor([0.0, -1.0, 0.5], dtype=torch.float64)
    _, first, second = channel_derivatives(gaussian, y, location, log_scale)
    inverse = torch.exp(-log_scale).expand(5, 3)
    z = (y[:, None] - location) * inverse
    torch.testing.assert_close(first, torch.stack([z * inverse, z * z - 1.0], -1))
    mixed = -2.0 * z * inverse
    rows = [torch.stack([-inverse * inverse, mixed], -1), torch.stack([mixed, -2.0 * z * z], -1)]
    torch.testing.assert_close(second, torch.stack(rows, -2))


def test_poisson_and_categorical_derivatives_are_the_closed_ones():
    y, location = torch.tensor([0.0, 3.0]).double(), torch.tensor([[0.3, -1.0], [2.0, 0.0]]).double()
    none = torch.zeros(2, 0, dtype=torch.float64)
    _, first, second = channel_derivatives(poisson, y, location, none)
    torch.testing.assert_close(first[..., 0], y[:, None] - location.exp())
    torch.testing.assert_close(second[..., 0, 0], -location.exp())
    y, location = torch.tensor([0.0, 2.0]).double(), torch.tensor([[[0.3, -1.0]], [[2.0, 0.0]]]).double()
    _, first, second = channel_derivatives(categorical, y, location, none[:1])
    power = location.exp()
    probability = power / (1.0 + power.sum(-1, keepdim=True))
    indicator = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]).double()
    torch.testing.assert_close(first, indicator - probability)
    outer = probability[..., :, None] * probability[..., None, :]
    torch.testing.assert_close(second, outer - torch.diag_embed(probability))


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 2)])
def test_channels_without_effect_have_derivative_zero(shape):
    y, location, log_scale = torch.ones(4), torch.zeros(4, 3), torch.zeros(shape)
    n_channels = 1 + log_scale[0].numel()
    expected = torch.zeros(4, 3, n_channels)
    _, first, second = channel_derivatives(lambda y, h, s: torch.zeros(4, 3), y, location, log_scale)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, torch.zeros(4, 3, n_channels, n_channels))
    expected[..., 0] = 1.0
    _, first, second = channel_derivatives(lambda y, h, s: y[:, None] * h, y, location, log_scale)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, torch.zeros(4, 3, n_channels, n_channels))


def test_derivatives_do_not_need_a_graph_around_them():
    location = torch.zeros(2, 1, requires_grad=True)
    with torch.no_grad():
        _, first, _ = channel_derivatives(poisson, torch.ones(2), location, torch.zeros(1, 0))
    torch.testing.assert_close(first, torch.zeros(2, 1, 1))
    assert location.grad is None


def test_a_row_of_nan_stays_alone():
    y = torch.tensor([0.0, torch.nan, 1.0])
    location, log_scale = torch.zeros(3, 2), torch.zeros(2)
    for derivative in channel_derivatives(gaussian, y, location, log_scale):
        finite = torch.isfinite(derivative.flatten(1)).all(1)
        assert finite[0]
        assert finite[2]


def test_fisher_gram_equals_einsum(generator):
    n, k, m, p = 2 * BLOCK + 9, 3, 2, 4
    design, weights = generator.normal(size=(n, p)), generator.uniform(size=(n, k))
    assert_close(fisher_gram(design, weights), np.einsum("rk,ri,rj->kij", weights, design, design))
    matrices = generator.normal(size=(n, k, m, m))
    matrices = matrices + matrices.swapaxes(-1, -2)
    expected = np.einsum("rkab,ri,rj->kaibj", matrices, design, design).reshape(k, m * p, m * p)
    assert_close(fisher_gram(design, matrices), expected)
