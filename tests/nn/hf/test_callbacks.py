"""Balance and watching by callbacks of transformers' Trainer."""

import warnings

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.nn import RouterMonitor
from gatewise.nn.balance import BiasBalancer, balance_loss, recording
from gatewise.nn.readers import readers_of
from tests.nn.hf.tiny_models import tiny_model

transformers = pytest.importorskip("transformers")

from gatewise.nn.hf import AuxiliaryLoss, BalanceCallback, MonitorCallback, swap_routers  # noqa: E402

STEPS = 6


class TwoDomains(torch.utils.data.Dataset):
    """Sequences of two alphabets, with a column that says which."""

    def __init__(self, n=32, length=16):
        generator = torch.Generator().manual_seed(0)
        self.domain = torch.arange(n) % 2
        low = 3 + 60 * self.domain.unsqueeze(1)
        self.ids = low + torch.randint(0, 60, (n, length), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, place):
        return {
            "input_ids": self.ids[place],
            "attention_mask": (torch.arange(16) < 10 + place % 6).long(),
            "labels": self.ids[place],
            "domain": self.domain[place],
        }


def trained(model, folder, callbacks, steps=STEPS, resume=None, **options):
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        logging_steps=2,
        save_steps=3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        remove_unused_columns=False,
        **{"dataloader_pin_memory": False, "learning_rate": 1e-2, **options},
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=TwoDomains(), callbacks=callbacks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def tiny(model_type, **options):
    return tiny_model(model_type, seed=3, bias=0.0, **options).train()


def domain_free(monitor):
    return MonitorCallback(domains="domain", each_layer=True, **monitor)


