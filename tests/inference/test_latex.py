"""LaTeX of a summary: compiled in the article class, with nothing wider than its page."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gatewise.exceptions import InputError
from gatewise.fit import Constraints, FitOptions, fit
from gatewise.inference import Names, Summary, summarise
from gatewise.inference.latex_text import breakable, escaped, mathematics
from gatewise.model import MixtureOfExperts

_DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
Text before. Table~\ref{tab:mixture} is the first.

%s
\end{document}
"""
_HOSTILE = "_ % & # $ { } ~ ^ \\ < > | \" ` -- '' <<"
_UNICODE = "Größe in µm², β ≤ Ω, naïve Łódź, ﬁ, 体重, 🙂, e\u0301"


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(150, 2))
    first = rng.uniform(size=150) < 1.0 / (1.0 + np.exp(-3.0 * x[:, 0]))
    y = np.where(first, 1.0 + 2.0 * x[:, 0], -x[:, 1]) + 0.2 * rng.normal(size=150)
    return x, y


def _summary(table, names=("a", "b"), target="y", k=2, **options) -> Summary:
    x, y = table
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", x.shape[1], k)
    result = fit(model, x, y, options=FitOptions(**{"n_starts": 2} | options))
    return summarise(result, Names(list(names), list(names), target))


@pytest.fixture(scope="module")
def plain(table) -> Summary:
    return _summary(table)


@pytest.fixture(scope="module")
def separated(table) -> Summary:
    x, _ = table
    y = np.where(x[:, 0] > 0.0, 5.0 + x[:, 1], -5.0 - x[:, 1]) + 0.1 * np.sin(7.0 * x[:, 1])
    found = _summary((x, y))
    assert found.statistics["status"] == "SEPARATED"
    return found


