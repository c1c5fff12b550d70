"""The page on a study: every slope with its interval, the figures' lines, failures, times, the design, escaping."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from gatewise.cli.study_slopes import compare_studies, report, show_slopes
from gatewise.exceptions import InputError, OutputError
from gatewise.report.study import study_page
from gatewise.report.theory import render_theory, write_theory
from gatewise.study.replicate import Laboratory, all_tasks
from gatewise.study.slope_fit import STATISTICS
from gatewise.study.slopes import slopes
from gatewise.study.store import Store
from tests.report.pages import Page
from tests.study.designs import SIZES, design_of

NASTY = "</script><script>alert(1)</script> <b>x</b> {{ 7 * 7 }}"


def rows_of(exponents, design, measure="loss.D1", noise=0.05, **more) -> pd.DataFrame:
    """Rows of all methods, in the order of their exponents."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "key": f"{method.name}/{n}/{i}",
                "method": method.name,
                "n": n,
                "replicate": i,
                "status": "CONVERGED",
                "error": "",
                "seconds": 0.001 * n,
                "attempts": 1,
                "below_truth": False,
                "outside_box": 0,
                measure: 3.0 * n**exponent * math.exp(noise * generator.normal()),
                **more,
            }
            for method, exponent in zip(design.methods, exponents, strict=True)
            for n in design.all_sizes()
            for i in range(design.replicates)
        ]
    )


EXPECTED = [
    {
        "measure": "loss.D1",
        "method": "k2",
        "published": -0.638,
        "published_source": "a figure",
        "proved": -0.5,
        "proved_source": "a theorem",
        "modulus": -0.5,
        "modulus_source": "a case",
    },
    {"measure": "loss.D1", "method": "k3", "proved_text": "slower than any power", "proved_source": "another theorem"},
]


def page_of(design, rows, **more):
    return study_page(design, rows, slopes(design, rows), **more)


def words(page) -> str:
    return Page(render_theory(page)).text


def test_every_slope_stands_there_with_its_interval_and_what_others_say():
    design = design_of(expected=EXPECTED)
    rows = rows_of((-0.5, -0.25), design)
    text = words(page_of(design, rows))
    found = slopes(design, rows)
    for row in found.slopes:
        line = row.line
        start = f"{row.method} loss.D1 {row.statistic}"
        ours = line.slope.to_text()
        if row.method == "k2":
            assert f"{start} -0.638 {ours} -0.500 -0.500 {row.outcome}" in text
        else:
            assert f"{start} – {ours} in words – no number proved" in text
        assert f"{start} {line.curvature.to_text()} 12 100 10,000 yes" in text
    for source in ("published -0.638 a figure", "proved -0.500 a theorem", "modulus -0.500 a case"):
        assert f"loss.D1 k2 {source}" in text
    assert "loss.D1 k3 proved slower than any power another theorem" in text
    assert "95% intervals of 300 bootstrap resamples" in text


def test_the_figure_shows_points_quartiles_lines_and_references():
    design = design_of(expected=EXPECTED)
    rows = rows_of((-0.5, -0.25), design)
    figure = Page(render_theory(page_of(design, rows))).figures()["losses-1"]
    own = rows[rows["method"] == "k2"].groupby("n")["loss.D1"]
    shown = {trace["name"]: trace for trace in figure["data"] if trace["name"].startswith("k2") and trace["visible"]}
    assert shown["k2: mean"]["y"] == pytest.approx(own.mean().tolist())
    assert shown["k2: mean"]["x"] == SIZES
    band = shown["k2: interquartile range"]
    assert band["y"][:12] == pytest.approx(own.quantile(0.25).tolist())
    assert band["y"][:11:-1] == pytest.approx(own.quantile(0.75).tolist())
    row = slopes(design, rows).slope("k2", "loss.D1")
    line = shown[f"k2: slope {row.line.slope.to_text()}"]
    interval = shown["k2: 95% of the line"]
    below, above = interval["y"][: len(line["y"])], interval["y"][: len(line["y"]) - 1 : -1]
    assert all(low <= middle <= high for low, middle, high in zip(below, line["y"], above, strict=True))
    centre = math.exp(np.log(SIZES).mean())
    for name, slope in (("proved -0.500", -0.5), ("published -0.638", -0.638), ("modulus -0.500", -0.5)):
        (x1, x2), (y1, y2) = shown[f"k2: {name}"]["x"], shown[f"k2: {name}"]["y"]
        assert math.log(y2 / y1) / math.log(x2 / x1) == pytest.approx(slope)
        # Through our line at the centre of the sizes.
        assert y1 * (centre / x1) ** slope == pytest.approx(math.exp(row.line.height.value))
    assert not any(trace["name"].startswith("k3: proved") for trace in figure["data"])
    assert (figure["layout"]["xaxis"]["type"], figure["layout"]["yaxis"]["type"]) == ("log", "log")


