import copy
import json

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, fit
from gatewise.inference import Names, confidence_intervals, covariance, information_criteria, parameter_table, summarise
from gatewise.inference.rounding import rounded
from tests.helpers import mixture, simulate

GATE = np.array([[0.5, 3.0], [0.0, 0.0]])
EXPERTS = np.array([[1.0, 2.0], [-1.0, 0.0]])
SCALE = np.array([0.3, 0.4])
NAMES = Names(["x"], ["x"], "y")
HOSTILE = Names(["<script>&|_%"], ["<script>&|_%"], "$y{}\\")


@pytest.fixture(scope="module")
def table():
    return simulate(np.random.default_rng(21), 500, GATE, EXPERTS, SCALE)[:2]


@pytest.fixture(scope="module")
def result(table):
    return fit(mixture(1, 1, 2), *table)


def test_covariance_is_the_inverse_hessian_in_user_units(table, result):
    """The Hessian of the log-likelihood by user-unit parameters, by finite differences of the model itself."""
    x, y = map(torch.from_numpy, table)
    model = copy.deepcopy(result.model)
    estimate = parameter_table(result, NAMES)["estimate"].to_numpy()

    def log_likelihood(theta):
        gate, experts, scale = theta[:2], theta[2:6].reshape(2, 2), theta[6:]
        with torch.no_grad():
            model.gate.bias[0], model.gate.weight[0, 0] = gate
            model.experts.bias.copy_(torch.from_numpy(experts[:, 0]))
            model.experts.weight.copy_(torch.from_numpy(experts[:, 1:]))
            model.experts.log_scale.copy_(torch.from_numpy(np.log(scale)))
        return model.log_prob(x, y).sum().item()

    size = len(estimate)
    steps = 1e-2 * parameter_table(result, NAMES)["standard_error"].to_numpy()
    hessian = np.empty((size, size))
    for a in range(size):
        for b in range(size):
            i, j = steps[a] * np.eye(size)[a], steps[b] * np.eye(size)[b]
            hessian[a, b] = sum(
                sign * log_likelihood(estimate + s * i + t * j)
                for s, t, sign in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
            ) / (4 * steps[a] * steps[b])
    # Second differences with steps of 1e-2 standard errors: 1e-4 of truncation, 1e-13 * 500 / 1e-4 of rounding.
    found = covariance(result, NAMES)
    np.testing.assert_allclose(found.to_numpy() @ -hessian, np.eye(size), atol=5e-3)
    assert list(found.index) == list(found.columns)
    assert found.index[0] == "gate 1 vs 2: (intercept)"
    assert found.index[-1] == "expert 2: scale"


def test_intervals_widen_with_the_level_and_scales_stay_positive(result):
    narrow, wide = (confidence_intervals(result, NAMES, level) for level in (0.5, 0.999999))
    assert ((wide["lower"] < narrow["lower"]) & (wide["upper"] > narrow["upper"])).all()
    assert (wide.loc[wide["term"] == "scale", "lower"] > 0.0).all()
    table = parameter_table(result, NAMES, 0.95)
    half = 1.959963984540054 * table["standard_error"]
    slopes = table["term"] != "scale"
    np.testing.assert_allclose((table["upper"] - table["lower"])[slopes], 2 * half[slopes], rtol=1e-12)
    np.testing.assert_allclose(np.sqrt((table["upper"] * table["lower"])[~slopes]), table["estimate"][~slopes])
    for level in (0.0, 1.0, 95):
        with pytest.raises(InputError, match="strictly between 0 and 1"):
            parameter_table(result, NAMES, level)


def test_criteria_are_on_the_textbook_scale(table, result):
    criteria = information_criteria(result)
    assert criteria.aic == pytest.approx(-2 * result.log_likelihood + 2 * 8)
    assert criteria.bic == pytest.approx(-2 * result.log_likelihood + 8 * np.log(500))
    shares = result.model.responsibilities(*map(torch.from_numpy, table)).numpy()
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)))
    assert criteria.icl == pytest.approx(criteria.bic + 2 * entropy, rel=1e-9)


