"""Routers choose in float32 whatever the network computes in, and start with work for every expert."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, fit
from gatewise.gates import GATES, GaussianGate, LaplaceGate, QuadraticGate, SoftmaxGate, build_gate
from gatewise.model import MixtureOfExperts
from gatewise.nn import Router, Selection, initialise_router

D = 64
OPTIONS = {"top_k": {"n_active": 2}, "gaussian": {"covariance": "diagonal"}}
by_name = pytest.mark.parametrize("name", sorted(GATES))


def tokens(n=4096, d=D, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def router_of(name, n_experts, method="normal", d=D, data=None):
    gate = build_gate(name, d, n_experts, **OPTIONS.get(name, {}))
    initialise_router(gate, method, data=data, generator=torch.Generator().manual_seed(1))
    return Router(gate, Selection(top_k=2))


@by_name
@pytest.mark.parametrize("method", ["normal", "orthonormal", "data"])
@pytest.mark.parametrize("n_experts", [8, 64])
def test_every_expert_has_tokens_at_first(name, method, n_experts):
    x = tokens()
    router = router_of(name, n_experts, method, data=x if method == "data" else None)
    with torch.no_grad():
        _, weights, indices = router(x)
    assert torch.bincount(indices.reshape(-1), minlength=n_experts).min() > 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(x)), rtol=0.0, atol=1e-6)


@by_name
def test_bfloat16_chooses_as_float32_does(name):
    router = router_of(name, 8)
    x = tokens(512)
    low = router_of(name, 8).to(torch.bfloat16)
    # The same inputs and stored weights, in float32.
    router.load_state_dict({key: value.float() for key, value in low.state_dict().items()})
    with torch.no_grad():
        expected = router(x.bfloat16().float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            automatic = router(x.bfloat16().float())
        found = {"model": low(x.bfloat16()), "input": router(x.bfloat16()), "autocast": automatic}
    for kind, (logits, weights, indices) in found.items():
        assert logits.dtype == weights.dtype == torch.float32, kind
        assert torch.equal(indices, expected[2]), kind
        assert torch.equal(weights, expected[1]), kind


def test_float64_stays_where_gate_and_inputs_are():
    router = router_of("softmax", 8)
    x = tokens(16).double()
    assert router(x)[1].dtype == torch.float32
    assert router.double()(x)[1].dtype == torch.float64
    assert router(x.float())[1].dtype == torch.float32


@by_name
def test_router_and_gate_say_the_same(name):
    """The forms of float32, products in place of differences, against those of float64, to its rounding."""
    router = router_of(name, 8)
    x = tokens(64)
    double = router_of(name, 8).double()
    with torch.no_grad():
        low, high = router(x)[0], double.gate.logits(x.double())
    finite = torch.isfinite(high)
    # Logits of the Gaussian gate are sums of 64 squares, of size 100.
    torch.testing.assert_close(low[finite].double(), high[finite], rtol=1e-5, atol=2e-5)


@by_name
def test_gradients_are_those_of_float64(name):
    router, double = router_of(name, 8), router_of(name, 8).double()
    x = tokens(32)
    high = x.double().requires_grad_()
    low = x.clone().requires_grad_()
    for one, at in ((router, low), (double, high)):
        weights = one(at)[1]
        (weights * torch.arange(weights.numel()).reshape(weights.shape)).sum().backward()
    torch.testing.assert_close(low.grad.double(), high.grad, rtol=1e-3, atol=1e-4)
    for a, b in zip(router.parameters(), double.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-3)


def test_a_token_at_a_centre_has_a_finite_gradient():
    gate = LaplaceGate(4, 3)
    gate.place(torch.zeros(3, 4), torch.eye(3, 4))
    x = torch.eye(3, 4).requires_grad_()
    gate.logits(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    # At its own centre nothing pulls; the two others pull with unit vectors.
    torch.testing.assert_close(x.grad.norm(dim=-1), torch.full((3,), 3**0.5), rtol=1e-5, atol=0.0)


def test_a_bias_changes_the_choice_and_not_the_weights():
    router = Router(SoftmaxGate(4, 3), Selection(top_k=1, score="sigmoid", renormalise="none"), correction_bias=True)
    router.correction_bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    _, weights, indices = router(torch.zeros(2, 4))
    assert indices.tolist() == [[2], [2]]
    torch.testing.assert_close(weights, torch.full((2, 1), 0.5))
    assert "correction_bias" in router.state_dict()


def test_jitter_is_of_training_alone():
    router = Router(build_gate("cosine", 8, 4), jitter=0.5)
    x = tokens(20, 8)
    still = router.eval()(x)[0]
    assert torch.equal(router(x)[0], still)
    torch.manual_seed(0)
    assert not torch.equal(router.train()(x)[0], still)


def test_a_gate_fitted_to_a_table_routes_and_goes_back():
    """One class serves both: the parameters of a fit go into a router, and those of a router into the fitted model."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 2))
    y = np.where(x[:, 0] > 0.0, 2.0, -2.0) + 0.3 * generator.normal(size=200)
    fitted = fit(MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 2), x, y, options=FitOptions(n_starts=2))
    gate = fitted.model.gate
    router = Router(SoftmaxGate(2, 2).double(), Selection(top_k=1, renormalise="none"))
    router.gate.assign_parameters(gate.own_parameters())
    rows = torch.from_numpy(x)
    with torch.no_grad():
        _, weights, indices = router(rows)
        expected = fitted.model.log_weights(rows).exp()
    torch.testing.assert_close(weights, expected.amax(-1, keepdim=True), rtol=1e-12, atol=0.0)
    assert torch.equal(indices.squeeze(-1), expected.argmax(-1))
    with torch.no_grad():
        router.gate.weight.mul_(2.0)
    gate.assign_parameters(router.gate.own_parameters())
    moved = fitted.model.log_weights(rows).exp()
    torch.testing.assert_close(moved, router.gate(rows).exp().detach(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Router(QuadraticGate(65, 4)),
            "the quadratic gate has d² numbers for each expert and routes up to d = 64",
        ),
        (lambda: Router(GaussianGate(100, 4)), "the gaussian gate has d² numbers"),
        (lambda: Router(SoftmaxGate(0, 4)), "a gate without features"),
        (lambda: Router(SoftmaxGate(4, 1)), "top_k is 2, and there are only 1 experts"),
        (
            lambda: Router(build_gate("top_k", 4, 4)),
            r"gives weight to 1 of its experts, not to 2: make the gate with n_active=2 or more, or",
        ),
        (lambda: Router(SoftmaxGate(4, 4), jitter=1.0), "jitter must lie between 0 and 1"),
        (lambda: Router(SoftmaxGate(4, 4))(torch.zeros(2, 5)), "the gate reads 4 features, and the tokens have 5"),
        (lambda: initialise_router(SoftmaxGate(4, 4), "zeros"), "method must be one of 'normal'"),
        (lambda: initialise_router(SoftmaxGate(4, 4), std=0.0), "std must be a positive number, not 0.0"),
        (lambda: initialise_router(SoftmaxGate(4, 4), std="small"), "std must be a positive number, not 'small'"),
        (lambda: initialise_router(SoftmaxGate(1, 4), "orthonormal"), "on a line there are two directions"),
        (lambda: initialise_router(SoftmaxGate(1, 4), "data", data=torch.randn(9, 1)), "on a line"),
        (lambda: initialise_router(torch.nn.Linear(4, 4)), "pass a router or its gate, not Linear"),
        (
            lambda: Router(build_gate("top_k", 65, 4, inner="quadratic", n_active=2, select_on="logit")),
            "the top_k gate has d² numbers for each expert and routes up to d = 64",
        ),
        (lambda: Router(build_gate("hierarchical", 65, 4, inner="quadratic")), "the hierarchical gate has d² numbers"),
        (lambda: Router(build_gate("hierarchical", 65, 4, outer="quadratic")), "the hierarchical gate has d² numbers"),
        (lambda: Router(SoftmaxGate(4, 4), 2), "pass a selection, as Selection.top_k=2., not 2"),
        (lambda: initialise_router(SoftmaxGate(4, 4), "data", data=torch.tensor(1.0)), "tokens are a single number"),
        (lambda: Router(torch.nn.Linear(4, 4)), "a router needs a gate of gatewise.gates, not Linear"),
        (lambda: initialise_router(SoftmaxGate(4, 4), "data"), "pass the tokens as data"),
        (lambda: initialise_router(SoftmaxGate(4, 4), "data", data=torch.ones(9, 4)), "1 different finite tokens"),
    ],
)
def test_what_cannot_be_has_its_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_a_gate_put_in_later_is_the_one_that_routes():
    """Of another class too, and in every precision; a copy has its own."""
    router, x = router_of("softmax", 8).bfloat16(), tokens(20)
    router.gate = router_of("laplace", 8).gate
    router.bfloat16()
    expected = Router(deepcopy(router.gate).float())(x)
    torch.testing.assert_close(router(x), expected, rtol=0.0, atol=0.0)
    copy = deepcopy(router)
    with torch.no_grad():
        next(copy.gate.parameters()).mul_(3.0)
    assert not torch.equal(copy(x)[0], expected[0])
    assert torch.equal(router(x)[0], expected[0])


