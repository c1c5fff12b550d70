"""`gatewise theory`: proved rates and r̄ on the command line."""

import json

import pytest

from gatewise.theory.polynomials import r_bar
from gatewise.theory.rates import proved_rates

SOFTMAX = ("theory", "rates", "--gate", "softmax", "--experts", "linear", "--family", "gaussian")


def test_rates_as_text(run):
    outcome = run(*SOFTMAX, "--true-k", 2, "--fit-k", 3)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == (
        "softmax gate, linear experts, gaussian family; 2 true experts, 3 fitted: over-specified, up to 2 atoms in a "
        "cell"
    )
    block = lines[lines.index("softmax-gaussian-over: arXiv:2305.03288, Theorem 2 (also arXiv:2505.10860)") :]
    assert block[1:3] == ["  for: over-specified", "  loss: D2"]
    table = [line.split() for line in block]
    assert ["b", "2", "atoms", "n^(-1/8)"] in table
    assert ["a", "2", "atoms", "n^(-1/4)"] in table
    assert any(line.startswith("  found: modulus differs, β₁") for line in block)
    assert max(len(line) for line in lines) <= 120


def test_rates_as_json(run):
    entry = json.loads(run(*SOFTMAX, "--true-k", 2, "--fit-k", 3, "--json").out)
    wanted = proved_rates(gate="softmax", experts="linear", family="gaussian", true_k=2, fit_k=3)
    assert entry == json.loads(json.dumps(wanted.to_dict()))
    assert [theorem["id"] for theorem in entry["theorems"]] == [theorem.id for theorem in wanted.theorems]
    over = next(theorem for theorem in entry["theorems"] if theorem["id"] == "softmax-gaussian-over")
    assert (over["paper"], over["statement"]) == ("arXiv:2305.03288", "Theorem 2")
    fields = {"parameter", "role", "cell", "atoms", "stated_exponent", "exponent", "rate", "tight_exponent", "tight_by"}
    assert set(over["rates"][0]) == fields
    assert "samples" not in entry


def test_samples_and_comparison(run):
    arguments = (*SOFTMAX, "--true-k", 2, "--fit-k", 4, "--error", 0.1, "--relative-to", "laplace")
    lines = [line.split() for line in run(*arguments).out.splitlines()]
    # Both gates have the exponent 2 for their gate parameters; the published bound of one of them is larger.
    assert ["gate", "softmax-gaussian-over", "1e+04", "(1e+12)", "laplace-over", "1e+04", "1"] in lines
    assert ["softmax-gaussian-over", "b", "3", "atoms", "1e+12"] in lines
    assert ["softmax-gaussian-over", "β₁", "3", "atoms", "1e+04", "1e+12"] in lines
    entry = json.loads(run(*arguments, "--json").out)
    assert (entry["error"], entry["relative_to"]) == (0.1, "laplace")
    (gate,) = (row for row in entry["comparison"] if row["role"] == "gate")
    assert gate["ratio"] == pytest.approx(1.0)
    assert gate["bound"] / gate["other_bound"] == pytest.approx(1e8)
    assert {"theorem", "parameter", "cell", "samples", "bound"} == set(entry["samples"][0])


def test_a_slow_rate_comes_with_what_helps(run):
    arguments = ("theory", "rates", "--gate", "softmax", "--true-k", 2, "--fit-k", 3)
    out = run(*arguments, "--error", 0.1, "--relative-to", "sigmoid").out
    assert "slower than any n^(-1/(2r)), perhaps 1/log n" in out
    assert "more than any power of 1/ε" in out
    helps = out[out.index("What helps") :]
    assert "other expert: experts φ(aᵀx + b)" in helps
    assert "softmax-least-squares-polynomial" in helps
    entry = json.loads(run(*arguments, "--error", 0.1, "--json").out)
    assert None in {row["samples"] for row in entry["samples"]}
    assert {"modified gate", "other expert"} & {remedy["kind"] for remedy in entry["remedies"]}


