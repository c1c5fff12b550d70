"""`gatewise theory modulus`."""

import json

import pytest

from gatewise.cli import main
from gatewise.theory.modulus.case import Expected, case_names, compare, read_case
from gatewise.theory.modulus.problem import Problem
from gatewise.theory.modulus.result import CoordinateModulus
from gatewise.theory.splitting import fitted_at_truth

CASE = """
title = "A small one"
n_features = 1
n_experts = 2
gate = { name = "softmax", parameters = { weight = [[1.0], [0.0]], bias = [0.5, 0.0] } }
experts = { name = "linear", parameters = { weight = [[-1.5], [1.0]], bias = [1.0, -1.0] } }
design = { distance = "l2", inputs = { kind = "box", nodes = 8 }, window = { largest = 0.1, smallest = 0.01 } }

[[groups]]
title = "exact"
rows = [{ parameter = "experts.bias[0]", proved = 1.0, source = "no paper" }]
"""


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(CASE)
    return path


def test_a_case_from_a_file(case, tmp_path, capsys):
    assert main(["theory", "modulus", str(case), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "experts.bias[0]" in shown
    assert "n^(-1/2)" in shown
    assert "proved of experts.bias[0]: exponent 1: agrees (no paper)" in shown
    assert (tmp_path / "out" / "1.html").exists()
    assert main(["theory", "modulus", str(case), "--out", str(tmp_path / "out"), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["verdicts"] == ["agrees"]
    assert abs(group["rows"][0]["exponent"] - 1) < 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "no TOML"),
        (CASE.replace("nodes = 8", "nodes = 0"), "inputs.box.nodes"),
        (CASE.replace("experts.bias[0]", "experts.height"), "experts.height"),
        (CASE.replace("weight = [[1.0], [0.0]]", "slope = [[1.0], [0.0]]"), "slope"),
        (CASE.replace("[[1.0], [0.0]]", "[[1.0, 2.0], [0.0, 0.0]]"), "shape"),
    ],
)
def test_what_is_wrong_with_a_case(text, message, tmp_path, capsys):
    path = tmp_path / "case.toml"
    path.write_text(text)
    assert main(["theory", "modulus", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_no_case(capsys):
    assert main(["theory", "modulus", "nothing"]) == 2
    assert "softmax-linear" in capsys.readouterr().err
    assert main(["theory", "modulus"]) == 2
    assert main(["theory", "modulus", "--list"]) == 0


@pytest.mark.parametrize("name", case_names())
def test_the_cases_name_their_sources(name):
    for group in read_case(name).groups:
        for row in group.rows:
            assert row.proved is None or row.source, row.parameter


@pytest.mark.slow
@pytest.mark.parametrize("name", case_names())
def test_the_cases_of_the_library(name):
    """Every group of every case is a truth and a fitted mixture that equals it, and its rows exist."""
    case = read_case(name)
    for group in case.groups:
        truth = case.truth()
        cells = group.cells or list(range(truth.n_experts))
        fitted = case.fitted(group) or fitted_at_truth(truth, cells)
        problem = Problem(truth, fitted, cells, case.design_of(group), hold=group.hold)
        for row in group.rows:
            assert len(problem.named(row.parameter)) == 1, row.parameter


@pytest.mark.parametrize(
    ("proved", "low", "value", "high", "is_flat", "verdict"),
    [
        (2.0, 1.98, 2.0, 2.02, False, "agrees"),
        (4.0, 1.98, 2.0, 2.02, False, "faster than the bound"),
        (1.0, 1.98, 2.0, 2.02, False, "slower than proved"),
        (2.0, 1.2, 2.0, 2.4, False, "not settled"),
        (2.0, float("nan"), float("nan"), float("nan"), True, "flat where a rate is proved"),
        (2.0, float("nan"), float("nan"), float("nan"), False, "not measured"),
        ("flat", float("nan"), float("nan"), float("nan"), True, "agrees"),
        ("flat", 1.98, 2.0, 2.02, False, "not flat"),
        (None, 1.98, 2.0, 2.02, False, "no statement"),
    ],
)
def test_how_a_measurement_stands_to_a_theorem(proved, low, value, high, is_flat, verdict):
    row = CoordinateModulus("b", (0,), value, low, high, is_flat, *[()] * 10)
    assert compare(Expected(parameter="b", proved=proved), row) == verdict


COPY = """
title = "A copy"
n_features = 1
n_experts = 2
design = { distance = "l2", inputs = { kind = "box", nodes = 8 } }

[gate]
name = "sigmoid"
options = { normalised = false }
parameters = { weight = [[0.7], [-0.9]], bias = [0.3, -0.2] }

[experts]
name = "linear"
parameters = { weight = [[-1.5], [1.0]], bias = [1.0, -1.0] }

[[groups]]
title = "one too many"
cells = [0, 1, 0]
copy = true
rows = [{ parameter = "gate.weight[2,0]", proved = 1, source = "a paper", note = "It is 0." }]

[groups.fitted_gate]
name = "sigmoid"
options = { normalised = false }
parameters = { weight = [[0.7], [-0.9], [3.0]], bias = [0.3, -0.2, 0.5] }

[groups.fitted_experts]
name = "linear"
parameters = { weight = [[-1.5], [1.0], [0.0]], bias = [1.0, -1.0, 0.0] }
"""


def test_a_copy_that_is_given_is_verified(tmp_path, capsys):
    path = tmp_path / "copy.toml"
    path.write_text(COPY)
    assert main(["theory", "modulus", str(path), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["verdicts"] == ["flat where a rate is proved"]
    witness = group["rows"][0]["witness"]
    assert witness["is_given"]
    assert witness["delta"] == pytest.approx(2.3)
    assert witness["distance"] < 1e-15
    page = tmp_path / "page.html"
    assert main(["theory", "modulus", str(path), "--report", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "given as a copy, and verified" in page.read_text(encoding="utf-8")
    assert "a copy that was given" in shown
    assert "proved of gate.weight[2,0]: exponent 1: flat where a rate is proved (a paper)" in shown


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1.0, -1.0, 0.0]", "[1.0, -1.0, 0.1]", "the fitted mixture is not the truth"),
        ("gate.weight[2,0]", "gate.weight[0,0]", "the copy does not differ from the truth in 'gate.weight[0,0]'"),
        (
            "copy = true",
            'copy = true\nhold = ["experts.weight"]',
            "experts.weight[2,0] is known, and the copy has another",
        ),
        ("cells = [0, 1, 0]", "cells = [0, 0, 0]", "cells must name a true atom"),
    ],
)
def test_what_is_no_copy_is_refused(old, new, message, tmp_path, capsys):
    path = tmp_path / "copy.toml"
    path.write_text(COPY.replace(old, new))
    assert main(["theory", "modulus", str(path)]) == 2
    assert message in capsys.readouterr().err


UNITS = """
[experts]
name = "feed_forward"
options = { hidden = 1, activation = "tanh" }

[experts.parameters]
outer_weight = [[1.5], [-1.0]]
inner_weight = [[[1.2]], [[-0.8]]]
inner_bias = [[0.4], [-0.3]]
"""


def test_what_is_free_is_not_kept_near_the_truth(tmp_path, capsys):
    """Beside a flat coordinate: an output weight of 0 leaves slopes free, where it may be anywhere."""
    changes = {
        'experts = { name = "linear", parameters = { weight = [[-1.5], [1.0]], bias = [1.0, -1.0] } }': "",
        "[[groups]]": f"{UNITS}\n[[groups]]",
        "window": 'locality = { free = ["experts.outer_weight"], reach = 2.0 }, search = { starts = 4 }, window',
        'title = "exact"': 'title = "over"\ncells = [0, 0, 1]',
        "experts.bias[0]": "experts.inner_bias[0,0]",
    }
    text = CASE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "free.toml"
    path.write_text(text)
    assert main(["theory", "modulus", str(path), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["rows"][0]["is_flat"]
    path.write_text(text.replace('experts.outer_weight"]', 'experts.height"]'))
    assert main(["theory", "modulus", str(path)]) == 2
    assert "there is no parameter 'experts.height' to set free" in capsys.readouterr().err
