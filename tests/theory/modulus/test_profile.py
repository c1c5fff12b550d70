"""The search over the window of δ."""

import numpy as np
import pytest

from gatewise.theory.modulus import ModulusDesign, Search, Window
from gatewise.theory.modulus import profile as searched
from gatewise.theory.modulus.minimise import Minimum
from gatewise.theory.modulus.special import LONG


def test_a_valley_that_ends_lowest_is_followed_though_it_begins_highest(monkeypatch):
    """Of two valleys the low one is plain to see at the largest δ; later only many steps show that it is the lower."""
    design = ModulusDesign(window=Window(largest=0.1, smallest=1e-3, per_decade=2), search=Search(starts=20))
    space = searched.Space(displaced=0, held=(), shares=(1,), groups=(0, 1))

    def slow_in_the_low_valley(objective, start, box, *, steps, tolerance=1e-9, polish=0):
        delta = float(abs(box.low[0]))
        point = box.clip(np.asarray(start, LONG))
        is_low = abs(point[1]) > 1.0
        is_slow = delta < 0.1 and steps == design.search.start_steps
        return Minimum(delta * ((5.0 if is_slow else 0.01) if is_low else 1.0), point)

    class Nothing:
        size, floor = 2, 1e-19

    monkeypatch.setattr(searched, "minimise", slow_in_the_low_valley)
    found = searched.profile(Nothing(), space, design)
    assert found.values == pytest.approx([0.01 * delta for delta in found.deltas])
    assert len(found.deltas) == 5
