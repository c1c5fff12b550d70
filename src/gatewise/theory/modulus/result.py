"""What a measured modulus says, as data, text and a picture."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gatewise.theory.global_copies import GlobalCopy, copies_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["CoordinateModulus", "ModulusResult", "Witness"]


@dataclass(frozen=True)
class Witness:
    """A mixture apart from the truth in its parameters and not in its distance.

    Attributes:
        delta: by how much the coordinate is displaced.
        distance: the distance, which is rounding.
        finer: the same on a finer quadrature grid.
        displacement: all coordinates that are not 0, by name.
        symmetries: the declared symmetries that move the coordinate; empty if the direction was found.
        sentences: what they do.
        is_given: whether the mixture was given as a copy of the truth, and only verified.
    """

    delta: float
    distance: float
    finer: float
    displacement: dict[str, float]
    symmetries: tuple[str, ...]
    sentences: tuple[str, ...]
    is_given: bool = False

    @property
    def kind(self) -> str:
        """How it is known, in a few words."""
        if self.symmetries:
            return f"declared symmetry ({', '.join(self.symmetries)})"
        return "a copy that was given" if self.is_given else "found"


@dataclass(frozen=True)
class CoordinateModulus:
    """The modulus of one coordinate in one allocation of fitted atoms to true ones.

    Attributes:
        name: the coordinate.
        cells: the true atom of each fitted atom.
        exponent: α of w ~ δ^α; NaN if flat or not measurable.
        low: lower end of the band.
        high: upper end.
        is_flat: whether the distance vanishes along a whole curve.
        flags: what speaks against the number.
        deltas: δ.
        distances: w(δ), upper bounds of the true minima.
        slopes: of log w between neighbours.
        scaled: w/δ^α.
        above_floor: w over the rounding floor.
        signs: the sign of the displacement at which each w was found.
        held: coordinates that were held to settle what no data can tell.
        minimisers: all coordinates at each δ, rows as `deltas`.
        coordinates: their names.
        witness: for flat directions.
        modulo: what is left when the symmetries that make it flat are taken out; None if nothing is, or if not flat.
        is_exact: whether all was formed in 80-bit floats.
        quadrature: the largest relative change of w at the minimisers on a finer grid.
        seconds: of processor time.
    """

    name: str
    cells: tuple[int, ...]
    exponent: float
    low: float
    high: float
    is_flat: bool
    flags: tuple[str, ...]
    deltas: tuple[float, ...]
    distances: tuple[float, ...]
    slopes: tuple[float, ...]
    scaled: tuple[float, ...]
    above_floor: tuple[float, ...]
    signs: tuple[int, ...]
    held: tuple[str, ...]
    minimisers: tuple[tuple[float, ...], ...] = field(repr=False)
    coordinates: tuple[str, ...] = field(repr=False)
    witness: Witness | None = None
    modulo: "CoordinateModulus | None" = None
    is_exact: bool = True
    quadrature: float = math.nan
    seconds: float = math.nan

    @property
    def rate(self) -> str:
        """The rate at which the parameter is learned if the distance is estimated at n^(−1/2).

        Example:
            >>> empty = ((),) * 10
            >>> CoordinateModulus("b", (0,), 4.0, 3.9, 4.1, False, *empty).rate
            'n^(-1/8)'
        """
        if self.is_flat:
            return "none: not identified"
        if math.isnan(self.exponent):
            return "not measured"
        doubled = 2 * self.exponent
        whole = round(doubled)
        return f"n^(-1/{whole})" if abs(doubled - whole) < 0.1 else f"n^(-1/{doubled:.2f})"

    def verdict(self) -> str:
        """The exponent with its band, or "flat", in a few characters."""
        if self.is_flat:
            return "flat"
        if math.isnan(self.exponent):
            return "not measured"
        return f"{self.exponent:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without NaN."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CoordinateModulus":
        """The inverse of `to_dict`.

        Raises:
            KeyError: an entry is missing.
        """
        found: dict[str, Any] = {}
        for entry in dataclasses.fields(cls):
            value = data[entry.name]
            if entry.name == "witness":
                value = None if value is None else Witness(**{**value, **_tuples(value, ("symmetries", "sentences"))})
            elif entry.name == "modulo":
                value = None if value is None else cls.from_dict(value)
            elif entry.name == "minimisers":
                value = tuple(tuple(row) for row in value)
            elif entry.name in ("exponent", "low", "high", "quadrature", "seconds"):
                value = math.nan if value is None else value
            elif isinstance(value, list):
                value = tuple(math.nan if item is None else item for item in value)
            found[entry.name] = value
        return cls(**found)


@dataclass(frozen=True)
class ModulusResult:
    """The moduli of all coordinates asked for, in all allocations.

    Attributes:
        rows: one per coordinate and allocation.
        null_directions: directions at the truth in which the distance does not change to first order and that no
            declared symmetry explains, as sums of coordinates.
        copies: ways in which mixtures far from the truth are the same function; exponents are those of a neighbourhood
            of the truth, and no rates where an estimate may end elsewhere. Looked for in least squares only.
    """

    rows: tuple[CoordinateModulus, ...]
    null_directions: tuple[dict[str, float], ...] = ()
    copies: tuple[GlobalCopy, ...] = ()

    def __iter__(self) -> Iterator[CoordinateModulus]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> CoordinateModulus:
        """The slowest row of that name: flat before any exponent.

        Raises:
            KeyError: nothing of that name was measured.
        """
        found = [row for row in self.rows if row.name == name]
        if not found:
            raise KeyError(f"{name!r} was not measured: {', '.join(dict.fromkeys(row.name for row in self.rows))}")
        return max(found, key=lambda row: (row.is_flat, -math.inf if math.isnan(row.exponent) else row.exponent))

    def to_text(self) -> str:
        """A table, one line per coordinate and allocation, and the copies of the truth far from it."""
        lines = [("coordinate", "cells", "exponent", "rate", "w / floor", "notes")]
        for row in self.rows:
            lines.append(_line(row, row.name))
            if row.modulo is not None:
                lines.append(_line(row.modulo, f"  holding {', '.join(_new_held(row))}"))
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line[:5], widths, strict=True)), line[5]]).rstrip()
            for line in lines
        ]
        return "\n".join([*table, *copies_text(self.copies)])

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "null_directions": [_plain(direction) for direction in self.null_directions],
            "copies": [dataclasses.asdict(found) for found in self.copies],
        }

    def figure(self) -> "Figure":
        """Distance against δ, both logarithmic, with the rounding floor."""
        from plotly.graph_objects import Figure, Scatter

        figure = Figure()
        for row in self.rows:
            for shown, name in ((row, row.name), (row.modulo, f"{row.name}, modulo symmetries")):
                if shown is None or not shown.deltas:
                    continue
                title = f"{name} {list(shown.cells)}: {shown.verdict()}"
                figure.add_trace(Scatter(x=shown.deltas, y=shown.distances, mode="lines+markers", name=title))
        floor = [row.distances[0] / row.above_floor[0] for row in self.rows if row.distances and row.above_floor[0] > 0]
        if floor:
            figure.add_hline(y=max(floor), line_dash="dot", annotation_text="rounding")
        figure.update_xaxes(type="log", title="displacement δ")
        figure.update_yaxes(type="log", title="least distance w(δ)", exponentformat="power")
        return figure


def _new_held(row: CoordinateModulus) -> Sequence[str]:
    return [] if row.modulo is None else [name for name in row.modulo.held if name not in row.held]


def _line(row: CoordinateModulus, name: str) -> tuple[str, str, str, str, str, str]:
    notes = list(row.flags)
    if row.witness is not None:
        names = ", ".join(row.witness.symmetries) or row.witness.kind
        notes.append(f"witness at δ = {row.witness.delta:g}, distance {row.witness.distance:.1e}: {names}")
    least = min(row.above_floor, default=math.nan)
    cells = ",".join(map(str, row.cells))
    return name, cells, row.verdict(), row.rate, "–" if math.isnan(least) else f"{least:.1e}", "; ".join(notes)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _tuples(value: dict[str, Any], names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(value[name]) for name in names}
