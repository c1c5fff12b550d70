"""Pages on findings of the theory: complete, escaped, self-contained, written whole."""

from dataclasses import replace

import pytest

from gatewise.exceptions import OutputError
from gatewise.report.layout import Cell, Grid, Section
from gatewise.report.theory import TheoryPage, identity_page, render_theory, write_theory
from gatewise.theory import identify
from tests.report.pages import Page

NASTY = '<script>alert("1")</script> & {{ 7 * 7 }} \u2028'


@pytest.fixture(scope="module")
def found():
    return identify("softmax", "ridge", n_features=1)


def plain(**changes) -> TheoryPage:
    page = TheoryPage("kicker", "Title", "subtitle", "badge", "good", "verdict", ["remark"], [], [("a", "b")], "call()")
    return replace(page, **changes)


def test_everything_found_is_on_the_page(found):
    page = Page(render_theory(identity_page(found)))
    for identity in found.identities:
        assert identity.text in page.text
    for verdict in found.conditions:
        assert verdict.condition.source in page.text
        assert verdict.outcome in page.text
        assert verdict.remark in page.text
    assert found.rank.sentence[1:] in page.text
    assert found.weights.translation.text in page.text
    assert "At a = 0 also" in page.text
    assert "Splits seen" in page.text
    assert found.call in page.text


def test_the_figure_shows_the_singular_values(found):
    figures = Page(render_theory(identity_page(found))).figures()
    (figure,) = figures.values()
    heights = [value for trace in figure["data"] for value in trace["y"]]
    assert len(heights) == len(found.rank.singular_values)
    kept, dropped = (trace["y"] for trace in figure["data"])
    assert min(kept) > -10.0 > -40.0 > max(dropped)


def test_a_page_loads_nothing(found):
    page = Page(render_theory(identity_page(found)))
    policy = next(tag for tag in page.attributes("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    for tag, attributes in page.tags:
        assert not any(name in ("src", "srcset") for name in attributes), tag
        assert attributes.get("href", "#").startswith(("#", "data:,"))


def test_everything_is_escaped():
    rows = [[Cell(NASTY), Cell(NASTY, strong=True)]]
    section = Section("s", NASTY, NASTY, [], NASTY, grids=[Grid(NASTY, [(NASTY, False), (NASTY, True)], rows)])
    nasty = plain(
        title=NASTY, subtitle=NASTY, badge=NASTY, verdict=NASTY, remarks=[NASTY], sections=[section], call=NASTY
    )
    page = Page(render_theory(nasty))
    assert page.attributes("script") == []
    assert page.text.count('alert("1")') == 15
    assert "49" not in page.text


def test_without_figures_a_page_is_small_and_has_no_scripts():
    text = render_theory(plain())
    assert len(text) < 20_000
    assert Page(text).attributes("script") == []


def test_the_same_finding_gives_the_same_text(found):
    assert render_theory(identity_page(found)) == render_theory(
        identity_page(identify("softmax", "ridge", n_features=1))
    )


def test_pages_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    write_theory(path, plain())
    with pytest.raises(OutputError, match="exists"):
        write_theory(path, plain(title="other"))
    assert b"<h1>Title</h1>" in path.read_bytes()
    write_theory(path, plain(title="other"), overwrite=True)
    assert b"<h1>other</h1>" in path.read_bytes()
    with pytest.raises(OutputError, match="does not exist"):
        write_theory(tmp_path / "none" / "page.html", plain())


def test_of_a_gate_without_module_there_are_no_weights():
    from gatewise.theory.identifiability import Formula, inputs, parameter

    own = parameter("k")
    page = identity_page(identify(Formula("own", inputs(1), (own,), (own.symbol * inputs(1)[0],)), "constant"))
    assert [section.short for section in page.sections] == ["Identities", "Rank", "Conditions"]