def test_nothing_proved_is_no_error(run):
    outcome = run(
        "theory", "rates", "--gate", "laplace", "--family", "poisson", "--error", 0.1, "--relative-to", "softmax"
    )
    assert outcome.code == 0
    assert "Nothing is proved, as far as this table knows" in outcome.out
    assert "No comparison with the softmax gate" in outcome.out


def test_options_select(run):
    out = run("theory", "rates", "--gate", "hierarchical", "--family", "gaussian", "--gate-option", "outer=laplace").out
    assert "hierarchical-laplace-laplace" in out
    assert "hierarchical-softmax-softmax" not in out


@pytest.mark.parametrize("m", [2, 3, 4])
def test_r_bar(run, m):
    out = run("theory", "r-bar", m).out
    assert out.startswith(f"r̄({m}) = {2 * m}\n")
    entry = json.loads(run("theory", "r-bar", m, "--json").out)
    assert (entry["value"], entry["status"]) == (r_bar(m).value, r_bar(m).status)
    assert len(entry["solution"]["weights"]) == m


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rates", "--gate", "soft"), "unknown gate 'soft': choose one of"),
        (("rates", "--gate", "softmax", "--experts", "x"), "unknown expert 'x'"),
        (("rates", "--gate", "softmax", "--family", "x"), "unknown family 'x'"),
        (("rates", "--gate", "softmax", "--objective", "x"), 'the objective must be "likelihood"'),
        (("rates", "--gate", "softmax", "--true-k", "2"), "the true and the fitted number of experts go together"),
        (("rates", "--gate", "softmax", "--true-k", "2", "--fit-k", "1"), "1 fitted experts cannot represent 2 true"),
        (
            ("rates", "--gate", "sigmoid", "--gate-option", "normal=1"),
            "the sigmoid gate has no option 'normal': did you mean 'normalised'? it has",
        ),
        (("rates", "--gate", "sigmoid", "--gate-option", "normalised"), "must be written as NAME=VALUE"),
        (("rates", "--gate", "softmax", "--relative-to", "laplace"), "give it with --error"),
        (("rates", "--gate", "softmax", "--error", "2"), "the error must lie between 0 and 1, not 2.0"),
        (("rates", "--gate", "softmax", "--error", "0.1", "--relative-to", "x"), "unknown gate 'x'"),
        (("r-bar", "1"), "m must be an integer of at least 2"),
    ],
)
def test_refusals(refused, arguments, message):
    assert message in refused("theory", *arguments)


def test_advice_as_text(run):
    outcome = run("theory", "advise", "--objective", "least_squares")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert "By least squares" in lines
    assert "By maximum likelihood" not in lines
    linear = next(i for i, line in enumerate(lines) if line.split()[:2] == ["softmax:", "linear"])
    assert "1 → 100 (measured)" in lines[linear]
    assert "2 → 1e+04 (β₁; measured)" in lines[linear]
    assert lines[linear + 1].strip() == "not identified with one too many: a, b"
    assert max(map(len, lines)) <= 120


def test_advice_as_json(run):
    entry = json.loads(run("theory", "advise", "--gate", "laplace", "--error", 0.01, "--json").out)
    assert entry["error"] == 0.01
    row = next(row for row in entry["rows"] if row["objective"] == "likelihood")
    assert (row["experts"], row["as_many"]["samples"]) == ("linear", pytest.approx(1e4))
    assert row["one_too_many"] == {
        "exponent": 4.0,
        "of": "b",
        "samples": pytest.approx(1e16),
        "known": "proved, measured",
        "not_identified": "",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objective", "mle"), "nothing is known about the objective 'mle'"),
        (("--gate", "quadratic"), "nothing is known about the gate 'quadratic'"),
        (("--error", "0"), "the error must lie between 0 and 1"),
    ],
)
def test_advice_that_there_is_not(refused, arguments, message):
    assert message in refused("theory", "advise", *arguments)
