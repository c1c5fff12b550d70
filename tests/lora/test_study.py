"""That the study of routers makes its table; what it says of them takes an hour, and is no test."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    specification = importlib.util.spec_from_file_location("adapter_study", BENCHMARKS / "adapter_study.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "adapter_study", module)
    specification.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.UntrainedGateWarning")
def test_the_table_is_made(study):
    little = study.Effort(2, 1, 2, 2)
    cell = study.cell("llama", "mixed", 0, little)
    cells = [cell, {**cell, "seed": 1}]
    text = study.table(cells)
    assert "| llama, mixed, a | phatgoose |" in text
    for router in ("phatgoose per sequence", "Arrow", "uniform", "merged factors", "multitask", "oracle", "single t3"):
        assert any(f"| {router} |" in line and " to " in line for line in text.splitlines()), router
    # The accuracies are shares of answers' tokens.
    assert all(0.0 <= value <= 100.0 for found in cells[0]["accuracy"].values() for value in found.values())
