"""What is fixed before a modulus is measured: window, box, search, extrapolation and quadrature."""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from gatewise.exceptions import InputError
from gatewise.spec.toml import Table, problem_of, read_toml

__all__ = [
    "MOST_NODES",
    "BallInputs",
    "BoxInputs",
    "Extrapolation",
    "Locality",
    "ModulusDesign",
    "Search",
    "TargetGrid",
    "Window",
]

MOST_NODES = 1_000_000


class Window(Table):
    """The displacements δ: a geometric grid, largest first.

    Attributes:
        largest: the first δ.
        smallest: the last δ; measuring stops earlier where the distance nears the rounding floor.
        per_decade: how many δ there are per factor of ten.
    """

    largest: float = Field(default=0.3, gt=0, lt=1)
    smallest: float = Field(default=1e-4, gt=0, lt=1)
    per_decade: float = Field(default=2, gt=0, le=50)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest >= self.largest:
            raise ValueError(f"smallest = {self.smallest} must lie below largest = {self.largest}")
        return self

    def deltas(self) -> list[float]:
        """The grid, (number of δ,)."""
        count = max(round(float(np.log10(self.largest / self.smallest)) * self.per_decade), 3)
        return [float(delta) for delta in np.geomspace(self.largest, self.smallest, count + 1)]


class Locality(Table):
    """The neighbourhood of the truth over which the minimum is taken.

    Attributes:
        factor: K of the bound K √δ on every displacement but the one that is set.
        cap: a bound on displacements at any δ.
        share: bound on the log-ratio of two weights within a cell, so that none of them vanishes.
        free: parameters, with or without index, that are bounded by `reach` at every δ and not by K √δ. What no data
            can tell is as far from the truth as an estimate happens to be; where such a coordinate is held near the
            truth, the exponents of the others are those of a neighbourhood that nobody knows, and no rates.
        reach: that bound, for weights one of their logarithms.
    """

    factor: float = Field(default=2.0, gt=0)
    cap: float = Field(default=0.9, gt=0)
    share: float = Field(default=1.5, gt=0)
    free: tuple[str, ...] = ()
    reach: float = Field(default=1.0, gt=0)


class Search(Table):
    """How hard the minimum is looked for.

    Attributes:
        starts: random starts at each of the places of the window where they are made.
        start_steps: most steps from a random start.
        steps: most steps from the neighbour's minimiser.
        polish: how often bursts alternate with steps.
        seed: of the random starts.
    """

    starts: int = Field(default=6, ge=1, le=10_000)
    start_steps: int = Field(default=40, ge=1, le=1_000_000)
    steps: int = Field(default=150, ge=1, le=1_000_000)
    polish: int = Field(default=4, ge=0, le=10_000)
    seed: int = 0


class Extrapolation(Table):
    """How the exponent at δ → 0 is taken from the slopes of log w against log δ.

    Attributes:
        power: slopes are fitted by α + c δ^power; the box moves with √δ, so slopes drift with it.
        floor_ratio: distances below this multiple of the rounding floor are left out.
        points: how many slopes are used, those at the smallest usable δ.
        least_band: the least half-width of the band, for what the fit does not see.
    """

    power: float = Field(default=0.5, gt=0)
    floor_ratio: float = Field(default=300.0, ge=1)
    points: int = Field(default=4, ge=3, le=1_000)
    least_band: float = Field(default=0.02, ge=0)


class BoxInputs(Table):
    """Inputs uniform on a box, by a Gauss–Legendre rule; or the volume itself for a joint density of x and y.

    Attributes:
        low: lower end in every coordinate.
        high: upper end.
        nodes: nodes per axis, or per panel where kinks split the first axis.
        volume: whether nodes carry the volume and not a probability.
    """

    kind: Literal["box"] = "box"
    low: float = -1.0
    high: float = 1.0
    nodes: int = Field(default=10, ge=1, le=2_000)
    volume: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must lie below high = {self.high}")
        return self


class BallInputs(Table):
    """Inputs uniform on a ball, by a rule in polar coordinates whose radii crowd at the centre.

    Attributes:
        centre: where the ball is; a gate's centre that coincides with it has its kink resolved.
        radius: of the ball.
        panels: radial panels, each `ratio` times as long as the one inside it.
        ratio: of lengths.
        radial: nodes per radial panel.
        angular: nodes around the circle; in three dimensions half as many along the axis.
    """

    kind: Literal["ball"] = "ball"
    centre: tuple[float, ...]
    radius: float = Field(default=1.0, gt=0)
    panels: int = Field(default=10, ge=1, le=1_000)
    ratio: float = Field(default=3.0, gt=1)
    radial: int = Field(default=3, ge=1, le=100)
    angular: int = Field(default=12, ge=4, le=1_000)

    @model_validator(mode="after")
    def _countable(self) -> Self:
        nodes = self.panels * self.radial * self.angular ** max(len(self.centre) - 1, 0)
        if nodes > MOST_NODES:
            raise ValueError(f"the rule has {nodes:,} nodes, more than {MOST_NODES:,}: take fewer")
        return self


class TargetGrid(Table):
    """Nodes of the target for the Hellinger distance; classes are enumerated.

    Attributes:
        nodes: how many, evenly spaced; for counts the number of values from 0 on.
        low: first node; None for what the truth's tails ask for.
        high: last node.
    """

    nodes: int = Field(default=41, ge=2, le=100_000)
    low: float | None = None
    high: float | None = None


class ModulusDesign(Table):
    """All that is fixed before a modulus is measured.

    Attributes:
        distance: "hellinger" between densities, or "l2" between regression functions under the inputs' distribution.
        inputs: the distribution of x.
        targets: the grid of y.
        window: the displacements.
        locality: the neighbourhood.
        search: the effort.
        extrapolation: how the exponent is read off.

    Example:
        >>> deltas = ModulusDesign(window=Window(largest=0.1, smallest=1e-3, per_decade=1)).window.deltas()
        >>> [round(delta, 6) for delta in deltas]
        [0.1, 0.021544, 0.004642, 0.001]
    """

    distance: Literal["hellinger", "l2"] = "hellinger"
    inputs: Annotated[BoxInputs | BallInputs, Field(discriminator="kind")] = BoxInputs()
    targets: TargetGrid = TargetGrid()
    window: Window = Window()
    locality: Locality = Locality()
    search: Search = Search()
    extrapolation: Extrapolation = Extrapolation()

    @classmethod
    def read(cls, path: Path) -> Self:
        """A design from a TOML file.

        Raises:
            InputError: the file cannot be read, is no TOML, or has unknown or impossible values.
        """
        try:
            return cls.model_validate(read_toml(path.read_text(encoding="utf-8"), str(path)))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path} is not UTF-8 text") from None
        except ValidationError as error:
            raise InputError(f"{path}: {problem_of(error)}") from None
