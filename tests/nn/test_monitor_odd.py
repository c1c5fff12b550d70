"""What a monitor does with odd models, calls and labels: it says so, and never breaks the model's own call."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from gatewise.exceptions import InputError
from gatewise.gates import SoftmaxGate
from gatewise.nn import Router, RouterMonitor, Selection, SparseMoE, initialise_router
from gatewise.nn.measures import effective_rank, representation_collapse
from gatewise.report import render_report


def layer(**options):
    return SparseMoE(8, n_experts=4, hidden=8, **options)


class TwoLayers(nn.Module):
    """Two sparse layers, of which the second knows nothing of masks."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layer(), layer()

    def forward(self, x, attention_mask=None):
        return self.second(self.first(x))


def slots(monitor):
    return [sum(monitor.counts(name)) for name in monitor.layers]


@pytest.mark.parametrize("what", [5, None, "layers", [1], [nn.Linear(2, 2), None]])
def test_what_is_no_model(what):
    with pytest.raises(InputError, match="pass a model or a list of layers"):
        RouterMonitor(what)


def test_a_module_list_is_a_list_of_layers():
    layers = nn.ModuleList([TwoLayers(), TwoLayers()])
    with RouterMonitor(layers) as monitor:
        for one in layers:
            one(torch.randn(2, 50, 8), attention_mask=torch.arange(50).expand(2, 50) < 10)
    assert slots(monitor) == [40] * 4
    assert monitor.layers[0] == "0.first.router"
    with pytest.raises(InputError, match="a list of layers cannot be called"):
        monitor.probe(torch.randn(5, 8))


def test_calls_within_calls_keep_their_masks():
    model = TwoLayers()
    with RouterMonitor([model, model.first]) as monitor:
        model(torch.randn(200, 8), attention_mask=torch.arange(200) < 50)
        # After the call nothing of it is left.
        model.second(torch.randn(7, 8))
    assert slots(monitor) == [100, 114]


def test_replicas_in_threads_are_counted_each_with_its_mask():
    model = TwoLayers()
    sizes = (20, 30, 40)

    def run(n):
        mask = (torch.arange(n) < n // 2).expand(2, n)
        for _ in range(10):
            model(torch.randn(2, n, 8), attention_mask=mask)

    with RouterMonitor(model) as monitor:
        threads = [threading.Thread(target=run, args=(n,)) for n in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert slots(monitor) == [10 * 2 * sum(sizes)] * 2
    assert not [finding for finding in monitor.findings() if finding.kind == "masks"]


# Dynamo looks at the gradients of what it traces.
@torch.no_grad()
def test_compiled_code_that_lies_elsewhere_is_seen():
    model, x = layer(), torch.randn(50, 8)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    with RouterMonitor(model) as monitor:
        compiled(x)
    compiled(x)
    assert slots(monitor) == [100]


def test_numbers_that_are_not_finite_have_no_rank_and_no_collapse():
    model = layer()
    model.register_forward_hook(lambda module, arguments, output: output * torch.nan)
    with RouterMonitor(model, representations=True, experts=True) as monitor:
        model(torch.randn(200, 8))
    row = monitor.summary().iloc[0]
    assert np.isnan(row["rank_after"])
    assert np.isfinite(row["rank_before"])
    for bad in (torch.nan, torch.inf):
        x = torch.randn(6, 3)
        x[2, 1] = bad
        assert np.isnan(effective_rank(x))
        assert np.isnan(representation_collapse(x, torch.tensor([0, 1, 0, 1, 0, 1])))


def test_slots_that_hold_no_expert():
    router = Router(SoftmaxGate(8, 4), Selection(top_k=1, method="expert_choice"))
    router.register_forward_hook(lambda module, arguments, given: (given[0], given[1] * torch.nan, given[2]))
    with RouterMonitor(router) as monitor:
        router(torch.randn(200, 8))
    (finding,) = monitor.findings()
    assert (finding.kind, finding.severity) == ("small_window", "note")
    assert "none of their slots holds an expert" in finding.message


def test_a_call_on_the_meta_device_is_none():
    model = layer().to("meta")
    with RouterMonitor(model, representations=True) as monitor:
        assert model(torch.randn(20, 8, device="meta")).is_meta
    assert [finding.kind for finding in monitor.findings()] == ["not_called"]
    assert monitor.summary()["tokens"].tolist() == [0]


def test_a_probe_without_a_token_that_counts_has_a_page():
    model = layer()
    monitor = RouterMonitor(model)
    with monitor:
        model(torch.randn(200, 8))
        with monitor.batch(mask=torch.zeros(5, dtype=torch.bool)):
            for _ in range(2):
                monitor.probe(torch.randn(5, 8))
    assert "Over time" in render_report(monitor)


@pytest.mark.parametrize(
    ("labels", "domains"),
    [(np.int64(3), ["3"]), (np.array([7] * 20), ["7"]), (["a", np.str_("b")] * 10, ["a", "b"]), (True, ["True"])],
)
def test_labels_of_numpy(labels, domains):
    model = layer()
    with RouterMonitor(model) as monitor, monitor.batch(domain=labels):
        model(torch.randn(20, 8))
    assert monitor.domains == domains


@pytest.mark.parametrize("label", [1.5, object(), [0.5] * 20, [["a"] * 20]])
def test_labels_that_are_none(label):
    model = layer()
    with (
        RouterMonitor(model) as monitor,
        monitor.batch(domain=label),
        pytest.raises(InputError, match="domains must be whole numbers or names"),
    ):
        model(torch.randn(20, 8))


@pytest.mark.parametrize("name", ["nope", None, ["router"]])
def test_a_router_that_is_not_there(name):
    with pytest.raises(InputError, match="there is no router"):
        RouterMonitor(layer()).counts(name)


def test_a_correction_bias_that_is_offloaded_leaves_the_call_alone():
    router = Router(SoftmaxGate(8, 4), Selection(top_k=2, score="sigmoid"), correction_bias=True)
    initialise_router(router)
    model = SparseMoE(8, router, hidden=4)
    # As accelerate does it: the bias is there within the call only.
    kept = router.correction_bias
    router.correction_bias = kept.to("meta")
    router.register_forward_pre_hook(lambda module, arguments: setattr(module, "correction_bias", kept))
    router.register_forward_hook(lambda module, arguments, given: setattr(module, "correction_bias", kept.to("meta")))
    with RouterMonitor(model) as monitor:
        model(torch.randn(200, 8))
    assert slots(monitor) == [400]
    assert np.isnan(monitor.measures("router")["margin"])
