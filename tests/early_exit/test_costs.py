"""Multiply-adds against closed forms, measured times against real ones."""

import time

import pytest
import torch
from torch import nn

from gatewise.early_exit import CostTable, EarlyExitModel
from gatewise.exceptions import InputError


def test_multiply_adds_of_convolutions_by_hand(frozen):
    # 8 × 8 places, 3 × 3 windows, channels in and out; then 4 × 4 places.
    expected = (64 * 9 * 1 * 4, 64 * 9 * 4 * 8, 16 * 9 * 8 * 16, 16 * 9 * 16 * 16, 16 * 10)
    assert frozen.costs.blocks == expected
    assert frozen.costs.heads == (4 * 10, 8 * 10, 16 * 10, 16 * 10, 0)
    assert frozen.costs.reference == sum(expected)


def test_multiply_adds_of_an_encoder_by_hand(reader):
    tokens, d, hidden = 12, 16, 32
    layer = 4 * tokens * d * d + 2 * tokens * d * hidden + 2 * tokens * tokens * d
    assert reader.costs.blocks == (layer,) * 4
    assert reader.costs.heads == (d * 3,) * 4


def test_costs_add_up():
    table = CostTable((5.0, 7.0, 11.0), (1.0, 2.0, 3.0), (0.5, 0.25, 0.0))
    assert table.answer([0, 1, 2]) == (6.5, 15.75, 29.75)
    assert table.answer([2]) == (6.5, 14.25, 26.0)
    assert table.relative([2])[-1] == 1.0
    assert table.of(torch.tensor([2, 0]), [0, 1, 2]).tolist() == pytest.approx([29.75 / 26, 6.5 / 26])
    with pytest.raises(InputError, match="counted, not measured"):
        table.predicted_milliseconds(torch.tensor([0]), 1)


def heavy(width=96, depth=5):
    torch.manual_seed(0)
    first = nn.Conv2d(1, width, 3, padding=1)
    return nn.Sequential(
        first, *(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(depth))
    )


def test_measured_times_predict_real_ones():
    """Within 25 % on whatever machine runs the tests; the benchmark holds the 10 % on a quiet one."""
    torch.manual_seed(0)
    x, y = torch.randn(192, 1, 14, 14), torch.arange(192) % 3
    model = EarlyExitModel(heavy(24), exits=[1, 2, 3, 4, 5], n_classes=3, example=x[:2])
    model.fit(x, y, x, y, lam=0.1, joint=False, warmup_epochs=2)
    model.set_policy("max_prob", setting=float(model.all_logits(x).statistics[:, :-1, 0].quantile(0.6)))
    exits = model.simulate(x).exit_index
    assert len(exits.unique()) > 2
    ratios = []
    for _ in range(3):
        costs = model.measure_costs(x[:64], repeats=3, clock="cpu")
        begun = time.process_time()
        for _ in range(2):
            for batch in x.split(64):
                model.infer(batch)
        spent = (time.process_time() - begun) * 1000.0 / 2
        ratios.append(costs.predicted_milliseconds(exits, 64, model.policy.used) / spent)
    assert sorted(ratios)[1] == pytest.approx(1.0, abs=0.25)
    assert costs.unit == "milliseconds"


def test_measured_costs_serve_budgets_in_milliseconds(frozen, digits):
    x = digits["test"][0]
    before = frozen.costs
    try:
        costs = frozen.measure_costs(x[:32], repeats=2, clock="cpu")
        most = costs.answer()[-1]
        frozen.set_policy("max_prob", budget_ms=most * 0.9)
        used = frozen.policy.used
        val = frozen.sweep.warm_up.validation
        mean = float(costs.of(frozen.simulate(val).exit_index, used).mean()) * costs.reference
        assert mean <= most * 0.9 + 1e-9
        with pytest.raises(InputError, match="the cheapest exit takes"):
            frozen.set_policy("max_prob", budget_ms=1e-6)
        with pytest.raises(InputError, match="batch_size must be a whole number from 1 on, not 0"):
            frozen.measure_costs(x, 0)
        with pytest.raises(InputError, match="clock must be one of"):
            frozen.measure_costs(x, clock="sun")
    finally:
        frozen.costs = before
