"""The monitor's counts and masks against plain loops, and that watching changes nothing."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gatewise.exceptions import InputError
from gatewise.gates import SoftmaxGate
from gatewise.nn import Router, RouterMonitor, Selection, SparseMoE, initialise_router
from gatewise.nn.balance import BiasBalancer, recording

D, E, K, VOCABULARY = 6, 8, 2, 40


class Tiny(nn.Module):
    """Embeddings and two sparse layers, called as transformers' models are."""

    def __init__(self, checkpointed=None):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, D)
        self.first = SparseMoE(D, "softmax", n_experts=E, hidden=4)
        self.second = SparseMoE(D, "sigmoid", n_experts=E, hidden=4)
        self.checkpointed = checkpointed
        for layer in (self.first, self.second):
            initialise_router(layer.router, std=1.0)

    def forward(self, input_ids, attention_mask=None, labels=None):
        x = self.embed(input_ids)
        for layer in (self.first, self.second):
            x = x + (layer(x) if self.checkpointed is None else checkpoint(layer, x, use_reentrant=self.checkpointed))
        if labels is not None and bool((labels == 0).any()):
            raise ValueError("a label of 0")
        return x


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


def tokens(n_sequences=5, length=9, seed=0):
    return torch.randint(0, VOCABULARY, (n_sequences, length), generator=torch.Generator().manual_seed(seed))


def routed(model, ids):
    """Indices (B, S, K) of each router, by a hook of the test's own."""
    found = {}
    handles = [
        getattr(model, name).router.register_forward_hook(
            lambda module, inputs, outputs, name=name: found.update({f"{name}.router": outputs[2]})
        )
        for name in ("first", "second")
    ]
    model(ids)
    for handle in handles:
        handle.remove()
    return {name: indices.reshape(*ids.shape, K) for name, indices in found.items()}


def counted(indices, mask):
    """Slots of each expert by loops."""
    counts = [0] * E
    for rows, kept in zip(indices.tolist(), mask.tolist(), strict=True):
        for row, one in zip(rows, kept, strict=True):
            for expert in row:
                counts[expert] += one
    return counts


def test_counts_are_those_of_a_plain_loop(model):
    batches = [(tokens(5, 9, seed), (tokens(5, 9, seed + 100) > 10).long()) for seed in range(4)]
    expected = {"first.router": [0] * E, "second.router": [0] * E}
    for ids, mask in batches:
        for name, indices in routed(model, ids).items():
            expected[name] = [a + b for a, b in zip(expected[name], counted(indices, mask), strict=True)]
    with RouterMonitor(model) as monitor:
        for ids, mask in batches:
            model(ids, mask)
    assert {name: monitor.loads().loc[name].tolist() for name in monitor.layers} == expected
    assert monitor.summary()["tokens"].tolist() == [sum(int(mask.sum()) for _, mask in batches)] * 2


def test_ranks_are_by_weight(model):
    ids = tokens()
    with RouterMonitor(model) as monitor, recording(model) as calls:
        model(ids)
    for name in monitor.layers:
        (call,) = calls[name]
        table = [[0] * E for _ in range(K)]
        for weights, indices in zip(call.weights.tolist(), call.indices.tolist(), strict=True):
            for place, (_, expert) in enumerate(sorted(zip(weights, indices, strict=True), reverse=True)):
                table[place][expert] += 1
        assert monitor._tallies[name].ranks.tolist() == table


def figures(monitor):
    frame = monitor.summary().drop(columns="findings")
    return frame.to_numpy(dtype=float, na_value=-1.0), monitor.loads().to_numpy(dtype=float)


@pytest.mark.parametrize("sample", [4096, 7])
def test_padding_on_either_side_changes_no_figure(model, sample):
    ids, found = tokens(3, 20), []
    for left, right in ((0, 0), (4, 0), (0, 5), (2, 3)):
        padded = nn.functional.pad(ids, (left, right))
        mask = nn.functional.pad(torch.ones_like(ids), (left, right))
        with RouterMonitor(model, sample=sample) as monitor:
            model(padded, mask)
        found.append(figures(monitor))
    for table, loads in found[1:]:
        # float32 products of another number of rows round otherwise.
        assert abs(table - found[0][0]).max() < 1e-6
        assert (loads == found[0][1]).all()


