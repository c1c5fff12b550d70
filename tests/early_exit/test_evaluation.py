"""Scores by loops, intervals, conformal sets within their band, drift, and the evaluation as a whole."""

import math

import numpy as np
import pytest
import torch

from gatewise.early_exit import POLICIES, ExitLogits
from gatewise.early_exit.evaluation import (
    ConformalExits,
    Frontier,
    compare,
    coverage_band,
    evaluate,
    exit_drift,
    expected_calibration_error,
    scores_of,
)
from gatewise.early_exit.outputs import EarlyExitOutput
from gatewise.early_exit.policies import MaxProbability, OptimalStopping
from gatewise.exceptions import InputError
from tests.early_exit.test_policies import TABLE, outputs_of


def output_of(logits):
    n = len(logits)
    return EarlyExitOutput(logits, torch.zeros(n, dtype=torch.long), torch.ones(n), torch.zeros(n, dtype=torch.bool))


def test_scores_by_loops():
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(203, 4, generator=generator), torch.randint(4, (203,), generator=generator)
    found = scores_of(output_of(logits), y)
    p = logits.double().softmax(1).tolist()
    brier = log_loss = bias = right = 0.0
    rows = []
    for row, label in zip(p, y.tolist(), strict=True):
        brier += sum((value - (c == label)) ** 2 for c, value in enumerate(row))
        log_loss -= math.log(row[label])
        hit = row.index(max(row)) == label
        bias += max(row) - hit
        right += hit
        rows.append((max(row), hit))
    assert found.brier == pytest.approx(brier / 203)
    assert found.log_loss == pytest.approx(log_loss / 203)
    assert found.bias == pytest.approx(bias / 203)
    assert found.accuracy == pytest.approx(right / 203)
    rows.sort(key=lambda row: row[0])
    bins, start, total = [14] * 8 + [13] * 7, 0, 0.0
    for size in bins:
        part = rows[start : start + size]
        total += size / 203 * abs(sum(c for c, _ in part) / size - sum(h for _, h in part) / size)
        start += size
    assert found.ece == pytest.approx(total)


def test_the_mean_over_batches_is_larger_than_the_pooled_error():
    """Why the estimator has a name."""
    generator = torch.Generator().manual_seed(1)
    confidence = 0.5 + 0.5 * torch.rand(2000, generator=generator)
    correct = torch.rand(2000, generator=generator) < confidence
    pooled = expected_calibration_error(confidence, correct)
    batches = [expected_calibration_error(c, h) for c, h in zip(confidence.split(64), correct.split(64), strict=True)]
    assert pooled < 0.04 < 0.1 < np.mean(batches)


def test_paired_intervals_cover_the_difference():
    """Of 60 intervals of 95 % for a known difference at least 48 hold it; 57 are expected."""
    rng = np.random.default_rng(0)
    held = 0
    for draw in range(60):
        base = rng.random((3, 400)) < 0.8
        better = base | (rng.random((3, 400)) < 0.2)
        cost = np.full((1, 400), 0.5)
        first = [Frontier("a", row[None], cost) for row in better]
        second = [Frontier("b", row[None], cost) for row in base]
        (found,) = compare(first, second, costs=[0.5], n_draws=200, seed=draw)
        held += found.low <= 0.2 * 0.2 <= found.high
    assert held >= 48


def test_equal_policies_are_undecided_and_missing_costs_unknown():
    right = np.random.default_rng(0).random((2, 300)) < 0.7
    cost = np.stack([np.full(300, 0.3), np.full(300, 0.6)])
    same = [Frontier("a", right, cost)]
    inside, outside = compare(same, same, costs=[0.45, 0.2], n_draws=50)
    assert (inside.estimate, inside.verdict) == (0.0, "undecided")
    assert outside.verdict == "unknown"
    assert same[0].at(0.9) == right[1].mean()
    with pytest.raises(InputError, match="1 frontiers of the first policy and 2 of the second"):
        compare(same, [*same, *same])


def test_the_band_is_that_of_simulated_coverage():
    rng = np.random.default_rng(0)
    m, n, alpha = 60, 80, 0.1
    draws = []
    for _ in range(4000):
        scores = rng.random(m)
        threshold = np.sort(scores)[math.ceil((m + 1) * (1 - alpha)) - 1]
        draws.append((rng.random(n) <= threshold).mean())
    low, high = coverage_band(n, m, alpha, level=0.9)
    below, above = np.mean(np.array(draws) < low), np.mean(np.array(draws) > high)
    # Each tail has at most 5 %, and would have more with the next count; 4,000 draws have a standard error of 0.34 %.
    assert below < 0.05 + 0.012
    assert above < 0.05 + 0.012
    assert np.mean(np.array(draws) < low + 1 / n) > 0.05 - 0.012


