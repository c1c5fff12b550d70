"""What a page is made of: sections with figures and tables."""

import json
from dataclasses import dataclass, field

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.utils import PlotlyJSONEncoder

__all__ = ["Cell", "Grid", "Panel", "Passage", "Section", "Token"]


@dataclass(frozen=True)
class Panel:
    """One figure: its place in the page, its plotly JSON, safe inside a script element, and its caption."""

    identifier: str
    figure: go.Figure
    caption: str = ""

    @property
    def height(self) -> int:
        """The figure's height in pixels, reserved before it is drawn."""
        return int(self.figure.to_dict()["layout"]["height"])

    @property
    def script(self) -> Markup:
        """The figure as JSON in which no character can end the script element or open a comment in it."""
        text = json.dumps(self.figure.to_dict(), cls=PlotlyJSONEncoder, separators=(",", ":"))
        for character in ("<", ">", "&", "\u2028", "\u2029"):
            text = text.replace(character, f"\\u{ord(character):04x}")
        return Markup(text)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, the colour of a swatch before it, and how far it is indented in a tree."""

    text: str
    colour: str | None = None
    depth: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: what it is, and how to read it.
        columns: names, and whether their cells are numbers.
        rows: the first cell of each names the row.
    """

    caption: str
    columns: list[tuple[str, bool]]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Token:
    """A piece of a text: what it says, the colour behind it, what is shown when it is pointed at, and a small mark."""

    text: str
    colour: str
    title: str
    mark: str = ""


@dataclass(frozen=True)
class Passage:
    """A text whose tokens are coloured, under a heading."""

    heading: str
    tokens: list[Token]


@dataclass(frozen=True)
class Section:
    """A heading with figures and tables.

    Attributes:
        identifier: its place in the page.
        short: its name in the list of links.
        heading: its title.
        panels: the figures.
        note: what holds for all of them.
        legend: what is said beside the experts' colours, where the figures have no legend of their own.
        grids: tables after the figures.
        swatches: names with the colours that they have in the passages.
        passages: texts whose tokens are coloured, before the figures.
    """

    identifier: str
    short: str
    heading: str
    panels: list[Panel]
    note: str = ""
    legend: list[str] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    swatches: list[tuple[str, str]] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
