"""Slopes of a study: closed forms, coverage, what is left out and said, and how they stand to what others say."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gatewise.exceptions import InputError
from gatewise.study.design import StudyDesign
from gatewise.study.replicate import Laboratory, all_tasks
from gatewise.study.slope_fit import STATISTICS, Estimate, Sample, fit_lines, statistics_of
from gatewise.study.slopes import slopes
from gatewise.study.totals import totals_of
from tests.study.designs import SIZES, design_of


def designed(expected=(), **rule) -> StudyDesign:
    return design_of(slopes={"resamples": 400, "replicates": 8, **rule}, expected=list(expected))


def rows_of(law, sizes=SIZES, replicates=8, method="k2", measure="loss.D1", noise=0.0, seed=0) -> pd.DataFrame:
    """Rows whose measure is law(n) times log-normal noise."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {
                "key": f"{method}/{n}/{i}",
                "method": method,
                "n": n,
                "replicate": i,
                "status": "CONVERGED",
                "error": "",
                "seconds": 0.25,
                measure: law(n) * math.exp(noise * generator.normal()),
            }
            for n in sizes
            for i in range(replicates)
        ]
    )


def power(exponent=-0.5, factor=3.0):
    return lambda n: factor * n**exponent


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("exponent", [-0.5, -0.25, -1.0 / 12.0])
def test_a_power_without_noise_gives_its_exponent(exponent, statistic):
    row = slopes(designed(), rows_of(power(exponent))).slope("k2", "loss.D1", statistic)
    # Twelve logarithms of order 10, each with a relative error of 2e-16.
    for value in (row.line.slope.value, row.line.slope.low, row.line.slope.high):
        assert value == pytest.approx(exponent, abs=1e-12)
    assert row.line.curvature.value == pytest.approx(0.0, abs=1e-11)
    assert not row.line.is_curved
    assert row.counts
    assert row.line.at(np.array([100.0, 10_000.0])) == pytest.approx([3.0 * 100**exponent, 3.0 * 10_000**exponent])
    assert row.line.sizes == tuple(SIZES)
    assert row.line.decades == pytest.approx(2.0)


def test_statistics_are_those_of_scipy_also_of_resamples():
    generator = np.random.default_rng(5)
    for m in (2, 3, 7, 10, 40):
        values = generator.lognormal(size=m)
        assert statistics_of(values, 0.1)[0] == pytest.approx(
            [values.mean(), np.median(values), stats.trim_mean(values, 0.1)], rel=1e-14
        )
        drawn = generator.integers(m, size=(6, m))
        counts = np.array([np.bincount(row, minlength=m) for row in drawn])
        for found, row in zip(statistics_of(values, 0.25, counts), values[drawn], strict=True):
            assert found == pytest.approx([row.mean(), np.median(row), stats.trim_mean(row, 0.25)], rel=1e-14)


def test_lines_and_parabolas_are_those_of_least_squares():
    rows = rows_of(power(-0.4), noise=0.5)
    line = slopes(designed(), rows).slope("k2", "loss.D1").line
    x = np.log(SIZES)
    y = np.log(rows.groupby("n")["loss.D1"].mean().to_numpy())
    slope, height = np.polyfit(x - x.mean(), y, 1)
    assert (line.slope.value, line.height.value) == pytest.approx((slope, height), rel=1e-10)
    assert line.curvature.value == pytest.approx(np.polyfit(x - x.mean(), y, 2)[0], rel=1e-9)


def test_intervals_cover_the_true_slope():
    # Of 20 replicates the bootstrap's variance is 19/20 of the true one: 94.4% are to be expected, a little less for
    # means of skew noise, a little more for medians. Of 2,000 such studies 93.0, 96.9 and 94.7% were covered; of 200
    # the standard error is at most 1.8%, and three of them are allowed below.
    sizes, generator = SIZES[-10:], np.random.default_rng(8)
    covered = np.zeros(3)
    for study in range(200):
        samples = [Sample(n, 2.0 * n**-0.3 * generator.lognormal(0.0, 0.5, size=(20, 1))) for n in sizes]
        covered += [line.slope.covers(-0.3) for line in fit_lines(samples, 0.1, 400, 0.95, study)]
    assert (covered / 200 >= 0.876).all()
    assert (covered / 200 <= 0.995).all()
    # And a false exponent, as far away as the published ones are from each other, is not covered.
    assert not any(line.slope.covers(-0.5) for line in fit_lines(samples, 0.1, 400, 0.95, 0))


