"""A router comes, everything of transformers and peft goes on working, and it goes without a trace."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers import DynamicCache

from gatewise.exceptions import InputError
from gatewise.lora import Oracle, Retrieval, Single, attach_router
from gatewise.lora.changes import ATTRIBUTE
from gatewise.lora.sparse import dense_sum
from gatewise.nn.balance import load
from gatewise.nn.readers import readers_of
from tests.lora.models import (
    NAMES,
    gpt2,
    ids,
    llama,
    llama_base,
    logits,
    mixed_configs,
    random_gates,
    t5,
    with_adapters,
)

GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [llama, t5, gpt2])
@pytest.mark.parametrize("granularity", ["token", "sequence", "shared"])
def test_attach_generate_detach_leaves_every_bit(make, granularity):
    model, tokens = make(), ids()
    model.set_adapter("b")
    extra = {"labels": tokens} if make is t5 else {}
    weights, flags = state(model), {name: p.requires_grad for name, p in model.named_parameters()}
    before, text = logits(model, tokens, **extra), model.generate(input_ids=tokens, **GREEDY)
    routed = attach_router(model, gates=random_gates(model), granularity=granularity)
    assert model.state_dict().keys() == weights.keys()
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert not torch.equal(logits(model, tokens, **extra), before)
    routed.generate(input_ids=tokens, **GREEDY)
    routed.detach()
    assert same(state(model), weights)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert model.base_model.active_adapters == ["b"]
    assert torch.equal(logits(model, tokens, **extra), before)
    assert torch.equal(model.generate(input_ids=tokens, **GREEDY), text)
    with pytest.raises(InputError, match="detached"):
        routed.detach()


@pytest.mark.parametrize("make", [llama, gpt2, t5])
@pytest.mark.parametrize("granularity", ["token", "sequence", "shared"])
def test_a_cache_changes_nothing(make, granularity):
    """Token by token with a cache, what a whole pass over all tokens gives: choices look at no later token."""
    model, tokens = make(), ids(2, 9)
    with torch.no_grad(), attach_router(model, gates=random_gates(model), granularity=granularity):
        if make is t5:
            found = model.generate(input_ids=tokens, return_dict_in_generate=True, output_logits=True, **GREEDY)
            if granularity == "sequence":
                return  # The decoder's prompt is its start alone, and a whole pass knows more.
            whole = model(input_ids=tokens, decoder_input_ids=found.sequences).logits[:, :-1]
            torch.testing.assert_close(torch.stack(found.logits, 1), whole, rtol=0, atol=1e-5)
            return
        found = model.generate(input_ids=tokens, return_dict_in_generate=True, output_logits=True, **GREEDY)
        if granularity == "sequence":
            routed_prompt = model(input_ids=tokens).logits[:, -1]
            torch.testing.assert_close(found.logits[0], routed_prompt, rtol=0, atol=1e-5)
            return
        whole = model(input_ids=found.sequences).logits[:, tokens.shape[1] - 1 : -1]
        torch.testing.assert_close(torch.stack(found.logits, 1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("granularity", ["token", "sequence", "shared"])
def test_left_padding_changes_nothing(granularity):
    model, tokens = llama(), ids(1, 6)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), tokens], 1)
    batch, mask = torch.cat([padded, ids(1, 9, seed=4)]), torch.ones(2, 9, dtype=torch.int64)
    mask[0, :3] = 0
    with attach_router(model, gates=random_gates(model), granularity=granularity):
        alone = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **GREEDY)
        beside = model.generate(input_ids=batch, attention_mask=mask, **GREEDY)
        assert torch.equal(beside[0, 9:], alone[0, 6:])
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        found = logits(model, batch, attention_mask=mask, position_ids=positions)
        torch.testing.assert_close(found[:1, 3:], logits(model, tokens), rtol=0, atol=1e-5)


def test_beams_and_sampling():
    model, tokens = llama(), ids()
    options = {"max_new_tokens": 4, "pad_token_id": 0, "eos_token_id": None}
    with attach_router(model, gates=random_gates(model)) as routed:
        assert routed.generate(input_ids=tokens, num_beams=3, do_sample=False, **options).shape == (3, 11)
        assert routed.generate(input_ids=tokens, do_sample=True, **options).shape == (3, 11)
        with routed.rows(["a", None, "__base__"]):
            beams = routed.generate(input_ids=tokens, num_beams=2, do_sample=False, **options)
        model.set_adapter("a")
        plain = model.generate(input_ids=tokens[:1], num_beams=2, do_sample=False, **options)
        assert torch.equal(beams[:1], plain)
        routed.with_router("phatgoose", granularity="shared")
        with pytest.raises(InputError, match="num_beams=1"):
            routed.generate(input_ids=tokens, num_beams=2, do_sample=False, **options)


def test_a_sequence_has_one_choice_from_its_tokens_that_are_no_padding():
    model, tokens = llama(), ids()
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    with attach_router(model, gates=random_gates(model), granularity="sequence") as routed:
        seen = watched(model)
        logits(model, tokens, attention_mask=mask)
        assert len(seen) == len(routed.places)
        for router, x, (z, _, indices) in seen:
            single = router.logits(x.reshape(-1, x.shape[-1])).reshape(3, 7, -1)
            mean = torch.stack([single[row][mask[row].bool()].mean(0) for row in range(3)])
            torch.testing.assert_close(z.reshape(3, 7, -1), mean.unsqueeze(1).expand(-1, 7, -1))
            assert bool((indices.reshape(3, 7, -1) == indices.reshape(3, 7, -1)[:, :1]).all())
        found = DynamicCache(config=model.config)
        with model.disable_adapter():
            model(input_ids=ids(5, 3), cache=found)
        with pytest.raises(InputError, match="begin with their prompts"):
            model(input_ids=ids(5, 1), cache=found)


def watched(model):
    """What the routers of a model get and give: (router, tokens, outputs) of each call."""
    seen = []
    for reader in readers_of(model).values():
        reader.module.register_forward_hook(lambda router, given, outputs: seen.append((router, given[0], outputs)))
    return seen


def test_shared_scores_are_the_mean_over_modules_without_adapters():
    model, tokens = llama(torch.float64), ids()
    gates = random_gates(model)
    inputs, handles = {}, []

    def note(name):
        def hook(layer, given):
            inputs[name] = given[0]

        return hook

    with attach_router(model, gates=gates) as routed, model.disable_adapter():
        for name, place in routed.places.items():
            handles.append(place.layer.register_forward_pre_hook(note(name)))
        logits(model, tokens)
        for handle in handles:
            handle.remove()
        total = torch.zeros(3, 7, 3, dtype=torch.float64)
        count = torch.zeros(3, dtype=torch.float64)
        for name, place in routed.places.items():
            router = getattr(place.layer, ATTRIBUTE).router
            z = router.logits(inputs[name].reshape(-1, inputs[name].shape[-1])).reshape(3, 7, -1)
            for column, adapter in enumerate(place.adapters):
                total[..., NAMES.index(adapter)] += z[..., column]
                count[NAMES.index(adapter)] += 1
    mean = total / count
    with attach_router(model, gates=gates, granularity="shared") as routed:
        seen = watched(model)
        logits(model, tokens)
        for router, _, (z, _, _) in seen:
            columns = [NAMES.index(adapter) for adapter in router.adapters]
            torch.testing.assert_close(z.reshape(3, 7, -1), mean[..., columns], rtol=1e-9, atol=1e-10)


def test_disable_adapter_is_the_base():
    model, tokens = llama(), ids()
    with model.disable_adapter():
        base = logits(model, tokens)
    with attach_router(model, gates=random_gates(model)):
        routed = logits(model, tokens)
        with model.disable_adapter():
            assert torch.equal(logits(model, tokens), base)
        assert torch.equal(logits(model, tokens), routed)


def test_set_adapter_narrows_the_choice():
    model, tokens = llama(), ids()
    gates = random_gates(model)
    model.set_adapter("b")
    only_b = logits(model, tokens)
    with attach_router(model, ["a", "c"], gates={name: gates[name] for name in ("a", "c")}):
        both = logits(model, tokens)
    with attach_router(model, gates=gates):
        whole = logits(model, tokens)
        model.set_adapter("b")
        torch.testing.assert_close(logits(model, tokens), only_b, rtol=0, atol=1e-6)
        model.base_model.set_adapter(["a", "c"])
        torch.testing.assert_close(logits(model, tokens), both, rtol=0, atol=1e-6)
        model.base_model.set_adapter(list(NAMES))
        assert torch.equal(logits(model, tokens), whole)


def test_rows_have_their_own_adapters_and_others_are_routed():
    model, tokens = llama(), ids(4)
    plain = {}
    for name in NAMES:
        model.set_adapter(name)
        plain[name] = logits(model, tokens)
    with model.disable_adapter():
        plain["__base__"] = logits(model, tokens)
    with attach_router(model, gates=random_gates(model)) as routed:
        plain[None] = logits(model, tokens)
        rows = ["c", None, "__base__", "a"]
        with routed.rows(rows):
            found = logits(model, tokens)
        for index, row in enumerate(rows):
            torch.testing.assert_close(found[index], plain[row][index], rtol=0, atol=1e-6)
        # peft's own way of saying so.
        named = logits(model, tokens, adapter_names=["a", "__base__", "b", "c"])
        for index, row in enumerate(["a", "__base__", "b", "c"]):
            torch.testing.assert_close(named[index], plain[row][index], rtol=0, atol=1e-6)
        assert torch.equal(logits(model, tokens), plain[None])
        with (
            pytest.raises(InputError, match="there are adapters for 3 rows, and the batch has 4"),
            routed.rows(["a"] * 3),
        ):
            logits(model, tokens)
        with pytest.raises(InputError, match="no adapter 'd' in the pool"), routed.rows(["d"]):
            pass
        routed.with_router("merged_product")
        with pytest.raises(InputError, match="take the router 'uniform'"), routed.rows(rows):
            logits(model, tokens)


def test_single_oracle_and_retrieval_give_whole_rows_to_adapters():
    model, tokens = llama(), ids(3)
    tokens[:, 0] = torch.tensor([5, 6, 7])
    plain = {}
    for name in NAMES:
        model.set_adapter(name)
        plain[name] = logits(model, tokens)
    with attach_router(model, router=Single("b")) as routed:
        torch.testing.assert_close(logits(model, tokens), plain["b"], rtol=0, atol=1e-6)
        routed.with_router(Oracle())
        with pytest.raises(InputError, match="fix the adapters of all rows"):
            logits(model, tokens)
        with routed.rows(["c", "a", "b"]):
            found = logits(model, tokens)

        def embed(texts):
            # The row's first token tells the adapter: the tokens come as text.
            return torch.nn.functional.one_hot(torch.tensor([int(text.split()[0]) for text in texts]), 48).float()

        firsts = [str(token) for token in tokens[:, 0].tolist()]
        router = Retrieval(
            embed, {"a": firsts[1:2], "b": firsts[2:], "c": firsts[:1]}, decode=lambda row: " ".join(map(str, row))
        )
        routed.with_router(router)
        torch.testing.assert_close(logits(model, tokens), found, rtol=0, atol=1e-6)
        for row, name in enumerate("cab"):
            torch.testing.assert_close(found[row], plain[name][row], rtol=0, atol=1e-6)
        text = routed.generate(input_ids=tokens, **GREEDY)
        model.set_adapter("c")
        routed.detach()
        model.set_adapter("c")
        assert torch.equal(model.generate(input_ids=tokens[:1], **GREEDY), text[:1])


def test_retrieval_on_an_encoder_and_decoder():
    model, tokens = t5(), ids(2)
    router = Retrieval(
        lambda texts: torch.tensor([[len(text) * 1.0, 1.0] for text in texts]),
        {name: ["x"] for name in NAMES},
        decode=lambda row: "x" * len(row),
    )
    with attach_router(model, router=router):
        model.generate(input_ids=tokens, **GREEDY)


def test_an_adapter_comes_and_goes_without_touching_the_others():
    model, tokens = llama(), ids()
    gates = random_gates(model)
    weights = state(model)
    two = {name: gates[name] for name in ("a", "b")}
    with attach_router(model, ["a", "b"], gates=two):
        few = logits(model, tokens)
    with attach_router(model, gates=gates):
        many = logits(model, tokens)
    with attach_router(model, ["a", "b"], gates=two) as routed:
        routed.add("c", gates=gates["c"])
        assert torch.equal(logits(model, tokens), many)
        with pytest.raises(InputError, match="takes part already"):
            routed.add("c")
        routed.remove("c")
        assert torch.equal(logits(model, tokens), few)
        assert routed.adapters == ("a", "b")
        with pytest.raises(InputError, match="has no gate"):
            routed.add("c")
        assert torch.equal(logits(model, tokens), few)
        routed.remove("a")
        with pytest.raises(InputError, match="last adapter"):
            routed.remove("b")
    assert same(state(model), weights)


def test_gradients_flow_through_checkpoints_as_without():
    found = []
    for checkpoints in (False, True):
        model, tokens = llama(), ids()
        if checkpoints:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        with attach_router(model, gates=random_gates(model)):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("lora_" in name)
            model.train()
            model(input_ids=tokens, labels=tokens).loss.backward()
            found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any(bool(grad.any()) for grad in found[0].values())
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-7)


def test_dropout_acts_in_training_only():
    model, tokens = llama(), ids()
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name in layer.lora_dropout:
                layer.lora_dropout[name] = torch.nn.Dropout(0.5)
    model.eval()
    with attach_router(model, gates=random_gates(model)):
        quiet = logits(model, tokens)
        assert torch.equal(logits(model, tokens), quiet)
        model.train()
        assert not torch.equal(logits(model, tokens), logits(model, tokens))


@pytest.mark.parametrize("how", ["cast", "autocast"])
def test_bfloat16_chooses_as_float32_on_the_same_numbers(how):
    model, tokens = llama(torch.bfloat16 if how == "cast" else torch.float32), ids()
    gates = random_gates(llama())
    if how == "cast":
        gates = random_gates(model)
    with attach_router(model, gates=gates), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        seen = watched(model)
        assert bool(torch.isfinite(logits(model, tokens)).all())
        model.generate(input_ids=tokens, **GREEDY)
    assert len(seen) > 10
    for router, x, (z, weights, _) in seen:
        assert z.dtype == weights.dtype == torch.float32
        bar = x.reshape(-1, x.shape[-1]).double()
        bar = (bar - bar.mean(-1, keepdim=True)) / bar.std(-1, correction=0, keepdim=True)
        # The padding token is a vector of zeros, and scores 0.
        expected = bar.nan_to_num(0.0) @ router.scores.vectors.double().T
        torch.testing.assert_close(z.double(), expected, rtol=1e-4, atol=1e-5)
    # A cast after the attachment leaves the gates in float32 too.
    model = llama()
    with attach_router(model, gates=random_gates(model)):
        model.to(torch.bfloat16)
        router = getattr(model.get_base_model().get_submodule("model.layers.0.self_attn.q_proj"), ATTRIBUTE).router
        assert router.scores.vectors.dtype == torch.float32
        logits(model, tokens)


def test_the_sum_is_the_dense_one_within_a_model(monkeypatch):
    model, tokens = llama(torch.float64), ids(4, 12)
    with attach_router(model, gates=random_gates(model)):
        sparse = logits(model, tokens)
        monkeypatch.setattr("gatewise.lora.changes.adapter_sum", dense_sum)
        torch.testing.assert_close(logits(model, tokens), sparse, rtol=1e-12, atol=1e-12)


def test_a_copy_of_the_model_is_routed_on_its_own():
    model, tokens = llama(), ids()
    routed = attach_router(model, gates=random_gates(model))
    before = logits(model, tokens)
    other = copy.deepcopy(model)
    assert torch.equal(logits(other, tokens), before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    routed.detach()
    assert torch.equal(logits(other, tokens), before)


def test_monitors_read_the_routers():
    model, tokens = llama(), ids()
    with attach_router(model, gates=random_gates(model)) as routed:
        readers = readers_of(model)
        assert len(readers) == len(routed.places)
        name, reader = next(iter(readers.items()))
        assert name.endswith("self_attn.q_proj.gatewise_change.router")
        assert reader.n_experts == 3
        assert reader.correction_bias is None
        calls = []
        reader.module.register_forward_hook(lambda m, a, k, o: calls.append((a, k, o)), with_kwargs=True)
        logits(model, tokens)
        routing = reader.routing(*calls[0])
        assert routing.logits.shape == (21, 3)
        assert reader.tokens(*calls[0][:2]).shape == (21, 32)
        assert load(routing.indices, 3).sum() == pytest.approx(1.0)
        # The weights are the selection's of the logits.
        weights, indices = routing.selection(routing.logits)
        assert torch.equal(indices, routing.indices)
        torch.testing.assert_close(weights, routing.weights)


def test_two_routers_do_not_share_a_model():
    model = llama()
    with attach_router(model, router="arrow"), pytest.raises(InputError, match=r"call its detach\(\) first"):
        attach_router(model, router="uniform")
    attach_router(model, router="arrow").detach()


def test_merged_adapters_are_refused():
    model = llama()
    model.merge_adapter(["a"])
    with pytest.raises(InputError, match="unmerge_adapter"):
        attach_router(model, router="arrow")
    model = llama()
    with attach_router(model, router="arrow"):
        model.merge_adapter(["a"])
        with pytest.raises(InputError, match="unmerge_adapter"):
            logits(model, ids())
        with warnings.catch_warnings():
            # Modules that do not have the adapter say that they are unmerged already.
            warnings.simplefilter("ignore")
            model.unmerge_adapter()


def test_new_modules_of_a_new_adapter_are_routed():
    model, tokens = llama(), ids()
    with attach_router(model, router="arrow") as routed:
        model.add_adapter("d", LoraConfig(r=4, target_modules=["o_proj"], init_lora_weights=False))
        routed.add("d")
        assert "model.layers.0.self_attn.o_proj" in routed.places
        logits(model, tokens)


def test_quantised_base_layers():
    """On a base in eight bits, as peft supports it: skipped where bitsandbytes is not installed."""
    pytest.importorskip("bitsandbytes")
    import bitsandbytes

    base = llama_base()
    for name, module in list(base.named_modules()):
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            parent, _, child = name.rpartition(".")
            quantised = bitsandbytes.nn.Linear8bitLt(module.in_features, module.out_features, bias=False)
            quantised.weight = bitsandbytes.nn.Int8Params(module.weight.data, requires_grad=False)
            setattr(base.get_submodule(parent), child, quantised)
    model = with_adapters(base, mixed_configs())
    model.set_adapter("a")
    plain = logits(model, ids())
    with attach_router(model, ["a"], gates=random_gates(model, ["a"])):
        torch.testing.assert_close(logits(model, ids()), plain, rtol=0, atol=1e-5)
