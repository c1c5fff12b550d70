import dataclasses

import numpy as np
import pytest
from scipy import stats

from gatewise.report import Evidence, checks, discrete


def _poisson_share(fitted, count):
    """Σ over rows of P(Y = count | x), by the formula."""
    evidence = fitted.evidence
    return (evidence.gate_weights * stats.poisson.pmf(count, evidence.expert_means)).sum()


def test_expected_frequencies_are_sums_of_probabilities(case):
    fitted = case("poisson")
    frequencies = discrete.count_frequencies(fitted.evidence)
    largest = int(fitted.y.max())
    assert list(frequencies.first) == list(frequencies.last) == list(range(largest + 1))
    for count in range(largest):
        assert frequencies.observed[count] == (fitted.y == count).sum()
        assert frequencies.expected[count] == pytest.approx(_poisson_share(fitted, count), rel=1e-9, abs=1e-12)
    # The last bin is open: everything from the largest count on.
    assert frequencies.expected.sum() == pytest.approx(len(fitted.y), rel=1e-12)
    assert frequencies.observed.sum() == len(fitted.y)


def test_frequencies_count_weights(case):
    fitted = case("poisson")
    weight = np.where(np.arange(len(fitted.y)) < 20, 3.0, 1.0)
    frequencies = discrete.count_frequencies(Evidence.collect(fitted.estimator, fitted.X, fitted.y, weight))
    assert frequencies.observed[0] == weight[fitted.y == 0].sum()
    assert frequencies.expected.sum() == pytest.approx(weight.sum())


def test_large_counts_share_bins_and_far_counts_do_not_begin_at_zero(case):
    evidence = case("poisson").evidence
    far = dataclasses.replace(evidence, target=evidence.target * 10.0 + 5_000.0)
    frequencies = discrete.count_frequencies(far)
    assert len(frequencies.first) <= 41
    assert frequencies.first[0] == far.target.min()
    assert frequencies.last[-1] == far.target.max()
    assert (frequencies.first[1:] == frequencies.last[:-1] + 1).all()
    assert frequencies.observed.sum() == evidence.n_rows
    # Nothing of a Poisson of some tens is above 5,000: the first bin, open below, has it all.
    assert frequencies.expected[0] == pytest.approx(evidence.n_rows)


def test_bars_hang_from_the_curve(case):
    figure = discrete.rootogram(case("poisson").evidence)
    bars = next(trace for trace in figure.data if trace.name == "√observed")
    curve = next(trace for trace in figure.data if trace.name == "√expected")
    top = np.asarray(bars.base, dtype=float) + np.asarray(bars.y, dtype=float)
    np.testing.assert_allclose(top, np.asarray(curve.y, dtype=float), rtol=1e-12)
    assert bars.customdata[-1][0].endswith(" or more")


def test_calibration_compares_means_of_groups(case):
    fitted = case("categorical of two")
    evidence = fitted.evidence
    figure = discrete.calibration(evidence)
    marks = next(trace for trace in figure.data if trace.name == "yes")
    assert "no" not in {trace.name for trace in figure.data}
    assert np.sum(marks.customdata) == evidence.n_rows
    order = np.argsort(evidence.fitted[:, 1], kind="stable")
    first = order[: int(marks.customdata[0])]
    assert marks.x[0] == pytest.approx(evidence.fitted[first, 1].mean())
    assert marks.y[0] == pytest.approx((fitted.y.iloc[first] == "yes").mean())
    # At a maximum of the likelihood with an intercept the means agree as a whole.
    assert np.average(marks.x, weights=marks.customdata) == pytest.approx(evidence.fitted[:, 1].mean())


def test_calibration_bars_have_the_variance_that_the_fit_states(case):
    evidence = case("binomial, trials by row").evidence
    figure = discrete.calibration(evidence)
    bars = next(trace for trace in figure.data if trace.name.endswith("95% if true"))
    marks = next(trace for trace in figure.data if trace.mode == "lines+markers")
    order = np.argsort(evidence.fitted, kind="stable")
    last = order[-int(marks.customdata[-1]) :]
    trials = evidence.target[last, 1]
    spread = np.sqrt(((trials * evidence.deviation[last]) ** 2).sum()) / trials.sum()
    centre = (trials * evidence.fitted[last]).sum() / trials.sum()
    assert marks.x[-1] == pytest.approx(centre)
    assert marks.y[-1] == pytest.approx(evidence.target[last, 0].sum() / trials.sum())
    assert bars.y[-3] == pytest.approx(centre - 1.96 * spread)
    assert bars.y[-2] == pytest.approx(min(centre + 1.96 * spread, 1.0))


