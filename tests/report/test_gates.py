import dataclasses

import numpy as np
import pytest

from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import HierarchicalGate, LaplaceGate, SoftmaxGate, TopKGate
from gatewise.model import MixtureOfExperts
from gatewise.report import gates
from gatewise.report.palette import expert_colour


def _named(figure, name):
    found = [trace for trace in figure.data if trace.name == name]
    assert len(found) == 1, f"{len(found)} traces are named {name!r}"
    return found[0]


def test_gate_lines_are_the_gates_probabilities_and_sum_to_one(tone):
    figure = gates.gate_along(tone.evidence, 0)
    lines = [_named(figure, f"Expert {expert + 1}") for expert in range(2)]
    np.testing.assert_allclose(lines[0].y + lines[1].y, 1.0, rtol=1e-12)
    logit = tone.estimator.gate_intercept_[0] + tone.estimator.gate_coef_[0, 0] * lines[0].x
    np.testing.assert_allclose(lines[0].y, 1.0 / (1.0 + np.exp(-logit)), rtol=1e-10)


def test_gate_dots_average_the_responsibilities(tone):
    dots = _named(gates.gate_along(tone.evidence, 0), "Expert 1, mean responsibility")
    assert len(dots.x) == 12
    # 150 rows in 12 groups of 12 or 13: their mean is that of the rows up to the difference of group sizes.
    assert np.mean(dots.y) == pytest.approx(tone.evidence.responsibilities[:, 0].mean(), abs=0.01)
    first = np.argsort(tone.X["stretchratio"].to_numpy(), kind="stable")[:12]
    assert dots.y[0] == pytest.approx(tone.evidence.responsibilities[first, 0].mean(), rel=1e-12)


def test_gates_of_several_features_have_no_dots(npreg):
    names = [trace.name for trace in gates.gate_along(npreg.evidence, 0).data]
    assert names == ["rows", "Expert 1", "Expert 2"]


def test_constant_weights_are_bars(co2):
    bars = gates.gate_constant(co2.evidence).data[0]
    np.testing.assert_allclose(bars.x, co2.estimator.gate_weights(co2.X)[0], rtol=1e-12)
    assert list(bars.y) == ["Expert 1", "Expert 2"]
    assert list(bars.marker.color) == [expert_colour(0), expert_colour(1)]
    assert bars.text[0] == "75.5%"


def test_weights_that_are_no_probabilities_have_their_sum_beside_them(case):
    fitted = case("least squares, unnormalised")
    figure = gates.gate_along(fitted.evidence, 0)
    lines = [_named(figure, f"Expert {expert + 1}") for expert in range(2)]
    np.testing.assert_allclose(_named(figure, "sum of the weights").y, lines[0].y + lines[1].y, rtol=1e-12)
    for trace in lines:
        grid = fitted.X.iloc[:0].reindex(range(len(trace.x)))
        grid["height"] = trace.x
        expert = lines.index(trace)
        np.testing.assert_allclose(trace.y, fitted.estimator.gate_weights(grid)[:, expert], rtol=1e-10)
    low, high = figure.layout.yaxis.range
    assert low < 0.0 < max(_named(figure, "sum of the weights").y) < high
    assert figure.layout.yaxis.tickformat is None
    assert not any("responsibility" in trace.name for trace in figure.data)


def test_a_sparse_gate_has_zeros(case):
    figure = gates.gate_along(case("top_k of one").evidence, 0)
    lines = np.array([_named(figure, f"Expert {expert + 1}").y for expert in range(2)])
    assert set(np.unique(lines)) == {0.0, 1.0}
    np.testing.assert_array_equal(lines.sum(axis=0), 1.0)


def test_the_map_shows_who_leads_and_by_how_much(case):
    fitted = case("quadratic")
    figure = gates.leading_expert(fitted.evidence)
    surface = next(trace for trace in figure.data if trace.type == "heatmap")
    place = (17, 40)
    X = fitted.X.iloc[:1].copy()
    X["height"], X["weight"] = surface.x[place[1]], surface.y[place[0]]
    weights = fitted.estimator.gate_weights(X)[0]
    leader = int(weights.argmax())
    assert surface.customdata[place][0] == leader + 1
    assert surface.customdata[place][1] == pytest.approx(weights.max(), abs=1e-4)
    assert surface.z[place] == pytest.approx(leader + (weights.max() - 0.5) / 0.5, abs=1.5e-3)
    assert (surface.zmin, surface.zmax) == (0, 2)
    # Nowhere may one expert's strength run into the next one's colours.
    assert (np.floor(surface.z) == surface.customdata[..., 0] - 1).all()
    rows = _named(figure, "rows")
    assert (rows.x.min(), rows.x.max()) == (fitted.X["height"].min(), fitted.X["height"].max())


def test_the_tree_sums_its_experts(case):
    fitted = case("hierarchical")
    branches = gates.tree_of(fitted.evidence)
    mean = fitted.estimator.gate_weights(fitted.X).mean(axis=0)
    assert [(branch.name, branch.depth) for branch in branches] == [
        ("Group 1", 0),
        ("Expert 1", 1),
        ("Expert 2", 1),
        ("Expert 3", 0),
    ]
    assert [branch.weight for branch in branches] == pytest.approx([mean[0] + mean[1], *mean], rel=1e-12)
    assert {branch.chosen_by for branch in branches} == {"softmax"}


def test_a_tree_of_trees_numbers_its_groups(case):
    evidence = case("hierarchical").evidence
    inner = HierarchicalGate(SoftmaxGate(2, 2), [LaplaceGate(2, 2), SoftmaxGate(2, 1)])
    gate = TopKGate(HierarchicalGate(SoftmaxGate(2, 2), [SoftmaxGate(2, 1), inner]), 3, select_on="logit")
    model = MixtureOfExperts(gate, LinearExperts(2, 4), Gaussian())
    weights = np.random.default_rng(0).dirichlet(np.ones(4), size=evidence.n_rows)
    reader = dataclasses.replace(evidence.reader, model=model)
    branches = gates.tree_of(dataclasses.replace(evidence, reader=reader, gate_weights=weights))
    assert [(branch.depth, branch.name, branch.chosen_by) for branch in branches] == [
        (0, "Expert 1", "softmax"),
        (0, "Group 2", "softmax"),
        (1, "Group 2.1", "softmax"),
        (2, "Expert 2", "laplace"),
        (2, "Expert 3", "laplace"),
        (1, "Expert 4", "softmax"),
    ]
    mean = weights.mean(axis=0)
    assert branches[1].weight == pytest.approx(mean[1:].sum())
    assert branches[2].weight == pytest.approx(mean[1:3].sum())


def test_other_gates_have_no_tree(case):
    assert gates.tree_of(case("poisson").evidence) == []
