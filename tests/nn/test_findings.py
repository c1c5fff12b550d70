"""What is said about loads of every kind, and what is not."""

import pytest
import torch

from gatewise.nn import Router, RouterMonitor, Selection
from gatewise.nn.findings import LayerWindow, findings_of
from tests.nn.test_monitor import Tiny


def of(ranks, tied=0.0, unknown=0.0, unfit=0):
    ranks = torch.tensor(ranks)
    n_tokens = int(ranks[0].sum())
    window = LayerWindow("mlp.gate", ranks, n_tokens, int(n_tokens > 0), unfit, len(ranks), tied, unknown)
    return [(finding.kind, finding.experts) for finding in findings_of([window])]


EVEN = [[100] * 8, [100] * 8]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (EVEN, []),
        ([[800, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 800, 0, 0, 0, 0]], [("collapse", (0, 3))]),
        ([[796, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 800, 0, 0, 0, 0]], [("collapse", (0, 3))]),
        ([[800, 0, 0, 0], [0, 800, 0, 0]], [("collapse", (0, 1))]),
        ([[0, 0, 800, 0, 0, 0, 0, 0]], [("collapse", (2,))]),
        ([[700, 100, 0, 0, 0, 0, 0, 0], [100, 700, 0, 0, 0, 0, 0, 0]], [("collapse", (0, 1))]),
        ([[700, 60, 40, 0, 0, 0, 0, 0], [60, 740, 0, 0, 0, 0, 0, 0]], [("few_experts", (0, 1))]),
        # Every token uses expert 7 second, and the first slot is even.
        ([[115, 115, 114, 114, 114, 114, 114, 0], [0, 0, 0, 0, 0, 0, 0, 800]], [("always", (7,))]),
        ([[100] * 8, [115, 115, 114, 114, 114, 114, 114, 0]], []),
        ([[200, 100, 100, 100, 100, 100, 98, 2], [100, 200, 100, 100, 100, 100, 100, 0]], [("dead", (7,))]),
        # With K = E all take all.
        ([[400, 400], [400, 400]], []),
        ([[10] * 8, [10] * 8], [("small_window", ())]),
        # 200 tokens: an even share is 25 slots, and an expert without one may be chance.
        ([[40, 40, 40, 20, 20, 20, 20, 0]], [("small_window", ())]),
        ([[0] * 8, [0] * 8], [("not_called", ())]),
    ],
)
def test_loads(ranks, expected):
    assert of(ranks) == expected


def test_what_is_said_beside_loads():
    assert of(EVEN, tied=1.0) == [("ties", ())]
    assert of(EVEN, unknown=0.01) == [("not_numbers", ())]
    assert of(EVEN, unfit=1) == [("masks", ())]
    assert of(EVEN, tied=float("nan"), unknown=float("nan")) == []


def watched(model, *inputs):
    with RouterMonitor(model) as monitor:
        model(*inputs)
    return monitor


def test_a_sharp_healthy_router_is_not_flagged():
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        model.first.router.gate.weight.mul_(200.0)
    monitor = watched(model, torch.randint(0, 40, (40, 25)))
    # Sure of every token: but that is no load.
    assert monitor.measures("first.router")["token_entropy"] < 0.05
    assert [finding.sentence for finding in monitor.findings() if finding.severity == "warning"] == []


def test_a_slot_that_always_takes_one_expert_is_flagged_and_its_place_is_said():
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        # Always chosen, and last: the bias acts on the choice alone.
        model.first.router = Router(model.first.router.gate, Selection(score="sigmoid"), correction_bias=True)
        model.first.router.gate.bias[3] = -6.0
        model.first.router.correction_bias[3] = 5.0
    (finding,) = [one for one in watched(model, torch.randint(0, 40, (40, 25))).findings() if one.severity == "warning"]
    assert (finding.layer, finding.kind, finding.experts) == ("first.router", "always", (3,))
    assert "100 % of 1,000 tokens choose expert 3, mostly as their second" in finding.message


def test_routers_that_begin_at_zero_and_logits_that_are_no_numbers():
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        model.first.router.gate.weight.zero_()
    ids = torch.randint(0, 40, (40, 25))
    found = {(one.layer, one.kind) for one in watched(model, ids).findings()}
    assert ("first.router", "ties") in found
    assert ("first.router", "collapse") in found
    model = Tiny()

    def infinite(module, inputs, outputs):
        logits, weights, indices = outputs
        return torch.where(torch.arange(len(logits)).unsqueeze(1) < 10, torch.nan, logits), weights, indices

    model.second.router.register_forward_hook(infinite)
    (finding,) = [one for one in watched(model, ids).findings() if one.layer == "second.router"]
    assert finding.kind == "not_numbers"
    assert "1 % of 1,000 tokens" in finding.sentence
