"""Least squares on the mixture's mean: against SciPy's own solver, closed forms, and its two covariances."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.inference import Names, quantity_covariance
from gatewise.model import MixtureOfExperts

OPTIONS = FitOptions(n_starts=4, objective="least_squares", max_iter=150)


@pytest.fixture(scope="module")
def table():
    """Two bumps: a feed-forward pair under a softmax gate, which least squares identifies."""
    generator = np.random.default_rng(11)
    x = generator.uniform(-3.0, 3.0, size=(600, 1))
    weight = 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))
    mean = weight * np.tanh(2.0 * x[:, 0] - 2.0) - (1.0 - weight) * 1.5 * np.tanh(x[:, 0] + 2.0)
    return x, mean + 0.05 * generator.normal(size=600)


def test_one_linear_expert_is_ordinary_least_squares():
    generator = np.random.default_rng(1)
    x = 10.0 + 3.0 * generator.normal(size=(80, 2))
    y = 1.0 + x @ [2.0, -1.0] + (0.5 + 0.2 * np.abs(x[:, 0] - 10.0)) * generator.normal(size=80)
    weight = generator.integers(1, 4, 80).astype(float)
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 1)
    result = fit(model, x, y, sample_weight=weight, options=OPTIONS)
    design = np.column_stack([np.ones(80), x])
    gram = (design.T * weight) @ design
    coefficients = np.linalg.solve(gram, (design.T * weight) @ y)
    residual = y - design @ coefficients
    np.testing.assert_allclose(result.coordinates.estimates(result.theta), coefficients, rtol=1e-8)
    assert result.objective == pytest.approx(-0.5 * weight @ residual**2, rel=1e-10)
    variance = weight @ residual**2 / (weight.sum() - 3)
    np.testing.assert_allclose(quantity_covariance(result, "observed"), variance * np.linalg.inv(gram), rtol=1e-6)
    # White (1980), frequencies as weights.
    meat = (design.T * (weight * residual**2)) @ design
    sandwich = np.linalg.inv(gram) @ meat @ np.linalg.inv(gram)
    np.testing.assert_allclose(quantity_covariance(result), sandwich, rtol=1e-6)
    assert np.isnan(result.log_likelihood)
    assert result.kind == "least_squares"
    assert not result.scale.size


def test_a_mixture_reaches_what_scipy_reaches_from_the_same_point(table):
    x, y = table
    bank = {"hidden": 1, "activation": "tanh"}
    model = MixtureOfExperts.build("softmax", "feed_forward", "gaussian", 1, 2, expert_options=bank)
    result = fit(model, x, y, options=OPTIONS)
    assert result.status is FitStatus.WEAK_SEARCH
    fitted = result.model
    names = [name for name, _ in fitted.named_parameters() if name != "experts.log_scale"]
    start = np.concatenate([fitted.get_parameter(name).numpy().ravel() for name in names])

    def residual(theta):
        first = 0
        for name in names:
            parameter = fitted.get_parameter(name)
            piece = theta[first : first + parameter.numel()]
            parameter.data.copy_(torch.from_numpy(piece.reshape(parameter.shape)))
            first += parameter.numel()
        return fitted.mean(torch.from_numpy(x)).numpy() - y

    here = 0.5 * np.sum(residual(start) ** 2)
    assert here == pytest.approx(-result.objective, rel=1e-9)
    moved = start + 0.01 * np.random.default_rng(0).normal(size=len(start))
    reference = least_squares(residual, moved, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert here <= reference.cost * (1.0 + 1e-9)
    # 600 rows of noise with variance 0.0025.
    assert here == pytest.approx(0.5 * 600 * 0.0025, rel=0.2)


def test_unnormalised_sigmoid_weights(table):
    x, y = table
    bank = {"hidden": 1, "activation": "tanh"}
    model = MixtureOfExperts.build(
        "sigmoid", "feed_forward", "gaussian", 1, 2, gate_options={"normalised": False}, expert_options=bank
    )
    result = fit(model, x, y, options=FitOptions(n_starts=1, objective="least_squares", max_iter=30))
    weights = result.model.log_weights(torch.from_numpy(x)).exp()
    assert bool((weights.sum(-1) != 1.0).any())
    mean = result.model.mean(torch.from_numpy(x)).numpy()
    assert -0.5 * np.sum((y - mean) ** 2) == pytest.approx(result.objective, rel=1e-9)
    assert result.objective > -0.5 * np.sum((y - y.mean()) ** 2)


def test_units_of_the_target_do_not_matter(table):
    x, y = table
    bank = {"hidden": 1, "activation": "tanh", "output_bias": True}
    model = MixtureOfExperts.build("softmax", "feed_forward", "gaussian", 1, 1, expert_options=bank)
    first, second = fit(model, x, y, options=OPTIONS), fit(model, x, 100.0 + 7.0 * y, options=OPTIONS)
    assert second.objective == pytest.approx(49.0 * first.objective, rel=1e-8)


def test_several_targets_are_added_up():
    generator = np.random.default_rng(2)
    x = generator.normal(size=(100, 1))
    y = np.column_stack([1.0 + x[:, 0], 100.0 * x[:, 0]]) + generator.normal(size=(100, 2)) * [0.1, 5.0]
    model = MixtureOfExperts.build("softmax", "linear", "multivariate_gaussian", 1, 1, family_options={"n_targets": 2})
    result = fit(model, x, y, options=OPTIONS)
    design = np.column_stack([np.ones(100), x])
    coefficients, squares, *_ = np.linalg.lstsq(design, y, rcond=None)
    np.testing.assert_allclose(result.coordinates.estimates(result.theta), coefficients.T.ravel(), rtol=1e-7)
    assert result.objective == pytest.approx(-0.5 * squares.sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("gate", "family", "options", "message"),
    [
        ("gaussian", "gaussian", {}, "joint model of inputs and target"),
        ("softmax", "categorical", {}, "least squares needs numbers"),
        ("softmax", "gaussian", {"variance_prior": (1.0, 0.1)}, "variance_prior belongs to the likelihood"),
    ],
)
def test_what_has_no_least_squares_is_refused(gate, family, options, message):
    x = np.random.default_rng(0).normal(size=(50, 1))
    chosen = {"n_classes": 2} if family == "categorical" else None
    model = MixtureOfExperts.build(gate, "linear", family, 1, 2, family_options=chosen)
    with pytest.raises(InputError, match=message):
        fit(model, x, (x[:, 0] > 0.0).astype(float), options=FitOptions(objective="least_squares", **options))


def test_an_unnormalised_gate_has_no_likelihood():
    x = np.random.default_rng(0).normal(size=(50, 1))
    model = MixtureOfExperts.build("sigmoid", "linear", "gaussian", 1, 2, gate_options={"normalised": False})
    with pytest.raises(InputError, match="not normalised"):
        fit(model, x, x[:, 0])


def test_names_of_the_quantities_have_no_scales(table):
    x, y = table
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", 1, 1)
    result = fit(model, x, y, options=OPTIONS)
    names = Names(["x"], ["x"], "y")
    terms = [q.term for q in result.coordinates.quantities(names.features, names.gate_features, names.target)]
    assert terms == ["(intercept)", "x"]