def test_masks_of_the_layer_itself_and_of_text_that_is_generated(model):
    ids, mask = tokens(3, 12), torch.arange(12) >= torch.tensor([[0], [3], [7]])
    layer = model.first
    with RouterMonitor(layer) as monitor:
        layer(model.embed(ids), mask)
        # Outputs of 0 for padding; the router saw the other tokens only.
        with monitor.batch(mask=mask, domain=["a", "b", "a"]):
            layer(model.embed(ids), mask)
    assert monitor.summary()["tokens"].tolist() == [2 * int(mask.sum())]
    assert monitor.domain_loads("router").sum(axis=1).tolist() == [K * (12 + 5), K * 9]
    assert monitor.findings()[-1].kind == "small_window"

    with RouterMonitor(model) as monitor:
        model(ids[:, :8], mask[:, :8].long())
        for end in range(9, 13):
            # With a cache the model gets one token and the mask of all before it.
            model(ids[:, end - 1 : end], mask[:, :end].long())
    assert monitor.summary()["tokens"].tolist() == [int(mask.sum())] * 2


def test_a_mask_by_a_function_leaves_out_prompts(model):
    ids = tokens(3, 12)
    labels = torch.where(torch.arange(12) < 5, -100, ids + 1).expand(3, 12)
    with RouterMonitor(model, mask=lambda arguments: arguments["labels"] != -100) as monitor:
        model(ids, labels=labels)
    expected = {name: counted(indices, labels != -100) for name, indices in routed(model, ids).items()}
    assert {name: monitor.loads().loc[name].tolist() for name in monitor.layers} == expected


def test_masks_that_do_not_fit_are_said(model):
    ids = tokens(3, 12)
    with RouterMonitor(model) as monitor:
        model(ids, torch.ones(3, 5))
        model(ids, torch.ones(3, 1, 12, 12))
    kinds = Counter((finding.layer, finding.kind) for finding in monitor.findings())
    assert kinds == {("first.router", "masks"): 1, ("second.router", "masks"): 1, ("", "masks"): 1} | {
        (name, "small_window"): 1 for name in monitor.layers
    }
    assert monitor.summary()["tokens"].tolist() == [72, 72]
    with monitor.batch(mask=torch.ones(3, 12, dtype=torch.bool)):
        pass
    with pytest.raises(InputError, match="a tensor of booleans"), monitor.batch(mask=torch.ones(3, 12)):
        pass


def test_domains_by_a_column_a_function_or_the_batch(model):
    ids, mask = tokens(4, 10), torch.ones(4, 10).long()
    mask[2, 6:] = 0
    indices = routed(model, ids)["first.router"]
    of_sequence = torch.tensor([1, 0, 1, 7])
    expected = {}
    for row, domain in enumerate(of_sequence.tolist()):
        expected[str(domain)] = [
            a + b
            for a, b in zip(
                expected.get(str(domain), [0] * E), counted(indices[row : row + 1], mask[row : row + 1]), strict=True
            )
        ]

    def table(monitor):
        frame = monitor.domain_loads("first.router")
        return {name: frame.loc[name].tolist() for name in frame.index}

    with RouterMonitor(model, domains="domain") as monitor:
        # The model has no such argument: the monitor takes it out.
        model(ids, attention_mask=mask, domain=of_sequence)
    assert table(monitor) == expected
    with RouterMonitor(model, domains=lambda arguments: ["1", "0", "1", "7"]) as monitor:
        model(ids, mask)
    assert table(monitor) == expected
    with RouterMonitor(model) as monitor, monitor.batch(domain=of_sequence.unsqueeze(1).expand(4, 10)):
        model(ids, mask)
    assert table(monitor) == expected
    with RouterMonitor(model) as monitor, monitor.batch(domain="all"):
        model(ids, mask)
    assert monitor.domains == ["all"]
    with pytest.raises(TypeError, match="domain"):
        model(ids, domain=of_sequence)
    monitor = RouterMonitor(model)
    with pytest.raises(InputError, match="whole numbers or names"), monitor, monitor.batch(domain=torch.ones(4)):
        model(ids)


def test_a_column_of_domains_that_no_call_had_is_said(model):
    ids = tokens(20, 10)
    with RouterMonitor(model, domains="domain") as monitor:
        assert "domains" not in [finding.kind for finding in monitor.findings()]
        model(ids)
        (finding,) = (finding for finding in monitor.findings() if finding.kind == "domains")
        assert (finding.layer, finding.severity) == ("", "note")
        assert "no call had the column 'domain'" in finding.sentence
        model(ids, domain=[0] * 20)
        assert "domains" not in [finding.kind for finding in monitor.findings()]
        monitor.new_window()
        with monitor.batch(domain="all"):
            model(ids)
        assert "domains" not in [finding.kind for finding in monitor.findings()]


