"""The kept run of upcycling a real model, and what its page says of it."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    """The script that makes the tables, as a module."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("upcycle_tables")
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == ROOT / "benchmarks":
            del sys.modules[name]


@pytest.fixture(scope="module")
def kept(tables):
    return json.loads(tables.KEPT.read_text(encoding="utf-8"))


def test_the_page_has_the_tables_of_the_kept_numbers(tables, kept):
    page = tables.PAGE.read_text(encoding="utf-8")
    for mark, table in tables.tables(kept).items():
        assert f"<!-- {mark} begins -->\n\n{table}\n\n<!-- {mark} ends -->" in page, "benchmarks/upcycle.py --write"


def test_sentences_are_those_of_the_numbers(tables, kept):
    page = " ".join(tables.PAGE.read_text(encoding="utf-8").split())
    after = {cell: kept["cells"][cell]["after"] for cell in tables.CELLS}
    python, english = (tables.paired(after["balanced"][d], after["sparse"][d]) for d in tables.DOMAINS)

    def prose(numbers):
        return [f"{number:+.3f}".replace("0.", ".", 1).replace("-", "−") for number in numbers]

    assert "on Python {} nats a token [{}, {}]".format(*prose(python)) in page
    percent = [f"{100.0 * math.expm1(number):.1f}" for number in python]
    assert "higher by {} % [{}, {}]".format(*percent) in page
    assert "on English {} [{}, {}]".format(*prose(english)) in page
    assert english[1] < 0.0 < english[2]
    low, high = tables.paired(after["balanced"]["python"], after["dense"]["python"])[1:]
    assert low < 0.0 < high
    assert tables.paired(after["balanced"]["english"], after["dense"]["english"])[2] < 0.0
    assert all(tables.paired(after["sparse"][d], after["dense"][d])[2] < 0.0 for d in tables.DOMAINS)
    entropies = {
        cell: [
            (row["before"]["load_entropy"], row["after"]["load_entropy"])
            for row in kept["cells"][cell]["routers"].values()
        ]
        for cell in tables.SPARSE
    }
    assert all(last < first for first, last in entropies["sparse"])
    ends = sorted(f"{last:.3f}".removeprefix("0") for _, last in entropies["balanced"])
    assert f"rises to {ends[0]} to {ends[-1]}" in page
    for cell in tables.SPARSE:
        for row in kept["cells"][cell]["routers"].values():
            assert row["after"]["mutual_information"] > row["before"]["mutual_information"]
            assert row["after"]["dead"] == 0.0


def test_the_dense_model_and_the_sparse_ones_are_one_at_first(tables, kept):
    for cell in tables.SPARSE:
        assert kept["cells"][cell]["difference"] < 1e-4
        for domain in tables.DOMAINS:
            assert kept["cells"][cell]["before"][domain] == pytest.approx(
                kept["cells"]["dense"]["before"][domain], abs=1e-5
            )
    assert "/" not in json.dumps(kept)
