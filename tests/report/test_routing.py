"""The page on routers: what it says, and that hostile names and tokens stay text."""

import pytest
import torch
from torch import nn

from gatewise import write_report
from gatewise.exceptions import InputError
from gatewise.nn import RouterMonitor, SparseMoE, initialise_router
from gatewise.report import render_report, routing_page
from tests.report.test_browser import _check_figures, browser  # noqa: F401 - a fixture

HOSTILE = ["<script>alert(1)</script>", "</p>", "\u202eabc", '" onmouseover="x', "%{x}", "&amp;", "\x1b[31m", "\n"]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 8)
        self.layers = nn.ModuleList([SparseMoE(8, n_experts=6, hidden=4), SparseMoE(8, n_experts=4, hidden=4)])
        for layer in self.layers:
            initialise_router(layer.router, std=1.0)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = x + layer(x)
        return x


@pytest.fixture(scope="module")
def watched():
    model = Model()
    generator = torch.Generator().manual_seed(0)
    with RouterMonitor(model) as monitor:
        for _ in range(4):
            for domain, low in (("<b>code</b>", 0), ("prose", 25)):
                with monitor.batch(domain=domain):
                    model(torch.randint(low, low + 25, (8, 40), generator=generator))
            monitor.probe({"input_ids": torch.arange(8).unsqueeze(0)}, tokens=HOSTILE)
            with torch.no_grad():
                model.layers[0].router.gate.weight.add_(0.3 * torch.randn(6, 8, generator=generator))
            monitor.step()
    return monitor


def test_the_page_is_drawn_and_nothing_in_a_text_acts(watched, browser, tmp_path):  # noqa: F811 - the fixture
    path = tmp_path / "routing.html"
    write_report(watched, path, title="<i>Routing</i>")
    figures = _check_figures(browser, path)
    assert set(figures) == {"figure-loads", "figure-domains-0", "figure-domains-1", "figure-changes", "figure-largest"}
    spans = browser.find_elements("css selector", ".passage span")
    assert len(spans) == 2 * len(HOSTILE)
    assert (
        browser.execute_script("return document.querySelectorAll('.passage script, .passage p, .passage b').length")
        == 0
    )
    texts = [browser.execute_script("return arguments[0].firstChild.textContent", span) for span in spans[:3]]
    assert texts == ["<script>alert(1)</script>", "</p>", "\\u202eabc"]
    assert browser.execute_script("return document.querySelector('h1').textContent") == "<i>Routing</i>"


def test_what_the_page_says(watched):
    page = routing_page(watched)
    assert [section.short for section in page.sections] == ["Loads", "Domains", "Time", "Text", "Measures"]
    (loads,) = page.sections[0].panels
    drawn = loads.figure.to_dict()["data"][0]["z"]
    counts = watched.counts("layers.0.router")
    assert drawn[0] == pytest.approx([count * 6 / sum(counts) for count in counts])
    assert drawn[1][4:] == [None, None]
    assert "Mutual information" in [name for name, _ in page.sections[-1].grids[0].columns]
    assert render_report(watched) == render_report(watched)
    assert page.subtitle == "2 routers, 2,560 tokens"


def test_verdicts():
    model = Model()
    with pytest.raises(InputError, match="has seen no token"):
        routing_page(RouterMonitor(model))
    with RouterMonitor(model) as monitor:
        model(torch.arange(10).unsqueeze(0))
    assert routing_page(monitor).badge == "Too little seen"
    with RouterMonitor(model, domains="domain") as monitor:
        model(torch.randint(0, 50, (8, 60), generator=torch.Generator().manual_seed(0)))
    page = routing_page(monitor)
    assert (page.badge, page.severity) == ("Healthy, with notes", "caution")
    assert "no call had the column 'domain'" in page.remarks[-1]
    with torch.no_grad():
        model.layers[1].router.gate.bias.copy_(torch.tensor([50.0, -50.0, 50.0, -50.0]))
    with RouterMonitor(model) as monitor:
        model(torch.randint(0, 50, (8, 60), generator=torch.Generator().manual_seed(0)))
    page = routing_page(monitor)
    assert (page.badge, page.severity, page.verdict) == ("Collapsed", "severe", "1 of 2 routers needs attention.")
    assert "experts 0 and 2 of 4 take 100 % of the slots of 480 tokens" in page.remarks[0]
