"""What policies choose, against brute force."""

import itertools

import pytest
import torch

from gatewise.early_exit import POLICIES, CostTable, ExitLogits
from gatewise.early_exit.calibration import temperatures
from gatewise.early_exit.costs import unprofitable_exits
from gatewise.early_exit.policies import (
    Aim,
    FixedExit,
    GeometricBudgets,
    MaxProbability,
    OptimalStopping,
    Patience,
    Situation,
)
from gatewise.early_exit.policies.stopping import N_TERMS, _Design, stopping_statistics
from gatewise.exceptions import InputError

TABLE = CostTable((10.0, 10.0, 10.0, 10.0), (0.5, 0.5, 0.5, 0.5), (0.1, 0.1, 0.1, 0.0))


def outputs_of(n=600, n_exits=4, n_classes=5, seed=0):
    """Logits of exits that get better, for samples of different difficulty."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(n_classes, (n,), generator=generator)
    ease = torch.rand(n, 1, 1, generator=generator) * 3
    strength = torch.linspace(0.4, 1.6, n_exits)[None, :, None]
    noise = torch.randn(n, n_exits, n_classes, generator=generator)
    shared = torch.randn(n, 1, n_classes, generator=generator)
    signal = torch.nn.functional.one_hot(y, n_classes)[:, None] * ease * strength
    return ExitLogits(1.5 * signal + 0.5 * noise + 0.5 * shared, y)


@pytest.fixture(scope="module")
def situation():
    return Situation(outputs_of(), TABLE)


@pytest.fixture(scope="module")
def test_outputs():
    return outputs_of(n=2000, seed=1)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("name", ["max_prob", "entropy", "margin", "failure", "geometric", "optimal_stopping", "jei"])
def test_budgets_are_kept_and_used(situation, name, share):
    policy = POLICIES[name].fitted(situation, Aim(budget=share))
    cost = situation.mean_cost(policy.simulate(situation.outputs, TABLE).exit_index, policy.used)
    assert cost <= share + 1e-9
    if name in ("max_prob", "entropy", "margin", "failure"):
        # The next threshold, between the next two of 1,800 scores, would cost more.
        assert cost > share - 2.0 / len(situation.outputs)


def test_the_threshold_of_a_budget_is_the_best_of_all(situation):
    scores = situation.outputs.logits.softmax(-1).max(-1).values.double()
    within = []
    for value in scores[:, :-1].reshape(-1).tolist():
        threshold = value + 1e-12
        fires = scores >= threshold
        fires[:, -1] = True
        exits = (fires.cumsum(1) == 0).sum(1)
        cost = float(TABLE.of(exits).mean())
        if cost <= 0.6:
            within.append(cost)
    policy = MaxProbability.fitted(situation, Aim(budget=0.6))
    found = situation.mean_cost(policy.simulate(situation.outputs, TABLE).exit_index, policy.used)
    assert found == pytest.approx(max(within), abs=1e-9)


def test_thresholds_are_not_observed_values(situation):
    policy = MaxProbability.fitted(situation, Aim(budget=0.6))
    assert policy.threshold not in situation.outputs.logits.softmax(-1).max(-1).values.double()
    geometric = GeometricBudgets.fitted(situation, Aim(setting=1.3))
    scores = situation.outputs.logits.softmax(-1).max(-1).values.double()
    assert not any((scores[:, exit] == geometric.thresholds[exit]).any() for exit in range(3))


def test_geometric_shares_follow_the_ratio(situation):
    policy = GeometricBudgets.fitted(situation, Aim(setting=0.5))
    exits = policy.simulate(situation.outputs, TABLE).exit_index
    shares = torch.bincount(exits, minlength=4) / len(exits)
    expected = 0.5 ** torch.arange(4)
    torch.testing.assert_close(shares, expected / expected.sum(), rtol=0, atol=2.5 / len(exits))


def test_a_lambda_gives_the_smallest_risk_of_all_thresholds(situation):
    policy = MaxProbability.fitted(situation, Aim(lam=0.4))
    scores = situation.outputs.logits.softmax(-1).max(-1).values.double()

    def risk(threshold):
        fires = scores >= threshold
        fires[:, -1] = True
        exits = (fires.cumsum(1) == 0).sum(1)
        return situation.mean_error(exits) + 0.4 * float(TABLE.of(exits).mean())

    every = [risk(value - 1e-9) for value in scores[:, :-1].reshape(-1)[::3].tolist()]
    # 400 of 1,800 thresholds are tried: between two of them lie about four samples of 600.
    assert risk(policy.threshold) <= min(every) + 4 * 1.4 / 600


def test_patience_is_the_definition(test_outputs):
    predictions = test_outputs.logits.argmax(-1).tolist()
    for k in (1, 2):
        exits = Patience(4, k).simulate(test_outputs, TABLE).exit_index.tolist()
        for row, found in zip(predictions, exits, strict=True):
            agree = (exit for exit in range(k, 3) if len(set(row[exit - k : exit + 1])) == 1)
            assert found == next(agree, 3)


def test_stopping_regressions_are_ridge_regressions():
    outputs = outputs_of(n=200)
    statistics = stopping_statistics(outputs.trace([0, 1]))
    fold = torch.arange(200) % 5
    design = _Design(statistics, fold, 5)
    y = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, unseen = design.fit(y)
    z = (statistics.double() - statistics.double().mean(0)) / statistics.double().std(0, correction=0)
    pairs = itertools.combinations_with_replacement(range(7), 2)
    terms = torch.stack([torch.ones(200, dtype=torch.float64), *z.T, *(z[:, i] * z[:, j] for i, j in pairs)], 1)
    assert terms.shape[1] == N_TERMS
    expected = {}
    for size in (3.0, 30.0, 300.0, 3000.0):
        ridge = size * torch.eye(N_TERMS, dtype=torch.float64)
        ridge[0, 0] = 1e-9
        predicted = torch.empty_like(y)
        for k in range(5):
            rest, own = fold != k, fold == k
            beta = torch.linalg.solve(terms[rest].T @ terms[rest] + ridge, terms[rest].T @ y[rest])
            predicted[own] = terms[own] @ beta
        expected[float((y - predicted).square().mean())] = predicted
    # Two ways to solve equations of condition about 1e5 in float64.
    torch.testing.assert_close(unseen, expected[min(expected)], rtol=0, atol=1e-8)


def test_optimal_stopping_is_nearly_the_best_rule_of_its_kind(situation, test_outputs):
    """Its risk on new data is at most that of every threshold, by two standard errors of an error rate."""
    for lam in (0.1, 0.3, 0.8):
        own = OptimalStopping.fitted(situation, Aim(lam=lam))
        other = MaxProbability.fitted(situation, Aim(lam=lam))
        new = Situation(test_outputs, TABLE)
        risks = []
        for policy in (own, other):
            exits = policy.simulate(test_outputs, TABLE).exit_index
            risks.append(new.mean_error(exits) + lam * new.mean_cost(exits, policy.used))
        assert risks[0] <= risks[1] + 2 * (0.25 / 2000) ** 0.5


def test_optimal_stopping_with_free_exits_and_dear_ones(situation):
    leaves = [
        OptimalStopping.fitted(situation, Aim(lam=lam)).simulate(situation.outputs, TABLE).exit_index
        for lam in (0.0, 100.0)
    ]
    assert (leaves[1] == 0).all()
    assert leaves[0].float().mean() > 2.0


@pytest.mark.parametrize("seed", range(5))
def test_unprofitable_exits_by_brute_force(seed):
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(80, 4, generator=generator) < 0.4
    heads = (torch.rand(4, generator=generator) * 12).tolist()
    table = CostTable((10.0, 5.0, 5.0, 5.0), tuple(heads), (0.2, 0.2, 0.2, 0.0))

    def spent(used):
        total = 0.0
        for row in fires.tolist():
            for exit in range(4):
                total += table.blocks[exit]
                if exit in used:
                    total += table.heads[exit] + table.decisions[exit]
                    if row[exit] or exit == 3:
                        break
        return total

    whole = spent([0, 1, 2, 3])
    change = {exit: spent([other for other in range(4) if other != exit]) - whole for exit in range(3)}
    expected = [exit for exit in sorted(change, key=change.__getitem__) if change[exit] < 0]
    assert unprofitable_exits(fires, table, [0, 1, 2, 3]) == expected


def test_an_exit_that_costs_more_than_it_saves_is_named_and_not_used(situation):
    table = CostTable((10.0, 10.0, 0.2, 10.0), (0.5, 9.0, 0.5, 0.5), (0.1, 0.1, 0.1, 0.0))
    for name in ("max_prob", "geometric", "jei", "optimal_stopping", "failure"):
        policy = POLICIES[name].fitted(Situation(situation.outputs, table), Aim(lam=0.3))
        assert 1 in policy.skipped
        assert any("exit 2 costs more than it saves" in remark for remark in policy.remarks)
        assert not (policy.simulate(situation.outputs, table).exit_index == 1).any()


def test_fixed_exits_pay_for_one_head():
    policy = FixedExit(4, 1)
    n = torch.zeros(3, 4, 2)
    assert policy.simulate(ExitLogits(n), TABLE).cost.tolist() == pytest.approx([(20.5 + 0.1) / 40.5] * 3)


def test_temperatures_minimise_the_cross_entropy():
    outputs = outputs_of()
    found = temperatures(outputs)
    grid = torch.exp(torch.linspace(-2, 2, 401))
    for exit in range(4):
        losses = [ExitLogits(outputs.logits[:, [exit]] / t, outputs.y).cross_entropies().mean() for t in grid]
        best = grid[int(torch.stack(losses).argmin())]
        # One step of the grid.
        assert abs(float(found[exit] / best) - 1.0) < 0.011


@pytest.mark.parametrize(
    ("aim", "said"),
    [
        ({}, "one of lam, budget, budget_ms and setting, not none"),
        ({"lam": 0.1, "budget": 0.5}, "not lam and budget"),
        ({"budget": 0.0}, "a share of the network's cost, above 0 and at most 1, not 0.0"),
        ({"budget": 1.5}, "in milliseconds it is budget_ms"),
        ({"lam": -1.0}, "lam must be a number from 0 on"),
    ],
)
def test_impossible_aims(aim, said):
    with pytest.raises(InputError, match=said):
        Aim(**aim)


def test_budgets_that_no_setting_keeps(situation):
    for name in ("max_prob", "geometric", "optimal_stopping", "jei", "patience", "fixed"):
        with pytest.raises(InputError, match=r"and the budget is 0\.1"):
            POLICIES[name].fitted(situation, Aim(budget=0.1))


def test_milliseconds_need_measured_costs(situation):
    with pytest.raises(InputError, match="needs measured costs, and these are multiply-adds"):
        MaxProbability.fitted(situation, Aim(budget_ms=4.0))
    measured = CostTable((1.0,) * 4, (0.1,) * 4, (0.0,) * 4, "milliseconds", 16)
    with pytest.raises(InputError, match=r"the cheapest exit takes 1.1 ms a sample, and budget_ms is 0.5"):
        MaxProbability.fitted(Situation(situation.outputs, measured), Aim(budget_ms=0.5))
    policy = MaxProbability.fitted(Situation(situation.outputs, measured), Aim(budget_ms=2.0))
    assert float(measured.of(policy.simulate(situation.outputs, measured).exit_index).mean()) <= 2.0 / 4.1