def test_icl_is_that_by_entropy(table, result):
    shares = result.model.responsibilities(*map(torch.from_numpy, table)).numpy()
    criteria = information_criteria(result)
    by_entropy = criteria.bic - 2.0 * (shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum()
    by_classification = criteria.bic - 2.0 * np.log(shares.max(axis=1)).sum()
    assert criteria.icl == pytest.approx(by_entropy, rel=1e-9)
    assert by_classification < criteria.icl - 1e-3
    assert "ICL is by entropy" in summarise(result, NAMES).to_text()


def test_weights_are_frequencies_in_errors_and_criteria(table):
    x, y = table
    weight = 1.0 + np.arange(len(y)) % 3
    repeated = np.repeat(np.arange(len(y)), weight.astype(int))
    options = FitOptions(n_starts=4)
    weighted = fit(mixture(1, 1, 2), x, y, sample_weight=weight, options=options)
    duplicated = fit(mixture(1, 1, 2), x[repeated], y[repeated], options=options)
    for column in ("estimate", "standard_error"):
        np.testing.assert_allclose(
            parameter_table(weighted, NAMES)[column], parameter_table(duplicated, NAMES)[column], rtol=1e-7
        )
    assert information_criteria(weighted).bic == pytest.approx(information_criteria(duplicated).bic, rel=1e-11)
    dropped = weight.copy()
    dropped[::4] = 0.0
    without = fit(mixture(1, 1, 2), x[dropped > 0], y[dropped > 0], sample_weight=dropped[dropped > 0], options=options)
    zeroed = fit(mixture(1, 1, 2), x, y, sample_weight=dropped, options=options)
    assert zeroed.theta.tobytes() == without.theta.tobytes()


def test_summary_renders_the_same_numbers_everywhere(result):
    summary = summarise(result, NAMES)
    estimate, error = summary.parameters.loc[2, ["estimate", "standard_error"]]
    estimate = rounded(estimate, error)
    for rendering in (summary.to_text(), summary.to_markdown(), summary.to_html(), summary.to_latex()):
        assert estimate in rendering
        assert f"{result.log_likelihood:.4f}" in rendering
    assert str(summary) == summary.to_text()
    assert summary._repr_html_() == summary.to_html()
    content = json.loads(summary.to_json())
    assert content["statistics"]["status"] == "CONVERGED"
    assert content["parameters"][-1]["z"] is None
    assert content["parameters"][0]["estimate"] == summary.parameters["estimate"][0]
    assert summary.to_frame().equals(summary.parameters)


def test_names_are_escaped_in_every_format(result):
    summary = summarise(result, HOSTILE)
    assert "<script>" not in summary.to_html()
    assert "<script>" not in summary.to_markdown()
    latex = summary.to_latex()
    assert r"$<$script$>$\&$|$\_\%" in latex
    body = [line for line in latex.splitlines() if line.endswith(r" \\") and "script" in line]
    assert body
    assert all(line.count("&") - line.count(r"\&") == 5 for line in body)
    rows = [line for line in summary.to_markdown().splitlines() if line.startswith("| gate")]
    assert rows
    assert all(line.replace("\\|", "").count("|") == 9 for line in rows)
    assert json.loads(summary.to_json())["parameters"][1]["term"] == HOSTILE.features[0]


def test_priors_are_stated(table):
    result = fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=2, gate_ridge=2.0, variance_prior=(1.0, 0.1)))
    text = summarise(result, NAMES).to_text()
    assert "gate ridge 2" in text
    assert "inverse-gamma prior (1, 0.1)" in text
    assert result.objective != result.log_likelihood
    plain = fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=2))
    assert result.log_likelihood < plain.log_likelihood
    assert plain.objective == pytest.approx(plain.log_likelihood, rel=1e-14)


@pytest.mark.slow
def test_intervals_cover_at_their_level():
    """400 data sets of 400 rows: each parameter's 95 % interval covers the truth about 95 times in a hundred."""
    covered = np.zeros(8)
    truth = np.concatenate([GATE[0], EXPERTS.ravel(), SCALE])
    repetitions = 400
    for seed in range(repetitions):
        x, y, _ = simulate(np.random.default_rng([99, seed]), 400, GATE, EXPERTS, SCALE)
        result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=4))
        found = parameter_table(result, NAMES)
        if result.model.experts.bias[0] < 0.0:
            expected = np.concatenate([-GATE[0], EXPERTS[::-1].ravel(), SCALE[::-1]])
        else:
            expected = truth
        covered += ((found["lower"] <= expected) & (expected <= found["upper"])).to_numpy()
    # Binomial standard deviation at 0.95 is 0.011; four of them, and a point for the asymptotics.
    assert np.abs(covered / repetitions - 0.95).max() < 0.055
