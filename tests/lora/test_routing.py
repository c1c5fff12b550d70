"""What a routed model computes: against plain loops over the paper's formulas, and what must leave it unchanged."""

import itertools

import pytest
import torch
from peft.tuners.lora import LoraLayer

from gatewise.gates import CosineGate
from gatewise.lora import attach_router
from gatewise.lora.changes import ATTRIBUTE
from gatewise.lora.places import Factors
from gatewise.lora.scores import ArrowScores, StandardisedScores, arrow_direction, standardised
from gatewise.lora.sparse import _concatenated, _one_token, _sorted, adapter_sum, dense_sum
from gatewise.nn import Router, Selection
from tests.lora.models import NAMES, gpt2, ids, llama, llama_base, logits, lora, mapped, random_gates, t5, with_adapters

# Sums of a few hundred products in another order, through two layers.
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-13}}


def brute(layer, names, gates, place, u, top_k):
    """The paper's formula for one token u (d,) in plain loops, in the dtype of u."""
    y = layer.base_layer(u)
    present = [name for name in names if name in layer.lora_A]
    scores = []
    for name in present:
        v = gates[name].vectors[place].to(u.dtype)
        v = (v - v.mean()) / v.std(correction=0)
        bar = (u - u.mean()) / u.std(correction=0)
        scores.append(float(v @ bar) / len(u) ** 0.5)
    best = sorted(range(len(present)), key=lambda index: -scores[index])[:top_k]
    weights = torch.tensor([scores[index] for index in best], dtype=torch.float64).softmax(0)
    for weight, index in zip(weights.tolist(), best, strict=True):
        name = present[index]
        change = layer.lora_B[name].weight @ (layer.lora_A[name].weight @ u)
        y = y + weight * layer.scaling[name] * change
    return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_module_is_the_papers_formula(dtype):
    model = llama(dtype)
    gates = random_gates(model)
    layers = {name: m for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    with torch.no_grad(), attach_router(model, NAMES, gates=gates):
        for place, layer in layers.items():
            for length in (1, 6):
                x = torch.randn(1, length, layer.in_features, dtype=dtype)
                found = layer(x)
                for token in range(length):
                    expected = brute(layer, NAMES, gates, place, x[0, token], 2)
                    torch.testing.assert_close(found[0, token], expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_and_the_mean_of_a_gate_do_not_matter(dtype):
    model, tokens = llama(dtype), ids()
    gates = random_gates(model)
    changes = [(50.0, 0.0), (50.0, 3.0), (1e-3, 0.0)]
    if dtype == torch.float64:
        changes += [(1e-3, 0.7), (0.1, -2.0)]
    with attach_router(model, NAMES, gates=gates):
        before = {name: router_outputs(model, name, dtype) for name in modules(model)}
        whole = logits(model, tokens)
    for c, b in changes:
        # A gate file is in float32; in float64 the map must not round.
        wide = gates["b"]
        other = mapped(wide, lambda v, c=c, b=b: c * v.to(dtype) + b)
        with attach_router(model, NAMES, gates={**gates, "b": other}):
            tolerance = 1e-6 if dtype == torch.float32 else 1e-12
            for name, (weights, indices) in before.items():
                after = router_outputs(model, name, dtype)
                assert torch.equal(after[1], indices)
                torch.testing.assert_close(after[0], weights, rtol=0, atol=tolerance)
            torch.testing.assert_close(logits(model, tokens), whole, rtol=0, atol=10 * tolerance)


def modules(model):
    return [name for name, m in model.get_base_model().named_modules() if hasattr(m, ATTRIBUTE)]


def router_outputs(model, name, dtype):
    change = getattr(model.get_base_model().get_submodule(name), ATTRIBUTE)
    x = torch.randn(1, 20, change.place.n_features, dtype=dtype, generator=torch.Generator().manual_seed(5))
    _, weights, indices = change.router(x)
    return weights, indices


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("router", ["phatgoose", "arrow", "average_activation", "uniform", "merged_factors"])
def test_the_order_of_the_adapters_does_not_matter(router, dtype):
    model, tokens = llama(dtype), ids()
    gates = random_gates(model)
    found = []
    for names in itertools.permutations(NAMES):
        with attach_router(model, names, router, gates=gates):
            found.append(logits(model, tokens))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("router", ["phatgoose", "arrow", "average_activation", "uniform", "random", "merged_factors"])
def test_identical_adapters_are_that_adapter(router, dtype):
    modules = ["q_proj", "v_proj", "down_proj"]
    model = with_adapters(llama_base(), {name: lora(8, modules) for name in NAMES})
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name in ("b", "c"):
                layer.lora_A[name].load_state_dict(layer.lora_A["a"].state_dict())
                layer.lora_B[name].load_state_dict(layer.lora_B["a"].state_dict())
    model = model.to(dtype)
    model.set_adapter("a")
    plain = logits(model, ids())
    with attach_router(model, NAMES, router, gates=random_gates(model)):
        tolerance = 1e-6 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(logits(model, ids()), plain, rtol=0, atol=tolerance)


@pytest.mark.parametrize("make", [llama, t5, gpt2])
@pytest.mark.parametrize("router", ["phatgoose", "arrow", "uniform"])
def test_one_adapter_is_plain_lora(make, router):
    model, tokens = make(), ids()
    extra = {"labels": tokens} if make is t5 else {}
    gates = random_gates(model)
    for name in list(model.peft_config):
        model.set_adapter(name)
        plain = logits(model, tokens, **extra)
        with attach_router(model, [name], router, gates={name: gates[name]}, top_k=1):
            torch.testing.assert_close(logits(model, tokens, **extra), plain, rtol=0, atol=1e-6)


def test_merged_products_are_the_uniform_average():
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        model, tokens = llama(dtype), ids()
        with attach_router(model, NAMES, "uniform") as routed:
            uniform = logits(model, tokens)
            routed.with_router("merged_product")
            torch.testing.assert_close(logits(model, tokens), uniform, rtol=0, atol=tolerance)
        # And both are the mean of what peft's own merging by concatenation makes.
        present = {name: m for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
        for layer in present.values():
            names = [name for name in NAMES if name in layer.lora_A]
            x = torch.randn(2, 3, layer.in_features, dtype=dtype)
            with torch.no_grad(), attach_router(model, NAMES, "uniform"):
                found = layer(x)
            delta = sum(layer.get_delta_weight(name) for name in names) / len(names)
            torch.testing.assert_close(found, layer.base_layer(x) + x @ delta.T, **CLOSE[dtype])


def factors(n, ranks, d=12, out=9, bias=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    scales = {str(index): 0.5 + index for index in range(n)}
    return [
        Factors(
            torch.randn(rank, d, generator=generator, dtype=dtype),
            torch.randn(out, rank, generator=generator, dtype=dtype),
            torch.randn(out, generator=generator, dtype=dtype) if bias else None,
            str(index),
            scales,
            torch.nn.Identity(),
        )
        for index, rank in zip(range(n), itertools.cycle(ranks), strict=False)
    ]


@pytest.mark.parametrize("tokens", [0, 1, 2, 17, 64])
@pytest.mark.parametrize(("n", "ranks"), [(1, [4]), (3, [4, 8, 16]), (12, [4, 8, 16])])
@pytest.mark.parametrize("bias", [False, True])
def test_sparse_sums_are_the_dense_one(tokens, n, ranks, bias):
    adapters = factors(n, ranks, bias=bias)
    u = torch.randn(tokens, 12, dtype=torch.float64)
    weights, indices = Selection(top_k=min(2, n))(torch.randn(tokens, n, dtype=torch.float64))
    expected = dense_sum(u, weights, indices, adapters)
    ways = [adapter_sum, _sorted]
    if tokens == 1:
        ways.append(_one_token)
    if not bias:
        ways.append(lambda *given: _concatenated(*given, sum(a.rank for a in adapters)))
    for way in ways:
        torch.testing.assert_close(way(u, weights, indices, adapters), expected, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(way(u, weights, indices, adapters), expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_sparse_sum_are_those_of_the_dense_one():
    adapters = factors(5, [4, 8, 16])
    leaves = [adapter.down.requires_grad_() for adapter in adapters] + [a.up.requires_grad_() for a in adapters]
    u = torch.randn(30, 12, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(30, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for way in (_sorted, dense_sum):
        weights, indices = Selection(top_k=2)(scores)
        way(u, weights, indices, adapters).square().sum().backward()
        found.append([leaf.grad.clone() for leaf in (u, scores, *leaves)])
        for leaf in (u, scores, *leaves):
            leaf.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_router_chooses_as_a_cosine_gate_on_centred_tokens_does():
    model = llama(torch.float64)
    gates = random_gates(model)
    with attach_router(model, NAMES, gates=gates):
        for name in modules(model):
            router = getattr(model.get_base_model().get_submodule(name), ATTRIBUTE).router
            d = router.scores.vectors.shape[1]
            gate = CosineGate(d, router.n_adapters, temperature=d**-0.5).double()
            vectors = torch.stack([gates[adapter].vectors[name].double() for adapter in router.adapters])
            gate.assign_parameters({"weight": standardised(vectors), "bias": torch.zeros(len(vectors)).double()})
            x = torch.randn(40, d, dtype=torch.float64)
            expected = Router(gate, router.selection)(x - x.mean(-1, keepdim=True))
            for mine, theirs in zip(router(x), expected, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_constant_inputs_and_gates_score_nothing():
    model = llama()
    gates = random_gates(model)
    flat = {**gates, "a": mapped(gates["a"], lambda v: torch.full_like(v, 0.1))}
    with pytest.warns(match="have no direction"):
        routed = attach_router(model, NAMES, gates=flat)
    with routed:
        router = getattr(model.get_base_model().get_submodule("model.layers.0.self_attn.q_proj"), ATTRIBUTE).router
        z = router.logits(torch.randn(5, 32))
        assert torch.equal(z[:, 0], torch.zeros(5))
        for constant in (0.0, 0.1, -7.0, 1e-30, 1e6):
            z, weights, _ = router(torch.full((1, 2, 32), constant))
            # The mean of equal numbers is one of them, and the sum of a standardised gate 0, up to rounding.
            assert z.abs().max() < 1e-5
            assert torch.isfinite(weights).all()


def test_the_papers_eps_weighs_gates_by_their_length():
    model, tokens = llama(torch.float64), ids()
    gates = random_gates(model)
    small = {**gates, "b": mapped(gates["b"], lambda v: 1e-3 * v.double())}
    with attach_router(model, NAMES, gates=gates, eps=1e-5):
        before = logits(model, tokens)
    with attach_router(model, NAMES, gates=small, eps=1e-5):
        assert (logits(model, tokens) - before).abs().max() > 1e-4


def test_the_direction_of_arrow_is_the_first_singular_vector():
    generator = torch.Generator().manual_seed(0)
    for rank in (1, 4, 12):
        down, up = (
            torch.randn(rank, 10, generator=generator).double(),
            torch.randn(7, rank, generator=generator).double(),
        )
        expected = torch.linalg.svd(up @ down).Vh[0]
        found = arrow_direction(down, up)
        assert abs(float(found @ expected)) == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(arrow_direction(down, torch.zeros(7, 12)), torch.zeros(10, dtype=torch.float64))


def test_arrow_and_average_activation_choose_by_their_scores():
    model, gates = llama(torch.float64), random_gates(llama())
    name = "model.layers.1.self_attn.v_proj"
    x = torch.randn(1, 9, 32, dtype=torch.float64)
    with attach_router(model, NAMES, "arrow", temperature=2.0) as routed:
        router = getattr(model.get_base_model().get_submodule(name), ATTRIBUTE).router
        layer = routed.places[name].layer
        vectors = [torch.linalg.svd(layer.get_delta_weight(adapter)).Vh[0] for adapter in ("a", "c")]
        torch.testing.assert_close(router.logits(x[0]), (x[0] @ torch.stack(vectors).T).abs() / 2.0)
        routed.gates.update(gates)
        routed.with_router("average_activation", temperature="sqrt_d")
        router = getattr(model.get_base_model().get_submodule(name), ATTRIBUTE).router
        means = torch.stack([gates[adapter].means[name].double() for adapter in ("a", "c")])
        bar = (x[0] - x[0].mean(-1, keepdim=True)) / x[0].std(-1, correction=0, keepdim=True)
        torch.testing.assert_close(router.logits(x[0]), bar @ standardised(means).T / 32**0.5)


def test_random_choices_are_different_and_reproducible():
    model, tokens = llama(), ids()
    with attach_router(model, NAMES, "random"):
        torch.manual_seed(3)
        first, second = logits(model, tokens), logits(model, tokens)
        torch.manual_seed(3)
        assert torch.equal(logits(model, tokens), first)
        assert not torch.equal(first, second)


def test_a_module_where_a_gate_is_missing_is_routed_by_arrow():
    model, tokens = llama(), ids()
    gates = random_gates(model)
    with attach_router(model, NAMES, gates={"a": gates["a"], "b": gates["b"]}, missing="arrow") as routed:
        # Where only `b` acts, it has its gate.
        for module, expected in (("q_proj", ArrowScores), ("k_proj", StandardisedScores)):
            layer = routed.places[f"model.layers.0.self_attn.{module}"].layer
            assert isinstance(getattr(layer, ATTRIBUTE).router.scores, expected)
        logits(model, tokens)