@pytest.mark.slow
def test_flags_of_curvature_are_as_rare_as_the_level_says():
    generator = np.random.default_rng(9)
    flagged = np.zeros(3)
    for study in range(200):
        samples = [Sample(n, n**-0.5 * generator.lognormal(0.0, 0.5, size=(20, 1))) for n in SIZES]
        flagged += [line.is_curved for line in fit_lines(samples, 0.1, 400, 0.95, study)]
    # 5.6% are to be expected, and 7% of means, as above; three standard errors more are 12%.
    assert (flagged / 200 <= 0.12).all()


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_second_term_bends_the_line(statistic):
    row = slopes(designed(), rows_of(lambda n: n**-0.5 * (1 + 30 * n**-0.5), noise=0.1)).slope(
        "k2", "loss.D1", statistic
    )
    assert row.line.is_curved
    assert row.line.curvature.low > 0.0
    assert "curved" in row.verdict
    down = slopes(designed(), rows_of(lambda n: math.exp(-0.1 * math.log(n) ** 2), noise=0.1)).slope(
        "k2", "loss.D1", statistic
    )
    assert down.line.is_curved
    assert down.line.curvature.covers(-0.1)
    straight = slopes(designed(), rows_of(power(), noise=0.1)).slope("k2", "loss.D1", statistic)
    assert "curved" not in straight.verdict


def test_order_does_not_matter_and_the_same_seed_gives_the_same_bits():
    rows = rows_of(power(), noise=0.3)
    found = slopes(designed(), rows).to_dict()
    assert slopes(designed(), rows).to_dict() == found
    shuffled = rows.sample(frac=1.0, random_state=3)
    assert slopes(designed(), shuffled).to_dict() == found
    renamed = rows.assign(replicate=7 - rows["replicate"])
    assert slopes(designed(), renamed).to_dict() == found
    other = slopes(designed().with_plan(seed=12), rows)
    assert other.slope("k2", "loss.D1").line.slope.low != slopes(designed(), rows).slope("k2", "loss.D1").line.slope.low
    assert other.slope("k2", "loss.D1").line.slope.value == found["slopes"][0]["slope"]["value"]


def test_the_window_of_the_design_is_used():
    rows = rows_of(lambda n: 5.0 if n < 1000 else n**-0.5)
    found = slopes(designed(low=1000, high=9000), rows)
    row = found.slope("k2", "loss.D1")
    assert row.line.slope.value == pytest.approx(-0.5, abs=1e-12)
    assert (row.line.sizes[0], row.line.sizes[-1]) == (1233, 6579)
    assert "Lines go through sizes from 1000 to 9000." in found.notes
    assert row.short == "5 sizes, 10 needed; 0.73 decades, 2 needed"
    assert not row.counts
    assert "does not count: 5 sizes" in row.verdict


def test_a_row_counts_by_the_designs_rule():
    rows = rows_of(power())
    assert slopes(designed(), rows).slope("k2", "loss.D1").short == ""
    # Twelve sizes over two decades: two may have fewer replicates, but not so that the others span less.
    middle = rows[~rows["n"].isin([1233, 1874]) | (rows["replicate"] < 5)]
    assert slopes(designed(), middle).slope("k2", "loss.D1").short == ""
    edge = rows[(rows["n"] != 100) | (rows["replicate"] < 5)]
    told = "sizes with 8 replicates do not span 2 decades"
    assert slopes(designed(), edge).slope("k2", "loss.D1").short == told
    three = rows[~rows["n"].isin([811, 1233, 1874]) | (rows["replicate"] < 5)]
    assert slopes(designed(), three).slope("k2", "loss.D1").short == "9 sizes with 8 replicates, 10 needed"
    assert slopes(designed(decades=2.5), rows).slope("k2", "loss.D1").short == "2.00 decades, 2.5 needed"


def test_failed_rows_are_left_out_and_counted():
    rows = rows_of(power())
    rows.loc[rows["replicate"] == 3, ["status", "error"]] = ["FAILED", "ArithmeticError: no"]
    # What a failed row should not have, but must not matter.
    rows.loc[rows["replicate"] == 3, "loss.D1"] = 1e6
    found = slopes(designed(), rows)
    assert found.slope("k2", "loss.D1").line.slope.value == pytest.approx(-0.5, abs=1e-12)
    assert found.points[0].counts == (7,) * 12
    totals = found.totals[0]
    assert (totals.rows, totals.failed, totals.statuses) == (96, 12, {"CONVERGED": 84, "FAILED": 12})
    assert totals.errors == (("ArithmeticError: no", 12),)
    assert "k2: 96 rows (84 CONVERGED, 12 FAILED)" in found.to_text()
    assert totals.seconds == pytest.approx(24.0)