def loaded(folder):
    """The model of a checkpoint.

    Trainer does not load experts that `save_pretrained` has written under other names: those of the model that it is
    given stay, with a warning.
    """
    return transformers.AutoModelForCausalLM.from_pretrained(folder).train()


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("model_type", ["deepseek_v3", "mixtral", pytest.param("minimax_m2", marks=pytest.mark.slow)])
def test_training_that_is_resumed_has_the_bits_of_training_that_was_not(tmp_path, model_type):
    def callbacks():
        return [domain_free({}), BalanceCallback("auto", 0.02, schedule="cosine", warmup=0.2)]

    whole = trained(tiny(model_type), tmp_path, callbacks())
    again = trained(loaded(tmp_path / "checkpoint-3"), tmp_path, callbacks(), resume=str(tmp_path / "checkpoint-3"))
    expected, found = bits(whole.model), bits(again.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    moved = [reader.correction_bias for reader in readers_of(whole.model).values()]
    assert all(bias is None or bias.abs().max() > 0.0 for bias in moved)
    without = trained(tiny(model_type), tmp_path / "without", [domain_free({})])
    assert any(not torch.equal(expected[name], value) for name, value in bits(without.model).items())


def test_a_bias_for_a_type_that_has_none_is_resumed_too(tmp_path):
    def swapped(model):
        swap_routers(model, correction_bias=True)
        return model

    def callbacks():
        return [domain_free({}), BalanceCallback("bias", 0.02)]

    whole = trained(swapped(tiny("olmoe")), tmp_path, callbacks())
    folder = tmp_path / "checkpoint-3"
    again = trained(swapped(loaded(folder)), tmp_path, callbacks(), resume=str(folder))
    expected, found = bits(whole.model), bits(again.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for one, two in zip(readers_of(whole.model).values(), readers_of(again.model).values(), strict=True):
        assert one.correction_bias.abs().max() > 0.0
        assert torch.equal(one.correction_bias, two.correction_bias)
    with pytest.raises(InputError, match="gate' has no correction bias"):
        trained(tiny("olmoe"), tmp_path / "refused", callbacks())


def test_biases_come_back_where_the_checkpoint_has_no_model_of_them(tmp_path):
    model = tiny("deepseek_v3")
    callback = BalanceCallback("bias", 0.02)
    trainer = trained(model, tmp_path, [domain_free({}), callback])
    assert callback.state()["attributes"]["kept_biases"]
    kept = [reader.correction_bias.clone() for reader in readers_of(model).values()]
    state = trainer.state
    state.stateful_callbacks["BalanceCallback"] = callback.state()
    for reader in readers_of(model).values():
        reader.correction_bias.zero_()
    fresh = BalanceCallback("bias", 0.02)
    fresh.on_train_begin(trainer.args, state, trainer.control, model=model)
    fresh.on_train_end(trainer.args, state, trainer.control)
    assert all(torch.equal(a, r.correction_bias) for a, r in zip(kept, readers_of(model).values(), strict=True))


@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v2", "gpt_oss", "cohere2_moe", "afmoe"])
def test_the_loss_of_any_type_includes_the_balance_of_its_tokens(model_type):
    """Types with and without a loss of balance of their own."""
    model = tiny(model_type)
    # No dropout or jitter, which would differ between two calls.
    batch = {
        name: torch.stack([TwoDomains()[place][name] for place in range(4)])
        for name in ("input_ids", "attention_mask", "labels")
    }
    plain = model(**batch).loss
    with recording(model) as calls:
        model(**batch)
    mask = batch["attention_mask"].bool()
    expected = torch.stack([balance_loss(one.only(mask)) for call in calls.values() for one in call]).mean()
    loss = AuxiliaryLoss(model, coefficient=0.5)
    found = model(**batch)
    assert found["loss"] is found.loss
    assert float((found.loss - plain).detach()) == pytest.approx(0.5 * float(expected.detach()), rel=1e-3)
    assert loss.last == pytest.approx(float(expected.detach()), rel=1e-4)
    loss.share = 0.25
    shared = model(**batch, num_items_in_batch=mask.numel() - len(mask))
    assert float((shared.loss - plain).detach()) == pytest.approx(0.125 * float(expected.detach()), rel=2e-2)
    found.loss.backward()
    parameters = [p for reader in readers_of(model).values() for p in reader.gate_parameters]
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0.0) for p in parameters)
    as_tuple = model(**batch, return_dict=False)
    assert float(as_tuple[0].detach()) == pytest.approx(float(found.loss.detach()), rel=1e-5)
    assert float(model.eval()(**batch).loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    loss.remove()
    assert float(model.train()(**batch).loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)


def test_a_reentrant_checkpoint_is_refused(tmp_path):
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(InputError, match="use_reentrant=False"):
        trained(tiny("mixtral"), tmp_path, [domain_free({}), BalanceCallback("loss")], **options)
    callback = domain_free({})
    trained(tiny("mixtral"), tmp_path, [callback, BalanceCallback("loss")], activation_checkpointing=True)
    # Once each: four sequences a step, of which each has its own length.
    rows = [TwoDomains()[place]["attention_mask"].sum() for place in range(32)]
    tokens = sum(int(moment.value.sum()) for moment in callback.monitor.history(callback.monitor.layers[0]))
    assert 4 * STEPS * 2 * int(min(rows)) <= tokens <= 4 * STEPS * 2 * int(max(rows))


def test_metrics_are_logged_and_only_training_is_counted(tmp_path):
    model = tiny("qwen3_moe")
    probe = {"input_ids": TwoDomains().ids[:2]}
    callback = MonitorCallback(domains="domain", probe=probe, probe_every=2)
    trainer = trained(model, tmp_path, [callback], eval_strategy="no")
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert len(logged) == STEPS // 2
    for row in logged:
        assert 0.0 < row["routers/mean/load_entropy"] <= 1.0
        assert row["routers/model.layers.0.mlp.gate/tokens"] <= 2 * 4 * 16
        assert "routers/model.layers.0.mlp.gate/mutual_information" in row
    assert 0.0 < logged[-1]["routers/mean/selection_change"] <= 1.0
    # What was logged last can still be looked at.
    last = callback.monitor.metrics()
    assert {name: logged[-1][name] for name in last} == pytest.approx(last, nan_ok=True)
    before = callback.monitor.loads()
    model.eval()(**probe)
    assert callback.monitor.loads().equals(before)
    assert callback.monitor.domains == ["0", "1"]
    seen = []

    class Logger(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **given):
            seen.append(dict(logs))

    arguments = trainer.args
    other = transformers.Trainer(tiny("qwen3_moe"), arguments, train_dataset=TwoDomains(), callbacks=[Logger()])
    MonitorCallback(domains="domain", prefix="moe/", each_layer=False).attach(other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.train()
    assert "moe/mean/load_entropy" in seen[0]


def test_schedules():
    callback = BalanceCallback("loss", 0.1, schedule="cosine", warmup=0.25, end=0.2)
    rates = [callback.rate_at(step, 8) for step in range(9)]
    assert rates[:3] == pytest.approx([0.0, 0.05, 0.1])
    assert rates[5] == pytest.approx(0.06)
    assert rates[8] == pytest.approx(0.02)
    assert BalanceCallback("loss").rate_at(5, 10) == 0.01
    assert BalanceCallback(warmup=1.0).rate_at(10, 10) == 0.01


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: BalanceCallback("los"), "method must be one of 'auto', 'bias', 'loss', not 'los'"),
        (lambda: BalanceCallback(rate=-1.0), "rate must be a positive number"),
        (lambda: BalanceCallback(schedule="step"), "schedule must be one of"),
        (lambda: BalanceCallback(warmup=2.0), "warmup must lie between 0 and 1"),
        (lambda: BalanceCallback("bias", z_coefficient=0.1), "a bias has no loss"),
        (lambda: MonitorCallback(probe_every=0), "probe_every must be a whole number"),
    ],
)
def test_options_that_cannot_be(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


@pytest.mark.parametrize(
    "model_type",
    ["deepseek_v3", "afmoe", *(pytest.param(name, marks=pytest.mark.slow) for name in ("laguna", "ernie4_5_moe"))],
)
def test_biases_move_wherever_a_model_keeps_them_in_bfloat16_too(model_type):
    """A buffer, a parameter, an argument that the layer keeps, a submodule."""
    model = tiny(model_type).bfloat16()
    ids = torch.randint(3, 128, (4, 20), generator=torch.Generator().manual_seed(0))
    biases = [reader.correction_bias for reader in readers_of(model).values()]
    for bias in biases:
        bias.copy_(0.5 * torch.ones(8) * torch.tensor([1.0, -1.0] * 4))
    before = [bias.clone() for bias in biases]
    balancer = BiasBalancer(model, rate=1e-4)
    for _ in range(60):
        with recording(model) as calls, torch.no_grad():
            model(ids)
        balancer.step()
    # Steps of which each is far below the last digit of 1/2 in bfloat16, 1/512.
    assert all(bool((bias != old).any()) for bias, old in zip(biases, before, strict=True))
    state = balancer.state_dict()
    assert all(abs(sum(values)) < 1e-5 for values in state.values())
    balancer.load_state_dict({name: [0.25] * 8 for name in state})
    assert all(bool((bias == 0.25).all()) for bias in biases)
    with pytest.raises(InputError, match="a state of these routers"):
        balancer.load_state_dict({"other": [0.0] * 8})
    assert calls


@pytest.mark.parametrize(("model_type", "method", "rate"), [("mixtral", "loss", 0.1), ("deepseek_v3", "bias", 0.02)])
def test_it_evens_loads_that_are_uneven_at_first(tmp_path, model_type, method, rate):
    """A short version of benchmarks/balance.py: embeddings share a direction, and so the logits an offset."""

    def uneven():
        model = tiny(model_type)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            embedding = model.get_input_embeddings().weight
            embedding.add_(1.5 * embedding.std() * torch.randn(embedding.shape[1], generator=generator))
        return model

    def worst(model):
        with RouterMonitor(model.eval()) as monitor, torch.no_grad():
            model(TwoDomains().ids)
        return max(monitor.measures(layer)["max_over_mean"] for layer in monitor.layers)

    options = {"steps": 60, "save_strategy": "no", "learning_rate": 1e-3}
    model = uneven()
    before = worst(model)
    trained(
        model.train(), tmp_path, [domain_free({}), BalanceCallback(method, rate, schedule="linear", end=0.1)], **options
    )
    other = uneven()
    trained(other, tmp_path, [domain_free({})], **options)
    assert before > 2.0
    assert worst(model) < 1.5
    assert worst(model) < worst(other)
