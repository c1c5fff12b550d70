"""What the documentation shows is what comes out, its links lead somewhere, and its examples run."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from gatewise.experts import callable as functions
from gatewise.gates import GATES
from gatewise.parts import activations
from tests.docs.runner import PAGES, ROOT, agrees, blocks, run_page

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.fixture
def own_names(monkeypatch):
    """What a page registers is known to that page only."""
    monkeypatch.setattr(GATES, "_classes", dict(GATES._classes))
    monkeypatch.setattr(functions, "_FUNCTIONS", dict(functions._FUNCTIONS))
    monkeypatch.setattr(activations, "_ACTIVATIONS", dict(activations._ACTIVATIONS))


def name_of(path):
    """The page's path in the documentation."""
    return path.name if path.parent == ROOT else path.relative_to(ROOT / "docs").as_posix()


def without_code(page):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page, flags=re.MULTILINE | re.DOTALL)


def anchor(heading):
    """The anchor that Markdown's table of contents gives to a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain.encode("ascii", "ignore").decode())


def runnable():
    """The pages with something to run, those with slow blocks once without and once with them."""
    for path in PAGES:
        found = blocks(path.read_text(encoding="utf-8"))
        if {block.kind for block in found} & {"python", "console"}:
            yield pytest.param(path, False, id=name_of(path))
        if any(block.slow for block in found):
            yield pytest.param(path, True, id=f"{name_of(path)}, slow blocks too", marks=pytest.mark.slow)


@pytest.mark.parametrize(("path", "slow"), list(runnable()))
@pytest.mark.usefixtures("own_names")
def test_page_shows_what_comes_out(path, slow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compared = 0
    for comparison in run_page(path.read_text(encoding="utf-8"), slow=slow):
        compared += 1
        assert agrees(comparison.shown, comparison.printed), (
            f"{name_of(path)}: after\n{comparison.source}\nthe page shows\n{comparison.shown}\nbut it printed\n"
            f"{comparison.printed}\n(python -m tests.docs.runner writes it into the page)"
        )
    assert compared > 0


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_and_pictures_resolve(path):
    page = path.read_text(encoding="utf-8")
    for target in LINK.findall(without_code(page)):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        file, _, fragment = target.partition("#")
        aim = path if not file else path.parent / file
        assert aim.exists(), f"{name_of(path)} links to {target}, which is not there"
        if fragment and aim.suffix == ".md":
            anchors = {anchor(heading) for heading in HEADING.findall(aim.read_text(encoding="utf-8"))}
            assert fragment in anchors, f"{name_of(path)} links to {target}; {aim.name} has {sorted(anchors)}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [name_of(path) for path in PAGES if path.parent != ROOT]
    assert [name for name in pages if not re.search(rf": {re.escape(name)}$", navigation, re.MULTILINE)] == []


def test_every_gate_has_a_page():
    pages = {name_of(path) for path in PAGES}
    assert [name for name in GATES if f"gates/{name.replace('_', '-')}.md" not in pages] == []


def test_pictures_are_all_used():
    shown = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    folder = ROOT / "docs" / "pictures"
    pictures = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".svg", ".png")]
    assert pictures
    assert [name for name in pictures if f"pictures/{name}" not in shown] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    copy = Path(shutil.copy(path, tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(copy)])
    runpy.run_path(str(copy), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 1.25\n", "a 1.26\n", True),
        ("a 1.25\n", "a 1.27\n", False),
        ("12 rows\n", "13 rows\n", False),
        ("2.5e-08\n", "2.6e-08\n", True),
        ("first\n...\nlast\n", "first\nany\nthing\nlast\n", True),
        ("first\n...\nlast\n", "first\nany\nthing\n", False),
        ("stretch ratio\n", "stretchratio\n", False),
    ],
)
def test_comparison_is_strict_but_for_the_last_digit(shown, printed, same):
    assert agrees(shown, printed) is same