def test_domains_beyond_the_most_are_one(model):
    with RouterMonitor(model, most_domains=3) as monitor:
        for domain in "abcdef":
            with monitor.batch(domain=domain):
                model(tokens())
    assert monitor.domains == ["a", "b", "(others)"]
    assert monitor.domain_loads("first.router").sum(axis=1).tolist() == [90, 90, 4 * 90]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputation_is_not_counted_again(reentrant):
    torch.manual_seed(0)
    model = Tiny(checkpointed=reentrant)
    mask = torch.ones(5, 9)
    mask[0, 4:] = 0.0
    with RouterMonitor(model, representations=True, experts=True) as monitor:
        model(tokens(), mask).sum().backward()
    assert monitor.loads().sum(axis=1).tolist() == [80, 80]


def test_watching_changes_nothing(model):
    """Outputs, gradients and random numbers are those of a model that nobody watches."""
    ids = tokens()

    def run():
        torch.manual_seed(1)
        model.zero_grad()
        y = model(ids)
        y.square().mean().backward()
        return [y.detach(), torch.rand(3), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    plain = run()
    with RouterMonitor(model, representations=True, experts=True, domains="domain") as monitor:
        watched = run()
        monitor.probe({"input_ids": ids})
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, run(), strict=True))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert sum(hooks) == 0


def test_two_monitors_copies_and_errors(model):
    ids = tokens()
    with RouterMonitor(model) as outer:
        model(ids)
        with RouterMonitor(model, representations=True) as inner:
            model(ids)
            for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                assert torch.equal(other(ids), model(ids))
        with pytest.raises(ValueError, match="a label of 0"):
            model(ids, attention_mask=torch.zeros_like(ids), labels=torch.zeros_like(ids))
        # The mask of the call that failed is forgotten.
        model.first(model.embed(ids))
        with pytest.raises(InputError, match="watches already"):
            outer.start()
    assert outer.loads().sum(axis=1).tolist() == [5 * 90, 4 * 90]
    assert inner.loads().sum(axis=1).tolist() == [3 * 90, 3 * 90]
    with pytest.raises(ValueError, match="inside"), RouterMonitor(model) as monitor:
        raise ValueError("inside")
    assert not monitor.is_watching
    model(ids)
    assert monitor.loads().sum(axis=None) == 0
    assert {finding.kind for finding in monitor.findings()} == {"not_called"}


def test_modes_of_running(model):
    ids = tokens()
    with RouterMonitor(model) as monitor:
        with torch.inference_mode():
            model(ids)
        model.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(ids)
        model.train().bfloat16()
        model(ids)
        model.double()
        model(ids[:, :0])
        model(ids)
    assert monitor.summary()["tokens"].tolist() == [180, 180]


def test_a_model_that_was_compiled_before(model):
    ids = tokens()
    # Gradients in graphs that are broken make torch warn of its own.
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")
        compiled(ids)
        with RouterMonitor(compiled) as monitor:
            compiled(ids, torch.ones_like(ids))
            compiled(ids, (torch.arange(9) < 4).long().expand(5, 9))
        compiled(ids)
        assert monitor.layers == ["first.router", "second.router"]
        assert monitor.summary()["tokens"].tolist() == [45 + 20] * 2
        model.compile(backend="eager")
        model(ids)
        with RouterMonitor(model) as monitor:
            model(ids)
        assert monitor.summary()["tokens"].tolist() == [45, 45]


