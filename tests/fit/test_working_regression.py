"""Iteratively reweighted least squares: one step for Gaussians, and the maximum for the other families."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gatewise.families import build_family
from gatewise.fit.working_regression import reweighted_least_squares


@pytest.mark.parametrize(
    ("name", "options", "log_scale"),
    [
        ("gaussian", {}, 0.3),
        ("poisson", {}, None),
        ("bernoulli", {}, None),
        ("binomial", {"trials": 4}, None),
        ("gamma", {}, 0.7),
        ("negative_binomial", {}, 0.4),
        ("categorical", {"n_classes": 3}, None),
    ],
)
def test_the_maximum_is_found(name, options, log_scale):
    generator = np.random.default_rng(6)
    n = 200
    family = build_family(name, **options)
    basis = torch.from_numpy(np.column_stack([np.ones(n), generator.normal(size=(n, 2))]))
    signal = basis.numpy() @ [0.2, 0.5, -0.4]
    y = {
        "gaussian": signal + generator.normal(size=n),
        "bernoulli": (generator.logistic(size=n) < signal).astype(float),
        "binomial": generator.binomial(4, 1.0 / (1.0 + np.exp(-signal))).astype(float),
        "gamma": generator.gamma(2.0, np.exp(signal) / 2.0),
        "categorical": generator.integers(0, 3, n).astype(float),
    }.get(name, generator.poisson(np.exp(signal)).astype(float))
    target = torch.from_numpy(y)
    weight = torch.from_numpy(generator.uniform(0.0, 2.0, n))
    scale = torch.empty(0, dtype=torch.float64) if log_scale is None else torch.tensor(log_scale, dtype=torch.float64)
    offset = torch.zeros(n, dtype=torch.float64)
    shape = (2, 3) if name == "categorical" else (3,)
    found = reweighted_least_squares(
        family, basis, target, weight, torch.zeros(shape, dtype=torch.float64), scale, offset
    )

    def loss(flat):
        coefficients = torch.tensor(flat.reshape(-1, 3), requires_grad=True)
        location = basis @ coefficients.T
        location = location if name != "categorical" else location.unsqueeze(-2)
        density = family.log_density(target, location, scale.unsqueeze(0)).squeeze(-1)
        value = -(weight * density).sum()
        value.backward()
        return value.item(), coefficients.grad.numpy().ravel()

    value, gradient = loss(found.numpy().ravel())
    assert np.abs(gradient).max() < 1e-3 * n
    reference = minimize(loss, np.zeros(found.numel()), jac=True, method="BFGS", options={"gtol": 1e-8})
    assert value <= reference.fun + 1e-5 * abs(reference.fun)


def test_the_offset_is_added():
    generator = np.random.default_rng(2)
    basis = torch.ones(50, 1, dtype=torch.float64)
    offset = torch.from_numpy(generator.normal(size=50))
    y = torch.from_numpy(generator.poisson(3.0 * np.exp(offset.numpy())).astype(float))
    one = torch.ones(50, dtype=torch.float64)
    empty = torch.empty(0, dtype=torch.float64)
    found = reweighted_least_squares(
        build_family("poisson"), basis, y, one, torch.zeros(1, dtype=torch.float64), empty, offset
    )
    assert found.item() == pytest.approx(float(torch.log(y.sum() / offset.exp().sum())), rel=1e-8)
