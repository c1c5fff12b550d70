"""What is shown of a router's choices: tables, one token's scores, pages; and comparisons of routers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import gatewise
from gatewise.exceptions import InputError
from gatewise.lora import Oracle, Single, attach_router, evaluate, paired_interval, read
from gatewise.report import render_report
from tests.lora.models import NAMES, ids, llama, logits, random_gates, t5


@pytest.fixture(scope="module")
def routed():
    model = llama()
    return attach_router(model, gates=random_gates(model))


def batch(rows=3, length=7):
    tokens = ids(rows, length)
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def test_a_reading_is_what_the_routers_did(routed):
    given = batch()
    seen = {}

    def watch(router, inputs, outputs):
        seen[router.place_name] = outputs

    handles = [place.layer.gatewise_change.router.register_forward_hook(watch) for place in routed.places.values()]
    reading = read(routed, given, domains=["x", "y", "x"])
    for handle in handles:
        handle.remove()
    kept = given["attention_mask"].bool().reshape(-1)
    assert reading.modules.keys() == routed.places.keys()
    for name, module in reading.modules.items():
        scores, weights, indices = seen[name]
        wide = torch.zeros_like(scores).scatter(-1, indices, weights)
        assert torch.equal(module.weights, wide[kept])
        assert torch.equal(module.scores, scores[kept])
        assert len(module.tokens) == 19
        assert module.tokens[0].tolist() == [0, 2]
    table = reading.table()
    assert list(table.columns) == ["layer", "module", "name", "adapter", "domain", "tokens", "weight", "share"]
    first = table[(table["name"] == "model.layers.0.self_attn.q_proj") & (table["domain"] == "y")]
    assert first["weight"].sum() == pytest.approx(1.0)
    assert first["share"].sum() == pytest.approx(2.0)
    assert set(first["tokens"]) == {7}
    weights = reading.token_weights()
    assert len(weights) == 19
    why = reading.why(1, 3)
    for name, part in why.groupby("name"):
        place = 5 + 3
        np.testing.assert_allclose(part["score"], reading.modules[name].scores[place], rtol=1e-6)
    expected = torch.zeros(3)
    for _, row in why.iterrows():
        expected[NAMES.index(row["adapter"])] += row["weight"] / len(routed.places)
    torch.testing.assert_close(weights[(1, 3)], expected)
    # Tables without domains have no such column.
    assert "domain" not in read(routed, given).table().columns


def test_a_decoders_tokens_come_after_the_encoders():
    model, tokens = t5(), ids(2, 5)
    with attach_router(model, gates=random_gates(model)) as routed:
        reading = read(routed, {"input_ids": tokens, "decoder_input_ids": ids(2, 3)})
    positions = {name: module.tokens[:, 1].tolist()[-1] for name, module in reading.modules.items()}
    assert positions["encoder.block.0.layer.0.SelfAttention.q"] == 4
    assert positions["decoder.block.0.layer.0.SelfAttention.q"] == 5 + 2
    assert positions["decoder.block.0.layer.1.EncDecAttention.v"] == 4
    assert positions["decoder.block.0.layer.1.EncDecAttention.q"] == 7
    assert len(reading.token_weights()) == 2 * 8
    assert "coloured by adapter" in render_report(reading)


def test_what_cannot_be_read(routed):
    with pytest.raises(InputError, match="2 domains for 3 rows"):
        read(routed, batch(), domains=["x", "y"])
    with pytest.raises(InputError, match="the texts of rows 0, 1, 2 have not 7 tokens"):
        read(routed, batch(), texts=[["a"]] * 3)
    reading = read(routed, batch())
    with pytest.raises(InputError, match="no token at position 0 of row 0, or it is padding"):
        reading.why(0, 0)
    routed.with_router("merged_product")
    with pytest.raises(InputError, match="there is nothing to read"):
        read(routed, batch())
    routed.with_router("phatgoose")


def test_the_page_shows_the_text_in_colours_and_escapes_it(routed, tmp_path):
    routed.reading = None
    with pytest.raises(InputError, match="let the routed model read a text first"):
        gatewise.write_report(routed, tmp_path / "page.html")
    texts = [[f"<b>{row}.{place}</b>\u202e" for place in range(7)] for row in range(3)]
    reading = read(routed, batch(), texts, domains=["</script><x>", "y", "y"])
    gatewise.write_report(routed, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == render_report(reading)
    assert page.count('<span style="background:#') == 19
    assert "&lt;b&gt;1.3&lt;/b&gt;" in page
    assert "<b>1.3" not in page
    assert "</script><x>" not in page
    assert "\u202e" not in page
    for part in ("Why this adapter", "Modules", "Domains", "default-src &#39;none&#39;"[:11]):
        assert part in page


def test_routers_are_compared_on_the_same_documents(routed):
    tokens = ids(4, 8)
    labels = tokens.clone()
    labels[0, :3] = -100
    batches = [
        {"input_ids": tokens[:2], "labels": labels[:2]},
        {"input_ids": tokens[2:], "labels": labels[2:]},
    ]
    routers = {
        "phatgoose": "phatgoose",
        "sequence": ("phatgoose", {"granularity": "sequence"}),
        "one": Single("b"),
        "oracle": Oracle(),
        "base": "base",
    }
    before = routed.router, routed.setting
    found = evaluate(routed, batches, routers, domains=["a", "b", "c", "a"])
    assert (routed.router, routed.setting) == before
    assert found.tokens.tolist() == [5, 7, 7, 7]

    def loss(row, model_logits):
        log_p = model_logits[row, :-1].log_softmax(-1)
        wanted = labels[row, 1:]
        return -sum(float(log_p[t, wanted[t]]) for t in range(7) if wanted[t] != -100)

    whole = logits(routed.model, tokens)
    assert found.losses["phatgoose"].tolist() == pytest.approx([loss(row, whole) for row in range(4)], rel=1e-5)
    with routed.rows(["b"] * 4):
        alone = logits(routed.model, tokens)
    assert found.losses["one"].tolist() == pytest.approx([loss(row, alone) for row in range(4)], rel=1e-5)
    with routed.rows(["a", "b", "c", "a"]):
        own = logits(routed.model, tokens)
    assert found.losses["oracle"].tolist() == pytest.approx([loss(row, own) for row in range(4)], rel=1e-5)
    table = found.table().set_index("router")
    difference = (found.losses["base"] - found.losses["phatgoose"]) / found.tokens
    interval = stats.t.interval(0.95, 3, loc=float(difference.mean()), scale=stats.sem(difference.numpy()))
    assert table.loc["base", ["low", "high"]].tolist() == pytest.approx(interval, rel=1e-6)
    assert table.loc["phatgoose", "difference"] == 0.0
    total = float(found.losses["base"].sum() / 26)
    assert table.loc["base", "perplexity"] == pytest.approx(math.exp(total))
    wide = found.by_domain()
    assert len(wide) == 3 * 5
    page = render_report(found)
    assert "Routers among LoRA adapters" in page


@pytest.mark.parametrize("n", [2, 3, 4, 5, 12, 101])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_are_students(n, level):
    values = np.random.default_rng(n).normal(size=n)
    expected = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    low, mean, high = paired_interval(values.tolist(), level)
    assert (low, high) == pytest.approx(expected, rel=1e-9)
    assert mean == pytest.approx(values.mean())


def test_what_cannot_be_compared(routed):
    tokens = ids(2, 4)
    rows = [{"input_ids": tokens, "labels": tokens}]
    nothing = [{"input_ids": tokens, "labels": torch.full_like(tokens, -100)}]
    for batches, routers, options, message in [
        ([], {"base": "base"}, {}, "at least one router and one document"),
        (rows, {}, {}, "at least one router and one document"),
        ([{"input_ids": tokens}], {"base": "base"}, {}, "needs labels"),
        (rows, {"base": "base"}, {"domains": ["x"]}, "1 domains for 2 documents"),
        (nothing, {"base": "base"}, {}, "nothing is to be predicted in the documents 0, 1"),
        (rows, {"x": "arow"}, {}, "did you mean 'arrow'"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate(routed, batches, routers, **options)
    assert math.isnan(paired_interval([1.0])[0])
    with pytest.raises(InputError, match="needs differences"):
        paired_interval([])
