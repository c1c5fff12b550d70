import html

import numpy as np
import pytest

from gatewise.report.palette import blank_figure, blend, expert_colour, expert_dash, label, translucent


def test_the_first_colours_are_okabe_and_itos():
    assert [expert_colour(expert) for expert in range(4)] == ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]


def test_experts_beyond_the_colours_differ_by_their_dash():
    styles = {(expert_colour(expert), expert_dash(expert)) for expert in range(28)}
    assert len(styles) == 28
    assert {expert_dash(expert) for expert in range(7)} == {"solid"}


def test_blend_mixes_by_responsibility():
    assert blend(np.eye(3)) == [expert_colour(expert).lower() for expert in range(3)]
    # Halfway between #0072B2 and #D55E00, channel by channel.
    assert blend(np.array([[0.5, 0.5]])) == ["#6a6859"]


def test_translucent_keeps_the_channels():
    assert translucent("#D55E00", 0.16) == "rgba(213, 94, 0, 0.16)"


@pytest.mark.parametrize("text", ["<b>x</b>", "a & b", "<a href='javascript:alert(1)'>x</a>", "&lt;", "x<sup>2</sup>"])
def test_labels_show_markup_as_it_is_written(text):
    shown = label(text)
    assert "<" not in shown
    assert html.unescape(shown) == text


def test_labels_are_no_hover_templates():
    assert "%{" not in label("%{y}")
    assert html.unescape(label("%{y}")) == "%{y}"


def test_labels_are_one_short_line():
    assert label("a\n\t b\x00c") == "a b c"
    assert label("n" * 90) == "n" * 39 + "…"
    assert label(3) == "3"


def test_figures_leave_room_for_the_legend_and_have_a_height():
    figure = blank_figure(height=250, legend=False).to_dict()["layout"]
    assert figure["height"] == 250
    assert figure["showlegend"] is False
