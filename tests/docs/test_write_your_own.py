"""The gate of the page "Write your own gate" satisfies what every gate of the package must."""

import runpy

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import GATES
from tests.docs.runner import ROOT, blocks
from tests.gates.helpers import check_all, check_finite, inputs, randomise


@pytest.fixture
def bump_gate(tmp_path, monkeypatch):
    """The class that the page defines, registered for one test."""
    page = (ROOT / "docs" / "gates" / "write-your-own.md").read_text(encoding="utf-8")
    (source,) = (block.body for block in blocks(page) if block.title == "bump_gate.py")
    file = tmp_path / "bump_gate.py"
    file.write_text(source, encoding="utf-8")
    monkeypatch.setattr(GATES, "_classes", dict(GATES._classes))
    return runpy.run_path(str(file))["BumpGate"]


@pytest.mark.parametrize(("d", "k", "power"), [(1, 2, 1.0), (1, 3, 0.7), (3, 2, 2.0), (3, 3, 1.0)])
def test_passes_the_checks_of_every_gate(bump_gate, d, k, power):
    gate = randomise(bump_gate(d, k, power=power))
    check_all(gate, inputs(gate, n=80))


def test_is_finite_at_its_centres_and_far_out(bump_gate):
    check_finite(bump_gate(2, 2), torch.tensor([[0.0, 0.0], [1e6, -1e6]]))


def test_refuses_one_expert_and_powers_that_are_not_positive(bump_gate):
    with pytest.raises(InputError, match="two experts"):
        bump_gate(1, 1)
    with pytest.raises(InputError, match="positive"):
        bump_gate(1, 2, power=0.0)