def _compiled(text: str, folder: Path) -> str:
    """The log of pdfTeX; a box that is too wide, a float that is too long or an error fails."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("no pdflatex is installed: the LaTeX tables were not compiled")
    (folder / "table.tex").write_text(_DOCUMENT % text, encoding="utf-8")
    for _ in range(2):
        done = subprocess.run(
            [program, "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=120,
        )
        log = (folder / "table.log").read_text(encoding="utf-8", errors="replace")
        assert done.returncode == 0, log[-3000:]
    for complaint in ("Overfull", "Float too large", "undefined", "Missing character", "LaTeX Warning"):
        assert complaint not in log, re.findall(rf".*{complaint}.*(?:\n.*){{3}}", log)
    return log


def _long_names(n: int) -> list[str]:
    kinds = (
        "income_of_the_household_before_taxes_{}",
        "Donaudampfschifffahrtsgesellschaft{}",
        "x{}",
        "A B C " * 8 + "{}",
    )
    return [kinds[j % len(kinds)].format(j) for j in range(n)]


@pytest.mark.parametrize(
    "columns",
    [
        ("estimate", "standard_error", "interval", "p"),
        ("estimate", "standard_error", "z", "p", "interval"),
        ("estimate", "standard_error"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "separated"])
def test_compiles_in_an_article(request, tmp_path, kind, columns):
    _compiled(request.getfixturevalue(kind).to_latex(columns=columns), tmp_path)


def test_hostile_and_foreign_names_compile(table, tmp_path):
    summary = _summary(table, (_HOSTILE, _UNICODE), target=f"{_HOSTILE} {_UNICODE}")
    _compiled(summary.to_latex(caption=f"{_HOSTILE} {_UNICODE}"), tmp_path)


@pytest.mark.parametrize(("n_features", "k"), [(4, 2), (14, 4)])
def test_long_names_and_many_rows_stay_on_their_pages(tmp_path, n_features, k):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, n_features))
    y = x @ rng.normal(size=n_features) * np.where(rng.uniform(size=400) < 0.5, 1.0, -1.0) + rng.normal(size=400)
    summary = _summary((x, y), _long_names(n_features), k=k, n_starts=1, max_iter=5)
    text = summary.to_latex()
    _compiled(text, tmp_path)
    if k == 4:
        assert "Part 2 of " in text
        assert r"\label{tab:mixture-2}" in text
    # Every parameter is there, whatever page it is on.
    body = [line for line in text.partition("-experts}")[0].splitlines() if line.endswith(r" \\") and "&" in line]
    heads = 2 * text.partition("-experts}")[0].count(r"\toprule")
    assert len(body) - heads == len(summary.parameters)


def test_thousands_of_parameters_are_printed(plain, tmp_path):
    """More floats than LaTeX keeps waiting."""
    copies = [plain.parameters.assign(component=plain.parameters["component"] + f", copy {i}") for i in range(150)]
    text = dataclasses.replace(plain, parameters=pd.concat(copies, ignore_index=True)).to_latex()
    assert text.count(r"\begin{table}") > 52
    _compiled(text, tmp_path)


@pytest.mark.parametrize("power", [-9, 7])
def test_units_of_any_size_fit(table, tmp_path, power):
    x, y = table
    _compiled(_summary((x * 10.0**power, y * 10.0**-power)).to_latex(), tmp_path)


def test_numbers_follow_their_standard_errors_in_every_rendering(plain):
    """The closed form: the error to two significant digits, everything else to the same place."""
    row = plain.parameters[plain.parameters["component"] == "expert 1"].iloc[1]
    place = 1 - int(np.floor(np.log10(float(f"{row.standard_error:.1e}"))))
    expected = [f"{value:.{place}f}" for value in (row.estimate, row.standard_error, row.lower, row.upper)]
    assert len(expected[1].lstrip("0.")) == 2
    shown = next(line.split() for line in plain.to_text().splitlines() if line.split()[:3] == ["expert", "1", row.term])
    assert [shown[3], shown[4], *shown[7:]] == expected
    for rendering in (plain.to_markdown(), plain.to_html()):
        assert all(number in rendering for number in expected)
    block = plain.to_latex().partition(r"\textit{expert 1}")[2].partition(r"\addlinespace")[0]
    printed = next(line for line in block.splitlines() if f"}}{row.term} &" in line)
    cells = re.findall(r"\$(-?[\d.]+)(?:\\phantom\{[.0]*\})?\$", printed)
    assert cells[:4] == expected


def test_full_precision_is_kept_in_data(plain):
    assert f'"estimate": {float(plain.parameters["estimate"][0])!r}' in plain.to_json()
    assert plain.to_frame()["estimate"][0] == plain.parameters["estimate"][0]


def test_small_p_values_and_minus_signs_are_mathematics(plain):
    text = plain.to_latex()
    assert "$<0.001$" in text
    body = re.sub(r"\\(?:label|cmidrule\(lr\))\{[^}]*\}|^%.*$|\\phantom\{[^}]*\}", "", text, flags=re.MULTILINE)
    outside = re.sub(r"\$[^$]*\$", "", body)
    assert re.findall(r".*(?:[<>]|-\d).*", outside) == []


def test_a_table_says_its_status_and_what_it_rests_on(separated, plain):
    for summary in (separated, plain):
        text = summary.to_latex()
        floats = text.split(r"\begin{table}")[1:]
        assert len(floats) == 3
        status = escaped(summary.statistics["status"])
        assert all(rf"\emph{{Status of the fit:}} {status}." in one for one in floats)
        flat = " ".join(floats[0].replace(r"\allowbreak{}", "").split())
        assert f"n = {summary.statistics['n_rows']}" in flat
        assert escaped(f"log-likelihood {summary.statistics['log_likelihood']:.2f}") in flat
        assert "standard errors from the exact observed information" in flat
        for finding in summary.findings:
            assert escaped(finding) in flat
    assert "withheld (--)" in separated.to_latex()
    assert "withheld (--)" not in plain.to_latex()


def test_sandwich_errors_say_so(table):
    text = _summary(table, objective="least_squares").to_latex()
    assert "sandwich" in text
    assert "log-likelihood" not in text.partition(r"\label{tab:mixture-experts}")[0]


def test_held_parameters_are_marked(table):
    mask = [[False, False], [True, True]]
    summary = _summary(table, constraints=Constraints(frozen={"experts.weight": mask}))
    assert summary.to_latex().count("& held &") == 2


def test_caption_and_label(plain):
    text = plain.to_latex(caption="Tones & 5 %", label="tab:tone")
    assert r"\caption{Tones \& 5 \%. Parameters.}" in text
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:tone", "tab:tone-experts", "tab:tone-fit"]
    assert "Mixture of 2 linear experts for y" in plain.to_latex()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ("estimate", "width")}, "no column 'width': choose among estimate"),
        ({"columns": ("p", "p")}, "'p' is given twice"),
        ({"columns": ()}, "needs a column"),
        ({"label": "tab:a}b"}, "the label is 'tab:a}b'"),
    ],
)
def test_what_no_table_has_is_refused(plain, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        plain.to_latex(**options)


def test_signs_of_the_default_font_encoding_are_not_left_to_it():
    assert escaped("a<b>c|d") == "a$<$b$>$c$|$d"
    assert escaped("a--b") == "a-{}-b"
    assert escaped("é ł σ Σ") == r"\'{e} \l{} $\sigma$ $\Sigma$"
    assert escaped("体") == r"\gatewiseletter{体}{U+4F53}"
    assert escaped("λ ς ή") == r"$\lambda$ $\varsigma$ \gatewiseletter{ή}{U+03AE}"


def test_only_long_words_are_broken():
    assert breakable("short_name") == r"short\_name"
    assert breakable("x" * 14) == r"xxxxxx\allowbreak{}xxxxxx\allowbreak{}xx"
    assert breakable("体重") == r"\gatewiseletter{体}{U+4F53}\allowbreak{}\gatewiseletter{重}{U+91CD}"


def test_text_that_is_no_number_stays_text():
    assert mathematics("2021-2022") == "2021-2022"
    assert mathematics("-∞") == r"$-\infty$"


def test_endless_intervals_are_printed(plain):
    boundary = pd.DataFrame(
        {"component": ["gate 1 vs 2"], "term": ["a"], "estimate": [0.5], "lower": [-np.inf], "upper": [1.0]}
    ).assign(width=np.inf)
    text = dataclasses.replace(plain, boundary=boundary).to_latex()
    assert r"$0.5000$ & $-\infty$ & $1.000" in text
    assert r"\label{tab:mixture-boundary}" in text
