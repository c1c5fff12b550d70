"""Two sides beside each other: differences of slopes, ratios of pairs, what is shared, refusals."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from gatewise.exceptions import InputError
from gatewise.study.compare import compare, shared_data
from gatewise.study.design import StudyDesign
from gatewise.study.slopes import slopes
from tests.study.designs import design_of

SIZES = [100, 200, 500, 1000, 2000, 5000, 10_000]
REPLICATES = 10


def designed(methods=("k2",), **changes) -> StudyDesign:
    named = [{"name": name, "n_experts": 2} for name in methods]
    plan = {"sizes": SIZES, "replicates": REPLICATES, "methods": named, "slopes": {"resamples": 500}}
    return design_of(**{**plan, **changes})


def noise_of(sizes=SIZES, replicates=REPLICATES, seed=0) -> dict[tuple[int, int], float]:
    generator = np.random.default_rng(seed)
    return {(n, i): math.exp(0.5 * generator.normal()) for n in sizes for i in range(replicates)}


def rows_of(exponent, noise, factor=1.0, method="k2", measure="loss.D1") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": method, "n": n, "replicate": i, "status": "TIGHT", measure: factor * n**exponent * value}
            for (n, i), value in noise.items()
        ]
    )


def test_noise_that_both_sides_share_cancels():
    noise = noise_of()
    first, second = rows_of(-0.25, noise), rows_of(-0.5, noise, factor=0.5)
    found = compare((designed(), first), (designed(), second))
    assert found.is_paired
    assert found.titles == ("A study", "A study")
    assert len(found.differences) == 3
    for row in found.differences:
        # Each slope alone is uncertain; the noise is the same in every pair, so that the difference is exact.
        assert row.slopes[0].half_width > 0.02
        for value in (row.value.value, row.value.low, row.value.high):
            assert value == pytest.approx(0.25, abs=1e-12)
        assert row.verdict == "the second shrinks faster"
        assert row.sizes == (7, 7)
    assert len(found.ratios) == 21
    for row in found.ratios:
        assert row.pairs == REPLICATES
        for value in (row.value.value, row.value.low, row.value.high):
            assert value == pytest.approx(2.0 * row.n**0.25, rel=1e-12)
    back = compare((designed(), second), (designed(), first))
    assert back.differences[0].verdict == "the first shrinks faster"
    assert back.differences[0].value.value == pytest.approx(-0.25, abs=1e-12)


def test_the_slopes_of_the_sides_are_those_of_each_study():
    noise = noise_of()
    found = compare((designed(), rows_of(-0.25, noise)), (designed(), rows_of(-0.5, noise)))
    for place, exponent in enumerate((-0.25, -0.5)):
        own = slopes(designed(), rows_of(exponent, noise))
        for row in found.differences:
            line = own.slope("k2", "loss.D1", row.statistic).line
            assert row.slopes[place].value == pytest.approx(line.slope.value, abs=1e-12)
            # The same draws, of the same values in the same order.
            assert row.slopes[place].low == pytest.approx(line.slope.low, abs=1e-12)


def test_other_data_are_not_paired():
    first, second = rows_of(-0.25, noise_of()), rows_of(-0.5, noise_of(seed=1))
    found = compare((designed(), first), (designed(seed=12), second))
    assert not found.is_paired
    assert found.ratios == ()
    assert "Not paired: the studies differ in seed" in found.notes[0]
    for row in found.differences:
        assert row.value.value == pytest.approx(row.slopes[0].value - row.slopes[1].value, abs=1e-14)
        # Independent sides: half-widths add up as the sides of a right angle, up to the 500 resamples.
        assert row.value.half_width == pytest.approx(
            math.hypot(row.slopes[0].half_width, row.slopes[1].half_width), rel=0.15
        )
        assert row.verdict == "the second shrinks faster"


def test_unpaired_draws_are_independent_even_of_equal_rows():
    noise = noise_of()
    found = compare((designed(), rows_of(-0.5, noise)), (designed(seed=12), rows_of(-0.5, noise)))
    for row in found.differences:
        assert row.value.value == pytest.approx(0.0, abs=1e-14)
        assert row.value.half_width > max(each.half_width for each in row.slopes)
        assert row.verdict in ("no difference seen", "inconclusive")


def test_intervals_of_paired_differences_cover():
    # With 10 replicates the bootstrap's variance is 9/10 of the true one: 93.7% are to be expected, and of 100 studies
    # three standard errors are 7.3%.
    covered = np.zeros(3)
    for study in range(100):
        noise = noise_of(seed=study)
        own = noise_of(seed=1000 + study)
        mixed = {key: value * own[key] ** 0.5 for key, value in noise.items()}
        design = designed(seed=study, slopes={"resamples": 200})
        found = compare((design, rows_of(-0.3, noise)), (design, rows_of(-0.5, mixed)))
        covered += [row.value.covers(0.2) for row in found.differences]
    assert (covered / 100 >= 0.86).all()


def test_methods_of_one_study():
    noise = noise_of()
    rows = pd.concat([rows_of(-0.5, noise, method="a"), rows_of(-0.25, noise, method="b")])
    design = designed(("a", "b"))
    found = compare((design, rows), (design, rows), first_method="a", second_method="b")
    assert found.differences[0].methods == ("a", "b")
    assert found.differences[0].verdict == "the first shrinks faster"
    assert "a / b" in found.to_text()
    with pytest.raises(InputError, match="both sides are the method 'a' of one study"):
        compare((design, rows), (design, rows))
    with pytest.raises(InputError, match="both sides are the method 'b' of one study"):
        compare((design, rows), (design, rows), first_method="b")
    with pytest.raises(InputError, match="there is no method 'c': there are a, b"):
        compare((design, rows), (design, rows), first_method="c")


def test_which_methods_are_meant():
    noise = noise_of()
    several = pd.concat([rows_of(-0.5, noise, method=name) for name in ("a", "b")])
    one, other = designed(("a", "b")), designed(("c",))
    alone = rows_of(-0.5, noise, method="c")
    assert compare((other, alone), (designed(("d",)), rows_of(-0.5, noise, method="d"))).differences[0].methods == (
        "c",
        "d",
    )
    assert compare((one, several), (other, alone), first_method="b").differences[0].methods == ("b", "c")
    with pytest.raises(InputError, match="say which methods to compare: the first has a, b, the second c"):
        compare((one, several), (other, alone))
    with pytest.raises(InputError, match="say which methods to compare"):
        compare((one, several), (other, alone), second_method="c")


def test_only_pairs_that_are_complete_count():
    noise = noise_of()
    first, second = rows_of(-0.25, noise), rows_of(-0.5, noise)
    first.loc[(first["n"] == 100) & (first["replicate"] < 4), "loss.D1"] = np.nan
    second.loc[(second["n"] == 100) & (second["replicate"] > 6), "status"] = "FAILED"
    second.loc[(second["n"] == 200) & (second["replicate"] > 0), "loss.D1"] = np.nan
    found = compare((designed(), first), (designed(), second))
    pairs = {row.n: row.pairs for row in found.ratios}
    assert pairs == {100: 3, **dict.fromkeys(SIZES[2:], 10)}
    assert found.differences[0].value.value == pytest.approx(0.25, abs=1e-12)
    assert found.differences[0].sizes == (6, 6)


def test_order_does_not_matter_and_the_same_seed_gives_the_same_bits():
    first, second = rows_of(-0.25, noise_of()), rows_of(-0.5, noise_of(seed=1))
    found = compare((designed(), first), (designed(), second)).to_dict()
    again = [each.sample(frac=1.0, random_state=3) for each in (first, second)]
    assert compare((designed(), again[0]), (designed(), again[1])).to_dict() == found
    renamed = [each.assign(replicate=9 - each["replicate"]) for each in (first, second)]
    assert compare((designed(), renamed[0]), (designed(), renamed[1])).to_dict() == found


def test_too_few_sizes_and_zeros_give_reasons():
    noise = noise_of(SIZES[:2])
    found = compare((designed(), rows_of(-0.25, noise)), (designed(), rows_of(-0.5, noise)))
    assert {row.verdict for row in found.differences} == {"no difference: 2 usable sizes, 3 needed"}
    assert len(found.ratios) == 6
    unpaired = compare((designed(), rows_of(-0.25, noise)), (designed(seed=3), rows_of(-0.5, noise)))
    assert {row.verdict for row in unpaired.differences} == {"no difference: 2 usable sizes, 3 needed"}
    alone = rows_of(-0.25, noise_of(replicates=1))
    for seed, reason in ((11, "no size has two pairs"), (12, "no size of the first has two values")):
        found = compare((designed(), alone), (designed(seed=seed), rows_of(-0.5, noise_of())))
        assert {row.verdict for row in found.differences} == {f"no difference: {reason}"}
        assert found.differences[0].to_dict()["difference"] is None
    nothing = rows_of(-0.5, noise_of(), factor=0.0)
    found = compare((designed(), rows_of(-0.25, noise_of())), (designed(), nothing))
    assert {row.verdict for row in found.differences} == {"no difference: 0 usable sizes, 3 needed"}
    assert all(row.value is None for row in found.ratios)
    assert "-" in found.to_text()


def test_what_differs_between_the_designs_is_said():
    noise = noise_of()
    other = designed(losses=[{"name": "D1", "kind": "D1", "symmetry": "none"}], slopes={"trim": 0.2, "resamples": 500})
    more = [each.assign(**{"exact.bias": 1.0}) for each in (rows_of(-0.25, noise), rows_of(-0.5, noise))]
    found = compare((designed(), more[0]), (other, more[1]))
    assert found.is_paired
    assert found.notes[1:] == (
        "The designs differ in slopes.trim: the first's are used.",
        "loss.D1 is not the same loss in both designs.",
        "Distances of parameters are in the cells of another first loss in each design.",
    )
    assert shared_data(designed(), designed(covariates={"high": 2.0}, seed=3)) == ["seed", "covariates"]
    assert shared_data(designed(), designed(box={"gate.bias": (-1.0, 1.0)}, replicates=20)) == []


def test_measures():
    noise = noise_of()
    first, second = rows_of(-0.25, noise), rows_of(-0.5, noise)
    with pytest.raises(InputError, match=r"do not both have 'loss\.D2': in common are loss\.D1"):
        compare((designed(), first), (designed(), second), measures=["loss.D2"])
    with pytest.raises(InputError, match="no measure in common"):
        compare((designed(), first), (designed(), second.rename(columns={"loss.D1": "loss.D2"})))


def test_small_ratios_keep_their_digits():
    noise = noise_of()
    found = compare((designed(), rows_of(-0.5, noise, factor=1e-6)), (designed(), rows_of(-0.5, noise)))
    assert "1e-06 [1e-06, 1e-06]" in found.to_text()


def test_the_table_and_the_data_say_the_same():
    found = compare((designed(), rows_of(-0.25, noise_of())), (designed(), rows_of(-0.5, noise_of(seed=1))))
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    text = found.to_text()
    for row in data["differences"]:
        assert "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["difference"]) in text
        assert row["verdict"] in text
    assert "15 of 21 ratios." in text
    shown = [row for row in data["ratios"] if "{value:.3g} [{low:.3g}, {high:.3g}]".format(**row["ratio"]) in text]
    assert {row["n"] for row in shown} == {100, 500, 1000, 2000, 10_000}
