"""The page on proved rates: everything the table says, the lines of the figure, the verdict."""

import json
import math

import pytest

from gatewise.exceptions import InputError
from gatewise.report.theory import render_theory
from gatewise.report.theory_rates import rates_page
from gatewise.theory import proved_rates
from tests.report.pages import Page

GAUSSIAN = {"experts": "linear", "family": "gaussian", "true_k": 2, "fit_k": 4}


def shown(text: str) -> str:
    return " ".join(text.split())


def test_everything_known_is_on_the_page():
    softmax, laplace = (proved_rates(gate=gate, **GAUSSIAN) for gate in ("softmax", "laplace"))
    page = Page(render_theory(rates_page(softmax, other=laplace, error=0.1)))
    for row in softmax.rows:
        assert row.text in page.text
        assert row.tight_text in page.text
    for theorem in softmax.theorems:
        for text in (theorem.id, theorem.statement, theorem.checked, theorem.note, theorem.claim):
            assert shown(text) in page.text
        for finding in theorem.findings:
            assert shown(finding.text) in page.text
    assert "Slowest by the published bounds: β₁, b at n^(-1/12)." in page.text
    assert "Against the laplace gate" in page.text
    assert "1e+04 (1e+12)" in page.text
    assert "gatewise.theory.proved_rates(gate='softmax', experts='linear', family='gaussian'" in page.text


def test_the_lines_have_the_slopes_of_the_rates():
    found = proved_rates(gate="softmax", **GAUSSIAN)
    (figure,) = Page(render_theory(rates_page(found))).figures().values()
    slopes = {}
    for trace in figure["data"]:
        x, y = trace["x"], trace["y"]
        slopes[trace["name"].split(": ")[1]] = math.log(y[-1] / y[0]) / math.log(x[-1] / x[0])
    assert slopes == {
        "n^(-1/2)": pytest.approx(-1 / 2),
        "n^(-1/6)": pytest.approx(-1 / 6),
        "n^(-1/12)": pytest.approx(-1 / 12),
    }


@pytest.mark.parametrize(
    ("query", "badge", "severity", "verdict"),
    [
        ({"gate": "softmax", **GAUSSIAN, "fit_k": 2}, "Parametric", "good", "Every parameter is learned at n^(-1/2)."),
        (
            {"gate": "laplace", **GAUSSIAN, "fit_k": 3},
            "Slow",
            "caution",
            "Slowest by the published bounds: b at n^(-1/8).",
        ),
        (
            {"gate": "laplace", "experts": "linear", "family": "gaussian"},
            "Slow",
            "caution",
            "The rates of b, σ² depend on how many atoms share a cell.",
        ),
        (
            {"gate": "softmax", "experts": "linear", "true_k": 2, "fit_k": 3},
            "No rate",
            "severe",
            "No polynomial rate for β₁, a, b, η.",
        ),
    ],
)
def test_verdicts(query, badge, severity, verdict):
    page = rates_page(proved_rates(**query))
    assert (page.badge, page.severity, page.verdict) == (badge, severity, verdict)


def test_nothing_proved_is_said():
    found = proved_rates(gate="laplace", experts="linear", family="poisson")
    page = rates_page(found, error=0.1)
    assert (page.badge, page.verdict) == ("Unknown", found.message)
    text = Page(render_theory(page)).text
    assert "No exponents are known." in text
    assert not Page(render_theory(page)).figures()


def test_the_command_writes_it(tmp_path, capsys):
    from gatewise.cli import main

    path = tmp_path / "rates.html"
    arguments = ["theory", "rates", "--gate", "softmax", "--true-k", "2", "--fit-k", "3", "--report", str(path)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(f"\n{path}\n")
    written = path.read_text(encoding="utf-8")
    assert "other objective" in Page(written).text
    assert main([*arguments, "--json"]) == 2
    assert path.read_text(encoding="utf-8") == written
    capsys.readouterr()
    assert main([*arguments, "--json", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["gate"] == "softmax"


def test_an_error_out_of_range():
    with pytest.raises(InputError, match="the error must lie between 0 and 1"):
        rates_page(proved_rates(gate="softmax", **GAUSSIAN), error=2.0)