def test_the_menu_shows_one_statistic_at_a_time():
    design = design_of(expected=EXPECTED)
    figure = Page(render_theory(page_of(design, rows_of((-0.5, -0.25), design)))).figures()["losses-1"]
    buttons = figure["layout"]["updatemenus"][0]["buttons"]
    assert [button["label"] for button in buttons] == list(STATISTICS)
    for button in buttons:
        visible = button["args"][0]["visible"]
        names = [trace["name"] for trace, seen in zip(figure["data"], visible, strict=True) if seen]
        assert [name for name in names if name.split(": ")[1] in STATISTICS] == [
            f"{method}: {button['label']}" for method in ("k2", "k3")
        ]
        assert sum("interquartile" in name for name in names) == 2
        assert sum(": slope" in name for name in names) == 2
    assert [trace["visible"] for trace in figure["data"]] == buttons[0]["args"][0]["visible"]


def test_logarithmic_axes_have_no_place_for_zeros():
    design = design_of()
    rows = rows_of((-0.5, -0.25), design)
    rows.loc[(rows["method"] == "k2") & (rows["n"] == 100), "loss.D1"] = 0.0
    rows.loc[(rows["method"] == "k2") & (rows["n"] == SIZES[1]) & (rows["replicate"] < 4), "loss.D1"] = 0.0
    page = page_of(design, rows)
    traces = {trace["name"]: trace for trace in Page(render_theory(page)).figures()["losses-1"]["data"]}
    assert traces["k2: mean"]["y"][0] is None
    assert all(value > 0.0 for value in traces["k2: mean"]["y"][1:])
    assert traces["k2: interquartile range"]["x"][:10] == SIZES[2:]
    assert "k2 loss.D1: 12 values are 0" in words(page)


def test_measures_of_parameters_have_sections_of_their_own():
    design = design_of()
    rows = rows_of((-0.5, -0.25), design, **{"exact.bias": 0.5, "over.bias": np.nan})
    rows.loc[rows["method"] == "k3", ["exact.bias", "over.bias"]] = [np.nan, 0.25]
    page = page_of(design, rows)
    assert [section.short for section in page.sections] == [
        "Slopes",
        "Losses",
        "Exact cells",
        "Shared cells",
        "Fits",
        "Time",
        "Design",
    ]
    figures = Page(render_theory(page)).figures()
    assert list(figures) == ["losses-1", "exact-1", "over-1", "seconds"]
    assert {trace["name"].split(":")[0] for trace in figures["exact-1"]["data"]} == {"k2"}
    assert {trace["name"].split(":")[0] for trace in figures["over-1"]["data"]} == {"k3"}


def test_failures_attempts_and_keys_to_look_at():
    design = design_of()
    rows = rows_of((-0.5, -0.25), design)
    rows.loc[0, ["status", "error", "loss.D1"]] = ["FAILED", "ArithmeticError: no numbers", np.nan]
    rows.loc[1, "below_truth"] = True
    rows.loc[2, ["outside_box", "attempts"]] = [3, 2]
    page = page_of(design, rows)
    text = words(page)
    assert "192 of 192 rows" in text
    seconds = rows[rows["method"] == "k2"]["seconds"].sum()
    assert f"k2 96 95 CONVERGED, 1 FAILED 1 1 1 97 1 {seconds:,.1f}" in text
    assert "k2 ArithmeticError: no numbers 1" in text
    assert "Rows to look at, 3 of 3" in text
    for line in ("k2/100/0 FAILED failed", "k2/100/1 CONVERGED below the truth", "k2/100/2 CONVERGED outside the box"):
        assert line in text
    assert "1 rows failed and are left out." in page.remarks
    assert "1 fits ended below the truth's objective; they are in the numbers." in page.remarks
    assert "sizes with 8 replicates do not span 2 decades" in text
    assert "Rows to look at" not in words(page_of(design, rows_of((-0.5, -0.25), design)))


