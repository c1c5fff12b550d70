"""`gatewise theory identify`."""

import json

import pytest

from gatewise.theory import identify


def test_identities_as_text(run):
    outcome = run("theory", "identify", "--gate", "softmax", "--family", "gaussian", "--features", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert "∂²u/∂b² = 2 ∂u/∂s   [proportional, sympy]" in outcome.out
    assert outcome.out == identify("softmax", "linear", "gaussian", n_features=1).text()


def test_as_json_with_options_and_held_parameters(run):
    outcome = run(
        *("theory", "identify", "--gate", "dense_to_sparse", "--gate-option", "free_temperature=false"),
        *("--gate-option", "temperature=0.5", "--experts", "ridge", "--expert-option", "activation=cos"),
        *("--features", 1, "--at", "a=0", "--digits", 30, "--seed", 3, "--json"),
    )
    data = json.loads(outcome.out)
    assert data["experts"] == "ridge cos"
    assert data["parameters"] == ["β₁", "a", "b"]
    assert data["digits"] == 30
    assert {identity["where"] for identity in data["identities"]} == {"a = 0"}
    assert data["family"] is None


def test_what_cannot_be_written_is_refused_before_anything_is_computed(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("gatewise.theory.identifiability.identify", lambda *_, **__: pytest.fail("computed"))
    monkeypatch.setattr("gatewise.theory.rates.proved_rates", lambda *_, **__: pytest.fail("looked up"))
    taken = tmp_path / "taken.html"
    taken.write_text("old")
    for command in (("identify", "--gate", "softmax", "--features", 1), ("rates", "--gate", "softmax")):
        assert "it exists" in refused("theory", *command, "--report", taken)
        assert "does not exist" in refused("theory", *command, "--report", tmp_path / "none" / "page.html")
    assert taken.read_text() == "old"


def test_a_page_is_written_whole_and_not_over_another_file(run, refused, tmp_path):
    arguments = ("theory", "identify", "--gate", "softmax", "--experts", "constant", "--features", 1)
    path = tmp_path / "page.html"
    outcome = run(*arguments, "--report", path)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == str(path)
    page = path.read_bytes()
    assert page.startswith(b"<!DOCTYPE html>")
    assert "exists" in refused(*arguments, "--report", path)
    assert path.read_bytes() == page
    assert run(*arguments, "--report", path, "--overwrite", "--json").out.startswith("{")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gate", "unknown"), "unknown gate"),
        (("--gate", "softmax", "--family", "gaussian", "--objective", "least_squares"), "has no family"),
        (("--gate", "softmax", "--objective", "other"), "--objective must be"),
        (("--gate", "softmax", "--at", "b=text"), "at a number"),
        (("--gate", "softmax", "--at", "b=true"), "at a number"),
        (("--gate", "softmax", "--at", "q=1"), "no parameter 'q'"),
        (("--gate", "softmax", "--features", "0"), "n_features"),
        (("--gate", "softmax", "--experts", "callable"), "callable"),
    ],
)
def test_refusals(refused, arguments, message):
    assert message in refused("theory", "identify", *arguments)
