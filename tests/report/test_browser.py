"""A report in a real browser: figures are drawn, nothing complains, nothing leaves the page."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from gatewise.lora import attach_router, read
from gatewise.report import write_report
from tests.lora.models import ids, llama, random_gates
from tests.report.test_early_exit import small_evaluation

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)
# A cold start of the browser on a busy machine; a page is drawn in about a second.
_PATIENCE = 60.0


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chrome]:
    driver = shutil.which("chromedriver")
    binary = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if driver is None or binary is None:
        pytest.skip("no chromium with chromedriver is installed: the report was not opened in a browser")
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def _open(browser: Chrome, path: Path) -> None:
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    end = time.monotonic() + _PATIENCE
    while browser.execute_script("return document.body.dataset.drawn") is None:
        assert time.monotonic() < end, f"the figures were not drawn in time; console: {browser.get_log('browser')}"
        time.sleep(0.05)


def _traces(browser: Chrome) -> dict[str, dict[str, int]]:
    """For each figure the traces that its data ask for, those in its drawing, and the visible marks in them."""
    return browser.execute_script(
        """
        const found = {};
        for (const plot of document.querySelectorAll(".plot")) {
          // A heat map is no ".trace" to plotly, and an image instead of paths.
          const marks = [...plot.querySelectorAll(".trace path[d], .hm image")].filter((mark) => {
            const box = mark.getBBox();
            return box.width + box.height > 0;
          });
          found[plot.id] = {
            asked: plot.data.length,
            drawn: plot.querySelectorAll(".trace, .hm").length,
            marks: marks.length,
            width: Math.round(plot.querySelector(".main-svg").getBoundingClientRect().width),
            room: Math.round(plot.getBoundingClientRect().width),
          };
        }
        return found;
        """
    )


def _requests(browser: Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    sockets = [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
    return sent + sockets


def _check_figures(browser: Chrome, path: Path) -> dict[str, dict[str, int]]:
    """Open a page; all its figures are drawn with all their traces, nothing complains, nothing leaves the page."""
    _open(browser, path)
    traces = _traces(browser)
    assert browser.execute_script("return document.body.dataset.drawn") == str(len(traces))
    for figure, count in traces.items():
        assert count["asked"] > 0, figure
        assert count["drawn"] == count["asked"], figure
        assert count["marks"] >= count["asked"], figure
        assert abs(count["width"] - count["room"]) <= 1, figure
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []
    requests = _requests(browser)
    assert path.as_uri() in requests
    # The browser's own start page is chrome://; it may still be loading when the log begins.
    inside = ("data:", "blob:", "chrome://")
    assert [url for url in requests if url != path.as_uri() and not url.startswith(inside)] == []
    return traces


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("tone", 8),
        ("npreg", 11),
        # The same eight figures as those of the first.
        pytest.param("co2", 8, marks=pytest.mark.slow),
        pytest.param("temperature", 8, marks=pytest.mark.slow),
        pytest.param("constant_experts", 8, marks=pytest.mark.slow),
        ("one_expert", 4),
        ("hostile", 11),
    ],
)
def test_figures_are_drawn_and_nothing_leaves_the_page(request, browser, tmp_path, name, figures):
    fitted = request.getfixturevalue(name)
    path = tmp_path / "report.html"
    write_report(fitted.estimator, path, fitted.X, fitted.y, data_name=name)
    assert len(_check_figures(browser, path)) == figures
    assert len(browser.find_elements("css selector", "#figure-starts .point")) == len(fitted.estimator.result_.starts)


# Between them: a heat map, steps, a rootogram, calibration, tables after figures, medians, unnormalised weights.
@pytest.mark.parametrize(
    "name",
    [
        "poisson with an offset",
        "categorical",
        "student_t without a mean",
        "hierarchical",
        "multivariate_gaussian",
        "least squares, unnormalised",
    ],
)
def test_every_kind_of_figure_is_drawn(case, browser, tmp_path, name):
    fitted = case(name)
    path = tmp_path / "report.html"
    write_report(fitted.estimator, path, fitted.X, fitted.y, data_name=name, **fitted.more)
    _check_figures(browser, path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280


def test_hostile_names_run_nowhere(hostile, browser, tmp_path):
    path = tmp_path / "report.html"
    write_report(hostile.estimator, path, hostile.X, hostile.y, title=hostile.X.columns[0])
    _open(browser, path)
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert.text
    assert browser.title == hostile.X.columns[0]
    shown = browser.execute_script("return document.querySelector('#figure-data-2 .xtitle').textContent")
    assert shown == hostile.X.columns[1][:39] + "…"
    assert browser.find_elements("css selector", "img, .plot a[*|href], b[onclick]") == []


def test_the_policy_stops_what_would_leave_the_page(tone, browser, tmp_path):
    path = tmp_path / "report.html"
    write_report(tone.estimator, path, tone.X, tone.y)
    _open(browser, path)
    outcome = browser.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org/').then(() => done('sent'), () => done('stopped'));"
    )
    assert outcome == "stopped"
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in complaint for complaint in complaints)


def test_narrow_windows_keep_their_figures_inside(npreg, browser, tmp_path):
    path = tmp_path / "report.html"
    write_report(npreg.estimator, path, npreg.X, npreg.y)
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        _open(browser, path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        assert all(count["width"] <= count["room"] + 1 for count in _traces(browser).values())
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_captions_stay_where_wide_tables_scroll(tone, browser, tmp_path):
    """On a phone a table scrolls in a place of its own, and what is said about it can be read without."""
    path = tmp_path / "report.html"
    write_report(tone.estimator, path, tone.X, tone.y)
    metrics = {"width": 340, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        _open(browser, path)
        found = browser.execute_script(
            """
            const boxes = [...document.querySelectorAll(".scroll")];
            const scrolling = boxes.filter((box) => box.scrollWidth > box.clientWidth);
            for (const box of scrolling) box.scrollLeft = box.scrollWidth;
            const captions = [...document.querySelectorAll("caption, .caption, figcaption")];
            return {
              scrolling: scrolling.length,
              tables: document.querySelectorAll("table").length,
              described: document.querySelectorAll("table[aria-describedby]").length,
              outside: captions.filter((caption) => {
                const box = caption.getBoundingClientRect();
                return box.left < 0 || box.right > 340 || caption.closest(".scroll") !== null;
              }).map((caption) => caption.textContent),
              page: document.documentElement.scrollWidth,
            };
            """
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert found["scrolling"] > 0
    assert found["tables"] == found["described"] > 2
    assert found["outside"] == []
    assert found["page"] <= 340


def test_a_page_on_early_exits(browser, tmp_path):
    path = tmp_path / "exits.html"
    write_report(small_evaluation(), path)
    traces = _check_figures(browser, path)
    assert len(traces) == 3


def test_a_page_on_adapters(browser, tmp_path):
    model, tokens = llama(), ids(3, 40)
    with attach_router(model, gates=random_gates(model)) as routed:
        read(routed, {"input_ids": tokens}, [[f"word{token} " for token in row] for row in tokens.tolist()])
        path = tmp_path / "adapters.html"
        write_report(routed, path)
    metrics = {"width": 340, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    for phone in (False, True):
        if phone:
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            assert _check_figures(browser, path)
            found = browser.execute_script(
                """
                const tokens = [...document.querySelectorAll("span[title]")];
                return {
                  texts: tokens.map((token) => token.textContent.trim()),
                  colours: new Set(tokens.map((token) => getComputedStyle(token).backgroundColor)).size,
                  bare: tokens.filter((token) => getComputedStyle(token).backgroundColor === "rgba(0, 0, 0, 0)").length,
                  outside: tokens.filter((token) => token.getBoundingClientRect().right > innerWidth).length,
                  page: document.documentElement.scrollWidth,
                };
                """
            )
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert found["texts"] == [f"word{token}" for token in tokens.reshape(-1).tolist()]
        # Adapters have colours of their own, in as many strengths as there are agreements.
        assert found["colours"] > 3
        assert found["bare"] == found["outside"] == 0
        assert found["page"] <= (340 if phone else 1280)
