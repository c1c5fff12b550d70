"""One task: its data, its fit, its row."""

import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.study import Laboratory, StudyDesign, Task
from gatewise.study.measures import anchored, measure_fit, measure_model
from gatewise.study.models import allocation, at_truth, near
from gatewise.study.replicate import UNREPEATABLE
from gatewise.study.simulate import simulate
from gatewise.study.tables import LossTable
from gatewise.theory import MixingMeasure, voronoi_loss


def plain(row):
    return {name: value for name, value in row.items() if name not in UNREPEATABLE}


def test_methods_share_data_and_replicates_do_not(design):
    laboratory = Laboratory(design)
    first = simulate(design, laboratory.truth, 40, 0)
    np.testing.assert_array_equal(first[1], simulate(design, laboratory.truth, 40, 0)[1])
    assert not np.array_equal(first[1], simulate(design, laboratory.truth, 40, 1)[1])
    rows = [laboratory.run(Task(name, 40, 0)) for name in ("exact", "over")]
    assert rows[0]["true_objective"] == rows[1]["true_objective"]


def test_a_row_does_not_depend_on_what_ran_before(design):
    one, other = Laboratory(design), Laboratory(design)
    for task in (Task("exact", 60, 2), Task("over", 90, 1)):
        one.run(task)
    assert plain(one.run(Task("over", 40, 3))) == plain(other.run(Task("over", 40, 3)))


def test_the_row_of_an_exact_fit(design):
    laboratory = Laboratory(design)
    row = laboratory.run(Task("exact", 90, 0))
    assert (row["key"], row["status"], row["error"], row["cells"]) == ("exact/90/0", "CONVERGED", "", "1,1")
    assert row["objective"] >= row["true_objective"]
    assert row["below_truth"] is False
    assert {name for name in row if name.startswith("exact.")} >= {"exact.weight", "exact.gate_slope", "exact.variance"}
    assert not any(name.startswith("over.") for name in row)
    x, y = simulate(design, laboratory.truth, 90, 0)
    log_prob = laboratory.truth.log_prob(torch.from_numpy(x), torch.from_numpy(y))
    assert row["true_objective"] == pytest.approx(float(log_prob.sum()), rel=1e-13)


def test_an_over_specified_fit_has_a_cell_of_two_and_beats_the_exact_one(design):
    laboratory = Laboratory(design)
    for replicate in range(4):
        over = laboratory.run(Task("over", 90, replicate))
        exact = laboratory.run(Task("exact", 90, replicate))
        assert sorted(over["cells"].split(",")) in (["1", "2"], ["0", "3"])
        assert over["objective"] >= exact["true_objective"]
        assert not any(name.startswith("weighted.") for name in exact)


def test_weighted_measures_are_roots_of_the_terms_of_the_first_loss(design):
    # One true atom, three fitted ones: a cell of three, whose powers in D2 are r̄(3) = 6 and 3.
    true = MixingMeasure(
        [2.0], {"gate_slope": [0.0], "expert_slope": [1.0], "expert_intercept": [0.0], "variance": [1.0]}
    )
    fitted = MixingMeasure(
        [0.5, 1.0, 0.5],
        {
            "gate_slope": [0.0, 0.0, 0.0],
            "expert_slope": [1.2, 1.0, 0.9],
            "expert_intercept": [0.3, -0.1, 0.0],
            "variance": [1.0, 1.0, 1.1],
        },
    )
    found, cells = measure_fit(fitted, true, [LossTable(name="D2", kind="D2", symmetry="none")])
    assert cells == (3,)
    weighted = {name: value for name, value in found.items() if name.startswith("weighted.")}
    assert weighted == pytest.approx(
        {
            "weighted.gate_slope+expert_intercept": (0.5 * 0.3**6 + 1.0 * 0.1**6) ** (1 / 6),
            "weighted.expert_slope+variance": (0.5 * 0.2**3 + 0.5 * (0.1**2 + 0.1**2) ** 1.5) ** (1 / 3),
        },
        rel=1e-12,
    )
    assert found["over.expert_intercept"] == pytest.approx(0.3, rel=1e-15)


