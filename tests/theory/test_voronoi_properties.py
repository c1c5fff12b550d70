"""What every loss must be: not negative, zero exactly on the truth's copies, blind to order and to translations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.theory import loss_kinds, voronoi_loss
from tests.theory.measures import gaussian_linear, split

SOFTMAX = ["D1", "D2", "D2_separate", "D2_sharp", "L1", "L2r"]


def exponent(kind):
    return 3.0 if loss_kinds()[kind].uses_r == "r" else None


sizes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(0, 2))
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(SOFTMAX)


def pair(size, seed):
    d, true_k, more = size
    generator = np.random.default_rng(seed)
    return gaussian_linear(true_k + more, d, generator), gaussian_linear(true_k, d, generator), generator


@settings(max_examples=20, deadline=None)
@given(size=sizes, seed=seeds, kind=kinds)
def test_blind_to_order_and_translation(size, seed, kind):
    estimate, truth, generator = pair(size, seed)
    r = exponent(kind)
    value = voronoi_loss(estimate, truth, kind, r).value
    assert value > 0.0
    other = estimate.permuted(generator.permutation(estimate.n_atoms))
    vector = generator.normal(size=size[0])
    assert voronoi_loss(other, truth, kind, r).value == pytest.approx(value, rel=1e-7)
    assert voronoi_loss(other.translated(gate_slope=vector), truth, kind, r).value == pytest.approx(value, rel=1e-7)
    copy = truth.translated(bias=generator.normal(), gate_slope=vector).permuted(generator.permutation(truth.n_atoms))
    assert voronoi_loss(estimate, copy, kind, r).value == pytest.approx(value, rel=1e-7)


@settings(max_examples=20, deadline=None)
@given(size=sizes, seed=seeds, kind=kinds, rise=st.floats(-3.0, 3.0))
def test_scale_of_the_estimate(size, seed, kind, rise):
    """The papers' infimum is multiplied by e^t₀, the infimum over the estimate's copies does not change."""
    estimate, truth, _ = pair(size, seed)
    r = exponent(kind)
    moved = estimate.translated(bias=rise)
    value = voronoi_loss(estimate, truth, kind, r).value
    assert voronoi_loss(moved, truth, kind, r).value == pytest.approx(np.exp(rise) * value, rel=1e-7)
    value = voronoi_loss(estimate, truth, kind, r, symmetry="estimate").value
    assert voronoi_loss(moved, truth, kind, r, symmetry="estimate").value == pytest.approx(value, rel=1e-7)
    # A choice of one copy cannot be better than the best.
    assert value <= voronoi_loss(estimate, truth, kind, r, symmetry="none").value * (1.0 + 1e-12)


@settings(max_examples=15, deadline=None)
@given(size=sizes, seed=seeds, kind=kinds, far=st.floats(-6.0, 6.0))
def test_zero_on_copies(size, seed, kind, far):
    _, truth, generator = pair(size, seed)
    vector = 10.0**far * generator.normal(size=size[0])
    copy = truth.translated(bias=far, gate_slope=vector).permuted(generator.permutation(truth.n_atoms))
    rounding = 1e-15 * (1.0 + np.abs(vector).max()) * copy.weights.sum() * 50.0
    for symmetry in ("infimum", "estimate"):
        assert voronoi_loss(copy, truth, kind, exponent(kind), symmetry=symmetry).value <= rounding


@settings(max_examples=15, deadline=None)
@given(seed=seeds, kind=kinds, share=st.floats(0.05, 0.95))
def test_zero_on_split_atoms(seed, kind, share):
    """An atom in two parts is the same measure."""
    _, truth, generator = pair((1, 2, 0), seed)
    parts = split(truth, int(generator.integers(2)), share)
    assert voronoi_loss(parts, truth, kind, exponent(kind)).value <= 1e-14 * truth.weights.sum()


@settings(max_examples=15, deadline=None)
@given(seed=seeds, kind=st.sampled_from([k for k in SOFTMAX if not k.startswith("L")]))
def test_positive_off_copies(seed, kind):
    """Any single parameter that is moved, but by a translation, shows."""
    _, truth, generator = pair((2, 3, 0), seed)
    for name, value in truth.parameters.items():
        change = np.zeros_like(value)
        change[int(generator.integers(3))] = 0.01
        assert voronoi_loss(truth.with_parameters({name: value + change}), truth, kind).value > 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=seeds, first=st.floats(0.0, 0.1), second=st.floats(0.0, 0.1))
def test_further_is_larger(seed, first, second):
    """Along a line away from the truth, with the cells as they are, the loss without symmetry increases."""
    _, truth, generator = pair((1, 2, 0), seed)
    moves = {name: float(generator.normal()) for name in truth.parameters if name != "variance"}
    low, high = sorted((first, second))
    values = []
    for step in (low, high):
        estimate = split(truth, 0, 0.5, **{name: step * move for name, move in moves.items()})
        values.append(voronoi_loss(estimate, truth, "D2", symmetry="none"))
    if values[0].cells == values[1].cells:
        assert values[0].value <= values[1].value
