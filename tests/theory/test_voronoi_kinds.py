"""Every kind of loss against its formula by hand, and what it refuses."""

from itertools import combinations

import numpy as np
import pytest

from gatewise.exceptions import InputError
from gatewise.theory import MixingMeasure, loss_kinds, voronoi_loss
from tests.theory.measures import gaussian_linear, split

# One fitted atom near the first true one, two near the second. Differences are chosen so that powers are easy.
WEIGHTS, TRUE_WEIGHTS = np.array([2.0, 0.5, 0.25]), np.array([1.5, 1.0])
MASS = 0.5 + 0.25
STEP = {"slope": 0.1, "expert": 0.2, "intercept": 0.3, "variance": 0.4}


def pair(gate="softmax", family="gaussian", slope="gate_slope", variance=True, weights=True, **options):
    true = {slope: [[4.0], [0.0]], "expert_slope": [[5.0], [-5.0]], "expert_intercept": [1.0, 2.0]}
    mine = {
        slope: [[4.1], [0.1], [-0.1]],
        "expert_slope": [[5.2], [-4.8], [-5.2]],
        "expert_intercept": [1.3, 2.3, 1.7],
    }
    if variance:
        true["variance"], mine["variance"] = [1.0, 2.0], [1.4, 2.4, 1.6]
    more = {"gate": gate, "family": family, **options}
    weights, masses = (WEIGHTS, TRUE_WEIGHTS) if weights else (WEIGHTS / 4.0, TRUE_WEIGHTS / 4.0)
    return MixingMeasure(weights, mine, **more), MixingMeasure(masses, true, **more)


def value(kind, r=None, **options):
    estimate, truth = pair(**options)
    found = voronoi_loss(estimate, truth, kind, r, symmetry="none")
    assert found.cells == ((0,), (1, 2))
    assert sum(term.value for term in found.terms) == pytest.approx(found.value, rel=1e-13)
    return found.value


ALL = np.sqrt(0.1**2 + 0.2**2 + 0.3**2 + 0.4**2)
MISS = abs(2.0 - 1.5) + abs(MASS - 1.0)


def by_hand(single, double, weight=2.0, mass=MASS, miss=MISS):
    return weight * single + mass * double + miss


def test_d1():
    assert value("D1") == pytest.approx(by_hand(ALL, ALL))


def test_d2():
    double = np.hypot(0.1, 0.3) ** 4 + np.hypot(0.2, 0.4) ** 2
    assert value("D2") == pytest.approx(by_hand(ALL, double))
    double = np.hypot(0.1, 0.3) ** 6 + np.hypot(0.2, 0.4) ** 3
    for r in (6, {2: 6.0}, lambda m: 3.0 * m):
        assert value("D2", r) == pytest.approx(by_hand(ALL, double))


def test_separate_and_sharp():
    single = 0.1 + 0.2 + 0.3 + 0.4
    assert value("D2_separate") == pytest.approx(by_hand(single, 0.1**4 + 0.2**2 + 0.3**4 + 0.4**2))
    assert value("D2_sharp") == pytest.approx(by_hand(single, 0.1**2 + 0.2**2 + 0.3**4 + 0.4**2))
    sharp = by_hand(single, 0.1**2 + 0.2**2 + 0.3**6 + 0.4**3)
    assert value("D2_sharp", 6.0) == pytest.approx(sharp)


def test_exponents_by_size():
    generator = np.random.default_rng(0)
    truth = gaussian_linear(1, 1, generator)
    for size, r in ((2, 4.0), (3, 6.0), (4, 8.0), (6, 12.0)):
        index = np.zeros(size, int)
        parts = MixingMeasure(
            np.full(size, truth.weights[0] / size),
            {
                name: array[index] + (0.1 if name == "expert_intercept" else 0.0)
                for name, array in truth.parameters.items()
            },
        )
        found = voronoi_loss(parts, truth, "D2")
        assert found.r == {size: r}
        assert found.value == pytest.approx(truth.weights[0] * 0.1**r, rel=1e-9)


def test_least_squares():
    eta = np.hypot(0.2, 0.3)
    assert value("L1") == pytest.approx(by_hand(0.1 + eta, 0.1**2 + eta**2))
    each = 0.1**3 + 0.2**3 + 0.3**3
    assert value("L2r", 3.0) == pytest.approx(by_hand(each, each))


