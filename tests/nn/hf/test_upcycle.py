"""A dense model whose MLPs become sparse gives what it gave, and is a mixture in every other way."""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from gatewise.exceptions import EqualLogitsWarning, InputError, UpcyclingWarning
from gatewise.gates import SoftmaxGate
from gatewise.nn import Router, RouterMonitor, Selection, SparseMoE, initialise_router
from gatewise.nn.balance import balance_loss, recording
from gatewise.nn.hf import AuxiliaryLoss, BalanceCallback, MonitorCallback, swap_routers, upcycle
from gatewise.nn.readers import readers_of
from tests.nn.hf.dense_models import DECODERS, TYPES, dense_model, dense_tokens, logits_of
from tests.nn.hf.tiny_models import tiny_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_output_is_the_same_and_undoing_is_exact(model_type):
    model = dense_model(model_type)
    before, names = logits_of(model), list(model.state_dict())
    upcycled = upcycle(model, 4, "laplace", generator=seeded())
    assert upcycled.names[-1] == TYPES[model_type][1]
    assert upcycled.exact
    # Sums of two weights that are 1 to rounding, in logits of the order of 1.
    torch.testing.assert_close(logits_of(model), before, rtol=1e-6, atol=1e-6)
    with RouterMonitor(model) as monitor:
        logits_of(model)
    assert list(monitor.layers) == [f"{name}.router" for name in upcycled.names]
    # Of albert's one layer both calls are seen.
    calls = 2 if model_type == "albert" else 1
    assert all(sum(monitor.counts(layer)) == 2 * 24 * calls for layer in monitor.layers)
    upcycled.undo()
    assert torch.equal(logits_of(model), before)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "bert", "bloom"])
def test_the_chosen_experts_alone_get_gradients(model_type):
    model = dense_model(model_type)
    names = upcycle(model, 8, "cosine", generator=seeded()).names
    ids = dense_tokens(1, 3)
    # Every token's output counts: the labels of some models are those of the next token, and the last has none.
    with recording(model) as calls:
        loss = model(input_ids=ids).logits.square().mean()
    (loss + 0.1 * sum(balance_loss(call) for (call,) in calls.values())).backward()
    for name in names:
        layer, (call,) = model.get_submodule(name), calls[f"{name}.router"]
        used = torch.zeros(8, dtype=torch.bool)
        used[call.indices.reshape(-1)] = True
        assert 2 <= int(used.sum()) < 8
        for weight in layer.experts.weights():
            assert torch.equal(weight.grad.flatten(1).abs().sum(1) > 0, used)
        assert layer.router.gate.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "falcon"])
