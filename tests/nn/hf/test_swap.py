import copy
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from gatewise.exceptions import InputError
from gatewise.gates import LaplaceGate, SigmoidGate, SoftmaxGate
from gatewise.nn import Selection, initialise_router
from gatewise.nn.balance import balance_loss, recording
from gatewise.nn.hf import restore_routers, swap_routers, train_routers_only
from gatewise.nn.hf.sites import swapped_in
from gatewise.nn.readers import readers_of
from tests.nn.hf.tiny_models import D, E, K, routers_of, tiny_model, tiny_tokens

GATES = ("cosine", "perturbed_cosine", "laplace", "sigmoid", "dense_to_sparse", "gaussian", "modified_softmax")


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v3"])
def test_other_gates_run_learn_and_go_again(model_type, gate):
    model, ids = tiny_model(model_type), tiny_tokens()
    before = logits_of(model, ids)
    swap_routers(model, gate, init="orthonormal", std=0.2, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(logits_of(model, ids), before)
    model(ids, labels=ids).loss.backward()
    for router in routers_of(model).values():
        assert router.gate.name == gate
        assert any(bool(value.grad.abs().sum() > 0) for value in router.gate.parameters() if value.grad is not None)
    restore_routers(model)
    assert torch.equal(logits_of(model, ids), before)


@pytest.mark.parametrize("normalised", [True, False])
def test_the_models_own_loss_sees_the_probabilities_of_a_gate_that_is_no_softmax(normalised):
    model, ids = tiny_model("mixtral"), tiny_tokens()
    swap_routers(model, SigmoidGate(D, E, normalised=normalised), init="normal", std=0.5)
    with recording(model) as calls:
        outputs = model(ids, labels=ids, output_router_logits=True)
    for collected, (routing,) in zip(outputs.router_logits, calls.values(), strict=True):
        s = routing.logits.exp()
        torch.testing.assert_close(collected.softmax(-1), s / s.sum(-1, keepdim=True))
    assert outputs.aux_loss.requires_grad


def test_layers_by_number_and_by_name():
    model = tiny_model("mixtral")
    assert swap_routers(model, layers=[2]).names == ("model.layers.2.mlp.gate",)
    assert swap_routers(model, layers=["model.layers.0.mlp.gate"]).names == ("model.layers.0.mlp.gate",)
    assert list(swapped_in(model)) == ["model.layers.0.mlp.gate", "model.layers.2.mlp.gate"]
    assert list(readers_of(model)) == [
        "model.layers.0.mlp.gate.router",
        "model.layers.1.mlp.gate",
        "model.layers.2.mlp.gate.router",
    ]
    assert len(restore_routers(model)) == 2


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers must be a list"),
        ("1", "layers must be a list"),
        (1, "layers must be a list"),
        ({1}, "layers must be a list"),
        ([7], "no router to swap in the layer 7: there are routers in 1, 2"),
        ([0], "no router to swap in the layer 0"),
        ([-1], "no router to swap in the layer -1"),
        ([True], "no router to swap in the layer True"),
        ([1, 1], "layers names 'model.layers.1.mlp.gate' twice"),
        ([1, "model.layers.1.mlp.gate"], "twice"),
        (["model.layers.1.mlp"], "no router to swap in the layer 'model.layers.1.mlp'"),
    ],
)
def test_layers_that_are_none_are_refused_and_nothing_is_changed(layers, message):
    model = tiny_model("deepseek_v3")
    with pytest.raises(InputError, match=message):
        swap_routers(model, layers=layers)
    assert not swapped_in(model)