def test_a_study_in_which_all_failed():
    design = design_of(expected=EXPECTED)
    rows = rows_of((-0.5, -0.25), design).assign(status="FAILED", error="ArithmeticError: no").drop(columns="loss.D1")
    page = page_of(design, rows)
    assert page.verdict == "0 of 0 slopes have enough sizes, decades and replicates to count."
    assert page.remarks[0] == "192 rows failed and are left out."
    assert "Rows to look at, 20 of 192" in words(page)
    assert list(Page(render_theory(page)).figures()) == ["seconds"]


def test_times_by_method_and_size():
    design = design_of()
    rows = rows_of((-0.5, -0.25), design)
    page = page_of(design, rows)
    text = words(page)
    assert "k2 100 8 0.1 0.1 0.8" in text
    assert "k3 10,000 8 10 10 80" in text
    assert f"All tasks took {rows['seconds'].sum():,.1f} processor seconds" in text
    traces = {
        trace["name"]: trace for trace in Page(render_theory(page)).figures()["seconds"]["data"] if "name" in trace
    }
    assert traces["k2"]["y"] == pytest.approx([0.001 * n for n in SIZES])


def test_the_design_its_sources_and_versions():
    provenance = [
        {"item": "inputs", "paper": "uniform", "chosen": "a grid", "status": "read in the code"},
        {"item": "seed", "chosen": "11", "status": "chosen here"},
    ]
    design = design_of(
        provenance=provenance, notes="What should be known.", paper="a paper", box={"gate.bias": (-9, 9)}
    )
    page = page_of(design, rows_of((-0.5, -0.25), design), name="a folder", versions={"versions": {"numpy": "2.1"}})
    text = words(page)
    assert "inputs uniform – a grid read in the code" in text
    assert "seed – – 11 chosen here" in text
    assert "What should be known." in text
    assert "box gate.bias = [-9.0, 9.0]" in text
    assert "12 sizes from 100 to 10,000, 8 replicates; a paper" in text
    assert design.digest() in text
    assert "versions numpy = 2.1" in text
    assert "Store.open('a folder')" in text


@pytest.mark.parametrize(
    ("exponents", "changes", "badge", "severity"),
    [
        ((-0.5, -0.5), {}, "Consistent", "good"),
        ((-0.6, -0.5), {}, "Consistent", "good"),
        ((-0.4, -0.5), {}, "Slower than proved", "severe"),
        ((-0.5, -0.5), {"noise": 2.0}, "Partly inconclusive", "caution"),
        ((-0.5, -0.5), {"expected": []}, "Measured", "good"),
        ((-0.4, -0.5), {"slopes": {"resamples": 300, "replicates": 9}}, "Too little", "caution"),
    ],
)
def test_verdicts(exponents, changes, badge, severity):
    noise = changes.pop("noise", 0.05)
    design = design_of(**{"expected": EXPECTED[:1], **changes})
    page = page_of(design, rows_of(exponents, design, noise=noise))
    assert (page.badge, page.severity) == (badge, severity)
    counting = 0 if badge == "Too little" else 6
    assert page.verdict.startswith(f"{counting} of 6 slopes have enough sizes")


def test_curved_lines_are_said():
    design = design_of()
    rows = rows_of((-0.5, -0.5), design)
    bent = rows["method"] == "k2"
    rows.loc[bent, "loss.D1"] *= 1 + 30 * rows.loc[bent, "n"] ** -0.5
    assert any(text.startswith("3 of 6 lines are curved") for text in page_of(design, rows).remarks)


