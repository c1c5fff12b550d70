"""Training the gates of an adapter, and the files that keep them."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gatewise.exceptions import InputError, OutputError, UntrainedGateWarning
from gatewise.lora import GateSet, attach_router, load_and_route, train_gates
from gatewise.lora.changes import ATTRIBUTE
from gatewise.lora.gate_set import GATES_FILE
from tests.lora.models import NAMES, gpt2, ids, llama, llama_base, logits, random_gates, t5


def batches(n=2, rows=4, length=8):
    return [{"input_ids": tokens, "labels": tokens} for tokens in (ids(rows, length, seed) for seed in range(n))]


@pytest.mark.parametrize("make", [llama, t5, gpt2])
def test_base_and_adapters_keep_their_bits(make):
    model = make()
    model.train()
    model.set_adapter("b")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    gates = train_gates(model, "a", batches(), steps=4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert len(gates.losses) == 4
    assert model.base_model.active_adapters == ["b"]
    # Another adapter's gates follow no less.
    assert train_gates(model, "b", batches(), steps=1).vectors.keys() != gates.vectors.keys()


def test_a_gate_at_its_start_halves_the_change(monkeypatch):
    model, seen = llama(torch.float64), {}
    tokens = ids()
    descend = "gatewise.lora.training._descend"

    def look(whole, gated, *rest):
        seen["half"] = logits(whole, tokens)
        for change in gated.values():
            with torch.no_grad():
                change.vector.fill_(0.0)
        return []

    monkeypatch.setattr(descend, look)
    train_gates(model, "c", batches(), steps=1)
    model.set_adapter("c")
    for layer in model.modules():
        if hasattr(layer, "scale_layer"):
            layer.scale_layer(0.5)
    torch.testing.assert_close(seen["half"], logits(model, tokens), rtol=1e-12, atol=1e-13)


def test_training_is_the_papers_formula_by_plain_gradients(monkeypatch):
    """One module, one step of plain descent, against autograd on h = W u + s·BA(u σ(vᵀu)) written out."""
    model = llama(torch.float64)
    name = "model.layers.1.self_attn.k_proj"
    tokens = ids()
    found = {}

    def look(whole, gated, *rest):
        for other, change in gated.items():
            with torch.no_grad():
                change.vector.copy_(0.3 * torch.sin(torch.arange(len(change.vector), dtype=torch.float64) + len(other)))
        whole(input_ids=tokens, labels=tokens).loss.backward()
        found.update({other: (change.vector.detach(), change.vector.grad) for other, change in gated.items()})
        return []

    monkeypatch.setattr("gatewise.lora.training._descend", look)
    train_gates(model, "b", batches(), steps=1)
    vectors = {other: vector.clone().requires_grad_() for other, (vector, _) in found.items()}
    model.set_adapter("b")
    base = model.get_base_model()
    handles = []
    for other, vector in vectors.items():
        layer = base.get_submodule(other)

        def forward(x, layer=layer, vector=vector):
            gate = torch.sigmoid(x @ vector).unsqueeze(-1)
            change = (x * gate) @ layer.lora_A["b"].weight.T @ layer.lora_B["b"].weight.T * layer.scaling["b"]
            return layer.base_layer(x) + change

        layer.forward = forward
        handles.append(layer)
    base(input_ids=tokens, labels=tokens).loss.backward()
    for layer in handles:
        del layer.forward
    assert name in found
    for other, (_, grad) in found.items():
        torch.testing.assert_close(grad, vectors[other].grad, rtol=1e-9, atol=1e-13)


def test_means_and_openness_leave_padding_out():
    model = llama()
    tokens = ids(3, 8)
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    batch = {"input_ids": tokens, "attention_mask": mask, "labels": tokens.where(mask.bool(), -100)}
    inputs = {}
    name = "model.layers.0.self_attn.v_proj"
    handle = model.get_base_model().get_submodule(name).register_forward_pre_hook(lambda m, x: inputs.update(x=x[0]))
    gates = train_gates(model, "a", [batch], steps=1)
    handle.remove()
    expected = inputs["x"][mask.bool()].double().mean(0).float()
    torch.testing.assert_close(gates.means[name], expected, rtol=1e-5, atol=1e-7)
    assert gates.openness[name] == 0.0


def test_gates_say_whether_they_have_moved():
    model = llama()
    still = train_gates(model, "a", batches(), steps=1, learning_rate=1e-9)
    assert not still.moved
    assert still.share_moved == 0.0
    assert "0 of 6 gates have moved" in still.sentence
    assert "more steps or a larger rate" in still.sentence
    moved = train_gates(model, "a", batches(), steps=30, learning_rate=5e-2)
    assert moved.moved
    assert "6 of 6 gates have moved" in moved.sentence
    assert "the loss went from" in moved.sentence
    assert moved.losses[-1] < moved.losses[0]
    table = moved.table()
    assert list(table.columns) == ["module", "d", "length", "openness", "moved"]
    assert table["moved"].all()


def test_a_loss_of_ones_own():
    model, seen = llama(), []

    def loss(output, batch):
        seen.append(batch["input_ids"].shape)
        return output.logits.square().mean()

    train_gates(model, "a", [{"input_ids": ids()}], steps=2, loss=loss)
    assert seen == [(3, 7)] * 2


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([], {}, "there are no batches"),
        (iter(batches(1)), {"steps": 3}, "ended after 1 of 3 steps"),
        ([[1, 2]], {}, "a batch must be a mapping"),
        ([{"input_ids": ids()}], {}, "put labels into them"),
        (batches(), {"loss": lambda output, batch: output.loss * torch.nan}, "the loss at step 0 is nan"),
        (batches(), {"steps": 0}, "steps must be a whole number"),
        (batches(), {"learning_rate": -1.0}, "learning_rate must be a positive number"),
        (batches(), {"warm_up": 1.0}, "warm_up must lie between"),
    ],
)
def test_what_gates_cannot_be_trained_on(data, options, message):
    model = llama()
    before = logits(model, ids())
    with pytest.raises(InputError, match=message):
        train_gates(model, "a", data, **options)
    assert torch.equal(logits(model, ids()), before)


@pytest.fixture
def folder(tmp_path):
    """An adapter's folder with its gates."""
    model = llama()
    model.save_pretrained(tmp_path)
    gates = random_gates(model)
    for name in NAMES:
        gates[name].save_pretrained(tmp_path / name)
    return tmp_path