def test_generation_is_the_same(model_type):
    model = dense_model(model_type)
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones(2, 4, dtype=torch.long)}
    before = model.generate(dense_tokens(2, 4), **options)
    upcycle(model, 4, generator=seeded())
    assert torch.equal(model.generate(dense_tokens(2, 4), **options), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_other_dtypes(model_type, dtype):
    model = dense_model(model_type).to(dtype)
    before = logits_of(model)
    name = upcycle(model, 4, generator=seeded()).names[0]
    layer = model.get_submodule(name)
    assert {value.dtype for value in layer.experts.parameters()} == {dtype}
    assert layer.router.gate.weight.dtype == torch.promote_types(dtype, torch.float32)
    near = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(logits_of(model), before, rtol=near, atol=near)


def test_every_expert_is_a_copy_until_there_is_noise():
    model = dense_model("llama")
    mlp = model.model.layers[0].mlp
    gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    bias = torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
    upcycle(model, 3, layers=[0])
    bank = model.model.layers[0].mlp.experts
    for expert in range(3):
        assert torch.equal(bank.gate_up[expert], gate_up)
        assert torch.equal(bank.gate_up_bias[expert], bias)
        assert torch.equal(bank.down[expert], mlp.down_proj.weight)
    noisy = [dense_model("llama") for _ in range(3)]
    found = [
        upcycle(one, 3, layers=[0], noise=0.5, generator=seeded(seed))
        for one, seed in zip(noisy, (0, 0, 1), strict=True)
    ]
    assert not found[0].exact
    assert str(found[0]) == "model.layers.0.mlp: 3 experts\nthe output changes: the experts differ by noise"
    banks = [one.model.layers[0].mlp.experts for one in noisy]
    assert torch.equal(banks[0].down, banks[1].down)
    assert not torch.equal(banks[0].down, banks[2].down)
    # 3 · 64 · 48 numbers: the standard deviation is known to 1 %.
    away = (banks[0].gate_up - gate_up).detach().std() / gate_up.detach().std()
    assert abs(float(away) - 0.5) < 0.02
    assert torch.equal(banks[0].gate_up_bias[1], bias)
    assert not torch.allclose(logits_of(noisy[0]), logits_of(dense_model("llama")), atol=1e-4)


def test_experts_are_trained_where_the_mlp_was():
    model = dense_model("gpt2")
    model.transformer.h[1].mlp.requires_grad_(False)
    with torch.no_grad():
        upcycle(model, 4)
    trained = [{value.requires_grad for value in block.mlp.experts.parameters()} for block in model.transformer.h]
    assert trained == [{True}, {False}]
    assert all(value.requires_grad for block in model.transformer.h for value in block.mlp.router.parameters())


def test_dropouts_act_on_what_the_layer_gives():
    model = dense_model("gpt2", resid_pdrop=0.5).train()
    upcycle(model, 4, layers=[0])
    layer = model.transformer.h[0].mlp
    assert layer.training
    assert (layer(torch.randn(50, 32)) == 0.0).float().mean() > 0.4
    assert not (layer.eval()(torch.randn(50, 32)) == 0.0).any()


def test_an_activation_that_learns_is_copied():
    model = dense_model("apertus")
    old = model.model.layers[0].mlp.act_fn
    upcycle(model, 4, layers=[0])
    new = model.model.layers[0].mlp.experts._function
    assert type(new) is type(old)
    assert new is not old
    model(input_ids=dense_tokens(), labels=dense_tokens()).loss.backward()
    assert new.alpha_p.grad is not None


def test_checkpointing_and_tied_weights():
    ids, gradients = dense_tokens(), []
    for checkpointed in (False, True):
        model = dense_model("llama", tie_word_embeddings=True).train()
        upcycle(model, 4, generator=seeded())
        if checkpointed:
            model.activation_checkpointing_enable()
        loss = AuxiliaryLoss(model, 0.1)
        model(input_ids=ids, labels=ids).loss.backward()
        loss.remove()
        assert model.lm_head.weight is model.model.embed_tokens.weight
        gradients.append([value.grad for value in model.model.layers[0].mlp.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def named(model, *arguments, **options):
    return list(upcycle(model, 2, *arguments, **options).names)


def test_layers_are_chosen_by_numbers_slices_words_and_names():
    def llama():
        return dense_model("llama", num_hidden_layers=5)

    def names(*places):
        return [f"model.layers.{place}.mlp" for place in places]

    assert named(llama()) == names(0, 1, 2, 3, 4)
    assert named(llama(), layers=[3, "model.layers.0.mlp"]) == names(0, 3)
    assert named(llama(), layers="every second") == names(1, 3)
    assert named(llama(), layers=slice(-2, None)) == names(3, 4)
    assert named(llama(), layers="model.layers.[24].*") == names(2, 4)
    assert named(llama(), layers=["*.1", "*.4.mlp"]) == names(1, 4)
    bart = dense_model("bart")
    assert named(bart, layers="model.decoder.*") == ["model.decoder.layers.0.fc1", "model.decoder.layers.1.fc1"]
    # What is dense still can follow, with other experts.
    assert named(bart, "sigmoid", layers="model.encoder.layers.1") == ["model.encoder.layers.1.fc1"]
    assert len(readers_of(bart)) == 3


def test_routers_of_all_kinds():
    model = dense_model("llama")
    upcycle(
        model, 4, "cosine", [0], selection=Selection(top_k=3, score="sigmoid"), correction_bias=True,
        gate_options={"temperature": 0.5}, init="data", data=dense_tokens(4), generator=seeded(),
    )  # fmt: skip
    router = model.model.layers[0].mlp.router
    assert (router.gate.name, router.selection.top_k) == ("cosine", 3)
    assert router.correction_bias is not None
    assert router.gate.options()["temperature"] == 0.5
    own = Router(SoftmaxGate(32, 4), Selection(top_k=1))
    initialise_router(own)
    model = dense_model("llama", num_hidden_layers=3)
    with pytest.warns(UpcyclingWarning, match=r"'model\.layers\.0\.mlp' has K = 1 .* \(1 more are alike\)"):
        upcycle(model, 4, own, [0, 1])
    routers = [model.model.layers[place].mlp.router for place in (0, 1)]
    assert routers[0] is not routers[1]
    assert all(router is not own and router.selection.top_k == 1 for router in routers)
    upcycle(model, 6, lambda d, n: Router(SoftmaxGate(d, n), Selection(top_k=6)), [2])
    assert model.model.layers[2].mlp.router.n_experts == 6


def test_data_are_what_the_mlp_reads():
    """With "data" each direction is a token's, less a common mean: so it lies in the span of what the MLP read."""
    model = dense_model("opt")
    seen = []
    handle = model.model.decoder.layers[1].fc1.register_forward_pre_hook(lambda _, call: seen.append(call[0]))
    ids = dense_tokens(1, 5)
    logits_of(model, ids)
    handle.remove()
    upcycle(model, 4, layers=[1], init="data", data=ids, generator=seeded())
    rows = seen[0].reshape(-1, 32)
    weight = model.model.decoder.layers[1].fc1.router.gate.weight
    solved = torch.linalg.lstsq(rows.T, weight.detach().T).solution
    torch.testing.assert_close(rows.T @ solved, weight.detach().T, rtol=0, atol=1e-5)


class Odd(nn.Module):
    """Three matrices of fitting shapes, and something else than a gated unit of them."""

    def __init__(self, mlp):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj, self.act_fn = (
            getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")
        )

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))


def with_odd_layer():
    model = dense_model("llama")
    model.model.layers[1].mlp = Odd(model.model.layers[1].mlp)
    return model


def with_shared_layer():
    model = dense_model("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    return model


def on_meta():
    model = dense_model("llama")
    model.model.layers[0].mlp.to("meta")
    return model


def with_adapters():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(dense_model("llama"), LoraConfig(target_modules=["gate_proj", "up_proj", "down_proj"]))


def llama():
    return dense_model("llama")


ONE_ROUTER = Router(SoftmaxGate(32, 4))
SUM = "the weights do not sum to 1, so that"
REFUSED = {
    "no model": (lambda: "llama", {}, "pass a model, not 'llama'"),
    "one expert": (llama, {"n_experts": 1}, "n_experts must be a whole number from 2 on"),
    "memory": (llama, {"n_experts": 10**9}, r"1,000,000,000 experts in 2 layers take 37,888.0 GB, and .* GB are free"),
    "not divided": (llama, {"selection": Selection(renormalise="none")}, SUM),
    "factor": (llama, {"selection": Selection(factor=2.5)}, SUM),
    "floored": (llama, {"selection": Selection(renormalise="floored_sum", score="sigmoid")}, SUM),
    "expert choice": (llama, {"selection": Selection(method="expert_choice")}, SUM),
    "a router's": (llama, {"router": Router(SoftmaxGate(32, 4), Selection(renormalise="none"))}, SUM),
    "gate": (llama, {"router": "lapalce"}, "did you mean 'laplace'"),
    "wide gate": (lambda: dense_model("llama", hidden_size=128), {"router": "quadratic"}, "up to d = 64, not 128"),
    "top k": (llama, {"selection": Selection(top_k=5)}, "top_k is 5, and there are only 4"),
    "sizes": (llama, {"router": Router(SoftmaxGate(16, 4))}, "d = 32 and there are to be 4 experts: this router"),
    "no router": (llama, {"router": lambda d, n: SoftmaxGate(d, n)}, "makes a Router, and gave"),
    "router": (llama, {"router": 5}, "a Router or a function that makes one, not 5"),
    "one router": (llama, {"router": lambda d, n: ONE_ROUTER}, "gave one router for several"),
    "options": (llama, {"gate_options": "abc"}, "gate_options must be a dictionary"),
    "generator": (llama, {"generator": 3}, "generator must be a torch.Generator, not 3"),
    "bias": (llama, {"correction_bias": "no"}, "correction_bias must be true or false"),
    "bytes": (llama, {"layers": b"\x01"}, "layers must be a list"),
    "much noise": (llama, {"noise": 10**400}, "noise must be a number from 0 on, at most 1000"),
    "two starts": (llama, {"router": Router(SoftmaxGate(32, 4)), "init": "data", "data": 1}, "a router has its own"),
    "noise": (llama, {"noise": -1.0}, "noise must be a number from 0 on"),
    "no data": (llama, {"init": "data"}, "pass batches of tokens as data"),
    "no layer": (llama, {"layers": [7]}, "in the layer 7: there are 'model.layers.0.mlp', 'model.layers.1.mlp'"),
    "no name": (llama, {"layers": "encoder.*"}, "in the layer 'encoder.\\*'"),
    "no list": (llama, {"layers": 3}, "layers must be a list of layers' numbers"),
    "boolean": (llama, {"layers": [True]}, "in the layer True"),
    "twice": (llama, {"layers": [0, "*.0"]}, "layers names 'model.layers.0.mlp' twice"),
    "empty": (llama, {"layers": slice(4, None)}, r"leaves no layer of 0, 1"),
    "no slice": (llama, {"layers": slice("a", None)}, "layers cannot be slice"),
    "stacks": (lambda: dense_model("bart"), {"layers": "every second"}, "several stacks of them"),
    "several": (lambda: dense_model("bart"), {"layers": [1]}, "there are several MLPs in layers 1: name those"),
    "mixture": (lambda: tiny_model("mixtral"), {}, "'model.layers.0.mlp' is a mixture of experts already"),
    "some mixtures": (lambda: tiny_model("deepseek_v3"), {}, "the layer 'model.layers.1' cannot become sparse"),
    "a mixture": (lambda: tiny_model("deepseek_v3"), {"layers": [2]}, "the layer 'model.layers.2' cannot become"),
    "odd": (with_odd_layer, {}, "'model.layers.1.mlp', a Odd, computes something else"),
    "shared": (with_shared_layer, {"layers": [0]}, "is shared: 'model.layers.0.mlp', 'model.layers.1.mlp' are one"),
    "meta": (on_meta, {}, "the numbers of 'model.layers.0.mlp' are not in memory"),
    "adapters": (with_adapters, {}, "are no plain ones .gate_proj is a Linear.: merge adapters first"),
    "nothing": (lambda: nn.Sequential(nn.Linear(3, 3)), {}, "no MLP that can become sparse in this Sequential"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_become_sparse_is_refused_and_nothing_changes(case):
    if case == "adapters":
        pytest.importorskip("peft")
    make, options, sentence = REFUSED[case]
    model = make()
    names = [name for name, _ in model.named_modules()] if isinstance(model, nn.Module) else []
    with pytest.raises(InputError, match=sentence):
        upcycle(model, **{"n_experts": 4} | options)
    if isinstance(model, nn.Module):
        assert [name for name, _ in model.named_modules()] == names


def test_dense_layers_of_a_mixture_can_become_sparse_too():
    model = tiny_model("deepseek_v3")
    ids = dense_tokens()
    with torch.no_grad():
        before = model(ids).logits
    assert named(model, layers=[0]) == ["model.layers.0.mlp"]
    swap_routers(model)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=1e-5)
    assert len(readers_of(model)) == 3
    with pytest.raises(InputError, match=r"'model\.layers\.0\.mlp' is a mixture of experts already"):
        upcycle(model, 4, layers=[0])


def test_another_router_is_put_into_an_upcycled_layer():
    model = dense_model("llama")
    upcycle(model, 4, layers=[0])
    with pytest.raises(
        InputError, match=r"'model\.layers\.0\.mlp\.router' is one of Gatewise already.*layer\.router ="
    ):
        swap_routers(model)
    before, router = logits_of(model), Router(SoftmaxGate(32, 4), Selection(top_k=3))
    initialise_router(router)
    model.model.layers[0].mlp.router = router
    torch.testing.assert_close(logits_of(model), before, rtol=1e-6, atol=1e-6)


def test_a_gate_of_ones_own_works():
    class OwnGate(SoftmaxGate):
        pass

    model = dense_model("llama")
    with pytest.warns(EqualLogitsWarning, match="goes to the same 2 of 4"):
        upcycle(model, 4, OwnGate(32, 4))
    assert isinstance(model.model.layers[0].mlp, SparseMoE)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, place):
        ids = dense_tokens(1, 8, seed=place)[0]
        return {"input_ids": ids, "labels": ids}


def test_a_trainer_balances_and_watches(tmp_path):
    from transformers import Trainer, TrainingArguments

    model = dense_model("llama")
    upcycle(model, 4, correction_bias=True, selection=Selection(score="softmax"), generator=seeded())
    watching = MonitorCallback(each_layer=False)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=4, logging_steps=2, save_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True, learning_rate=1e-2,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=Rows(), callbacks=[watching, BalanceCallback("bias", 0.1)])
    trainer.train()
    assert any("routers/mean/load_entropy" in row for row in trainer.state.log_history)
    assert list(watching.monitor.layers) == ["model.layers.0.mlp.router", "model.layers.1.mlp.router"]
    bias = model.model.layers[0].mlp.router.correction_bias
    assert bias.abs().max() > 0.05
    bank = model.model.layers[0].mlp.experts
    assert not torch.equal(bank.down[0], bank.down[1])


def test_the_types_are_enough():
    assert len(TYPES) >= 12
    assert set(DECODERS) >= {"llama", "gpt2", "gpt_neox", "opt"}
