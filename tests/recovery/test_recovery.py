"""Exact-specified fits find the truth again: every identified quantity, within its standard errors."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from gatewise.gates import GATES
from tests.recovery.__main__ import FIGURES, ROWS, SEEDS
from tests.recovery.recover import images, nearest_image, plausible_range, recover
from tests.recovery.truths import TRUTHS

MOST_ERRORS = 5.0

by_title = pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.title)
# Their tables take ten seconds each; a tree of softmax gates and top-1 of softmax are quick.
DEAR = ("hierarchical, softmax of Laplace", "hierarchical, Laplace of Laplace", "top-K, K = 2, softmax")


def test_every_registered_gate_has_a_truth():
    # The search over the partition of a top-K gate is tested by itself, in tests/fit.
    assert {truth.gate for truth in TRUTHS} | {"top_k"} == set(GATES)
    assert len({truth.title for truth in TRUTHS}) == len(TRUTHS)


@pytest.mark.parametrize(
    "truth",
    [pytest.param(truth, id=truth.title, marks=[pytest.mark.slow] * (truth.title in DEAR)) for truth in TRUTHS],
)
def test_one_small_table(truth):
    """With fewer starts than in the long run."""
    few = dataclasses.replace(truth, n_starts=min(truth.n_starts, truth.quick_starts))
    found = recover(few, truth.quick_rows, seed=0)
    assert found.status in ("CONVERGED", "WEAK_SEARCH")
    assert np.abs(found.z).max() < MOST_ERRORS
    low, high = plausible_range(found.n_parameters)
    assert low < found.gain < high


@by_title
def test_the_kept_figures_of_twenty_tables_of_fifty_thousand_rows(truth):
    """What `python -m tests.recovery` has measured, 90 minutes of processor time."""
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))[truth.title]
    z, gain = np.array(kept["z"]), np.array(kept["gain"])
    assert kept["rows"] == ROWS
    assert kept["statuses"] == ["CONVERGED"]
    assert len(z) == len(gain) == SEEDS
    assert np.abs(z).max() < MOST_ERRORS
    # Likelihood ratios: too large a gain says that the model is wrong or its parameters are miscounted, too small a
    # gain that the maximum is not found.
    low, high = plausible_range(SEEDS * kept["n_parameters"])
    assert low < gain.sum() < high
    # z² has the mean 1. The quantities of one table are correlated, at worst altogether.
    low, high = plausible_range(SEEDS)
    assert low < (z**2).mean(axis=1).sum() < high


@pytest.mark.slow
@by_title
def test_the_kept_figures_are_those_of_the_code_as_it_is(truth):
    """One of the twenty tables again; the kept figures have four decimals, and a fit is exact to more."""
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))[truth.title]
    found = recover(truth, ROWS, seed=0)
    # Six starts and fewer are no search.
    assert found.status in ("CONVERGED", "WEAK_SEARCH")
    assert found.n_parameters == kept["n_parameters"]
    np.testing.assert_allclose(found.z, kept["z"][0], atol=1e-3)
    assert found.gain == pytest.approx(kept["gain"][0], abs=2e-3)


@by_title
def test_the_truth_is_its_own_nearest_image(truth):
    """The discrete symmetries and permutations leave the density as it is, so that choosing among them is fair."""
    model = truth.model()
    experts = model.experts.own_parameters()
    log_scale = experts.pop("log_scale")
    parts = [model.gate.identified(model.gate.own_parameters()), model.experts.identified(experts)]
    if truth.objective == "likelihood":
        parts.append(log_scale.exp())
    whole = np.concatenate([part.numpy() for part in parts])
    np.testing.assert_allclose(nearest_image(model, whole), whole, rtol=1e-12)

    x, _ = truth.simulate(50, seed=1)
    before = model.log_weights(torch.from_numpy(x))
    for order in itertools.permutations(range(truth.n_experts)):
        if not model.gate.allows(order):
            continue
        for image in images(model.gate, model.gate.permute(truth.model().gate.own_parameters(), order)):
            model.gate.assign_parameters(image)
            after = model.log_weights(torch.from_numpy(x))
            np.testing.assert_allclose(after, before[:, list(order)], atol=1e-10)