def test_a_hash_router_that_is_named_is_refused():
    model = tiny_model("deepseek_v4")
    with pytest.raises(InputError, match=r"'model\.layers\.0\.mlp\.gate' cannot be swapped: its experts are a fixed"):
        swap_routers(model, layers=[0, 1])
    assert swap_routers(model, layers=[1]).skipped == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate": "cosine"}, "the cosine gate is not the one of DeepseekV3TopkRouter"),
        ({"gate": "cosin"}, "did you mean 'cosine'"),
        ({"gate": 3}, "the gate must be 'matching'"),
        ({"gate": SoftmaxGate(D, E + 1)}, "the routers have d = 64 and 8 experts, and this gate 64 and 9"),
        ({"gate": SoftmaxGate(D, E), "gate_options": {}}, "gate_options belong to a gate that is made from its name"),
        ({"gate": "cosine", "init": "given"}, "init='given' takes a gate as it is"),
        ({"init": "from_new"}, "init must be one of"),
        ({"init": "distil"}, "pass batches of tokens as data"),
        ({"data": tiny_tokens()}, "and only then"),
        ({"selection": "old"}, "selection must be one of 'from_old'"),
        ({"selection": Selection(top_k=E + 1)}, "top_k is 9"),
        ({"selection": Selection(method="expert_choice")}, "no use for a correction bias"),
        ({"init": "distil", "data": []}, "there is no token in data"),
        ({"init": "distil", "data": torch.zeros(3, 4)}, "a batch of data must be token ids"),
        ({"init": "distil", "data": ["text"]}, "a batch of data must be token ids"),
        ({"init": "distil", "data": tiny_tokens(), "steps": 0}, "steps must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(arguments, message):
    model, ids = tiny_model("deepseek_v3"), tiny_tokens()
    before = logits_of(model, ids)
    with pytest.raises(InputError, match=message):
        swap_routers(model, **arguments)
    assert not swapped_in(model)
    assert torch.equal(logits_of(model, ids), before)


def test_a_second_swap_and_a_restore_of_nothing_are_refused():
    model = tiny_model("mixtral")
    with pytest.raises(InputError, match="nothing to restore"):
        restore_routers(model)
    swap_routers(model)
    with pytest.raises(InputError, match=r"'model\.layers\.0\.mlp\.gate' is swapped already"):
        swap_routers(model)
    with pytest.raises(InputError, match="swapped already"):
        swap_routers(model, layers=[0])


@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v3"])
@pytest.mark.parametrize("flag", ["output_router_logits", "output_hidden_states"])
def test_a_swap_after_recording_has_begun_is_refused(model_type, flag):
    model, ids = tiny_model(model_type), tiny_tokens()
    model(ids)
    swap_routers(model)
    restore_routers(model)
    model(ids, **{flag: True})
    with pytest.raises(InputError, match="has begun to record outputs"):
        swap_routers(model)


def test_a_restored_model_records_and_can_be_recorded_again():
    model, ids = tiny_model("deepseek_v3"), tiny_tokens()
    swap_routers(model)
    assert len(model(ids, output_router_logits=True).router_logits) == 2
    restore_routers(model)
    assert len(model(ids, output_router_logits=True).router_logits) == 2


class _OwnRouter(nn.Module):
    pass


def test_other_contracts_and_unknown_routers_are_refused_by_name():
    from transformers import Llama4ForCausalLM
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextRouter
    from transformers.models.zaya.modeling_zaya import ZayaRouter

    from tests.nn.hf.tiny_models import tiny_configuration

    configuration = tiny_configuration("llama4_text", attn_implementation="eager")
    with pytest.raises(InputError, match=r"'model\.layers\.\d\.feed_forward\.router' is a Llama4Router.*pair of dense"):
        swap_routers(Llama4ForCausalLM(configuration))
    for cls, reason in ((Gemma4TextRouter, "probabilities in the place of logits"), (ZayaRouter, "carries a state")):
        layer = nn.Module()
        layer.experts = nn.Identity()
        layer.router = cls.__new__(cls)
        nn.Module.__init__(layer.router)
        with pytest.raises(InputError, match=f"'0.router' is a {cls.__name__}, which cannot be swapped: .*{reason}"):
            swap_routers(nn.Sequential(layer))
    layer.router = _OwnRouter()
    with pytest.raises(InputError, match="is a _OwnRouter, a class that is not known"):
        swap_routers(nn.Sequential(layer))
    with pytest.raises(InputError, match="no router of a known class"):
        swap_routers(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="pass a model, not 3"):
        swap_routers(3)
    with pytest.raises(InputError, match="pass the model, not the router itself"):
        swap_routers(tiny_model("mixtral").model.layers[0].mlp.gate)


def test_a_gate_object_is_copied_for_each_layer():
    gate = LaplaceGate(D, E)
    initialise_router(gate, std=1.0)
    model = tiny_model("mixtral")
    swap_routers(model, gate, init="given")
    gates = [router.gate for router in routers_of(model).values()]
    assert all(torch.equal(own.centre, gate.centre) for own in gates)
    assert len({own.centre.data_ptr() for own in (*gates, gate)}) == 4


def test_a_selection_of_ones_own():
    model, ids = tiny_model("mixtral"), tiny_tokens()
    swap_routers(model, selection=Selection(top_k=3, score="sigmoid", renormalise="none"))
    with recording(model) as calls:
        model(ids)
    routing = calls["model.layers.0.mlp.gate.router"][0]
    assert routing.indices.shape == (ids.numel(), 3)
    torch.testing.assert_close(routing.weights, routing.logits.sigmoid().topk(3).values)


def test_the_models_own_state_loads_into_the_swapped_one():
    model = tiny_model("deepseek_v3")
    own = {name: value.clone() for name, value in tiny_model("deepseek_v3", seed=4).state_dict().items()}
    swap_routers(model)
    found = model.load_state_dict(own, strict=False)
    assert not found.unexpected_keys
    assert all(".router.gate." in name for name in found.missing_keys)
    # What is loaded is in the old router, but for the bias, which acts at once.
    assert torch.equal(model.model.layers[1].mlp.gate.old.weight, own["model.layers.1.mlp.gate.weight"])
    bias = own["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert torch.equal(model.model.layers[1].mlp.gate.router.correction_bias, bias)
    model = tiny_model("deepseek_v3")
    swap_routers(model)
    name = "model.layers.1.mlp.gate.weight"
    with pytest.raises(RuntimeError, match=rf"Missing key\(s\) in state_dict: \"{name}\""):
        model.load_state_dict({key: value for key, value in model.state_dict().items() if key != name})
    with pytest.raises(RuntimeError, match=f"{name} has the shape"):
        model.load_state_dict({**model.state_dict(), name: torch.zeros(3)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict({**model.state_dict(), "model.layers.1.mlp.gate.nothing": torch.zeros(1)})


@pytest.mark.parametrize("model_type", ["deepseek_v3", "minimax_m2"])
def test_copies_are_of_their_own(model_type):
    model, ids = tiny_model(model_type), tiny_tokens()
    swap_routers(model)
    before = logits_of(model, ids)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits_of(twin, ids), before)
        with torch.no_grad():
            next(iter(routers_of(twin).values())).gate.weight.zero_()
        assert not torch.equal(logits_of(twin, ids), before)
        restore_routers(twin)
    assert torch.equal(logits_of(model, ids), before)


@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v3", "laguna", "minimax_m2", "deepseek_v4"])
def test_models_in_bfloat16(model_type):
    model, ids = tiny_model(model_type).to(torch.bfloat16), tiny_tokens()
    before = logits_of(model, ids)
    swap_routers(model)
    assert all(value.dtype == torch.float32 for r in routers_of(model).values() for value in r.gate.parameters())
    after = logits_of(model, ids)
    assert after.dtype == torch.bfloat16
    # Where the old router computes in bfloat16 some tokens choose others.
    assert ((after - before).abs().amax(-1) < 0.02).float().mean() > 0.6
    model(ids, labels=ids).loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, labels=ids).loss.backward()
    restore_routers(model)
    assert torch.equal(logits_of(model, ids), before)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "hy_v3", "ernie4_5_moe", "inkling2_text"])