def test_temperature():
    estimate, truth = pair("dense_to_sparse")
    estimate = estimate.with_parameters({"gate_temperature": [0.5, 0.5, 0.5]})
    truth = truth.with_parameters({"gate_temperature": [0.4, 0.4]})
    each = 0.1**2 + 0.1**2 + 0.2**2 + 0.3**2 + 0.4**2
    raw = voronoi_loss(estimate, truth, "temperature_Dr", 2.0, symmetry="none").value
    assert raw == pytest.approx(by_hand(each, each))
    # Without the scale: β₁/τ is 8.2 of 10, ±0.2 of 0.
    free = voronoi_loss(estimate, truth, "D2_separate", symmetry="none")
    assert free.distances[0, "gate_slope/τ"] == pytest.approx(1.8)
    single, double = 1.8 + 0.2 + 0.3 + 0.4, 0.2**4 + 0.2**2 + 0.3**4 + 0.4**2
    assert free.value == pytest.approx(by_hand(single, double))


def test_temperature_scale_is_flat_in_raw_numbers_only():
    _, truth = pair("dense_to_sparse")
    truth = truth.with_parameters({"gate_temperature": [0.4, 0.4]})
    factor = 1.25
    copy = truth.with_parameters(
        {
            "gate_slope": factor * truth.parameters["gate_slope"],
            "gate_temperature": factor * truth.parameters["gate_temperature"],
        }
    )
    assert voronoi_loss(copy, truth, "D1").value < 1e-15
    raw = voronoi_loss(copy, truth, "temperature_Dr", 1.0)
    assert raw.value == pytest.approx(1.5 * 0.1 + 1.0 * (0.1 + 1.0))
    assert raw.translation["gate_slope"] == pytest.approx([1.0])


def test_activation():
    more = {"options": {"activation": "tanh"}}
    estimate, truth = pair("activation_dense_to_sparse", **more)
    estimate = estimate.with_parameters({"gate_temperature": [0.5, 0.5, 0.5]})
    truth = truth.with_parameters({"gate_temperature": [0.45, 0.45]})
    steps = np.array([0.1, 0.05, 0.2, 0.3, 0.4])
    found = voronoi_loss(estimate, truth, "activation_D2", 6.0, symmetry="none")
    assert found.value == pytest.approx(by_hand(steps.sum(), (steps ** np.array([2, 2, 2, 6, 3])).sum()))
    # A homogeneous activation has its scale divided out.
    relu = [one.with_parameters({}) for one in pair("activation_dense_to_sparse", options={"activation": "cube"})]
    assert voronoi_loss(*relu, "activation_D2", symmetry="none").value > 0.0


def test_laplace():
    options = {"gate": "laplace", "slope": "gate_centre"}
    single = 0.1 + 0.2 + 0.3 + 0.4
    assert value("laplace_D1", **options) == pytest.approx(by_hand(single, single))
    assert value("laplace_D2", **options) == pytest.approx(by_hand(single, 0.1**2 + 0.2**2 + 0.3**4 + 0.4**2))


def test_gaussian_gate_types():
    estimate, truth = pair("gaussian", slope="gate_centre", weights=False)
    estimate = estimate.with_parameters({"gate_covariance": np.array([1.5, 2.5, 1.5]).reshape(3, 1, 1)})
    truth = truth.with_parameters({"gate_covariance": np.array([1.0, 2.0]).reshape(2, 1, 1)})
    single = 0.1 + 0.5 + 0.2 + 0.3 + 0.4

    def expected(slope_power, r):
        double = 0.1**r + 0.5 ** (r / 2) + 0.2**slope_power + 0.3**r + 0.4 ** (r / 2)
        return by_hand(single, double) / 4.0

    # The centre of the second true atom is 0: type II, the slope has r̄/2.
    assert voronoi_loss(estimate, truth, "gaussian_D2", 6.0).value == pytest.approx(expected(3.0, 6.0))
    shifted = [one.with_parameters({"gate_centre": one.parameters["gate_centre"] + 1.0}) for one in (estimate, truth)]
    assert voronoi_loss(*shifted, "gaussian_D2", 6.0).value == pytest.approx(expected(2.0, 6.0))


