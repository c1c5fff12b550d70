"""Losses against brute force: all assignments to cells, general optimisers, formulas written a second time."""

import numpy as np
import pytest

from gatewise.theory import voronoi_loss
from gatewise.theory.voronoi import search
from tests.theory import brute_force
from tests.theory.measures import gaussian_linear

NORMS = {
    "D1": brute_force.d1,
    "D2": brute_force.d2,
    "D2_separate": brute_force.d2_separate,
    "D2_sharp": brute_force.d2_sharp,
}
SIDES = {"infimum": "truth", "estimate": "estimate"}


def compare(kind, d, true_k, k, seed, symmetry, top_k=None, near=False):
    generator = np.random.default_rng([seed, d, true_k, k])
    truth, estimate = gaussian_linear(true_k, d, generator), gaussian_linear(k, d, generator)
    if near:
        rows = np.arange(k) % true_k
        noise = {name: 0.2 * generator.normal(size=value[rows].shape) for name, value in truth.parameters.items()}
        estimate = estimate.with_parameters(
            {name: np.abs(truth.parameters[name][rows] + noise[name]) for name in ("variance",)}
            | {name: truth.parameters[name][rows] + noise[name] for name in noise if name != "variance"}
        )
    found = voronoi_loss(estimate, truth, kind, symmetry=symmetry, top_k=top_k)
    pair = brute_force.Pair(estimate, truth, NORMS[kind], SIDES[symmetry], top_k)
    assert found.exact
    assert found.value == pytest.approx(pair.infimum(), rel=1e-8)
    counted = sum(term.value for term in found.terms if term.counted)
    assert counted == pytest.approx(found.value, rel=1e-12)


@pytest.mark.parametrize("symmetry", SIDES)
@pytest.mark.parametrize("kind", NORMS)
def test_one_input(kind, symmetry):
    for seed, near in ((0, False), (1, True)):
        compare(kind, 1, 2, 3, seed, symmetry, near=near)
    compare(kind, 1, 3, 3, 2, symmetry)


@pytest.mark.parametrize("kind", NORMS)
def test_two_inputs(kind):
    compare(kind, 2, 2, 3, 0, "infimum", near=True)


@pytest.mark.parametrize("kind", ["D2_separate", "D2_sharp"])
def test_largest_cells_one_input(kind):
    compare(kind, 1, 3, 3, 1, "infimum", top_k=2, near=True)
    compare(kind, 1, 2, 3, 2, "estimate", top_k=1)


def test_largest_cells_two_inputs():
    compare("D2_separate", 2, 2, 3, 3, "infimum", top_k=1, near=True)
    # The minimum lies where two cells are equal and an atom is about to change its cell.
    compare("D2_separate", 2, 2, 3, 1, "infimum", top_k=1)


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", SIDES)
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(("d", "true_k", "k"), [(1, 2, 4), (1, 3, 4), (2, 2, 4), (2, 3, 4), (3, 2, 3)])
def test_many(kind, symmetry, d, true_k, k):
    for seed in range(3):
        compare(kind, d, true_k, k, seed, symmetry, near=bool(seed % 2))


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", SIDES)
@pytest.mark.parametrize("kind", ["D2_separate", "D2_sharp"])
@pytest.mark.parametrize(
    ("d", "true_k", "k", "top_k"), [(1, 2, 4, 1), (1, 3, 4, 2), (2, 3, 3, 1), (2, 3, 3, 2), (2, 3, 4, 1), (2, 3, 4, 2)]
)
def test_many_largest_cells(symmetry, kind, d, true_k, k, top_k):
    compare(kind, d, true_k, k, 5, symmetry, top_k, near=True)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("symmetry", SIDES)
def test_no_translation_is_better(d, symmetry):
    """A bound from the other side: the loss with the cells of thousands of single translations is never smaller."""
    generator = np.random.default_rng(d)
    truth, estimate = gaussian_linear(3, d, generator), gaussian_linear(5, d, generator)
    for kind, norm in NORMS.items():
        found = voronoi_loss(estimate, truth, kind, symmetry=symmetry)
        pair = brute_force.Pair(estimate, truth, norm, SIDES[symmetry])
        best = found.translation["gate_slope"]
        for width in (2.0, 0.1, 1e-3):
            for t in best + width * generator.normal(size=(150, d)):
                assert pair.at(t) >= found.value * (1.0 - 1e-10)


def test_value_is_attained():
    """At the translation that is reported, or as near to it as one likes, the loss has the value that is reported."""
    generator = np.random.default_rng(7)
    for d in (1, 2):
        truth, estimate = gaussian_linear(2, d, generator), gaussian_linear(4, d, generator)
        found = voronoi_loss(estimate, truth)
        pair = brute_force.Pair(estimate, truth, brute_force.d2)
        around = found.translation["gate_slope"] + 1e-9 * generator.normal(size=(40, d))
        assert min(pair.at(t) for t in around) == pytest.approx(found.value, rel=1e-6)


def test_from_starts_only(monkeypatch):
    """Where there are too many assignments, the search from starts says so, and is right near the truth."""
    for seed in range(4):
        generator = np.random.default_rng(seed)
        truth = gaussian_linear(3, 2, generator)
        rows = np.arange(5) % 3
        moves = {
            name: value[rows] + 0.05 * generator.normal(size=value[rows].shape)
            for name, value in truth.parameters.items()
        }
        estimate = gaussian_linear(5, 2, generator).with_parameters({**moves, "variance": np.abs(moves["variance"])})
        exact = voronoi_loss(estimate, truth)
        with monkeypatch.context() as patch:
            patch.setattr(search, "_MOST_ASSIGNMENTS", 0)
            found = voronoi_loss(estimate, truth)
        assert (exact.exact, found.exact) == (True, False)
        assert found.value == pytest.approx(exact.value, rel=1e-9)


def test_without_symmetry():
    generator = np.random.default_rng(11)
    for d in (1, 3):
        truth, estimate = gaussian_linear(3, d, generator), gaussian_linear(4, d, generator)
        for kind, norm in NORMS.items():
            expected = brute_force.Pair(estimate, truth, norm, "none").at(np.zeros(d))
            found = voronoi_loss(estimate, truth, kind, symmetry="none")
            assert found.value == pytest.approx(expected, rel=1e-13)
            assert found.translation == {}