def test_gates_come_back_as_they_were(folder):
    expected = random_gates(llama())["b"]
    found = GateSet.load(folder / "b")
    for kind in ("vectors", "means"):
        mine, theirs = getattr(found, kind), getattr(expected, kind)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (found.openness, found.losses, found.checksums) == (expected.openness, (), expected.checksums)
    with pytest.raises(OutputError, match="it exists"):
        found.save_pretrained(folder / "b")
    found.save_pretrained(folder / "b", overwrite=True)
    assert sorted(file.name for file in (folder / "b").iterdir() if "gates" in file.name) == [
        "gatewise_gates.json",
        "gatewise_gates.safetensors",
    ]


def test_another_adapters_gates_are_refused(folder):
    gates = GateSet.load(folder / "b")
    with pytest.raises(InputError, match="not those of the adapter 'c': its weights have the SHA-256"):
        gates.save_pretrained(folder / "c", overwrite=True)
    for file in ("gatewise_gates.json", "gatewise_gates.safetensors"):
        shutil.copy(folder / "b" / file, folder / "c" / file)
    with pytest.raises(InputError, match="not those of the adapter 'c'"):
        GateSet.load(folder / "c")
    with pytest.raises(InputError, match="not those of the adapter 'a'"):
        attach_router(llama(), ["a"], gates={"a": gates})


def test_gates_fit_an_adapter_that_was_rounded(folder):
    gates = {name: GateSet.load(folder / name) for name in NAMES}
    with attach_router(llama(torch.bfloat16), gates=gates):
        pass


def damaged(folder, change):
    description = json.loads((folder / "gatewise_gates.json").read_text())
    change(description)
    (folder / "gatewise_gates.json").write_text(json.dumps(description))