def test_everything_that_a_design_or_a_row_says_is_escaped():
    said = {"measure": "loss.D1", "proved": -0.5, "published_source": NASTY, "proved_source": NASTY, "published": -0.5}
    design = design_of(
        title=NASTY,
        paper=NASTY,
        notes=NASTY,
        expected=[said, {"measure": NASTY, "proved_text": NASTY}],
        provenance=[{"item": NASTY, "paper": NASTY, "code": NASTY, "chosen": NASTY, "status": "recalled"}],
    )
    rows = rows_of((-0.5, -0.25), design, measure=f"loss.{NASTY}").assign(**{"loss.D1": 1.0})
    rows.loc[0, ["status", "error"]] = ["FAILED", NASTY]
    page = Page(render_theory(page_of(design, rows, name=NASTY, versions={NASTY: NASTY})))
    assert not any(script.lstrip().startswith("alert") for script in page.raw["script"])
    assert page.attributes("b") == [{}] * len(page.attributes("b"))
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in page.text.split("Reproducibility")[-1].replace(design.digest(), "")
    assert page.text.count("<script>alert(1)</script>") > 8
    for figure in page.figures().values():
        assert "<script>" not in json.dumps([figure["layout"]["yaxis"], [t.get("name") for t in figure["data"]]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study that was run: 4 sizes, 3 replicates, two methods."""
    plan = {"sizes": [60, 90, 140, 200], "replicates": 3, "slopes": {"resamples": 200}}
    design = design_of(**plan, expected=EXPECTED)
    store = Store.create(tmp_path_factory.mktemp("studies") / "one", design)
    laboratory = Laboratory(design)
    with store.writing():
        store.add([laboratory.run(task) for task in all_tasks(design)])
    return store.folder


def test_the_command_writes_the_page_once(folder, tmp_path, capsys):
    path = tmp_path / "page.html"
    report(folder, path)
    assert capsys.readouterr().out == f"{path}\n"
    written = path.read_text(encoding="utf-8")
    text = Page(written).text
    assert "24 of 24 rows" in text
    rows = Store.open(folder).rows()
    assert (
        f"k3 12 {', '.join(f'{m} {k}' for k, m in rows[rows['method'] == 'k3']['status'].value_counts().items())}"
        in text
    )
    assert "numpy = " in text
    with pytest.raises(OutputError, match="it exists"):
        report(folder, path)
    assert path.read_text(encoding="utf-8") == written
    report(folder, path, overwrite=True, measures=["loss.D1"])
    assert list(Page(path.read_text(encoding="utf-8")).figures()) == ["losses-1", "seconds"]
    report(folder)
    assert (folder / "report.html").exists()
    assert capsys.readouterr().out.endswith(f"{folder / 'report.html'}\n")
    # The page in the folder does not disturb the study.
    assert len(Store.open(folder).rows()) == 24


def test_the_command_prints_slopes(folder, capsys):
    store = Store.open(folder)
    found = slopes(store.design, store.rows(), ["loss.D1"])
    show_slopes(folder, ["loss.D1"])
    assert capsys.readouterr().out == found.to_text() + "\n"
    show_slopes(folder, ["loss.D1"], as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads(json.dumps(found.to_dict()))
    assert [(row["method"], row["counts"]) for row in data["slopes"][::3]] == [("k2", False), ("k3", False)]
    with pytest.raises(InputError, match=r"no row has the measure 'loss\.D9'"):
        show_slopes(folder, ["loss.D9"])


def test_the_command_compares_methods_of_one_study(folder, capsys):
    compare_studies(folder, folder, "k2", "k3", ["loss.D1"], as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert data["is_paired"]
    assert [row["methods"] for row in data["differences"]] == [["k2", "k3"]] * 3
    assert [row["n"] for row in data["ratios"][::3]] == [60, 90, 140, 200]
    for row in data["differences"]:
        gap = row["slopes"][0]["value"] - row["slopes"][1]["value"]
        assert row["difference"]["value"] == pytest.approx(gap, abs=1e-12)
    compare_studies(folder, folder, "k2", "k3")
    assert "k2 / k3" in capsys.readouterr().out
    with pytest.raises(InputError, match="of one study: name two different methods"):
        compare_studies(folder, folder)


def test_a_folder_without_a_study(tmp_path):
    for command in (show_slopes, report):
        with pytest.raises(InputError, match="holds no study"):
            command(tmp_path)
    with pytest.raises(InputError, match="holds no study"):
        compare_studies(tmp_path, tmp_path)


def test_a_page_can_be_written_and_is_not_overwritten(tmp_path):
    design = design_of()
    page = page_of(design, rows_of((-0.5, -0.25), design))
    write_theory(tmp_path / "a.html", page)
    with pytest.raises(OutputError, match="it exists"):
        write_theory(tmp_path / "a.html", page)
