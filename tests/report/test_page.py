import dataclasses
import json
import re
import warnings
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import FitWarning, InputError, OutputError
from gatewise.fit.status import Finding, FitStatus
from gatewise.report import render_report, write_report
from tests.report.pages import Page

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def _page(fitted, **options) -> Page:
    return Page(render_report(fitted.estimator, fitted.X, fitted.y, **options))


@pytest.fixture(scope="module")
def tone_page(tone) -> Page:
    return _page(tone, data_name="tone")


def test_a_page_has_every_part(tone_page):
    assert "Mixture of 2 experts for tuned" in tone_page.text
    assert "tuned from stretchratio · 2 linear Gaussian experts · softmax gate on stretchratio · 150 rows of tone" in (
        tone_page.text
    )
    assert "CONVERGED Converged to a maximum of the objective among the starts that were tried." in tone_page.text
    assert "1 distinct optimum found." in tone_page.text
    for heading in (
        "Key figures",
        "Parameters",
        "Data and experts",
        "Gate probabilities",
        "Responsibilities",
        "Residuals and calibration",
        "Starts and optima",
        "Reproducibility",
    ):
        assert heading in tone_page.text
    assert list(tone_page.figures()) == [
        "figure-data",
        "figure-gate",
        "figure-responsibility-histogram",
        "figure-responsibility-curves",
        "figure-residuals",
        "figure-pit",
        "figure-starts",
        "figure-trace",
    ]


def test_every_figure_has_a_place_and_a_caption(tone_page):
    places = [attributes for attributes in tone_page.attributes("div") if attributes.get("class") == "plot"]
    assert [place["id"] for place in places] == list(tone_page.figures())
    assert all(len(place["aria-label"] or "") > 40 for place in places)
    assert len(tone_page.attributes("figcaption")) == len(places)


def test_links_of_the_page_lead_to_its_sections(tone_page):
    identifiers = {attributes["id"] for attributes in tone_page.attributes("section")}
    targets = {attributes["href"] for attributes in tone_page.attributes("a")}
    assert targets == {f"#{identifier}" for identifier in identifiers - {"status"}}


def test_nothing_is_loaded_from_anywhere(tone_page):
    policy = next(meta for meta in tone_page.attributes("meta") if meta.get("http-equiv"))
    assert policy == {"http-equiv": "Content-Security-Policy", "content": POLICY}
    for tag, attributes in tone_page.tags:
        assert tag not in {"iframe", "object", "embed", "base", "form", "img"}
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert re.match(r"#|data:,$", attributes.get(name) or "#"), (tag, attributes)
    assert tone_page.raw["style"]
    for style in tone_page.raw["style"]:
        assert "@import" not in style
        assert "url(" not in style


def test_the_policy_comes_before_anything_that_could_run(tone_page):
    order = [tag for tag, _ in tone_page.tags]
    policy = next(place for place, (_, attributes) in enumerate(tone_page.tags) if attributes.get("http-equiv"))
    assert policy < min(order.index("style"), order.index("script"), order.index("link"))


def test_the_same_fit_gives_the_same_page(tone):
    first = render_report(tone.estimator, tone.X, tone.y, data_name="tone")
    assert first == render_report(tone.estimator, tone.X.copy(), tone.y.copy(), data_name="tone")


def test_hostile_names_are_only_text(hostile):
    name, other = hostile.X.columns
    page = _page(hostile, title=name, data_name=name)
    figures = len(page.figures())
    # The figures' data, plotly itself and the few lines that draw them.
    assert len(page.attributes("script")) == figures + 2
    assert not any("alert(" in script for script in page.raw["script"][-1:])
    assert page.text.count(name) >= 8
    assert other in page.text
    assert not any(event.startswith("on") for _, attributes in page.tags for event in attributes)
    links = {attributes.get("href") for _, attributes in page.tags} - {None}
    assert {link for link in links if not link.startswith("#")} == {"data:,"}


def test_hostile_names_are_only_text_in_the_figures(hostile):
    page = _page(hostile)
    for figure in page.figures().values():
        for text in _strings(figure):
            markup = re.sub(r"<extra></extra>|<br>", "", text)
            assert "<" not in markup, text
    assert page.figures()["figure-data-1"]["layout"]["xaxis"]["title"]["text"].startswith("&lt;/script&gt;")
    # The second name holds "%{y}", which a hover template would replace by a number.
    hover = next(trace for trace in page.figures()["figure-data-2"]["data"] if trace["name"] == "rows")["hovertemplate"]
    assert hover.startswith("&lt;b onclick='alert(2)'&gt;x&lt;/b&gt; %&#123;y} &amp;")


def test_no_character_of_a_figure_can_end_its_script(hostile):
    text = render_report(hostile.estimator, hostile.X, hostile.y)
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, flags=re.DOTALL):
        assert not set("<>&\u2028\u2029") & set(data)
        json.loads(data)