def test_frobenius_norm():
    true = np.array([[[2.0, 0.3], [0.3, 1.0]]])
    options = {"gate": "gaussian", "experts": "constant"}
    truth = MixingMeasure([1.0], {"gate_centre": [[0.0, 1.0]], "gate_covariance": true}, **options)
    change = np.array([[[0.1, 0.2], [0.2, -0.3]]])
    estimate = truth.with_parameters({"gate_covariance": true + change})
    assert voronoi_loss(estimate, truth, "D1").value == pytest.approx(np.linalg.norm(change[0]))


def test_sigmoid():
    options = {"gate": "sigmoid", "variance": False, "weights": False, "options": {"normalised": False}}
    eta = np.hypot(0.2, 0.3)
    miss = MISS / 4.0
    assert value("sigmoid_D1", **options) == pytest.approx((0.1 + eta) + 2.0 * (0.1**2 + eta**2) + miss)
    bias = [np.log(w / (1.0 - w)) for w in (WEIGHTS[0] / 4.0, TRUE_WEIGHTS[0] / 4.0)]
    each = 0.1**2 + 0.2**2 + 0.3**2
    expected = 3.0 * each + abs(bias[0] - bias[1]) ** 2 + abs(MASS - 1.0) / 4.0
    assert value("sigmoid_D2r", 2.0, **options) == pytest.approx(expected)
    second = [np.log(w / (1.0 - w)) for w in (*WEIGHTS[1:] / 4.0, TRUE_WEIGHTS[1] / 4.0)]
    biases = abs(bias[0] - bias[1]) + abs(second[0] - second[2]) + abs(second[1] - second[2])
    assert value("sigmoid_D3", **options) == pytest.approx(3.0 * (0.1 + eta) + biases)


def test_multinomial():
    true = {
        "gate_slope": [[4.0], [0.0]],
        "expert_slope": [[[5.0], [1.0]], [[-5.0], [2.0]]],
        "expert_intercept": [[1.0, 0.0], [2.0, 0.0]],
    }
    mine = {
        "gate_slope": [[4.1], [0.1], [-0.1]],
        "expert_slope": [[[5.2], [1.3]], [[-4.8], [2.3]], [[-5.2], [1.7]]],
        "expert_intercept": [[1.4, 0.5], [2.4, 0.5], [1.6, -0.5]],
    }
    for gate, prefix in (("softmax", "multinomial_D1"), ("modified_softmax", "multinomial_D3")):
        options = {"family": "categorical", "gate": gate}
        estimate, truth = MixingMeasure(WEIGHTS, mine, **options), MixingMeasure(TRUE_WEIGHTS, true, **options)
        steps = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
        found = voronoi_loss(estimate, truth, prefix, symmetry="none")
        assert found.value == pytest.approx(by_hand(steps.sum(), (steps**2).sum()))
        assert {term.parameter for term in found.terms} >= {"expert_slope[1]", "expert_intercept[0]"}
    options = {"family": "categorical"}
    estimate, truth = MixingMeasure(WEIGHTS, mine, **options), MixingMeasure(TRUE_WEIGHTS, true, **options)
    found = voronoi_loss(estimate, truth, "multinomial_D2r", 4.0, symmetry="none")
    assert found.value == pytest.approx(by_hand((steps**4).sum(), (steps**4).sum()))


def test_cosine_raw_and_quotient():
    """The construction of the lower bound, β₁ⁿ = (1 + 1/n) β₁*: the raw loss is w ‖β₁*/n‖^r, the quotient's 0."""
    slope = np.array([[3.0, 4.0], [1.0, -1.0], [0.5, 2.0]])
    own = {"expert_slope": np.eye(3)[:, :2] * 4.0, "expert_intercept": [0.0, 1.0, 2.0]}
    truth = MixingMeasure([0.5, 2.0, 1.0], {"gate_slope": slope, **own}, gate="cosine")
    longer = slope.copy()
    longer[0] *= 1.01
    estimate = truth.with_parameters({"gate_slope": longer})
    for r in (1.0, 2.0, 5.0):
        assert voronoi_loss(estimate, truth, "cosine_L1r", r).value == pytest.approx(0.5 * 0.05**r)
    assert voronoi_loss(estimate, truth, "cosine_L2").value == pytest.approx(0.5 * 0.05)
    assert voronoi_loss(estimate, truth, "cosine_quotient").value < 1e-15
    parts = split(truth, 0, 0.5, gate_slope=0.1, expert_intercept=0.2)
    expected = 0.25 * (2 * 0.1**2 + 0.2**2)
    assert voronoi_loss(parts, truth, "cosine_L3").value == pytest.approx(expected)


