"""`gatewise theory modulus --report`; what else the command does is tested in tests/theory/modulus."""

import json

import pytest

from gatewise.theory.modulus import case as cases

CASE = """
title = "A small one"
n_features = 1
n_experts = 2
gate = { name = "softmax", parameters = { weight = [[1.0], [0.0]], bias = [0.5, 0.0] } }
experts = { name = "linear", parameters = { weight = [[-1.5], [1.0]], bias = [1.0, -1.0] } }
[design]
distance = "l2"
inputs = { kind = "box", nodes = 8 }
window = { largest = 0.1, smallest = 0.01, per_decade = 2 }
search = { starts = 1, polish = 1 }

[[groups]]
title = "exact"
rows = [{ parameter = "experts.bias[0]", proved = 1.0, source = "no paper" }]
"""


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(CASE)
    return path


def test_a_page_is_written_whole_and_not_over_another_file(run, refused, case, tmp_path):
    path = tmp_path / "page.html"
    arguments = ("theory", "modulus", case, "--report", path)
    outcome = run(*arguments)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == str(path)
    page = path.read_bytes()
    assert page.startswith(b"<!DOCTYPE html>")
    assert b"<h1>A small one</h1>" in page
    assert "exists" in refused(*arguments)
    assert path.read_bytes() == page
    assert json.loads(run(*arguments, "--overwrite", "--json").out)["title"] == "A small one"
    assert path.read_bytes() == page
    assert {entry.name for entry in tmp_path.iterdir()} == {"page.html", "small.toml"}


def test_what_cannot_be_written_is_refused_before_measuring(refused, case, tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "run_group", lambda *_, **__: pytest.fail("measured"))
    start = ("theory", "modulus", case, "--report")
    assert "does not exist" in refused(*start, tmp_path / "none" / "page.html")
    assert "a folder has that name" in refused(*start, tmp_path, "--overwrite")
    assert "it exists" in refused(*start, case)


def test_the_help_names_the_report(run):
    text = run("theory", "modulus", "--help").out
    assert "--report" in text
    assert "--overwrite" in text
