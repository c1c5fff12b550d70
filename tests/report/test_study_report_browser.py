"""The page on a study in a real browser: figures are drawn, the menu works, PNG and SVG are saved, nothing leaves."""

import pytest

from gatewise.report.study import study_page
from gatewise.report.theory import write_theory
from gatewise.study.slopes import slopes
from tests.report import test_browser
from tests.report.test_study_report import EXPECTED, rows_of
from tests.study.designs import design_of

browser = test_browser.browser


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    design = design_of(expected=EXPECTED)
    rows = rows_of((-0.5, -0.25), design)
    path = tmp_path_factory.mktemp("pages") / "study.html"
    write_theory(path, study_page(design, rows, slopes(design, rows)))
    return path


def _shown(browser) -> list[str]:
    """The names of the traces that are drawn with a visible mark."""
    return browser.execute_script(
        """
        const plot = document.getElementById("losses-1");
        const drawn = plot._fullData.filter((trace) => trace.visible === true).map((trace) => trace.name);
        const marks = [...plot.querySelectorAll(".trace")].filter((trace) =>
          [...trace.querySelectorAll("path[d]")].some((mark) => mark.getBBox().width > 0));
        return marks.length === drawn.length ? drawn : ["only " + marks.length + " of " + drawn.length];
        """
    )


def test_figures_are_drawn_and_nothing_leaves_the_page(browser, path):
    test_browser._open(browser, path)
    assert browser.execute_script("return document.body.dataset.drawn") == "2"
    # Two methods with a band, points, a line and its band; the first has three reference lines as well.
    assert len(_shown(browser)) == 11
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []
    inside = ("data:", "blob:", "chrome://", path.as_uri())
    assert [url for url in test_browser._requests(browser) if not url.startswith(inside)] == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280


def test_the_menu_changes_the_statistic(browser, path):
    test_browser._open(browser, path)
    assert "k2: mean" in _shown(browser)
    browser.execute_script(
        """
        const plot = document.getElementById("losses-1");
        plot.scrollIntoView();
        const click = (element) => element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
        click(plot.querySelector(".updatemenu-header"));
        click([...plot.querySelectorAll(".updatemenu-dropdown-button")][1]);
        """
    )
    shown = _shown(browser)
    assert len(shown) == 11
    assert {"k2: median", "k3: median"} <= set(shown)
    assert not {"k2: mean", "k3: mean"} & set(shown)


@pytest.mark.parametrize(("button", "kind"), [("Save as SVG", "image/svg+xml"), ("Save as PNG", "image/png")])
def test_the_buttons_save_pictures(browser, path, button, kind):
    test_browser._open(browser, path)
    name, first, found = browser.execute_async_script(
        """
        const [title, done] = arguments;
        HTMLAnchorElement.prototype.click = async function () {
          const blob = await (this.href.startsWith("blob:") ? BLOBS.get(this.href) : new Promise((resolve) => {
            const bytes = Uint8Array.from(atob(this.href.split(",")[1]), (letter) => letter.charCodeAt(0));
            resolve(new Blob([bytes], { type: this.href.slice(5).split(";")[0] }));
          }));
          const bytes = new Uint8Array(await blob.arrayBuffer());
          done([this.download, [...bytes.slice(0, 4)], blob.type.split(";")[0]]);
        };
        const BLOBS = new Map();
        const create = URL.createObjectURL;
        URL.createObjectURL = (blob) => { const url = create.call(URL, blob); BLOBS.set(url, blob); return url; };
        const plot = document.getElementById("losses-1");
        plot.querySelector(`.modebar-btn[data-title="${title}"]`).click();
        """,
        button,
    )
    assert name == f"losses-1.{kind.split('/')[1].split('+')[0]}"
    assert found == kind
    assert bytes(first) == (b"<svg" if "svg" in kind else b"\x89PNG")


def test_narrow_windows_keep_everything_inside(browser, path):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        test_browser._open(browser, path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        assert all(count["width"] <= count["room"] + 1 for count in test_browser._traces(browser).values())
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