def test_fits_that_end_below_the_truth_are_started_again_there(small_text):
    # One iteration from far away is below the truth; the second attempt starts at the truth.
    text = small_text.replace(
        "starts = { near = 1, retries = 1 }",
        "starts = { near = 1, retries = 1, gate_noise = 5.0, expert_noise = 5.0, scale_noise = 2.0 }",
    ).replace("max_iter = 60", "max_iter = 1, em_steps = 0")
    laboratory = Laboratory(StudyDesign.parse(text, "far"))
    row = laboratory.run(Task("over", 90, 0))
    assert row["attempts"] == 2
    assert row["below_truth"] is False
    without = Laboratory(StudyDesign.parse(text.replace("retries = 1", "retries = 0"), "far"))
    stays = without.run(Task("over", 90, 0))
    assert (stays["attempts"], stays["below_truth"]) == (1, True)


def test_a_failure_is_a_row(design, monkeypatch):
    laboratory = Laboratory(design)

    def broken(*arguments, **options):
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr("gatewise.study.replicate.fit", broken)
    row = laboratory.run(Task("exact", 40, 0))
    assert plain(row) == {
        "key": "exact/40/0",
        "method": "exact",
        "n": 40,
        "replicate": 0,
        "status": "FAILED",
        "error": "LinAlgError: singular",
    }


def test_the_box_is_counted_and_not_imposed(small_text):
    text = small_text.replace("seed = 7", 'seed = 7\nbox = { "experts.bias" = [-0.5, 0.5], "gate.bias" = [-99, 99] }')
    rows = [Laboratory(StudyDesign.parse(each, "box")).run(Task("exact", 90, 0)) for each in (small_text, text)]
    assert rows[0]["outside_box"] == 0
    assert rows[1]["outside_box"] == 1  # The intercepts are near 1 and 0.
    assert rows[0]["objective"] == rows[1]["objective"]


def test_least_squares_and_residual_variance(small_text):
    text = small_text.replace("[[methods]]", "residual_variance = 0.04\n\n[[methods]]", 1)
    few = 'objective = "least_squares"\noptions = { max_iter = 30 }'
    text = text.replace('name = "exact"', f'name = "exact"\n{few}').replace("D2", "L1")
    text = text.replace('kind = "D1"', 'kind = "L1"').replace(
        'name = "over"', 'name = "over"\nobjective = "least_squares"'
    )
    laboratory = Laboratory(StudyDesign.parse(text, "squares"))
    x, y = simulate(laboratory.design, laboratory.truth, 5000, 0)
    residual = y - laboratory.truth.mean(torch.from_numpy(x)).numpy()
    # The standard error of a variance estimated from 5,000 normal errors is 2 % of it.
    assert residual.var() == pytest.approx(0.04, rel=0.1)
    row = laboratory.run(Task("exact", 90, 1))
    assert row["status"] != "FAILED", row["error"]
    errors = simulate(laboratory.design, laboratory.truth, 90, 1)
    expected = -0.5 * ((errors[1] - laboratory.truth.mean(torch.from_numpy(errors[0])).numpy()) ** 2).sum()
    assert row["true_objective"] == pytest.approx(expected, rel=1e-13)
    assert row["objective"] >= expected


def test_inputs_come_from_the_gate_where_it_is_their_density():
    text = """
title = "Gaussian gate"
n_features = 2
covariates = { law = "gate" }
sizes = [20000]
replicates = 1
methods = [{ name = "joint", n_experts = 2 }]
losses = [{ name = "D2", kind = "gaussian_D2" }]

[truth]
n_experts = 2
experts = { name = "linear" }
gate.name = "gaussian"
gate.parameters = { log_weight = [-0.3566749439387324, -1.2039728043259361], centre = [[1.0, 0.0], [-2.0, 1.0]] }
"""
    laboratory = Laboratory(StudyDesign.parse(text, "gate"))
    x, _ = simulate(laboratory.design, laboratory.truth, 20000, 0)
    centre = laboratory.truth.gate.atoms()["gate_centre"].numpy()
    # Weights 0.7 and 0.3; four standard errors of a mean of 20,000 are about 0.05.
    np.testing.assert_allclose(x.mean(axis=0), 0.7 * centre[0] + 0.3 * centre[1], atol=0.05)


@pytest.mark.parametrize("share", [True, False])
def test_starts_at_the_truth(small_text, share):
    text = small_text.replace("retries = 1 }", f"retries = 1, share_weight = {str(share).lower()} }}")
    laboratory = Laboratory(StudyDesign.parse(text, "small"))
    method = laboratory.design.method("over")
    model = at_truth(laboratory.design, laboratory.truth, method, [0, 0, 1])
    x = torch.linspace(0.0, 1.0, 50, dtype=torch.float64)[:, None]
    y = torch.linspace(-1.0, 2.0, 50, dtype=torch.float64)
    same = torch.allclose(model.log_prob(x, y), laboratory.truth.log_prob(x, y), rtol=1e-12, atol=1e-12)
    assert same is share
    moved = near(model, method.starts, {"gate.bias": np.array([True, False, False])}, 100, np.random.default_rng(0))
    assert moved.gate.bias[0].item() == model.gate.bias[0].item()
    assert moved.gate.bias[1].item() != model.gate.bias[1].item()
    step = (moved.experts.weight - model.experts.weight).abs().max().item()
    assert 0.0 < step < 5.0 * 0.05 * 100**-0.083


