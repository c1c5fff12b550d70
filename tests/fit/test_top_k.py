"""Fits of top-K gates: the dense limit, and the global optimum of a problem small enough to enumerate."""

import numpy as np
import pytest
import torch

from gatewise.fit import FitOptions, fit
from gatewise.model import MixtureOfExperts


def test_all_experts_active_is_the_dense_gate():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 1))
    y = np.where(generator.uniform(size=200) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0])), 1.0, -1.0 - x[:, 0])
    y = y + 0.3 * generator.normal(size=200)
    options = FitOptions(n_starts=2)
    sparse = MixtureOfExperts.build("top_k", "linear", "gaussian", 1, 2, gate_options={"n_active": 2})
    dense = fit(MixtureOfExperts.build("softmax", "linear", "gaussian", 1, 2), x, y, options=options)
    assert fit(sparse, x, y, options=options).log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-8)


def test_one_active_expert_finds_the_best_of_all_boundaries():
    """Two constant experts with one scale on a line: every cut of the sorted inputs, and both orders, enumerated."""
    generator = np.random.default_rng(1)
    x = np.sort(generator.uniform(-1.0, 1.0, 30))
    y = np.where(x > 0.3, 2.0, 0.0) + 0.5 * generator.normal(size=30)
    squares = min(
        np.sum((y[:cut] - y[:cut].mean()) ** 2) + np.sum((y[cut:] - y[cut:].mean()) ** 2) for cut in range(1, 30)
    )
    best = -15.0 * (np.log(2.0 * np.pi * squares / 30.0) + 1.0)
    model = MixtureOfExperts.build(
        "top_k",
        "constant",
        "gaussian",
        1,
        2,
        shared_scale=True,
        gate_options={"n_active": 1, "select_on": "logit"},
    )
    result = fit(model, x[:, None], y, options=FitOptions(n_starts=6))
    assert result.log_likelihood == pytest.approx(best, rel=1e-9)
    weights = result.model.log_weights(torch.from_numpy(x[:, None])).exp().numpy()
    assert np.isin(weights, [0.0, 1.0]).all()
    assert (np.diff(result.trace) >= -1e-12).all()


def test_two_of_three_reach_the_likelihood_of_the_truth():
    truth = MixtureOfExperts.build("top_k", "linear", "gaussian", 2, 3, gate_options={"n_active": 2}).double()
    tensor = torch.tensor
    truth.gate.assign_parameters(
        {
            "inner.weight": tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, 0.0]], dtype=torch.float64),
            "inner.bias": tensor([0.5, -0.3, 0.0], dtype=torch.float64),
        }
    )
    truth.experts.assign_parameters(
        {
            "log_scale": tensor([-1.0, -1.0, -1.0], dtype=torch.float64),
            "weight": tensor([[1.0, -1.0], [-1.0, 0.5], [0.5, 1.5]], dtype=torch.float64),
            "bias": tensor([1.0, -1.0, 0.0], dtype=torch.float64),
        }
    )
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(400, 2)))
    y = truth.sample(x, generator=torch.Generator().manual_seed(0))
    result = fit(truth, x.numpy(), y.numpy(), options=FitOptions(n_starts=4))
    assert result.log_likelihood >= float(truth.log_prob(x, y).detach().sum())
