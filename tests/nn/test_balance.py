"""Losses of balance against plain sums, and the bias that moves once for each step, whatever is recomputed."""

import math
import pickle
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from gatewise.exceptions import InputError
from gatewise.gates import SoftmaxGate, build_gate
from gatewise.nn import Router, Selection, SparseMoE, initialise_router
from gatewise.nn.balance import (
    BiasBalancer,
    Routing,
    balance_loss,
    importance_loss,
    load,
    pooled_balance_loss,
    recording,
    router_z_loss,
)

E, K = 5, 2


def routing_of(seed, n_tokens=30, score="softmax"):
    logits = 2.0 * torch.randn(n_tokens, E, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    selection = Selection(top_k=K, score=score)
    return Routing(logits, *selection(logits), selection)


def collapsed(n_tokens=8):
    logits = torch.full((n_tokens, E), -60.0)
    logits[:, 0] = 60.0
    selection = Selection(top_k=1)
    return Routing(logits, *selection(logits), selection)


def uniform():
    logits = torch.zeros(2 * E, E)
    selection = Selection(top_k=1, ties="spread")
    return Routing(logits, *selection(logits), selection)


def shares(routing):
    """f and P by loops."""
    f, p = [0.0] * E, [0.0] * E
    for row in routing.indices.tolist():
        for e in row:
            f[e] += 1.0 / routing.indices.numel()
    for row in routing.log_scores.exp().tolist():
        for e in range(E):
            p[e] += row[e] / sum(row) / len(routing.logits)
    return f, p


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrt_softplus"])
def test_losses_are_the_sums_of_their_definitions(score):
    routing = routing_of(0, score=score)
    f, p = shares(routing)
    assert float(balance_loss(routing)) == pytest.approx(E * sum(a * b for a, b in zip(f, p, strict=True)), rel=1e-12)
    total = [0.0] * E
    for ws, es in zip(routing.weights.tolist(), routing.indices.tolist(), strict=True):
        for w, e in zip(ws, es, strict=True):
            total[e] += w
    mean = sum(total) / E
    spread = sum((t - mean) ** 2 for t in total) / E / mean**2
    assert float(importance_loss(routing)) == pytest.approx(spread, rel=1e-12)
    z = [math.log(sum(math.exp(v) for v in row)) ** 2 for row in routing.logits.tolist()]
    assert float(router_z_loss(routing)) == pytest.approx(sum(z) / len(z), rel=1e-12)


def test_even_and_collapsed_routers():
    assert float(balance_loss(uniform())) == pytest.approx(1.0, rel=1e-6)
    assert float(importance_loss(uniform())) == pytest.approx(0.0, abs=1e-12)
    assert float(balance_loss(collapsed())) == pytest.approx(E, rel=1e-6)
    assert float(importance_loss(collapsed())) == pytest.approx(E - 1.0, rel=1e-6)
    assert load(torch.zeros(0, 2, dtype=torch.int64), 3).tolist() == [0.0, 0.0, 0.0]


def test_layers_pooled_are_one_layer_summed_over_slots():
    layers = [routing_of(seed, n_tokens=10 + seed) for seed in range(3)]
    joined = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("logits", "weights", "indices"))
    f, p = shares(Routing(*joined, layers[0].selection))
    assert float(pooled_balance_loss(layers)) == pytest.approx(K * E * sum(a * b for a, b in zip(f, p, strict=True)))
    even = uniform()
    assert float(pooled_balance_loss([even, even])) == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(InputError, match="layers can be pooled"):
        pooled_balance_loss([routing_of(0), collapsed()])


def test_the_loss_cannot_be_lowered_by_small_scores():
    """Sigmoid scores of e⁻²⁰⁰ underflow in float32; divided by their sum they are what they were."""
    routing = routing_of(1, score="sigmoid")
    lower = replace(routing, logits=routing.logits.float() - 200.0)
    # log σ(z) = z far below 0: the scores normalise to a softmax of the logits.
    expected = replace(lower, selection=Selection(top_k=K, score="softmax"))
    assert float(balance_loss(lower)) == pytest.approx(float(balance_loss(expected)), rel=1e-5)


def test_padding_is_left_out():
    routing = routing_of(2)
    mask = torch.arange(30) % 3 > 0
    plain = replace(routing, logits=routing.logits[mask], weights=routing.weights[mask], indices=routing.indices[mask])
    assert float(balance_loss(routing.only(mask))) == float(balance_loss(plain))
    with pytest.raises(InputError, match="30 booleans"):
        routing.only(mask[:-1])


@pytest.mark.parametrize("gate", ["softmax", "laplace", "sigmoid", "hierarchical"])
def test_recorded_calls_carry_gradients_to_any_gate(gate):
    torch.manual_seed(0)
    layer = SparseMoE(6, gate, n_experts=4, hidden=5)
    with recording(layer) as calls:
        layer(torch.randn(3, 4, 6))
    (routing,) = calls["router"]
    assert routing.logits.shape == (12, 4)
    (balance_loss(routing) + router_z_loss(routing)).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0.0 for p in layer.router.parameters())
    layer(torch.randn(3, 4, 6))
    assert len(calls["router"]) == 1
    with pytest.raises(InputError, match="there is no router"), recording(torch.nn.Linear(2, 2)):
        pass


def balanced_router():
    gate = build_gate("softmax", 6, 4)
    initialise_router(gate, std=1.0, generator=torch.Generator().manual_seed(0))
    return Router(gate, Selection(top_k=1, score="sigmoid"), correction_bias=True)