def test_allocations_reach_every_true_atom_and_keep_the_last():
    generator = np.random.default_rng(0)
    found = {tuple(allocation(2, 4, generator)) for _ in range(200)}
    assert all(set(cells) == {0, 1} and cells[-1] == 1 for cells in found)
    assert len(found) == 7  # Three places for 0 and 1, not all of them 1.
    assert allocation(3, 3, generator) == [0, 1, 2]


def test_measures_are_those_of_the_losses(design):
    truth = Laboratory(design).true_measure
    moved = truth.with_parameters({"expert_intercept": truth.parameters["expert_intercept"] + [0.1, 0.0]})
    found, cells = measure_fit(moved, truth, design.losses)
    assert cells == (1, 1)
    assert found["loss.D1"] == voronoi_loss(moved, truth, "D1", symmetry="estimate").value
    assert found["exact.expert_intercept"] == pytest.approx(0.1, abs=1e-12)
    assert found["exact.variance"] == pytest.approx(0.0, abs=1e-12)


def test_biases_whose_exponentials_are_no_numbers(design):
    laboratory = Laboratory(design)
    far = at_truth(design, laboratory.truth, design.method("exact"), [0, 1])
    with torch.no_grad():
        far.gate.bias.copy_(torch.tensor([6000.0, 0.0]))
    infimum = design.losses[1].model_copy(update={"name": "infimum", "symmetry": "infimum"})
    found, cells = measure_model(far, laboratory.true_measure, [design.losses[0], infimum])
    assert cells == (1, 1)
    assert "loss.infimum" not in found
    # One expert has all the weight: the weight of the other true one is missing.
    assert found["loss.D1"] == pytest.approx(laboratory.true_measure.weights[1], rel=1e-9)
    with pytest.raises(InputError, match="whose exponential is no number"):
        measure_model(far, laboratory.true_measure, [infimum])


def test_anchoring_compares_as_if_the_last_gate_were_known(design):
    truth = Laboratory(design).true_measure
    copy = truth.translated(bias=2.0, gate_slope=-3.0).permuted([1, 0])
    assert voronoi_loss(anchored(copy, truth), truth, "D1", symmetry="none").value == pytest.approx(0.0, abs=1e-13)
    # A duplicate of the last atom, each with half its weight: the infimum finds the truth, anchoring stalls.
    double = MixingMeasure(
        [*truth.weights[:1], 0.5 * truth.weights[1], 0.5 * truth.weights[1]],
        {name: value[[0, 1, 1]] for name, value in truth.parameters.items()},
    )
    assert voronoi_loss(double, truth, "D2", symmetry="estimate").value == pytest.approx(0.0, abs=1e-12)
    stalled = voronoi_loss(anchored(double, truth), truth, "D2", symmetry="none").value
    assert stalled == pytest.approx(truth.weights[0] + truth.weights[1], rel=1e-9)


def test_descent_ends_where_its_epochs_end(small_text):
    text = small_text.replace('name = "exact"', 'name = "exact"\ndescent = { epochs = 2, rate = 0.05, batch = 16 }')
    laboratory = Laboratory(StudyDesign.parse(text, "descent"))
    row = laboratory.run(Task("exact", 90, 0))
    assert (row["status"], row["attempts"], row["starts"]) == ("DESCENT", 1, 1)
    assert math.isfinite(row["objective"])
    assert plain(row) == plain(laboratory.run(Task("exact", 90, 0)))
    start = Laboratory(StudyDesign.parse(text.replace("epochs = 2", "epochs = 0"), "start")).run(Task("exact", 90, 0))
    assert start["status"] == "START"
    assert start["objective"] < row["objective"]
    wild = Laboratory(StudyDesign.parse(text.replace("rate = 0.05", "rate = 1e9"), "descent"))
    failed = wild.run(Task("exact", 90, 0))
    assert failed["status"] == "FAILED"
    assert "take a smaller rate" in failed["error"]
