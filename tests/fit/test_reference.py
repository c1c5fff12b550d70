"""Fits equal those of two independent programs: an exact-Hessian maximiser and R's packages (tests/reference)."""

import json
from pathlib import Path

import numpy as np
import pytest

from gatewise.datasets import load
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.inference import Names, covariance, parameter_table
from tests.helpers import mixture

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "reference.json").read_text(encoding="utf-8"))

CASES = {
    "tone, gate ~ stretchratio": ("tone", ["stretchratio"], ["stretchratio"], "tuned"),
    "tone, constant weights": ("tone", ["stretchratio"], [], "tuned"),
    "ethanol, Equivalence ~ NO, gate ~ NO": ("ethanol", ["NO"], ["NO"], "Equivalence"),
    "CO2 ~ GNP, constant weights": ("co2", ["GNP"], [], "CO2"),
    "aphids, plntsInf ~ aphRel, constant weights": ("aphids", ["aphRel"], [], "plntsInf"),
    "NPreg, yn ~ x + x^2, constant weights": ("npreg", ["x", "x_squared"], [], "yn"),
    "NPreg, yn ~ x + x^2, gate ~ x": ("npreg", ["x", "x_squared"], ["x"], "yn"),
}


def table(case):
    name, features, gate_features, target = CASES[case]
    frame = load(name).frame
    return frame[features].to_numpy(float), frame[gate_features].to_numpy(float), frame[target].to_numpy(float)


def names(case):
    _, features, gate_features, target = CASES[case]
    return Names(features, gate_features, target)


def reference_responsibilities(reference, x, gate_x, y):
    gate = np.vstack([reference["gate"], np.zeros(1 + gate_x.shape[1])])
    coefficients, scale = np.array(reference["experts"]), np.array(reference["scale"])
    logits = np.column_stack([np.ones(len(y)), gate_x]) @ gate.T
    residual = (y[:, None] - np.column_stack([np.ones(len(y)), x]) @ coefficients.T) / scale
    joint = logits - 0.5 * residual**2 - np.log(scale)
    joint = np.exp(joint - joint.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def optima():
    for case in CASES:
        for number in range(len(REFERENCE["maximum_likelihood"][case])):
            yield pytest.param(case, number, id=f"{case} #{number + 1}")


@pytest.mark.parametrize(("case", "number"), list(optima()))
def test_fit_from_near_each_reference_optimum_equals_it(case, number):
    reference = REFERENCE["maximum_likelihood"][case][number]
    x, gate_x, y = table(case)
    # The lesser optima lie in narrow basins: 0.1 % away is near for all of them.
    start = 0.999 * reference_responsibilities(reference, x, gate_x, y) + 0.0005
    k = start.shape[1]
    model = mixture(x.shape[1], gate_x.shape[1], k)
    result = fit(model, x, y, gate_x=gate_x, options=FitOptions(n_starts=1, init=start))
    assert result.status is FitStatus.CONVERGED
    assert result.log_likelihood == pytest.approx(reference["loglik"], rel=1e-9)

    # The reference orders its experts as it found them; ours are by mean responsibility.
    experts, scale = np.array(reference["experts"]), np.array(reference["scale"])
    intercepts = result.model.experts.bias.numpy()
    order = [int(np.argmin(np.abs(experts[:, 0] - value))) for value in intercepts]
    assert sorted(order) == list(range(k))
    found = parameter_table(result, names(case)).set_index(["component", "term"])
    gate = np.vstack([reference["gate"], np.zeros(1 + gate_x.shape[1])])
    expected_gate = (gate[order] - gate[order[-1]])[:-1]
    expected = np.concatenate([expected_gate.ravel(), experts[order].ravel(), scale[order]])
    errors = np.concatenate(
        [
            np.ravel(reference["se_gate"]),
            np.array(reference["se_experts"])[order].ravel(),
            scale[order] * np.array(reference["se_log_scale"])[order],
        ]
    )
    # 1e-6 of each estimate; one that is itself small against its standard error is known to 1e-6 of that.
    np.testing.assert_allclose(found["estimate"], expected, rtol=1e-6, atol=0.0 if number == 0 else 1e-6)
    np.testing.assert_allclose(found["standard_error"], errors, rtol=1e-5)
    matrix = covariance(result, names(case)).to_numpy()
    np.testing.assert_allclose(np.sqrt(np.diag(matrix)), errors, rtol=1e-5)
    assert np.linalg.eigvalsh(matrix).min() > 0.0


R_FITS = {
    "tone, gate ~ stretchratio": "flexmix_tonedata_k2_concomitant",
    "ethanol, Equivalence ~ NO, gate ~ NO": "flexmix_NOdata_k2_concomitant_NO",
    "NPreg, yn ~ x + x^2, constant weights": "flexmix_NPreg_k2_quadratic",
    "NPreg, yn ~ x + x^2, gate ~ x": "flexmix_NPreg_concomitant_x_k2",
}


@pytest.mark.parametrize("case", R_FITS)
def test_fit_equals_flexmix_refit(case):
    """refit() maximises the likelihood over coefficients, log σ and gate; 1e-3, standard errors 1e-2."""
    reference = REFERENCE[R_FITS[case]][0]
    by_name = dict(
        zip(reference["se_names"], zip(reference["coef_refit"], reference["se_refit"], strict=True), strict=True)
    )
    x, gate_x, y = table(case)
    result = fit(mixture(x.shape[1], gate_x.shape[1], 2), x, y, gate_x=gate_x)
    found = parameter_table(result, names(case))
    experts = found[found["component"].str.startswith("expert") & (found["term"] != "scale")]
    theirs = np.array(
        [[value for name, value in by_name.items() if name.startswith(f"model.1_Comp.{i}_coef")] for i in (1, 2)]
    )
    ours = experts[["estimate", "standard_error"]].to_numpy().reshape(2, -1, 2)
    if abs(ours[0, 0, 0] - theirs[0, 0, 0]) > abs(ours[0, 0, 0] - theirs[1, 0, 0]):
        ours = ours[::-1]
    error_scale = np.maximum(np.abs(theirs[:, :, 0]), theirs[:, :, 1])
    assert (np.abs(ours[:, :, 0] - theirs[:, :, 0]) / error_scale).max() < 1e-3
    np.testing.assert_allclose(ours[:, :, 1], theirs[:, :, 1], rtol=1e-2)
    gate_theirs = np.array([value for name, value in by_name.items() if name.startswith("concomitant")])
    gate_ours = found[found["component"].str.startswith("gate")][["estimate", "standard_error"]].to_numpy()
    np.testing.assert_allclose(gate_ours[:, 1], gate_theirs[:, 1], rtol=1e-2)
    error_scale = np.maximum(np.abs(gate_theirs[:, 0]), gate_theirs[:, 1])
    assert (np.abs(np.abs(gate_ours[:, 0]) - np.abs(gate_theirs[:, 0])) / error_scale).max() < 1e-3


@pytest.mark.parametrize(
    ("case", "key", "log_likelihood", "coefficients", "scale"),
    [
        ("tone, constant weights", "mixtools_regmixEM_tonedata_k2", "loglik", "beta", "sigma"),
        ("CO2 ~ GNP, constant weights", "mixtools_regmixEM_CO2data_k2", "loglik", "beta", "sigma"),
        ("ethanol, Equivalence ~ NO, gate ~ NO", "mixtools_hmeEM_NOdata_example", "loglik", "beta", "sigma"),
    ],
)
def test_fit_equals_mixtools(case, key, log_likelihood, coefficients, scale):
    reference = REFERENCE[key][0]
    x, gate_x, y = table(case)
    result = fit(mixture(x.shape[1], gate_x.shape[1], 2), x, y, gate_x=gate_x)
    assert result.log_likelihood == pytest.approx(reference[log_likelihood], abs=1e-6)
    theirs = np.array(reference[coefficients]).T
    ours = np.column_stack([result.model.experts.bias, result.model.experts.weight])
    order = np.argsort(theirs[:, 0])
    np.testing.assert_allclose(ours[np.argsort(ours[:, 0])], theirs[order], rtol=1e-3)
    np.testing.assert_allclose(np.sort(result.scale), np.sort(reference[scale]), rtol=1e-3)


BEST = {
    "ethanol, Equivalence ~ NO, gate ~ NO": 123.620590749,
    "CO2 ~ GNP, constant weights": -66.939767793,
    "aphids, plntsInf ~ aphRel, constant weights": -132.065092287,
    "NPreg, yn ~ x + x^2, constant weights": -642.532013736,
    "NPreg, yn ~ x + x^2, gate ~ x": -642.063879618,
    "tone, gate ~ stretchratio": 142.848014142,
    "tone, constant weights": 141.198402300,
}


@pytest.mark.parametrize("case", BEST)
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 10))])
def test_default_starts_are_never_below_the_best_known_fit(case, seed):
    x, gate_x, y = table(case)
    result = fit(mixture(x.shape[1], gate_x.shape[1], 2), x, y, gate_x=gate_x, options=FitOptions(seed=seed))
    # The bounds are printed to nine decimals.
    assert result.log_likelihood >= BEST[case] - 1e-9
    assert result.separation is None
    assert result.status in (FitStatus.CONVERGED, FitStatus.TIGHT)