@by_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_on_the_meta_device(name, dtype):
    router = router_of(name, 8).to("meta", dtype)
    logits, weights, indices = router(torch.empty(3, 5, D, device="meta"))
    assert (logits.shape, weights.shape, indices.shape) == ((3, 5, 8), (3, 5, 2), (3, 5, 2))


@by_name
def test_torch_func_takes_a_router_apart(name):
    router, x = router_of(name, 8), tokens(6)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(lambda t: router(t)[1])(x), router(x)[1], rtol=0.0, atol=1e-5)
    parameters = dict(router.named_parameters())
    found = torch.func.grad(lambda p: torch.func.functional_call(router, p, (x,))[1][:, 0].sum())(parameters)
    router(x)[1][:, 0].sum().backward()
    for key, value in router.named_parameters():
        expected = torch.zeros_like(value) if value.grad is None else value.grad
        torch.testing.assert_close(found[key], expected, rtol=1e-5, atol=1e-5)


@by_name
@pytest.mark.parametrize("shape", [(0, D), (3, 0, D), (D,), (1, D)])
def test_none_or_one_token(name, shape):
    router, x = router_of(name, 8), torch.ones(shape, requires_grad=True)
    _, weights, indices = router(x)
    assert weights.shape == indices.shape == (*shape[:-1], 2)
    weights.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_bias_stays_in_float32_where_the_model_is_cast():
    router = Router(SoftmaxGate(4, 3), correction_bias=True)
    router.correction_bias.copy_(torch.tensor([0.501, -0.5005, -0.0005]))
    before = router.correction_bias.clone()
    for cast in (router.bfloat16(), router.half(), deepcopy(router).to(torch.bfloat16)):
        assert cast.gate.weight.dtype != torch.float32
        assert torch.equal(cast.correction_bias, before)
    assert router.double().correction_bias.dtype == torch.float64


