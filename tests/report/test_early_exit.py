"""The page on an evaluation of early exits: every number on it, escaped, the same twice."""

import pytest
import torch

from gatewise.early_exit import EarlyExitModel
from gatewise.early_exit.evaluation import Evaluation, evaluate
from gatewise.report import render_report
from tests.report.pages import Page


def small_evaluation(name="0") -> Evaluation:
    """Of a network of two linear blocks, the first of which may have any name."""
    torch.manual_seed(0)
    backbone = torch.nn.Sequential()
    backbone.add_module(name, torch.nn.Linear(4, 6))
    backbone.add_module("middle", torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(6, 6)))
    backbone.add_module("end", torch.nn.Linear(6, 3))
    y = torch.arange(240) % 3
    x = torch.randn(240, 4) + 1.5 * torch.nn.functional.one_hot(y, 4)
    model = EarlyExitModel(backbone, exits=[0, 1], n_classes=3, example=x[:2])
    model.fit(x[:80], y[:80], x[80:140], y[80:140], lam=[0.1, 1.0], joint=False, warmup_epochs=2)
    chosen = ["jei", "max_prob", "fixed", "oracle"]
    held = (x[140:180], y[140:180])
    return evaluate(model, x[180:], y[180:], policies=chosen, lam=[0.1, 1.0], budgets=[0.6, 1.0], calibration=held)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return small_evaluation()


def test_everything_found_is_on_the_page(evaluation):
    page = Page(render_report(evaluation))
    for result in evaluation.policies.values():
        assert result.name in page.text
        for point in result.points:
            assert f"{100 * point.scores.accuracy:.1f}" in page.text
            assert f"{point.scores.brier:.3f}" in page.text
    for row in evaluation.conformal:
        assert f"{row.size:.2f}" in page.text
    assert evaluation.ece_estimator in page.text
    assert "within 1e-6 of its threshold" in page.text
    assert len(page.figures()) == 3


def test_the_frontier_shows_all_settings(evaluation):
    figure = Page(render_report(evaluation)).figures()["frontier-figure"]
    for trace, result in zip(figure["data"], evaluation.policies.values(), strict=True):
        assert trace["x"] == [point.scores.cost for point in result.points]


def test_names_of_modules_are_escaped_and_nothing_is_loaded():
    nasty = "<script>alert(1)</script>"
    page = Page(render_report(small_evaluation(nasty)))
    assert nasty in page.text
    for tag, attributes in page.tags:
        assert not any(name in ("src", "srcset") for name in attributes), tag


def test_the_same_evaluation_gives_the_same_text(evaluation):
    assert render_report(evaluation) == render_report(evaluation)