@pytest.mark.parametrize(("steps", "every"), [(256, 2), pytest.param(1024, 4, marks=pytest.mark.slow)])
def test_memory_is_bounded(model, steps, every):
    ids = tokens(2, 3)

    def held(monitor):
        state = (monitor._tallies, monitor._probe, monitor._inside._kept, monitor._calls.domains)
        return len(pickle.dumps(state))

    sizes = []
    with RouterMonitor(model, domains="domain", representations=True) as monitor, torch.no_grad():
        for step in range(steps):
            model(ids, domain=torch.tensor([step, step + 1]))
            if step % every == 0:
                monitor.probe({"input_ids": ids}, tokens=["a"] * 6)
            monitor.step()
            if step + 1 in (steps // 2, steps):
                sizes.append(held(monitor))
    # Both times histories are full.
    assert sizes[1] < 1.02 * sizes[0]
    history = list(monitor.history("first.router"))
    assert len(history) <= 64
    assert (history[0].first, history[-1].last) == (0, steps - 1)
    assert sum(int(moment.value.sum()) for moment in history) == steps * 6 * K
    assert len(monitor.changes("first.router")) <= 64


def test_windows(model):
    ids = tokens()
    with RouterMonitor(model) as monitor:
        for _ in range(3):
            model(ids)
            monitor.step()
        monitor.new_window()
        model(ids)
        monitor.step()
    assert monitor.loads().sum(axis=1).tolist() == [90, 90]
    assert len(monitor.history("first.router")) == 4


def test_probes(model):
    ids, mask = tokens(3, 8), torch.ones(3, 8).long()
    mask[1, :3] = 0
    router = model.first.router
    before = routed(model, ids)
    model.second.eval()
    with RouterMonitor(model) as monitor, RouterMonitor(model) as other, recording(model) as calls:
        assert monitor.probe({"input_ids": ids, "attention_mask": mask}, tokens=list("abcdefghijklmnopqrstu")) == {}
        with torch.no_grad():
            router.gate.weight.add_(0.5 * torch.randn(router.gate.weight.shape))
        after = routed(model, ids)
        changes = monitor.probe({"input_ids": ids, "attention_mask": mask})
    # The test's own calls are counted.
    assert monitor.loads().sum(axis=1).tolist() == other.loads().sum(axis=1).tolist() == [48, 48]
    assert len(calls["first.router"]) == 1
    assert (model.first.training, model.second.training) == (True, False)
    for name, found in changes.items():
        total = 0.0
        for one, two, kept in zip(
            before[name].reshape(-1, K).tolist(),
            after[name].reshape(-1, K).tolist(),
            mask.reshape(-1).tolist(),
            strict=True,
        ):
            total += kept * (1.0 - len(set(one) & set(two)) / K)
        assert found == pytest.approx(total / 21, rel=1e-12)
    assert changes["first.router"] > 0.0
    assert monitor.measures("first.router")["selection_change"] == changes["first.router"]
    assert monitor.text.tokens[:3] == ("a", "b", "c")
    assert monitor.text.experts["first.router"].shape == (21, K)
    with pytest.raises(InputError, match="21 the last time"):
        monitor.probe({"input_ids": ids})
    assert monitor.probe({"input_ids": ids}, reset=True) == {}
    with pytest.raises(InputError, match="there are 2 texts of tokens, and first"):
        monitor.probe({"input_ids": ids}, tokens=["a", "b"])
    with pytest.raises(InputError, match="a list of layers"):
        RouterMonitor([model.first, model.second]).probe(model.embed(ids))


def test_layers_in_a_list_and_expert_choice():
    router = Router(SoftmaxGate(D, E), Selection(top_k=2, method="expert_choice"))
    initialise_router(router, std=1.0)
    with RouterMonitor([router, SparseMoE(D, n_experts=4, hidden=4)]) as monitor:
        router(torch.randn(40, D))
    assert monitor.layers == ["0", "1.router"]
    # Every expert takes as many.
    assert monitor.loads().loc["0"].tolist() == [10] * E
    assert monitor.loads().loc["1.router"].tolist()[:4] == [0] * 4
    assert monitor.loads().loc["1.router"].isna().sum() == 4


def test_the_balancer_does_not_count_probes():
    router = Router(SoftmaxGate(D, E), Selection(top_k=K, score="sigmoid"), correction_bias=True)
    balancer = BiasBalancer(router)
    RouterMonitor(router).probe(torch.randn(30, D))
    balancer.step()
    assert float(router.correction_bias.abs().max()) == 0.0


def test_what_cannot_be_watched(model):
    for call, sentence in (
        (lambda: RouterMonitor(nn.Linear(2, 2)), "there is no router in this Linear"),
        (lambda: RouterMonitor(model, mask=3), "mask must be the name of an argument"),
        (lambda: RouterMonitor(model, sample=0), "sample must be a whole number"),
        (lambda: RouterMonitor(model, most_domains=1), "most_domains must be a whole number"),
        (lambda: RouterMonitor([model, 3]), "a model or a list of layers"),
        (lambda: RouterMonitor(model).redundancy(model), r"there is no router .{1,120}: pass a name"),
        (lambda: RouterMonitor(model).measures("third"), "no router 'third': pass a name, one of 'first.router'"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()