def test_in_bfloat16_old_routers_in_float32_are_reproduced_to_the_same_accuracy(model_type):
    model, ids = tiny_model(model_type).to(torch.bfloat16), tiny_tokens()
    if model_type == "inkling2_text":
        # Its router casts the tokens and not its weights, which loading keeps in float32.
        for layer in model.model.layers:
            layer.mlp.gate.float()
    found = []
    name = next(iter(readers_of(model)))
    for swapped in (False, True):
        if swapped:
            swap_routers(model)
        # The first router: what it reads does not depend on the others.
        handle = model.get_submodule(name).register_forward_hook(lambda *call: found.append(call[2]))
        logits_of(model, ids)
        handle.remove()
    (_, old_weights, old), (_, new_weights, new) = found
    assert new_weights.dtype == old_weights.dtype
    torch.testing.assert_close(
        new_weights.gather(-1, new.argsort(-1)), old_weights.gather(-1, old.argsort(-1)), rtol=0, atol=1e-5
    )
    assert torch.equal(new.sort().values, old.sort().values)


def test_a_cast_after_the_swap_reaches_the_old_router_too():
    model, ids = tiny_model("mixtral"), tiny_tokens()
    swap_routers(model)
    model.to(torch.bfloat16)
    restore_routers(model)
    assert model(ids).logits.dtype == torch.bfloat16


