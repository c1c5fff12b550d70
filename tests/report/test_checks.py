import dataclasses

import numpy as np
import pytest
from scipy import stats

from gatewise.report import Evidence, checks, render_report
from gatewise.report.palette import expert_colour
from tests.report.pages import Page


def test_histogram_of_the_largest_responsibility_holds_every_row(tone, constant_experts):
    for fitted in (tone, constant_experts):
        figure = checks.responsibility_histogram(fitted.evidence)
        assert sum(sum(bar.y) for bar in figure.data) == 150
        assert [bar.marker.color for bar in figure.data] == [
            expert_colour(expert) for expert in range(fitted.estimator.n_experts)
        ]
    winner = tone.evidence.responsibilities.argmax(1)
    assert sum(checks.responsibility_histogram(tone.evidence).data[0].y) == (winner == 0).sum()


def test_histogram_counts_weights(tone):
    weight = np.where(np.arange(150) < 50, 2.0, 1.0)
    figure = checks.responsibility_histogram(Evidence.collect(tone.estimator, tone.X, tone.y, weight))
    assert sum(sum(bar.y) for bar in figure.data) == 200.0


def test_curves_fall_from_the_largest_responsibility_to_the_smallest(tone):
    for expert, curve in enumerate(checks.responsibility_curves(tone.evidence).data):
        assert (np.diff(curve.y) <= 0).all()
        assert curve.y[0] == tone.evidence.responsibilities[:, expert].max()
        assert curve.y[-1] == tone.evidence.responsibilities[:, expert].min()
        assert (curve.x[0], curve.x[-1]) == (0.0, pytest.approx(1.0))


def test_residuals_are_standardised_by_the_mixture(tone):
    evidence = tone.evidence
    points = next(trace for trace in checks.residuals(evidence).data if trace.name == "rows")
    np.testing.assert_array_equal(points.x, evidence.fitted)
    np.testing.assert_allclose(points.y * evidence.deviation + evidence.fitted, tone.y, rtol=1e-12)


def test_residuals_are_thinned_to_the_limit(tone):
    points = next(trace for trace in checks.residuals(tone.evidence, limit=20).data if trace.name == "rows")
    assert len(points.x) == 20


def test_pit_histogram_is_a_density(npreg):
    bars = checks.pit_histogram(npreg.evidence).data[0]
    assert len(bars.y) == 20
    assert np.mean(bars.y) == pytest.approx(1.0)
    assert np.sum(bars.customdata) == 200


def test_pit_of_a_good_fit_stays_in_its_band(npreg):
    figure = checks.pit_histogram(npreg.evidence)
    low, high = min(figure.data[1].y), max(figure.data[1].y)
    outside = np.sum((figure.data[0].y < low) | (figure.data[0].y > high))
    # 20 bars at 95 %: more than four outside has a probability below 0.3 % for a true model.
    assert outside <= 4


def test_pit_band_holds_the_binomial_probability():
    low, high = checks.pit_band(400.0, 20)
    counts = stats.binom(400, 1 / 20)
    assert counts.cdf(high * 20) - counts.cdf(low * 20 - 1) >= 0.95
    assert counts.cdf(high * 20 - 1) - counts.cdf(low * 20 - 1) < 0.975
    assert low < 1.0 < high


def test_uniformity_is_the_kolmogorov_smirnov_test(npreg):
    evidence = npreg.evidence
    expected = stats.kstest(evidence.transform, "uniform", method="exact")
    assert checks.pit_uniformity(evidence) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)


def test_weights_are_frequencies_in_the_test_of_uniformity(npreg):
    evidence = npreg.evidence
    weight = 1.0 + np.arange(evidence.n_rows) % 3
    repeated = np.repeat(evidence.transform, weight.astype(int))
    expected = stats.kstest(repeated, "uniform", method="exact")
    found = checks.pit_uniformity(dataclasses.replace(evidence, weight=weight))
    assert found == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)


def test_a_missed_spread_has_a_small_p_value(npreg):
    squeezed = dataclasses.replace(npreg.evidence, transform=0.5 + 0.4 * (npreg.evidence.transform - 0.5))
    assert checks.pit_uniformity(squeezed)[1] < 1e-6
    text = Page(render_report(npreg.estimator, npreg.X, npreg.y)).text
    distance, p = checks.pit_uniformity(npreg.evidence)
    assert f"Kolmogorov–Smirnov test of level bars: D = {distance:.3f}, p = {p:.3f}." in text
    assert "on the rows of the fit it is too lenient" in text