def test_a_study_in_which_all_failed():
    rows = rows_of(power()).assign(status="FAILED", error="ArithmeticError: no").drop(columns="loss.D1")
    found = slopes(designed([EXPECTED]), rows)
    assert found.slopes == ()
    assert found.totals[0].failed == 96
    assert "The design expects something of loss.D1, which no row has." in found.notes
    assert "96 FAILED" in found.to_text()


def test_totals_count_what_fits_did():
    rows = rows_of(power(), sizes=[100, 200], replicates=2).assign(
        below_truth=[True, False, None, False], outside_box=[0.0, 3.0, np.nan, 1.0], attempts=[3, 1, np.nan, 2]
    )
    totals = totals_of("k2", rows)
    assert (totals.below_truth, totals.outside_box, totals.attempts, totals.started_again) == (1, 2, 6, 2)


def test_missing_measures_are_counted_and_scarce_sizes_left_out():
    rows = rows_of(power(-0.25), measure="over.bias").assign(**{"loss.D1": 1.0})
    rows.loc[rows["replicate"] % 2 == 0, "over.bias"] = np.nan
    rows.loc[(rows["n"] == 100) & (rows["replicate"] > 1), "over.bias"] = np.nan
    found = slopes(designed(), rows, ["over.bias"])
    (points,) = found.points
    # Half of 96; and of the four others at 100 three: the one that is left there is too few.
    assert (points.without, points.scarce) == (51, 1)
    assert points.counts == (4,) * 11
    row = found.slope("k2", "over.bias")
    assert row.line.sizes == tuple(SIZES[1:])
    assert row.line.slope.value == pytest.approx(-0.25, abs=1e-12)
    assert "k2 over.bias: 51 replicates have no such value, 44 are used." in found.notes
    assert "k2 over.bias: 1 sizes with fewer than 2 values are left out." in found.notes


def test_measures_of_one_fate_are_one_note():
    rows = rows_of(power()).assign(**{"exact.bias": 1.0, "exact.weight": 2.0})
    rows.loc[0, ["exact.bias", "exact.weight"]] = np.nan
    assert (
        "k2 exact.bias, exact.weight: 1 replicates have no such value, 95 are used." in slopes(designed(), rows).notes
    )


def test_values_that_are_no_numbers_are_left_out_and_counted():
    rows = rows_of(power())
    rows.loc[rows["replicate"] == 0, "loss.D1"] = np.inf
    found = slopes(designed(), rows)
    assert found.slope("k2", "loss.D1").line.slope.value == pytest.approx(-0.5, abs=1e-12)
    assert "k2 loss.D1: 12 replicates have no such value, 84 are used." in found.notes


def test_a_method_without_a_measure_has_no_row_unless_it_is_expected():
    rows = pd.concat([rows_of(power()), rows_of(power(), method="k3", measure="over.bias")])
    found = slopes(designed(), rows)
    assert [(each.method, each.measure) for each in found.points] == [("k2", "loss.D1"), ("k3", "over.bias")]
    told = slopes(designed([{"measure": "over.bias", "method": "k2", "proved": -0.25}]), rows)
    row = told.slope("k2", "over.bias")
    assert row.line is None
    assert row.verdict == "no slope: 0 usable sizes, 3 needed, 12 with fewer than 2 values"
    assert row.against_proved == "no slope"
    assert row.to_dict()["slope"] is None
    # In the table the three statistics without a slope are one row; the data have all.
    assert [(name, row.measure) for name, row in told.told() if row.method == "k2"] == [
        *((statistic, "loss.D1") for statistic in STATISTICS),
        ("all", "over.bias"),
    ]
    assert len(told.to_dict()["slopes"]) == 9