def test_gradient_checkpointing_gives_the_same_gradients():
    model, ids = tiny_model("mixtral").train(), tiny_tokens()
    swap_routers(model, "cosine", init="orthonormal", generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        with recording(model) as calls:
            loss = model(ids, labels=ids, use_cache=False).loss
            loss = loss + 0.1 * sum(balance_loss(routing) for (routing,) in calls.values())
            loss.backward()
        gradients.append([value.grad.clone() for value in model.parameters() if value.grad is not None])
        model.zero_grad()
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_compiled_layer_gives_the_same():
    model = tiny_model("minimax_m2")
    swap_routers(model, "laplace", init="orthonormal")
    layer = model.model.layers[1].mlp
    x = torch.randn(2, 5, D)
    model.set_experts_implementation("eager")
    with torch.no_grad():
        expected = layer(x)
        torch.testing.assert_close(torch.compile(layer, backend="eager")(x), expected)


def test_a_device_map_and_offloading():
    from accelerate import dispatch_model, init_empty_weights

    model, ids = tiny_model("mixtral"), tiny_tokens()
    before = logits_of(model, ids)
    names = [name for name, _ in model.model.named_children()]
    dispatch_model(
        model, {**{f"model.{name}": "cpu" for name in names}, "lm_head": "cpu"}, main_device="cpu", force_hooks=True
    )
    assert hasattr(model.model.layers, "_hf_hook")
    swap_routers(model)
    torch.testing.assert_close(logits_of(model, ids), before, rtol=0, atol=1e-5)
    restore_routers(model)
    assert torch.equal(logits_of(model, ids), before)
    with init_empty_weights():
        empty = tiny_model("mixtral").to("meta")
    with pytest.raises(InputError, match=r"weights of the router 'model\.layers\.0\.mlp\.gate' are not in memory"):
        swap_routers(empty)


def test_only_the_routers_are_trained():
    model, ids = tiny_model("deepseek_v3"), tiny_tokens()
    swap_routers(model, "cosine", init="orthonormal", layers=[1])
    names = train_routers_only(model)
    first, second = "model.layers.1.mlp.gate.router.gate.", "model.layers.2.mlp.gate.weight"
    assert set(names) == {first + "weight", first + "bias", second}
    assert {name for name, value in model.named_parameters() if value.requires_grad} == set(names)
    model(ids, labels=ids).loss.backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == set(names)
    with pytest.raises(InputError, match="no router in this Linear"):
        train_routers_only(nn.Linear(2, 2))


def test_the_second_of_two_experts_is_read_from_the_old_router():
    assert K == 2
    model, ids = tiny_model("gpt_oss"), tiny_tokens()
    swap_routers(model)
    with recording(model) as calls:
        model(ids)
    assert all(routing.indices.shape == (ids.numel(), K) for (routing,) in calls.values())