def test_the_bias_moves_against_the_load_of_training_alone():
    router, x = balanced_router(), torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    balancer = BiasBalancer(router, rate=0.01)
    counts = torch.bincount(router(x)[2].reshape(-1), minlength=4).double()
    router.eval()
    router(-x)
    router.train()
    balancer.step()
    moved = 0.01 * torch.sign(counts.mean() - counts)
    torch.testing.assert_close(router.correction_bias, (moved - moved.mean()).float())
    assert abs(float(router.correction_bias.sum())) < 1e-7
    before = router.correction_bias.clone()
    balancer.step()
    assert torch.equal(router.correction_bias, before)
    balancer.remove()
    router(x)
    balancer.step()
    assert torch.equal(router.correction_bias, before)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputation_is_not_counted_again(reentrant):
    router = balanced_router()
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    balancer = BiasBalancer(router)
    checkpoint(lambda t: router(t)[1], x, use_reentrant=reentrant).sum().backward()
    assert int(balancer._counts[0].sum()) == 50


def test_it_evens_the_load():
    router = balanced_router()
    balancer = BiasBalancer(router, rate=0.002)
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    first = load(router(x)[2], 4).max()
    for _ in range(400):
        router(x)
        balancer.step()
    last = load(router(x)[2], 4)
    assert first > 0.3
    # Each step moves a few tokens back or forth.
    assert last.max() < 0.27
    assert last.min() > 0.23


def test_what_cannot_be_balanced():
    with pytest.raises(InputError, match="has no bias: make it with correction_bias=True"):
        BiasBalancer(Router(SoftmaxGate(3, 4)))
    with pytest.raises(InputError, match="rate must be a positive number"):
        BiasBalancer(balanced_router(), rate=0.0)


LOGITS = {
    "no token": torch.zeros(0, E),
    "some left out": torch.tensor([[-torch.inf, -torch.inf, 1.0, 2.0, 0.0]] * 3),
    "all left out": torch.full((3, E), -torch.inf),
    "huge": torch.full((3, E), 1e30),
}
SELECTIONS = [
    Selection(),
    Selection(score="sigmoid", renormalise="none"),
    Selection(score="sqrt_softplus"),
    Selection(cap=2.0),
    Selection(method="expert_choice"),
    Selection(method="sparse_mixer", renormalise="none"),
]


def pooled_twice(routing):
    return pooled_balance_loss([routing, routing])


@pytest.mark.parametrize("loss", [balance_loss, pooled_twice, importance_loss, router_z_loss])
@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: f"{s.method} {s.score}")
def test_every_loss_is_finite(loss, logits, selection):
    if loss is router_z_loss and (logits.abs() > 1e20).all() and len(logits):
        # (10³⁰)² is beyond float32, and (−∞)² infinite.
        return
    shift = torch.zeros(E, requires_grad=True)
    z = logits + shift
    value = loss(Routing(z, *selection(z), selection))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(shift.grad).all()


def test_weights_that_are_all_zero_or_tiny():
    indices = torch.tensor([[0, 1]] * 3)
    for size, expected in ((0.0, 0.0), (1e-30, 1.5)):
        weights = torch.full((3, 2), size, requires_grad=True)
        # Two of five have all: E/2 − 1.
        value = importance_loss(Routing(torch.zeros(3, E), weights, indices, Selection()))
        value.backward()
        assert value.item() == pytest.approx(expected, rel=1e-5)
        assert torch.isfinite(weights.grad).all()


def test_slots_that_expert_choice_leaves_empty_are_no_load():
    selection = Selection(method="expert_choice")
    layers = []
    for seed in range(2):
        logits = (1.0 + 4.0 * seed) * torch.randn(10, E, generator=torch.Generator().manual_seed(seed))
        layers.append(Routing(logits, *selection(logits), selection))
        assert torch.bincount(layers[-1].slots, minlength=E).tolist() == [4] * E
        # Every expert has the same load, and the scores sum to 1.
        assert float(balance_loss(layers[-1])) == pytest.approx(1.0, rel=1e-6)
    assert layers[0].indices.shape != layers[1].indices.shape
    assert float(pooled_balance_loss(layers)) == pytest.approx(2.0, rel=1e-6)


def test_a_load_of_what_is_no_expert():
    for indices, sentence in (
        (torch.tensor([0, 5]), "between 0 and 4, and one is 5"),
        (torch.tensor([0, -1]), "between 0 and 4, and one is -1"),
        (torch.tensor([0.0]), "indices must be of int64"),
    ):
        with pytest.raises(InputError, match=sentence):
            load(indices, E)


def test_copies_are_not_watched():
    """An average of the weights that is evaluated meanwhile is no load; and a watched model can be saved."""
    router, x = balanced_router(), torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    balancer = BiasBalancer(router, rate=0.01)
    with recording(router) as calls:
        for other in (deepcopy(router), pickle.loads(pickle.dumps(router))):
            assert torch.equal(other(x)[0], router(x)[0])
    assert len(calls[""]) == 2
    assert int(balancer._counts[0].sum()) == 100


def test_small_steps_move_the_bias_of_a_model_in_bfloat16():
    router, x = balanced_router().bfloat16(), torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    router.correction_bias.copy_(torch.tensor([0.5, -0.5, 0.5, -0.5]))
    before = router.correction_bias.clone()
    balancer = BiasBalancer(router, rate=1e-3)
    router(x)
    balancer.step()
    moved = router.correction_bias - before
    assert moved.abs().max() > 4e-4
    assert abs(float(moved.sum())) < 1e-6


def test_recordings_may_lie_in_each_other():
    router, x = balanced_router(), torch.randn(5, 6)
    with recording(router) as outer:
        router(x)
        with recording(router) as inner:
            router(x)
        router(x)
    assert (len(outer[""]), len(inner[""])) == (3, 1)
