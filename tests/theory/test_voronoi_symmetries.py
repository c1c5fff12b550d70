"""Losses are zero on every symmetric copy that a gate declares, and on nothing that changes the weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import HierarchicalGate, LaplaceGate, SoftmaxGate, TopKGate, build_gate
from gatewise.model import MixtureOfExperts
from gatewise.theory import MixingMeasure, voronoi_loss
from tests.theory.measures import published_truth

GATES = [
    ("softmax", 2, 3, {}),
    ("softmax", 1, 3, {}),
    ("modified_softmax", 2, 3, {"transform": "tanh"}),
    ("dense_to_sparse", 2, 3, {}),
    ("dense_to_sparse", 1, 2, {"free_temperature": False, "temperature": 0.5}),
    ("activation_dense_to_sparse", 2, 3, {"activation": "tanh"}),
    ("activation_dense_to_sparse", 2, 2, {"activation": "tanh"}),
    ("activation_dense_to_sparse", 2, 3, {"activation": "relu"}),
    ("activation_dense_to_sparse", 1, 2, {"activation": "relu"}),
    ("activation_dense_to_sparse", 2, 3, {"activation": "cube"}),
    ("activation_dense_to_sparse", 2, 2, {"activation": "cube"}),
    ("activation_dense_to_sparse", 1, 3, {"activation": "cube"}),
    ("activation_dense_to_sparse", 2, 3, {"activation": "identity"}),
    ("activation_dense_to_sparse", 2, 2, {"activation": "cos"}),
    ("cosine", 2, 3, {}),
    ("cosine", 3, 3, {}),
    ("cosine", 4, 3, {}),
    ("cosine", 4, 2, {}),
    ("perturbed_cosine", 2, 3, {}),
    ("perturbed_cosine", 3, 2, {"tau1": 0.0}),
    ("laplace", 2, 3, {}),
    ("laplace", 2, 1, {}),
    ("quadratic", 2, 3, {}),
    ("quadratic", 2, 3, {"monomial": True}),
    ("gaussian", 2, 3, {"joint": False}),
    ("gaussian", 2, 3, {"joint": True}),
    ("gaussian", 2, 2, {"joint": False, "covariance": "diagonal"}),
    ("sigmoid", 2, 3, {}),
]


def randomised(gate, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in gate.parameters():
            value.add_(0.7 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return gate


def clone(part):
    return {name: value.clone() for name, value in part.own_parameters().items()}


def model_of(gate, seed=0):
    experts = randomised(LinearExperts(gate.n_features, gate.n_experts).double(), seed + 100)
    return MixtureOfExperts(gate, experts, Gaussian())


# The cosine gate of four experts has four lengths to search over, and takes as long as all others together.
COPIES = [pytest.param(*case, marks=pytest.mark.slow) if case[:2] == ("cosine", 4) else case for case in GATES]


@pytest.mark.parametrize(("name", "d", "k", "options"), COPIES)
def test_zero_on_declared_copies(name, d, k, options):
    gate = randomised(build_gate(name, d, k, **options).double(), seed=3)
    if name == "activation_dense_to_sparse" and options["activation"] == "relu" and d == 1:
        with torch.no_grad():
            gate.weight.abs_()
    model = model_of(gate)
    truth = MixingMeasure.of(model)
    x = torch.randn(50, d, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    before, own = gate(x).detach(), clone(gate)
    generator = torch.Generator().manual_seed(9)
    for symmetry in gate.symmetries():
        for size in (0.1, 0.6) if symmetry.dimension else (1.0,):
            amount = size * torch.randn(symmetry.dimension, dtype=torch.float64, generator=generator)
            moved = symmetry.act(own, amount)
            if any(torch.isnan(value).any() for value in moved.values()):
                continue
            order = torch.randperm(k, generator=generator).tolist()
            gate.assign_parameters(gate.permute(moved, order))
            model.experts.assign_parameters(model.experts.permute(experts := clone(model.experts), order))
            np.testing.assert_allclose(gate(x).detach(), before[:, order], atol=1e-9)
            copy = MixingMeasure.of(model)
            for side in ("infimum", "estimate"):
                assert voronoi_loss(copy, truth, "D1", symmetry=side).value < 1e-10, (symmetry.name, side)
            gate.assign_parameters(own)
            model.experts.assign_parameters(experts)


@pytest.mark.parametrize(("name", "d", "k", "options"), [case for case in GATES if case[2] > 1])
def test_positive_off_copies(name, d, k, options):
    """A random small change of the gate changes the weights, and so the loss."""
    gate = randomised(build_gate(name, d, k, **options).double(), seed=3)
    model = model_of(gate)
    truth = MixingMeasure.of(model)
    x = torch.randn(50, d, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    before = gate(x).detach().exp()
    randomised(gate, seed=11)
    assert (gate(x).detach().exp() - before).abs().max() > 1e-2
    assert voronoi_loss(MixingMeasure.of(model), truth, "D1").value > 1e-2


def test_far_copies():
    """However far the truth is translated, only rounding is left: the numbers are of the size of the translation."""
    truth = published_truth()
    for far in (1.0, 1e3, 1e6, 1e9):
        copy = truth.translated(bias=np.log10(far), gate_slope=[far]).permuted([1, 0])
        for kind in ("D1", "D2", "D2_sharp", "L1"):
            # The rest is the rounding of the slopes: 25 + far.
            assert voronoi_loss(copy, truth, kind).value <= 1e-15 * far * copy.weights.sum()


def test_anchor_with_a_duplicate_in_its_cell():
    """The trap of three atoms anchored at the last: without the infimum the loss stalls near 1."""
    truth = published_truth()
    stalled, settled = [], []
    for error in (1e-1, 1e-2, 1e-3, 1e-4):
        # The anchor's cell holds atoms 2 and 3. The anchor's bias is 0, so that cell weighs 2 instead of 1.
        anchored = MixingMeasure(
            [2.0 * np.exp(-8.0), 1.0, 1.0],
            {
                "gate_slope": np.array([[25.0], [0.0], [0.0]]) + error * np.array([[1.0], [-1.0], [0.0]]),
                "expert_slope": np.array([[-20.0], [20.0], [20.0]]) + error * np.array([[1.0], [1.0], [-1.0]]),
                "expert_intercept": np.array([15.0, -5.0, -5.0]) + error * np.array([1.0, 1.0, -1.0]),
                "variance": [0.09, 0.16 + error, 0.16],
            },
        )
        stalled.append(voronoi_loss(anchored, truth, "D2", symmetry="none").value)
        settled.append(voronoi_loss(anchored, truth, "D2").value)
    assert min(stalled) > 1.0
    assert stalled[-1] == pytest.approx(1.0, abs=1e-3)
    # In this cell the worst term is (Δa, Δσ) squared and of atom 1, of which the weight is 2e⁻⁸, linear.
    assert settled[-1] < 1e-6
    assert all(later < 0.2 * earlier for earlier, later in pairwise(settled))
    far = voronoi_loss(anchored.translated(gate_slope=[1e4]), truth, "D2")
    assert far.translation["gate_slope"] == pytest.approx(1e4)
    assert far.value == pytest.approx(settled[-1], rel=1e-3)


def tree(seed, sizes=(2, 2), inner=LaplaceGate, outer=SoftmaxGate):
    gate = HierarchicalGate(outer(2, len(sizes)), [inner(2, size) for size in sizes]).double()
    return model_of(randomised(gate, seed), seed)


@pytest.mark.parametrize("inner", [SoftmaxGate, LaplaceGate])
@pytest.mark.parametrize("outer", [SoftmaxGate, LaplaceGate])
def test_trees(outer, inner):
    model = tree(0, (2, 1, 1), inner, outer)
    truth = MixingMeasure.of(model)
    own = clone(model.gate)
    generator = torch.Generator().manual_seed(1)
    for symmetry in model.gate.symmetries():
        moved = symmetry.act(own, torch.randn(symmetry.dimension, dtype=torch.float64, generator=generator))
        model.gate.assign_parameters(moved)
        copy = MixingMeasure.of(model)
        for kind in ("L3", "hierarchical_D2"):
            for side in ("infimum", "estimate"):
                assert voronoi_loss(copy.permuted([2, 0, 1]), truth, kind, symmetry=side).value < 1e-12, symmetry.name
        model.gate.assign_parameters(own)


def test_a_tree_keeps_its_groups():
    """Two experts that change groups are another model, although the set of experts is the same."""
    truth = MixingMeasure.of(tree(0, inner=SoftmaxGate))
    first, second = truth.groups
    names = list(first.parameters)
    mixed = [
        first.with_parameters({n: np.stack([first.parameters[n][0], second.parameters[n][1]]) for n in names}),
        second.with_parameters({n: np.stack([second.parameters[n][0], first.parameters[n][1]]) for n in names}),
    ]
    other = MixingMeasure(
        truth.weights,
        dict(truth.parameters),
        gate="hierarchical",
        options=dict(truth.options),
        groups=tuple(mixed),
    )
    assert voronoi_loss(other, truth, "L3").value > 0.1
    assert voronoi_loss(truth.permuted([1, 0]), truth, "L3").value == 0.0


def test_top_one_biases_are_free():
    """With one active expert chosen without the biases, each bias is without effect, and so is the weight of a cell."""
    gate = randomised(TopKGate(SoftmaxGate(2, 3), n_active=1).double(), seed=1)
    model = model_of(gate)
    truth = MixingMeasure.of(model)
    with torch.no_grad():
        gate.inner.bias.add_(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
        gate.inner.weight.add_(torch.tensor([3.0, -1.0], dtype=torch.float64))
    assert voronoi_loss(MixingMeasure.of(model), truth, "D1").value < 1e-13
    assert voronoi_loss(MixingMeasure.of(model), truth, "D1", symmetry="none").value > 0.1
