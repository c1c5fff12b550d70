"""Measures of routing against plain loops and closed forms; what experts give, looked at from inside."""

import math

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import SoftmaxGate
from gatewise.nn import Router, RouterMonitor, Selection, SparseMoE, initialise_router
from gatewise.nn import measures as m
from gatewise.nn.routing import Routing

E, K = 8, 2


def routing(selection, bias=None, seed=0, n=40):
    logits = torch.randn(n, E, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Routing(logits, *selection(logits, bias), selection)


def test_entropies():
    counts = torch.tensor([5, 0, 1, 2])
    shares = [5 / 8, 1 / 8, 2 / 8]
    entropy = -sum(share * math.log(share) for share in shares)
    assert m.load_entropy(counts) == pytest.approx(entropy / math.log(4))
    assert m.effective_experts(counts) == pytest.approx(math.exp(entropy))
    found = m.token_entropies(routing(Selection(score="sigmoid")))
    for row, value in zip(routing(Selection(score="sigmoid")).log_scores.exp().tolist(), found.tolist(), strict=True):
        parts = [score / sum(row) for score in row]
        assert value == pytest.approx(-sum(p * math.log(p) for p in parts) / math.log(E), abs=1e-6)
    assert math.isnan(m.load_entropy(torch.zeros(4, dtype=torch.int64)))
    assert m.load_entropy(torch.tensor([7])) == 1.0


SELECTIONS = [
    Selection(top_k=K),
    Selection(top_k=K, score="sigmoid"),
    Selection(top_k=K, score="sigmoid", n_groups=4, top_groups=2),
    Selection(top_k=3, score="softmax", n_groups=4, top_groups=3, group_score="largest", renormalise="none"),
    Selection(top_k=K, weights="softmax"),
]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_the_margin_is_what_the_next_expert_lacks(selection, with_bias):
    """Adding the margin, and a little more, to the next expert's bias changes the choice; a little less does not."""
    bias = torch.linspace(-0.2, 0.2, E, dtype=torch.float64) if with_bias else torch.zeros(E, dtype=torch.float64)
    found = routing(selection, bias)
    margins = m.margins(found, bias)
    assert (margins >= 0.0).all()
    for token in range(0, 40, 5):
        chosen = set(found.indices[token].tolist())
        logits = found.logits[token : token + 1]
        scores = selection.choice_scores(logits, bias)[0]
        (following,) = [e for e in scores.argsort(descending=True).tolist() if e not in chosen][:1]
        for factor, other in ((0.999, False), (1.001, True)):
            moved = bias.clone()
            if selection.n_groups > 1:
                # Groups would change too: compare the scores themselves.
                lifted = scores.clone()
                lifted[following] += factor * margins[token]
                now = set(lifted.topk(len(chosen)).indices.tolist())
            else:
                moved[following] += factor * margins[token]
                now = set(selection(logits, moved)[1][0].tolist())
            assert (now != chosen) == other


def test_margins_that_there_are_not():
    assert m.margins(routing(Selection(top_k=2, method="expert_choice"))).isnan().all()
    assert m.margins(routing(Selection(top_k=E))).isnan().all()
    by_table = routing(Selection(top_k=K))
    worst = by_table.logits.argsort(-1)[:, :K]
    assert m.margins(Routing(by_table.logits, by_table.weights, worst, by_table.selection)).isnan().all()


def test_mutual_information():
    table = torch.tensor([[10, 5, 0], [2, 8, 0], [0, 0, 0]])
    total, value = 25, 0.0
    for i in range(2):
        for j in range(2):
            p = table[i, j].item() / total
            value += p * math.log(p / (table[i].sum().item() / total * table[:, j].sum().item() / total))
    found = m.mutual_information(table)
    assert found.value == pytest.approx(value)
    assert found.bias == 1 / 50
    # Without dependence the mean is near the bias.
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(400):
        cells = torch.randint(0, 20, (500,), generator=generator)
        draws.append(m.mutual_information(torch.bincount(cells, minlength=20).reshape(4, 5)).value)
    # 400 draws of half a χ² of 12 degrees over 500: a standard error of 2.4e-4.
    assert sum(draws) / 400 == pytest.approx(12 / 1000, abs=1e-3)


def test_collapse_and_ranks_of_representations():
    generator = torch.Generator().manual_seed(0)
    x, classes = torch.randn(60, 5, generator=generator).double(), torch.arange(60) % 3
    means = torch.stack([x[classes == c].mean(0) for c in range(3)])
    within = sum(torch.outer(x[i] - means[classes[i]], x[i] - means[classes[i]]) for i in range(60)) / 60
    between = sum(torch.outer(v, v) for v in means - means.mean(0)) / 3
    expected = float(torch.trace(within @ torch.linalg.pinv(between, rcond=1e-10)))
    assert m.representation_collapse(x, classes) == pytest.approx(expected, rel=1e-8)
    assert m.representation_collapse(7.0 * x, classes) == pytest.approx(expected, rel=1e-8)
    assert math.isnan(m.representation_collapse(x, torch.zeros(60, dtype=torch.int64)))
    assert math.isnan(m.representation_collapse(torch.ones(60, 5), classes))
    assert m.effective_rank(torch.outer(torch.ones(9), torch.ones(4))) == pytest.approx(1.0)
    assert math.isnan(m.effective_rank(torch.zeros(0, 4)))


def test_linear_cka():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 50, 4, generator=generator)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    outputs[1] = 3.0 * outputs[0] @ rotation + 5.0
    found = m.linear_cka(outputs, block=7)
    a, b = (part.double() - part.double().mean(0) for part in (outputs[0], outputs[2]))
    expected = (a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())
    assert found[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert found[0, 2] == pytest.approx(float(expected), abs=1e-5)
    assert torch.equal(found, found.T)


def test_saliency_and_redundancy_are_those_of_the_layer():
    torch.manual_seed(0)
    layer = SparseMoE(6, n_experts=4, hidden=5).requires_grad_(False)
    initialise_router(layer.router, std=1.0)
    with torch.no_grad():
        layer.experts.gate_up[3] = layer.experts.gate_up[1]
        layer.experts.down[3] = -2.0 * layer.experts.down[1]
    x, mask = torch.randn(50, 6), torch.arange(50) < 40
    with RouterMonitor(layer, experts=True, representations=True) as monitor, monitor.batch(mask=mask):
        y = layer(x)
    _, weights, indices = layer.router(x)
    total, count = [0.0] * 4, [0] * 4
    networks = layer.experts.networks()
    for t in range(40):
        for w, e in zip(weights[t].tolist(), indices[t].tolist(), strict=True):
            total[e] += w * float(networks[e](x[t : t + 1]).norm())
            count[e] += 1
    expected = [a / b for a, b in zip(total, count, strict=True)]
    assert monitor.saliency("router").tolist() == pytest.approx(expected, rel=1e-5)
    redundancy = monitor.redundancy("router")
    assert redundancy[1, 3] == pytest.approx(1.0, abs=1e-5)
    assert redundancy[0, 1] < 0.9
    rows = monitor.measures("router")
    assert rows["rank_before"] == pytest.approx(m.effective_rank(x[:40]))
    assert rows["rank_after"] == pytest.approx(m.effective_rank(y.detach()[:40]))
    with pytest.raises(InputError, match="experts=True"):
        RouterMonitor(layer).redundancy("router")
    with pytest.raises(InputError, match="no bank"):
        RouterMonitor(Router(SoftmaxGate(6, 4)), experts=True).saliency("")
    with pytest.raises(InputError, match="has seen no token"):
        RouterMonitor(layer, experts=True).saliency("router")
