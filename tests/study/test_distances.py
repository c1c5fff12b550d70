"""Distances of functions: closed forms, quadrature, and what the design refuses."""

import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.study import StudyDesign, all_tasks
from gatewise.study.distances import affinity_lost, distance_of
from gatewise.study.models import true_model
from gatewise.study.replicate import Laboratory
from gatewise.study.tables import LossTable
from tests.study.conftest import SMALL

ONE = """
title = "One line"
n_features = 1
covariates = {{ law = "uniform", low = -1.0, high = 1.0 }}
sizes = [40]
replicates = 1
methods = [{{ name = "one", n_experts = 1 }}]
losses = [{{ name = "D1", kind = "D1" }}]

[truth]
n_experts = 1
gate = {{ name = "softmax", parameters = {{ weight = [[0.0]], bias = [0.0] }} }}

[truth.experts]
name = "linear"
parameters = {{ weight = [[{slope}]], bias = [{intercept}], log_scale = [{log_scale}] }}
"""
HELLINGER, L2 = (LossTable(name="distance", kind=kind) for kind in ("hellinger", "l2"))


def line(slope, intercept, log_scale=0.0):
    design = StudyDesign.parse(ONE.format(slope=slope, intercept=intercept, log_scale=log_scale), "one")
    return design, true_model(design)


@pytest.mark.parametrize(
    ("intercept", "log_scale"), [(1e-4, 0.0), (0.3, 0.0), (2.0, 0.0), (0.0, 0.5), (0.5, -1.0), (40.0, 0.0)]
)
def test_hellinger_of_two_normal_laws(intercept, log_scale):
    design, truth = line(0.7, 0.0)
    _, fit = line(0.7, intercept, log_scale)
    scale = math.exp(log_scale)
    total = 1.0 + scale**2
    expected = 1.0 - math.sqrt(2.0 * scale / total) * math.exp(-(intercept**2) / (4.0 * total))
    found = distance_of(design, truth, HELLINGER)(fit)
    # 20,000 draws of a square whose standard deviation is less than twice its mean: 1.5 % at one standard error.
    assert found**2 == pytest.approx(expected, rel=0.06)


def test_hellinger_of_two_mixtures_is_the_integral():
    design = StudyDesign.parse(SMALL, "small")
    truth = true_model(design)
    other = StudyDesign.parse(SMALL.replace("-2.0", "-1.4").replace("-1.5, -1.2", "-1.3, -1.0"), "other")
    fit = true_model(other)
    x = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64).reshape(-1, 1, 1).expand(-1, 2001, -1)
    y = torch.linspace(-6.0, 8.0, 2001, dtype=torch.float64).expand(1000, -1)
    with torch.no_grad():
        roots = [(model.log_prob(x, y) / 2.0).exp() for model in (truth, fit)]
    integral = 0.5 * ((roots[0] - roots[1]) ** 2).sum(1).mean() * (14.0 / 2000)
    assert distance_of(design, truth, HELLINGER)(fit) ** 2 == pytest.approx(float(integral), rel=0.06)


@pytest.mark.parametrize("table", [HELLINGER, L2], ids=["hellinger", "l2"])
def test_the_truth_and_its_permutations_are_at_distance_zero(table):
    design = StudyDesign.parse(SMALL, "small")
    truth = true_model(design)
    swapped = SMALL.replace("[[3.0], [0.0]], bias = [-1.5, 0.0]", "[[0.0], [3.0]], bias = [0.0, -1.5]")
    swapped = swapped.replace("[[-2.0], [2.0]], bias = [1.0, 0.0]", "[[2.0], [-2.0]], bias = [0.0, 1.0]")
    fit = true_model(StudyDesign.parse(swapped.replace("[-1.5, -1.2]", "[-1.2, -1.5]"), "swapped"))
    distance = distance_of(design, truth, table)
    assert distance(truth) == 0.0
    assert distance(fit) < 1e-14


def test_l2_of_two_lines():
    design, truth = line(0.7, 0.0)
    _, fit = line(1.3, 0.2)
    # E (0.6 x + 0.2)² = 0.36 / 3 + 0.04 for x uniform on [−1, 1]; 10,000 points.
    assert distance_of(design, truth, L2)(fit) ** 2 == pytest.approx(0.16, rel=0.04)


def test_lost_affinity_has_no_cancellation_and_no_overflow():
    t = torch.tensor([-math.inf, -800.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 800.0, math.inf], dtype=torch.float64)
    expected = [1.0, 1.0, 1 - 1 / math.cosh(0.5), 1.25e-19, 0.0, 1.25e-19, 1 - 1 / math.cosh(0.5), 1.0, 1.0]
    np.testing.assert_allclose(affinity_lost(t).numpy(), expected, rtol=1e-8)


def test_rows_have_the_distances():
    text = SMALL + '\n[[losses]]\nname = "density"\nkind = "hellinger"\n\n[[losses]]\nname = "mean"\nkind = "l2"\n'
    laboratory = Laboratory(StudyDesign.parse(text, "small"))
    assert laboratory.design.with_plan(sizes=[40, 60, 90]).digest() == laboratory.design.digest()
    tasks = [task for task in all_tasks(laboratory.design) if task.n == 90]
    rows = [laboratory.run(task) for task in tasks]
    assert all(row["error"] == "" for row in rows)
    assert all(0.0 < row["loss.density"] < 0.5 and 0.0 < row["loss.mean"] < 1.0 for row in rows)
    assert rows[0] | {"seconds": 0} == laboratory.run(tasks[0]) | {"seconds": 0}


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ('[{ name = "a", kind = "hellinger" }]', "the first loss must be one between atoms"),
        (
            '[{ name = "a", kind = "D1" }, { name = "b", kind = "l2", r = 2.0 }]',
            'a loss of the kind "l2" takes a name and nothing else',
        ),
    ],
)
def test_refusals(losses, message):
    text = ONE.format(slope=1.0, intercept=0.0, log_scale=0.0).replace('[{ name = "D1", kind = "D1" }]', losses)
    with pytest.raises(InputError, match=message):
        StudyDesign.parse(text, "one")
