"""Names of columns cannot drive a terminal, turn the letters of a page around, or end a command."""

import json

import numpy as np
import pytest

from gatewise import GatedRegressor
from gatewise.cli import main
from gatewise.ops.printable import printable
from gatewise.report import render_report

NAME = "a\x1b[31m b\x07\u202ec\u2066d\x9b1me"
SHOWN = r"a\x1b[31m b\x07\u202ec\u2066d\x9b1me"
COMMANDS = "\x1b\x07\u202e\u2066\x9b"


def has_commands(text):
    return any(character in text for character in COMMANDS)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("names") / "data.csv"
    rows = [f"{x},{x + e}" for x, e in generator.normal(size=(40, 2))]
    path.write_text(f"{NAME},y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_of_columns_in_all_outputs(table, tmp_path, run):
    out = tmp_path / "out"
    outcome = run("fit", table, "--target", "y", "--experts", 1, "--out", out)
    assert outcome.code == 0, outcome
    assert SHOWN in outcome.out
    assert not has_commands(outcome.out + outcome.err)
    for name in ("summary.txt", "report.html", "summary.json"):
        text = (out / name).read_text(encoding="utf-8")
        assert not has_commands(text), name
    # JSON has another way to say them: the name itself is the column's.
    terms = [row["term"] for row in json.loads((out / "summary.json").read_text(encoding="utf-8"))["parameters"]]
    assert NAME in terms


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_of_columns_on_the_terminal(table, run, arguments):
    outcome = run("fit", table, "--target", "y", "--experts", 1, *arguments)
    assert outcome.code == 0
    assert not has_commands(outcome.out + outcome.err)


def test_of_files_and_columns_in_refusals(refused, tmp_path):
    assert not has_commands(refused("fit", tmp_path / f"{NAME}.csv", "--target", "y"))
    assert not has_commands(refused("fit", "tone", "--target", NAME))


def test_of_frames():
    pd = pytest.importorskip("pandas")
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"x": generator.normal(size=40), NAME: generator.normal(size=40)})
    y = pd.Series(frame.sum(axis=1) + generator.normal(size=40), name="y\x1b")
    regressor = GatedRegressor(n_experts=1).fit(frame, y)
    summary = regressor.summary()
    for text in (summary.to_text(), summary.to_html(), summary.to_markdown(), summary.to_latex(), summary.to_json()):
        assert not has_commands(text)
        text.encode()
    page = render_report(regressor, frame, y)
    assert not has_commands(page)
    page.encode()


def test_what_is_text_is_left_alone():
    text = "Größe in µm², 名前, سن\u200cها, 👩\u200d🔬\tand\nmore\u00a0"
    assert printable(text) == text


def test_a_terminal_that_the_test_can_see(capsys, table):
    # The stream is put back as it was.
    assert main(["datasets", "tone"]) == 0
    print("\x1b[0m")
    assert "\x1b[0m" in capsys.readouterr().out