def test_tight_optimum_of_tone_is_flagged_and_the_ordinary_one_named():
    """The tightest optimum known: σ at 2 % of the residual scale on 56 rows."""
    x, _, y = table("tone, gate ~ stretchratio")
    on_two = np.abs(y - 2.0) < 0.004
    on_line = np.abs(y - x[:, 0]) < 0.004
    reached = []
    for members in (on_two, on_line):
        start = np.column_stack([members, ~members]).astype(float)
        result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=4, init=start))
        reached.append((result.log_likelihood, result.status, result.tight))
    best = max(reached)
    assert best[0] == pytest.approx(145.6503, abs=1e-4)
    assert best[1] is FitStatus.TIGHT
    assert best[2]


@pytest.mark.parametrize("seed", range(3))
def test_temperature_gate_separates_and_says_so(seed):
    frame = load("temperature").frame
    x, y = frame[["Year"]].to_numpy(float), frame["AnnualAnomaly"].to_numpy(float)
    result = fit(mixture(1, 1, 2), x, y, options=FitOptions(seed=seed))
    assert result.status is FitStatus.SEPARATED
    assert result.log_likelihood == pytest.approx(102.943047, abs=1e-6)
    table = parameter_table(result, Names(["Year"], ["Year"], "AnnualAnomaly"))
    gate = table["component"].str.startswith("gate")
    assert table.loc[gate, ["standard_error", "z", "p_value", "lower", "upper"]].isna().to_numpy().all()
    assert np.isfinite(table.loc[~gate, "standard_error"]).all()
    assert "gate_ridge" in result.findings[0].message
    ridge = fit(mixture(1, 1, 2), x, y, options=FitOptions(seed=seed, gate_ridge=1.0))
    assert ridge.status is FitStatus.CONVERGED