def test_confusion_counts_weights_by_class(case):
    fitted = case("categorical")
    weight = np.linspace(0.5, 2.0, len(fitted.y))
    evidence = Evidence.collect(fitted.estimator, fitted.X, fitted.y, weight)
    table = discrete.confusion(evidence)
    predicted = fitted.estimator.predict(fitted.X)
    for i, observed in enumerate(table.names):
        for j, guess in enumerate(table.names):
            expected = weight[(fitted.y == observed) & (predicted == guess)].sum()
            assert table.rows[i, j] == pytest.approx(expected)
    assert table.correct == pytest.approx(np.average(predicted == fitted.y, weights=weight))
    assert table.largest == pytest.approx(max(weight[fitted.y == name].sum() for name in table.names) / weight.sum())
    assert table.together is None


def test_many_classes_are_put_together(case):
    evidence = case("categorical").evidence
    generator = np.random.default_rng(1)
    codes = np.minimum(generator.integers(0, 20, size=evidence.n_rows), generator.integers(0, 20, size=evidence.n_rows))
    many = dataclasses.replace(
        evidence,
        observed=np.eye(20)[codes],
        fitted=generator.dirichlet(np.ones(20), size=evidence.n_rows),
        deviation=np.full((evidence.n_rows, 20), 0.1),
        output_names=tuple(f"c{code}" for code in range(20)),
    )
    table = discrete.confusion(many)
    assert len(table.names) == 12
    assert (table.names[-1], table.together) == ("9 others", 11)
    assert table.rows.sum() == evidence.n_rows
    drawn = discrete.drawn_classes(many)
    assert len(drawn) == 8
    often = np.bincount(codes, minlength=20)
    assert min(often[drawn]) >= max(often[code] for code in range(20) if code not in drawn)


def test_pearson_residuals_of_counts(case):
    fitted = case("poisson")
    evidence = fitted.evidence
    points = next(trace for trace in checks.residuals(evidence).data if trace.name == "rows")
    weight, rate = evidence.gate_weights, evidence.expert_means
    centre = (weight * rate).sum(axis=1)
    variance = (weight * (rate + (rate - centre[:, None]) ** 2)).sum(axis=1)
    np.testing.assert_allclose(points.y, (fitted.y - centre) / np.sqrt(variance), rtol=1e-9)


def test_residuals_without_a_deviation_are_normal_quantiles(case):
    evidence = case("student_t without a mean").evidence
    figure = checks.residuals(evidence)
    points = next(trace for trace in figure.data if trace.name == "rows")
    np.testing.assert_allclose(stats.norm.cdf(points.y), evidence.transform, rtol=1e-9)
    assert "normal quantile" in figure.layout.yaxis.title.text


def test_residuals_of_each_column(case):
    fitted = case("multivariate_gaussian")
    evidence = fitted.evidence
    points = next(trace for trace in checks.residuals(evidence, output=1).data if trace.name == "rows")
    residual = (fitted.y["right"] - fitted.estimator.predict(fitted.X)[:, 1]) / evidence.deviation[:, 1]
    np.testing.assert_allclose(points.y, residual, rtol=1e-10)


def test_the_spread_of_residuals_by_groups(case):
    fitted = case("least squares")
    line = next(trace for trace in checks.spread_of_residuals(fitted.evidence).data if trace.name == "groups")
    prediction = fitted.estimator.predict(fitted.X)
    order = np.argsort(prediction, kind="stable")
    # 160 rows in 12 groups: 13 in the first.
    first = order[:13]
    assert len(line.x) == 12
    assert line.x[0] == pytest.approx(prediction[first].mean())
    assert line.y[0] == pytest.approx(np.sqrt(np.mean((fitted.y.iloc[first] - prediction[first]) ** 2)))
    whole = np.sqrt(np.mean((fitted.y - prediction) ** 2))
    assert min(line.y) < whole < max(line.y)


def test_few_rows_of_large_counts_have_few_bins(case):
    evidence = case("poisson").evidence
    spread = dataclasses.replace(evidence, target=evidence.target * 40.0)
    frequencies = discrete.count_frequencies(spread)
    # 160 rows: 20 bins and not 41.
    assert 10 <= len(frequencies.first) <= 21