def test_perturbed_cosine_sees_contrasts_only():
    """With τ₁ > 0 one vector added to β/(‖β‖ + τ₁) changes nothing: the paper's loss is positive, the quotient's 0."""
    tau, vector = 0.5, np.array([0.1, -0.05])
    short = np.array([[0.5, 0.2], [-0.3, 0.4]])

    def slopes(points):
        return tau * points / (1.0 - np.linalg.norm(points, axis=1, keepdims=True))

    own = {"expert_slope": [[1.0, 0.0], [0.0, -1.0]], "expert_intercept": [0.0, 1.0]}
    options = {"gate": "perturbed_cosine", "options": {"tau1": tau}}
    truth = MixingMeasure([1.0, 1.0], {"gate_slope": slopes(short), **own}, **options)
    copy = truth.with_parameters({"gate_slope": slopes(short + vector)})
    assert voronoi_loss(copy, truth, "cosine_quotient").value < 1e-14
    assert voronoi_loss(copy, truth, "cosine_L3").value > 0.05


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_largest_cells(top_k):
    generator = np.random.default_rng(3)
    truth, estimate = gaussian_linear(3, 2, generator), gaussian_linear(5, 2, generator)
    every = voronoi_loss(estimate, truth, "D2_separate", symmetry="none")
    cells = [sum(term.value for term in every.terms if term.cell == j) for j in range(3)]
    expected = max(sum(cells[j] for j in subset) for subset in combinations(range(3), top_k))
    found = voronoi_loss(estimate, truth, "D2", top_k=top_k, symmetry="none")
    assert (found.kind, found.value) == ("top_k_D2", pytest.approx(expected))
    assert sum(term.value for term in found.terms if term.counted) == pytest.approx(expected)


def test_tree_by_hand():
    def group(mine, **more):
        return MixingMeasure(mine["weights"], {n: v for n, v in mine.items() if n != "weights"}, **more)

    def whole(weights, slope, groups):
        options = {"outer": "softmax"}
        return MixingMeasure(weights, {"gate_slope": slope}, gate="hierarchical", groups=tuple(groups), options=options)

    true = [
        group({"weights": [1.0, 2.0], "gate_slope": [[3.0], [0.0]], "expert_intercept": [0.0, 5.0]}),
        group({"weights": [1.0], "gate_slope": [[0.0]], "expert_intercept": [9.0]}),
    ]
    mine = [
        group({"weights": [1.5, 2.0], "gate_slope": [[3.1], [0.0]], "expert_intercept": [0.2, 5.0]}),
        group({"weights": [0.5, 0.5], "gate_slope": [[0.1], [-0.1]], "expert_intercept": [9.3, 8.7]}),
    ]
    truth, estimate = whole([2.0, 1.0], [[6.0], [0.0]], true), whole([2.5, 1.0], [[6.0], [0.5]], mine)
    first = 0.5 + 1.5 * (0.1 + 0.2)
    second = 2 * 0.5 * (0.1**2 + 0.3**2)
    expected = 0.5 + 1.0 * 0.5 + 2.5 * first + 1.0 * second
    found = voronoi_loss(estimate, truth, "L3", symmetry="none")
    assert found.value == pytest.approx(expected)
    assert sum(term.value for term in found.terms) == pytest.approx(expected)
    assert found.inner[1, 1].cells == ((0, 1),)
    free = voronoi_loss(estimate, truth, "L3")
    assert sum(term.value for term in free.terms) == pytest.approx(free.value)

    # Within groups a loss like L1; between them all terms are linear: a kink or a change of cells is best.
    inner = np.array([[voronoi_loss(one, other, "L1").value for other in true] for one in mine])
    gaps = np.subtract.outer([6.0, 0.5], [6.0, 0.0])
    weights, masses = estimate.weights, truth.weights

    def at(t):
        labels = np.abs(gaps - t).argmin(1)
        rows = np.arange(2)
        terms = (weights * (np.abs(gaps - t)[rows, labels] + inner[rows, labels])).sum()
        mass = np.bincount(labels, weights, 2)
        return terms + min(np.abs(mass - tau * masses).sum() for tau in mass / masses)

    kinks = [*gaps.ravel(), *(0.5 * gaps.sum(1) + 1e-12), *(0.5 * gaps.sum(1) - 1e-12)]
    assert free.value == pytest.approx(min(map(at, kinks)), rel=1e-9)
    assert free.value < expected