def test_separated_gates_are_told_and_have_dashes(temperature):
    page = _page(temperature)
    assert "SEPARATED The gate separates" in page.text
    assert "gate_ridge=1" in page.text
    assert "A dash stands where there is no standard error to give" in page.text
    status = next(attributes for attributes in page.attributes("section") if attributes["id"] == "status")
    assert status["class"] == "status caution"


def test_a_finding_beside_the_status_is_named(tone):
    estimator = GatedRegressor(**tone.estimator.get_params())
    findings = (*tone.estimator.result_.findings, Finding(FitStatus.TIGHT, "Expert 2 is <tight>."))
    estimator.__dict__.update(
        tone.estimator.__dict__, result_=dataclasses.replace(tone.estimator.result_, findings=findings)
    )
    assert "TIGHT Expert 2 is <tight>." in Page(render_report(estimator, tone.X, tone.y)).text


def test_one_expert_has_neither_gate_nor_responsibilities(one_expert):
    page = _page(one_expert)
    assert list(page.figures()) == ["figure-data", "figure-residuals", "figure-pit", "figure-starts"]
    assert "One expert for tuned" in page.text
    assert "mixture’s mean and the grey area" not in page.text


def test_constant_weights_are_said(co2):
    page = _page(co2)
    assert "The gate has no features" in page.text
    assert "constant weights" in page.text


def test_several_features_have_a_panel_each_and_say_what_is_held(npreg):
    page = _page(npreg)
    assert {"figure-data-1", "figure-data-2", "figure-gate-1", "figure-gate-2"} <= set(page.figures())
    assert "all other features held at their means" in page.text
    assert "partial residuals" in page.text


def test_interval_level(tone):
    page = _page(tone, level=0.8)
    assert "80% from" in page.text
    with pytest.raises(InputError, match="level"):
        render_report(tone.estimator, tone.X, tone.y, level=1.5)


def test_many_rows_and_features_are_thinned_and_say_so():
    generator = np.random.default_rng(5)
    X = pd.DataFrame(generator.uniform(size=(20_000, 14)), columns=[f"feature {j}" for j in range(14)])
    slopes = np.append(np.zeros(2), np.arange(1.0, 13.0))
    sign = np.where(generator.uniform(size=len(X)) < 0.5, 1.0, -1.0)
    y = sign * (X.to_numpy() @ slopes) + 6.0 * generator.normal(size=len(X))
    estimator = GatedRegressor(n_starts=1, gate_features=[0], random_state=0).fit(X, y)
    text = render_report(estimator, X, y)
    page = Page(text)
    panels = [name for name in page.figures() if name.startswith("figure-data-")]
    # Features 0 and 1 move neither the experts nor, beyond chance, the gate.
    assert panels == [f"figure-data-{number}" for number in range(3, 15)]
    assert "Of 14 features the 12 along which the fit changes most are drawn." in page.text
    assert "1,000 of 20,000 rows are drawn" in page.text
    assert "5,000 of 20,000 rows are drawn" in page.text
    assert len(text.encode()) < 8_000_000


def test_long_parameter_tables_scroll(tone):
    assert not any(attributes.get("class") == "scroll long" for attributes in _page(tone).attributes("div"))
    X = pd.DataFrame(np.random.default_rng(2).normal(size=(120, 14)), columns=[f"x{j}" for j in range(14)])
    y = X.sum(axis=1) * np.where(np.arange(120) % 2, 1.0, -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        estimator = GatedRegressor(n_experts=4, n_starts=1, max_iter=5, random_state=0).fit(X, y)
    assert any(
        attributes.get("class") == "scroll long"
        for attributes in Page(render_report(estimator, X, y)).attributes("div")
    )


def test_one_row_is_enough(case):
    for name in ("quadratic", "poisson", "categorical", "binomial, trials by row", "least squares"):
        fitted = case(name)
        figures = Page(render_report(fitted.estimator, fitted.X[:1], fitted.y[:1])).figures()
        # A single row spans no plane.
        assert "figure-gate-map" not in figures


def test_written_whole_or_not_at_all(tone, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(tone.estimator, path, tone.X, tone.y, data_name="tone")
    assert path.read_bytes() == render_report(tone.estimator, tone.X, tone.y, data_name="tone").encode()
    path.write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full_disk)
        with pytest.raises(OutputError, match="no space left on device"):
            write_report(tone.estimator, path, tone.X, tone.y, overwrite=True)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OutputError, match=r"report\.html: it exists; choose another name or allow overwriting"):
        write_report(tone.estimator, path, tone.X, tone.y)
    assert path.read_text() == "old"
    write_report(tone.estimator, path, tone.X, tone.y, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_unwritable_place_is_an_output_error(tone, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_report(tone.estimator, tmp_path / "missing" / "report.html", tone.X, tone.y)


def test_templates_are_package_data():
    folder = resources.files("gatewise.report") / "templates"
    assert {entry.name for entry in folder.iterdir()} >= {"report.html", "report.css", "report.js"}


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