@pytest.mark.parametrize("kind", [MaxProbability, OptimalStopping])
def test_promised_coverage_lies_in_its_band(kind):
    """Policies were fitted to other data, so that calibration data chose nothing; checked for all and at each exit."""
    from gatewise.early_exit.policies import Aim, Situation

    policy = kind.fitted(Situation(outputs_of(seed=3), TABLE), Aim(budget=0.6))
    calibration, test = outputs_of(n=800, seed=4), outputs_of(n=1500, seed=5)
    leaves = policy.simulate(calibration, TABLE).exit_index
    answered = policy.simulate(test, TABLE)
    pooled = ConformalExits.fit(calibration, leaves, 0.1, "pooled")
    covered = pooled.covered(answered.logits, answered.exit_index, test.labels())
    low, high = coverage_band(1500, 800, 0.1, 0.999)
    assert low <= float(covered.double().mean()) <= high
    strict = ConformalExits.fit(calibration, leaves, 0.1, "strict")
    covered = strict.covered(answered.logits, answered.exit_index, test.labels())
    assert sum(strict.promises) >= 3
    for exit in range(4):
        own = answered.exit_index == exit
        if strict.promises[exit] and own.any():
            low, high = coverage_band(int(own.sum()), strict.counts[exit], 0.1, 0.999)
            assert low <= float(covered[own].double().mean()) <= high
    assert not any(ConformalExits.fit(calibration, leaves, 0.1, "per_exit").promises)


def test_few_calibration_samples_give_all_classes():
    outputs = ExitLogits(torch.randn(5, 2, 3), torch.zeros(5, dtype=torch.long))
    conformal = ConformalExits.fit(outputs, torch.zeros(5, dtype=torch.long), 0.05)
    assert conformal.sets(outputs.logits[:, 0], torch.zeros(5, dtype=torch.long)).all()
    assert coverage_band(10, 5, 0.05, 0.999) == (1.0, 1.0)


def test_drift_is_seen_where_there_is_one():
    rng = np.random.default_rng(0)
    same = [torch.tensor(rng.choice(3, 500, p=[0.5, 0.3, 0.2])) for _ in range(2)]
    other = torch.tensor(rng.choice(3, 500, p=[0.3, 0.3, 0.4]))
    assert exit_drift(*same, 3).p_value > 0.01
    found = exit_drift(same[0], other, 3)
    assert found.p_value < 0.001
    assert found.distance == pytest.approx(0.5 * np.abs(np.subtract(found.first, found.second)).sum())


@pytest.fixture(scope="module")
def evaluation(frozen, digits):
    return evaluate(
        frozen, *digits["test"], lam=[0.05, 0.3, 1.0], budgets=[0.4, 0.7], calibration=digits["cal"], alpha=0.1
    )


def test_every_policy_is_evaluated(evaluation, digits):
    assert list(evaluation.policies) == list(POLICIES)
    for name, result in evaluation.policies.items():
        costs = [point.scores.cost for point in result.points]
        assert costs == sorted(costs), name
        assert result.frontier.correct.shape == (len(costs), len(digits["test"][1]))
        for point in result.points:
            assert sum(point.histogram) == pytest.approx(1.0)
    oracle = evaluation.policies["oracle"].points[0].scores
    assert all(oracle.accuracy >= p.scores.accuracy for r in evaluation.policies.values() for p in r.points)
    assert "optimal_stopping" in evaluation.table()
    assert len(evaluation.to_frame()) == sum(len(result.points) for result in evaluation.policies.values())


def test_evaluations_promise_what_they_keep(evaluation):
    rows = [row for row in evaluation.conformal if row.promised]
    assert rows
    assert all(row.low <= row.coverage <= row.high for row in rows)


def test_an_evaluation_leaves_the_model_as_it_was(frozen, digits):
    frozen.set_policy("margin", budget=0.6)
    policy, before = frozen.policy, frozen.infer(digits["test"][0])
    evaluate(frozen, *digits["test"], policies=["jei", "fixed"], calibrate=False)
    assert frozen.policy is policy
    assert torch.equal(frozen.infer(digits["test"][0]).logits, before.logits)


def test_jointly_trained_gates_are_evaluated_at_their_own_lambdas(joint, digits):
    found = evaluate(joint, *digits["test"], policies=["jei"])
    assert sorted(point.setting for point in found.policies["jei"].points) == [0.05, 0.5, 1e9]