def rewritten(folder, change):
    """Other tensors with a description that fits them."""
    import hashlib

    tensors = change(load_file(folder / GATES_FILE))
    save_file(tensors, folder / GATES_FILE)
    digest = hashlib.sha256((folder / GATES_FILE).read_bytes()).hexdigest()
    damaged(folder, lambda d: d.update(sha256=digest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / GATES_FILE).unlink(), "there are no gates in"),
        (lambda f: (f / GATES_FILE).write_bytes(b"x"), "are damaged"),
        (lambda f: (f / "gatewise_gates.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "gatewise_gates.json").write_text("[]"), "are damaged"),
        (lambda f: damaged(f, lambda d: d.update(format=2)), "have the format 2, and this version reads 1"),
        (lambda f: damaged(f, lambda d: d.pop("losses")), "are damaged"),
        (lambda f: damaged(f, lambda d: d.update(losses=[float("inf")])), "are damaged"),
        (lambda f: rewritten(f, lambda t: {k: v * torch.nan for k, v in t.items()}), "is no number at entry 0"),
        (lambda f: rewritten(f, lambda t: {k: v[:-1] for k, v in t.items()}), None),
        (lambda f: rewritten(f, lambda t: {k.replace("gate", "x"): v for k, v in t.items()}), "are damaged"),
        (lambda f: rewritten(f, lambda t: {k: v for k, v in t.items() if "mean" in k}), "at least one module"),
        (lambda f: rewritten(f, lambda t: {k: v.unsqueeze(0) for k, v in t.items()}), "must be a vector"),
    ],
)
def test_damaged_gates_are_refused(folder, change, message):
    change(folder / "b")
    if message is None:
        gates = GateSet.load(folder / "b")
        with pytest.raises(InputError, match="has 31 entries, and the module reads 32"):
            attach_router(llama(), ["b"], gates={"b": gates})
        return
    with pytest.raises(InputError, match=message):
        GateSet.load(folder / "b")


def test_gates_of_zeros_are_reported(folder):
    rewritten(folder / "b", lambda t: {k: torch.zeros_like(v) for k, v in t.items()})
    gates = GateSet.load(folder / "b")
    assert not gates.moved
    assert len(gates.flat) == 6
    with pytest.warns(UntrainedGateWarning, match="have no direction and choose nothing"):
        attach_router(llama(), ["b"], gates={"b": gates})
    # Who does not route by them is not warned.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach_router(llama(), ["b"], "arrow", gates={"b": gates}).detach()


def test_missing_gates_and_gates_of_strangers():
    model = llama()
    gates = random_gates(model)
    with pytest.raises(InputError, match=r"'b' has no gate for 'model\.layers\.0\.self_attn\.q_proj': train gates"):
        attach_router(model, ["a", "b"], gates={"a": gates["a"]})
    with pytest.raises(InputError, match="gates of 'c', which are no adapters of the pool"):
        attach_router(model, ["a", "b"], gates=gates)
    # Nothing is left of the attempts.
    assert not any(hasattr(module, ATTRIBUTE) for module in model.modules())
    assert model.base_model.active_adapters == ["a"]


def test_gates_choose_their_own_adapters_tokens():
    """Two adapters with trained gates: tokens of a domain go to its adapter more than those of the other domain."""
    rng = np.random.default_rng(0)
    model = llama()

    def domain(low, high):
        tokens = torch.tensor(rng.integers(low, high, (16, 8)))
        return {"input_ids": tokens, "labels": tokens}

    low, high = [domain(3, 20) for _ in range(4)], [domain(25, 45) for _ in range(4)]
    for name, data in (("a", low), ("c", high)):
        model.set_adapter(name)
        chosen = [p for n, p in model.named_parameters() if f".{name}." in n and "lora_" in n]
        optimiser = torch.optim.AdamW(chosen, lr=1e-2)
        for step in range(20):
            loss = model(**data[step % 4]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    gates = {
        "a": train_gates(model, "a", low, steps=25, learning_rate=0.05),
        "c": train_gates(model, "c", high, steps=25, learning_rate=0.05),
    }
    share = {}
    with attach_router(model, ["a", "c"], gates=gates, top_k=1) as routed:
        place = routed.places["model.layers.1.self_attn.v_proj"]
        router = getattr(place.layer, ATTRIBUTE).router
        for key, data in (("low", low), ("high", high)):
            seen = []
            handle = router.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o[2]))
            logits(model, data[0]["input_ids"])
            handle.remove()
            share[key] = float((seen[0] == 0).float().mean())
    assert share["low"] > share["high"] + 0.2


def test_load_and_route_reads_the_gates(folder):
    routed = load_and_route(llama_base(), [folder / name for name in NAMES])
    model = llama()
    with attach_router(model, gates=random_gates(model)):
        torch.testing.assert_close(logits(routed.model, ids()), logits(model, ids()), rtol=0, atol=0)