def test_a_selection_put_in_later_must_fit():
    router = Router(build_gate("top_k", 4, 4, n_active=2))
    router.selection = Selection(top_k=3)
    with pytest.raises(InputError, match="the top_k gate gives weight to 2 of its experts, not to 3"):
        router(torch.zeros(2, 4))
    with pytest.raises(InputError, match="has no use for a correction bias"):
        Router(SoftmaxGate(4, 4), Selection(method="expert_choice"), correction_bias=True)
    for jitter in ("much", float("nan"), True):
        with pytest.raises(InputError, match="jitter must lie"):
            Router(SoftmaxGate(4, 4), jitter=jitter)
    with pytest.raises(InputError, match="the tokens are a single number"):
        Router(SoftmaxGate(4, 4))(torch.tensor(1.0))


# Dynamo looks at `.grad` of everything that it traces, and torch warns of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_compiles_in_one_graph(dtype):
    router, x = router_of("laplace", 8).to(dtype), tokens(20)
    compiled = torch.compile(router, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)[1], router(x)[1])


@by_name
@pytest.mark.parametrize("method", ["normal", "orthonormal", "data"])
def test_the_same_seed_gives_the_same_bits(name, method):
    data = tokens(300)
    # Rows that are not finite are no tokens, and a row twice is one.
    data[::7], data[1::7] = float("nan"), data[2]
    first, second = (router_of(name, 8, method, data=data if method == "data" else None) for _ in range(2))
    low = deepcopy(first).bfloat16()
    initialise_router(low, method, data=data if method == "data" else None, generator=torch.Generator().manual_seed(1))
    for a, b, c in zip(first.parameters(), second.parameters(), low.parameters(), strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)
        assert torch.equal(a.bfloat16(), c)


def test_parts_without_matrices_route_at_any_length():
    assert build_gate("hierarchical", 100, 4, outer="laplace", inner="cosine").most_routing_features is None
    assert build_gate("hierarchical", 8, 4, outer="quadratic").most_routing_features == 64
