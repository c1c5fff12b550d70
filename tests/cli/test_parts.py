"""`gatewise gates`, `gatewise experts`, `gatewise families`: the registries, as a reader needs them."""

import json

import pytest

from gatewise.cli.common import parse_options
from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.gates import GATES

REGISTRIES = {"gates": GATES, "experts": EXPERTS, "families": FAMILIES}


@pytest.mark.parametrize("command", REGISTRIES)
def test_the_lists_are_those_of_the_registries(run, command):
    outcome = run(command)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(REGISTRIES[command])
    for name in REGISTRIES[command]:
        block = lines[lines.index(name) + 1 :]
        assert block[0] == f"  {REGISTRIES[command][name].formula}"
        source = next(line for line in block if line.startswith("  source: "))
        assert source == f"  source: {REGISTRIES[command][name].source}"


@pytest.mark.parametrize("command", REGISTRIES)
def test_as_json(run, command):
    entries = json.loads(run(command, "--json").out)
    assert [entry["name"] for entry in entries] == list(REGISTRIES[command])
    for entry in entries:
        assert set(entry) == {"name", "formula", "options", "source"}
        assert entry["formula"]
        assert entry["source"]


def test_options_and_defaults(run):
    entries = {entry["name"]: entry["options"] for entry in json.loads(run("gates", "--json").out)}
    assert entries["softmax"] == []
    assert entries["cosine"] == [
        {"name": "temperature", "required": False, "default": None},
        {"name": "projection", "required": False, "default": None},
    ]
    families = {entry["name"]: entry["options"] for entry in json.loads(run("families", "--json").out)}
    assert families["categorical"] == [{"name": "n_classes", "required": True, "default": None}]
    text = run("gates").out
    assert "  options: inner=softmax, n_active=1, select_on=slope, inner_options=null\n" in text
    assert "  options: n_classes\n" in run("families").out


def test_values_are_json_or_text():
    texts = ["a=1", "b = 0.5", "c=true", "d=softmax", 'e="2"', "f=[2, 1]", "g={}", "h=NaN", "i=", "j=x=y", "k=null"]
    assert parse_options("--gate-option", texts) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "softmax",
        "e": "2",
        "f": [2, 1],
        "g": {},
        "h": "NaN",
        "i": "",
        "j": "x=y",
        "k": None,
    }
    assert parse_options("--gate-option", None) is None
    assert parse_options("--gate-option", []) is None


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "--gate-option must be written as NAME=VALUE, not 'a'"),
        (["=1"], "--gate-option must be written as NAME=VALUE, not '=1'"),
        (["a=1", "a=2"], "--gate-option gives 'a' twice: give it once"),
    ],
)
def test_options_that_cannot_be_read(texts, message):
    with pytest.raises(InputError, match=message):
        parse_options("--gate-option", texts)