def test_zeros_have_no_logarithm_and_are_counted():
    rows = rows_of(power())
    rows.loc[rows["n"] == 10_000, "loss.D1"] = 0.0
    rows.loc[(rows["n"] == 100) & (rows["replicate"] < 5), "loss.D1"] = 0.0
    found = slopes(designed(), rows)
    mean, median = (found.slope("k2", "loss.D1", name) for name in ("mean", "median"))
    assert mean.zeros == 1
    assert mean.line.sizes == tuple(SIZES[:-1])
    assert median.zeros == 2
    assert median.line.sizes == tuple(SIZES[1:-1])
    assert median.line.slope.value == pytest.approx(-0.5, abs=1e-12)
    assert any("13 values are 0" in note for note in found.notes)
    rows["loss.D1"] = 0.0
    none = slopes(designed(), rows).slope("k2", "loss.D1", "median")
    assert none.verdict == "no slope: 0 usable sizes, 3 needed, 12 with a median of 0"


def test_lines_through_zeros_that_resamples_meet_say_so_or_are_none():
    # At every size 3 of 4 values are 0: the mean is positive, but (3/4)^4 = 32% of its resamples are 0.
    rows = rows_of(power(), replicates=4)
    rows.loc[rows["replicate"] > 0, "loss.D1"] = 0.0
    found = slopes(designed(), rows)
    mean = found.slope("k2", "loss.D1")
    assert mean.line is not None
    assert mean.line.slope.value == pytest.approx(-0.5, abs=1e-12)
    few = slopes(designed(), rows[rows["n"].isin(SIZES[:3])])
    assert few.slope("k2", "loss.D1").verdict == "no slope: the mean of too many resamples is 0"


def test_too_few_sizes_give_a_reason_and_no_slope():
    found = slopes(designed(), rows_of(power(), sizes=[100, 10_000]))
    row = found.slope("k2", "loss.D1")
    assert row.line is None
    assert not row.counts
    assert row.verdict == "no slope: 2 usable sizes, 3 needed"
    assert "no slope: 2 usable sizes" in found.to_text()


EXPECTED = {"measure": "loss.D1", "proved": -0.5, "proved_source": "a theorem", "published": -0.5, "modulus": -0.5}


@pytest.mark.parametrize(
    ("exponent", "noise", "proved", "agrees"),
    [
        (-0.5, 0.02, "consistent", "agrees"),
        (-0.6, 0.02, "faster than the bound", "differs"),
        (-0.4, 0.02, "slower than proved", "differs"),
        (-0.4, 1.5, "inconclusive", "inconclusive"),
    ],
)
def test_verdicts(exponent, noise, proved, agrees):
    row = slopes(designed([EXPECTED]), rows_of(power(exponent), noise=noise)).slope("k2", "loss.D1")
    assert (row.against_proved, row.against_published, row.against_modulus) == (proved, agrees, agrees)
    assert proved in row.verdict
    assert row.is_inconclusive == (proved == "inconclusive") == (row.line.slope.half_width > 0.05)


def test_an_interval_is_inconclusive_just_above_the_designs_half_width():
    rows = rows_of(power(), noise=0.5)
    half_width = slopes(designed(), rows).slope("k2", "loss.D1").line.slope.half_width
    wide, narrow = (
        slopes(designed(widest=half_width * factor), rows).slope("k2", "loss.D1") for factor in (1.01, 0.99)
    )
    assert not wide.is_inconclusive
    assert narrow.is_inconclusive
    assert narrow.verdict == "inconclusive"


def test_logarithms_are_remembered_where_a_slope_is_too_flat():
    # √(log n / n) keeps every promise of a rate n^(-1/2) "up to logarithms", and looks slower.
    found = slopes(designed([EXPECTED]), rows_of(lambda n: math.sqrt(math.log(n) / n), noise=0.02))
    row = found.slope("k2", "loss.D1")
    assert row.against_proved == "slower than proved"
    (note,) = [note for note in found.notes if "√(log n)" in note]
    flatter = float(note.split("up to ")[1].rstrip("."))
    assert row.line.slope.covers(-0.5 + flatter)
    # Between the local slopes 1/(2 log n) of log √(log n) at both ends.
    assert 0.5 / math.log(10_000) < flatter < 0.5 / math.log(100)
    assert not any("log n" in note for note in slopes(designed([EXPECTED]), rows_of(power(), noise=0.02)).notes)


def test_what_nobody_states_is_not_compared():
    row = slopes(designed(), rows_of(power())).slope("k2", "loss.D1")
    assert (row.against_proved, row.against_published, row.against_modulus) == ("no statement", "", "")
    assert row.verdict == "no statement"
    flat = {"measure": "loss.D1", "proved_text": "slower than any polynomial"}
    found = slopes(designed([flat]), rows_of(power()))
    assert found.slope("k2", "loss.D1").against_proved == "no number proved"
    assert "-0.500 [-0.500, -0.500]  (1)     -        no number proved" in found.to_text()
    assert "\n(1) slower than any polynomial\n" in found.to_text()
    unmeasured = slopes(designed([{"measure": "loss.other", "proved": -1.0}]), rows_of(power()))
    assert "The design expects something of loss.other, which no row has." in unmeasured.notes


