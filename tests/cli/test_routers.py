"""`gatewise routers list`: the table of known routers, as it is."""

import json

from gatewise.nn.known import CONTRACTS, REFUSALS


def test_the_list_is_the_table(run):
    outcome = run("routers", "list")
    assert (outcome.code, outcome.err) == (0, "")
    types = [line for line in outcome.out.splitlines() if not line.startswith(" ")]
    assert sorted(types) == sorted(name for row in (*CONTRACTS, *REFUSALS) for name in row.routers)
    block = outcome.out.split("minimax_m2\n")[1].splitlines()[:4]
    assert block == [
        "  router: MiniMaxM2TopKRouter",
        "  w = s / Σ s of the K largest s + b; s = σ(z)",
        "  selection: top_k = top_k, score = 'sigmoid', renormalise = 'sum'",
        "  correction bias: argument e_score_correction_bias, kept by the layer",
    ]
    assert "llama4_text\n  router: Llama4Router\n  refused: it gives a pair of dense scores" in outcome.out
    assert "  read, not swapped: its experts are a fixed function of the token ids" in outcome.out


def test_as_json(run):
    entries = json.loads(run("routers", "list", "--json").out)
    assert {entry["model_type"] for entry in entries if entry["refused"]} == {
        name for row in REFUSALS for name in row.routers
    }
    for entry in entries:
        assert set(entry) == {"model_type", "router", "formula", "selection", "correction_bias", "skipped", "refused"}
        assert (entry["formula"] is None) == (entry["refused"] is not None)


def test_some_of_the_list(run):
    outcome = run("routers", "list", "mixtral", "deepseek_v3")
    types = [line for line in outcome.out.splitlines() if not line.startswith(" ")]
    assert (outcome.code, sorted(types)) == (0, ["deepseek_v3", "mixtral"])
    assert [entry["model_type"] for entry in json.loads(run("routers", "list", "mixtral", "--json").out)] == ["mixtral"]


def test_a_model_type_that_is_not_known(run):
    outcome = run("routers", "list", "mixtrall")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no router of 'mixtrall' is known: did you mean 'mixtral'?" in outcome.err
