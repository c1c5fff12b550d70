"""GatedRegressor by least squares: a regression function, and nothing that would need a distribution."""

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import r2_score

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError

pytestmark = pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")

UNNORMALISED = {"gate": "sigmoid", "gate_options": {"normalised": False}}


def regressor(n_experts=2, **options):
    return GatedRegressor(
        n_experts, objective="least_squares", **{"n_starts": 1, "random_state": 0, "max_iter": 60, **options}
    )


@pytest.fixture(scope="module")
def fitted(sample):
    return regressor().fit(sample.X, sample.y)


def test_the_squares_are_those_of_the_predictions(fitted, sample):
    residual = sample.y - fitted.predict(sample.X)
    assert fitted.residual_sum_of_squares_ == pytest.approx(residual @ residual, rel=1e-12)
    freedom = 200 - fitted.n_parameters_
    assert fitted.residual_standard_deviation_ == pytest.approx(np.sqrt(residual @ residual / freedom), rel=1e-12)
    assert fitted.r_squared_ == pytest.approx(r2_score(sample.y, fitted.predict(sample.X)), rel=1e-12)
    assert fitted.result_.objective == pytest.approx(-0.5 * residual @ residual, rel=1e-9)
    weights, means = fitted.gate_weights(sample.X), fitted.expert_means(sample.X)
    np.testing.assert_allclose(fitted.predict(sample.X), (weights * means).sum(axis=1), rtol=1e-10, atol=1e-10)


def test_weights_of_rows_count(sample):
    weight = np.random.default_rng(3).integers(1, 4, size=200).astype(float)
    fitted = regressor().fit(sample.X, sample.y, sample_weight=weight)
    residual = sample.y - fitted.predict(sample.X)
    assert fitted.residual_sum_of_squares_ == pytest.approx(weight @ residual**2, rel=1e-12)
    assert fitted.r_squared_ == pytest.approx(r2_score(sample.y, fitted.predict(sample.X), sample_weight=weight))
    freedom = weight.sum() - fitted.n_parameters_
    assert fitted.residual_standard_deviation_ == pytest.approx(np.sqrt(weight @ residual**2 / freedom))


def test_one_expert_is_ordinary_least_squares(sample):
    fitted = regressor(1).fit(sample.X, sample.y)
    design = np.column_stack([np.ones(200), sample.X])
    coefficients, squares, *_ = np.linalg.lstsq(design, sample.y, rcond=None)
    np.testing.assert_allclose([fitted.expert_intercept_[0], *fitted.expert_coef_[0]], coefficients, rtol=1e-6)
    assert fitted.residual_sum_of_squares_ == pytest.approx(squares[0], rel=1e-10)
    assert fitted.residual_standard_deviation_ == pytest.approx(np.sqrt(squares[0] / 197.0), rel=1e-10)
    statistics = fitted.summary().statistics
    assert statistics["baseline_residual_sum_of_squares"] == pytest.approx(squares[0], rel=1e-10)
    assert statistics["baseline_r_squared"] == pytest.approx(fitted.r_squared_, rel=1e-10)


def test_a_gate_without_normalisation(sample):
    fitted = regressor(**UNNORMALISED).fit(sample.X, sample.y)
    slopes = fitted.parameters_[fitted.parameters_.component.str.startswith("gate")]
    bias, slope = slopes.estimate.to_numpy().reshape(2, 3)[:, 0], slopes.estimate.to_numpy().reshape(2, 3)[:, 1:]
    np.testing.assert_allclose(fitted.gate_weights(sample.X), expit(sample.X @ slope.T + bias), rtol=1e-7, atol=1e-12)
    assert not hasattr(fitted, "gate_coef_")
    assert fitted.score(sample.X, sample.y) == pytest.approx(fitted.r_squared_)


@pytest.mark.parametrize("options", [{}, UNNORMALISED])
def test_what_needs_a_distribution_is_refused(sample, options):
    fitted = regressor(**{"max_iter": 5, **options}).fit(sample.X, sample.y)
    for call in (
        lambda: fitted.predict_log_density(sample.X, sample.y),
        lambda: fitted.responsibilities(sample.X, sample.y),
        lambda: fitted.predict_quantile(sample.X, 0.5),
        lambda: fitted.predict_interval(sample.X),
        lambda: fitted.sample(sample.X),
        lambda: fitted.score_log_density(sample.X, sample.y),
    ):
        with pytest.raises(InputError, match="least squares gives no distribution of y, so there is no "):
            call()
    for name in ("log_likelihood_", "aic_", "bic_", "icl_", "scale_"):
        assert not hasattr(fitted, name)


def test_the_summary_has_squares_and_no_criteria(fitted):
    text = fitted.summary().to_text()
    assert "by least squares" in text.splitlines()[0]
    for line in (
        "residual sum of squares",
        "residual std. deviation",
        "R² against the mean",
        "mean weight of the gate",
    ):
        assert line in text
    for word in ("AIC", "log-likelihood", "scale"):
        assert word not in text
    content = json.loads(fitted.summary().to_json())
    for key in ("log_likelihood", "aic", "bic", "icl", "baseline_aic", "penalised_log_likelihood"):
        assert content["statistics"][key] is None
    assert content["statistics"]["r_squared"] == fitted.r_squared_
    assert content["statistics"]["objective"] == "least_squares"
    assert "scale" not in fitted.parameters_.term.tolist()
    assert content["optima"][0]["smallest_scale"] is None


def test_another_objective_forgets_the_first(sample):
    estimator = regressor(max_iter=5).fit(sample.X, sample.y)
    estimator.set_params(objective="likelihood").fit(sample.X, sample.y)
    assert not hasattr(estimator, "r_squared_")
    assert np.isfinite(estimator.aic_)
    estimator.set_params(objective="least_squares").fit(sample.X, sample.y)
    assert not hasattr(estimator, "aic_")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance_prior": (1.0, 1.0)}, "variance_prior belongs to the likelihood"),
        ({"gate": "gaussian"}, "the gaussian gate is a joint model of inputs and target"),
    ],
)
def test_options_of_likelihoods(sample, options, message):
    with pytest.raises(InputError, match=message):
        regressor(**options).fit(sample.X, sample.y)