def test_what_is_said_of_a_method_goes_before_what_is_said_of_all():
    said = [
        {"measure": "loss.D1", "proved": -0.5, "published": -0.7, "published_source": "of all"},
        {
            "measure": "loss.D1",
            "method": "k3",
            "proved_text": "slower than any polynomial",
            "modulus_source": "none yet",
        },
        {"measure": "loss.D1", "modulus": -0.25, "modulus_source": "a case"},
    ]
    rows = pd.concat([rows_of(power()), rows_of(power(), method="k3")])
    found = slopes(designed(said), rows)
    k2, k3 = (found.slope(method, "loss.D1").expected for method in ("k2", "k3"))
    assert (k2.proved, k2.published) == (-0.5, -0.7)
    assert (k3.modulus, k3.modulus_source) == (-0.25, "a case")
    assert (k3.proved, k3.proved_text, k3.published, k3.published_source) == (
        None,
        "slower than any polynomial",
        -0.7,
        "of all",
    )


def test_the_table_and_the_data_say_the_same():
    rows = pd.concat([rows_of(power(), noise=0.2), rows_of(power(-0.25), noise=0.2, method="k3")])
    found = slopes(designed([EXPECTED]), rows)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [(row["method"], row["statistic"]) for row in data["slopes"]] == [
        (method, statistic) for method in ("k2", "k3") for statistic in STATISTICS
    ]
    text = found.to_text()
    for row in data["slopes"]:
        shown = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["slope"])
        assert f"-0.500     {shown}" in text
        assert row["slope"]["low"] < row["slope"]["value"] < row["slope"]["high"]
        assert row["verdict"] in text
    assert data["points"][0]["by_size"][0]["replicates"] == 8
    assert (data["planned"], len(rows)) == (192, 192)
    assert len(data["notes"]) == 1
    assert data["notes"][0] in text


def test_an_unfinished_study_says_so():
    assert "The study has 96 of 192 rows." in slopes(designed(), rows_of(power())).notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="status"), "the rows have no column 'status'"),
        (lambda rows: rows.iloc[:0], "the study has no rows yet"),
        (lambda rows: rows.assign(method="k9"), "the rows speak of the method 'k9': the design has k2, k3"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "the task k2/100/0 has two rows"),
    ],
)
def test_rows_that_cannot_be_used(change, message):
    with pytest.raises(InputError, match=message):
        slopes(designed(), change(rows_of(power())))


def test_unknown_names():
    with pytest.raises(InputError, match=r"no row has the measure 'loss\.D2': there are loss\.D1"):
        slopes(designed(), rows_of(power()), ["loss.D2"])
    found = slopes(designed(), rows_of(power()))
    with pytest.raises(InputError, match=r"no slope of the mode of loss\.D1 of k2: there are k2 loss\.D1"):
        found.slope("k2", "loss.D1", "mode")


def test_estimates():
    estimate = Estimate(-0.5, -0.53, -0.45)
    assert estimate.half_width == pytest.approx(0.04)
    assert estimate.is_above(-0.54)
    assert not estimate.is_above(-0.53)
    assert estimate.is_below(-0.44)
    assert not estimate.is_below(-0.45)


def test_a_study_that_was_run():
    plan = {"sizes": [{"low": 100, "high": 400, "count": 4}], "replicates": 3}
    design = StudyDesign.model_validate(
        {**designed().model_dump(), **plan, "methods": [{"name": "k2", "n_experts": 2}]}
    )
    laboratory = Laboratory(design)
    rows = pd.DataFrame([laboratory.run(task) for task in all_tasks(design)])
    found = slopes(design, rows)
    assert found.planned == len(rows) == 12
    assert found.totals[0].failed == 0
    assert {each.measure for each in found.points} >= {"loss.D1", "exact.weight"}
    row = found.slope("k2", "loss.D1", "median")
    assert row.line.sizes == (100, 159, 252, 400)
    assert row.short == "4 sizes, 10 needed; 0.60 decades, 2 needed; 0 sizes with 8 replicates, 10 needed"
    assert row.line.slope.low < row.line.slope.high