def test_cells_by_experts_alone():
    """Two experts that are alike in (a, b, σ) and not in the gate: only the full cells tell them apart."""
    names = {"expert_slope": [[1.0], [1.2]], "expert_intercept": [0.0, 0.0], "variance": [1.0, 1.0]}
    truth = MixingMeasure([1.0, 1.0], {"gate_slope": [[5.0], [-5.0]], **names})
    swapped = {**names, "expert_slope": [[1.2], [1.0]]}
    estimate = MixingMeasure([1.0, 1.0], {"gate_slope": [[5.0], [-5.0]], **swapped})
    assert voronoi_loss(estimate, truth, "D1", symmetry="none").cells == ((0,), (1,))
    assert voronoi_loss(estimate, truth, "D1", symmetry="none", cells="expert").cells == ((1,), (0,))
    assert voronoi_loss(estimate, truth, "D1", cells="expert").cells == ((1,), (0,))


def test_ties_and_empty_cells():
    own = {"expert_slope": [[0.0], [0.0]], "expert_intercept": [1.0, -1.0], "variance": [1.0, 1.0]}
    truth = MixingMeasure([1.0, 3.0], {"gate_slope": [[0.0], [0.0]], **own})
    middle = {"gate_slope": [[0.0]], "expert_slope": [[0.0]], "expert_intercept": [0.0], "variance": [1.0]}
    found = voronoi_loss(MixingMeasure([2.0], middle), truth, "D1", symmetry="none")
    assert found.cells == ((0,), ())
    assert found.value == pytest.approx(2.0 * 1.0 + abs(2.0 - 1.0) + 3.0)


def test_every_kind_says_where_it_is_from():
    for name, kind in loss_kinds().items():
        assert kind.name == name
        assert kind.formula
        assert kind.status
        assert "arXiv:" in kind.source or "Gatewise" in kind.source


SOFTMAX = gaussian_linear(2, 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("D7", {}, "unknown loss 'D7': choose one of D1"),
        ("laplace_D2", {}, "for the gates laplace, not 'softmax'.*Losses that fit: D1, D2"),
        ("L3", {}, "not nested"),
        ("multinomial_D1", {}, "families categorical"),
        ("gaussian_D2", {}, "joint Gaussian gate"),
        ("sigmoid_D1", {}, "without normalisation"),
        ("cosine_L3", {}, "cosine gates"),
        ("temperature_Dr", {"r": 2.0}, "dense_to_sparse"),
        ("D1", {"r": 2.0}, "no free exponent"),
        ("L2r", {}, "give one number r"),
        ("L2r", {"r": 0.5}, "at least 1"),
        ("D2", {"r": 0.0}, "at least 1"),
        ("top_k_D2", {}, "dense: give top_k"),
        ("D1", {"top_k": 3}, "between 1 and the truth's 2"),
        ("D1", {"symmetry": "all"}, "symmetry must be"),
        ("D1", {"cells": "gate"}, "cells must be"),
    ],
)
def test_refusals(kind, options, message):
    estimate = gaussian_linear(3, 1, np.random.default_rng(1))
    with pytest.raises(InputError, match=message):
        voronoi_loss(estimate, SOFTMAX, kind, **options)


def test_measures_of_different_models_are_refused():
    generator = np.random.default_rng(2)
    with pytest.raises(InputError, match="gate is 'laplace' and the truth's 'softmax'"):
        voronoi_loss(gaussian_linear(2, 1, generator, gate="laplace"), SOFTMAX)
    with pytest.raises(InputError, match="numbers"):
        voronoi_loss(gaussian_linear(2, 2, generator), SOFTMAX)
    one = gaussian_linear(2, 1, generator, gate="perturbed_cosine", options={"tau1": 0.1})
    other = gaussian_linear(2, 1, generator, gate="perturbed_cosine", options={"tau1": 0.2})
    with pytest.raises(InputError, match="has tau1="):
        voronoi_loss(one, other, "cosine_L3")
