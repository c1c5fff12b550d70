"""The tables of a study's design: what they may say, and nothing of what is done with it."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gatewise.spec.model import MOST_EXPERTS, Part
from gatewise.spec.toml import Table

__all__ = [
    "DISTANCES",
    "MOST_NUMBERS",
    "Covariates",
    "Descent",
    "Expected",
    "LossTable",
    "Method",
    "Provenance",
    "SizeGrid",
    "SlopeRule",
    "Starts",
    "Truth",
]

DISTANCES = ("hellinger", "l2")
"""Kinds of losses that compare densities or regression functions, not atoms."""

MOST_NUMBERS = 100_000_000
"""The most numbers that the inputs of one data set may have: 800 MB."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]


class Covariates(Table):
    """The distribution of the inputs, coordinate by coordinate.

    Attributes:
        law: "uniform" on [low, high]; "normal" with `mean` and `deviation`; "grid", the n points from low to high at
            equal distances, the same in every replicate, for one input; or "gate", the density of x that a true
            Gaussian gate is part of.
        low: lower end.
        high: upper end.
        mean: of the normal distribution.
        deviation: its standard deviation.
    """

    law: Literal["uniform", "normal", "grid", "gate"] = "uniform"
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    deviation: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must lie below high = {self.high}")
        return self


class SizeGrid(Table):
    """Sample sizes from low to high; a whole number stands for itself.

    Attributes:
        low: the smallest.
        high: the largest.
        count: how many.
        spacing: "log" for equal ratios, "linear" for equal differences.
    """

    low: int = Field(ge=2, le=MOST_NUMBERS)
    high: int = Field(ge=2, le=MOST_NUMBERS)
    count: int = Field(ge=1, le=10_000)
    spacing: Literal["log", "linear"] = "log"

    @model_validator(mode="before")
    @classmethod
    def _of_a_number(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return {"low": value, "high": value, "count": 1} if is_number else value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} must not lie above high = {self.high}")
        return self

    def values(self) -> list[int]:
        """The sizes, rounded to whole numbers."""
        space = np.geomspace if self.spacing == "log" else np.linspace
        return [int(value) for value in np.round(space(self.low, self.high, self.count))]


class Truth(Table):
    """The model from which the data come.

    A parameter is an array of numbers, or drawn once for the whole study: {draw = "normal", scale = 0.1, rows = 6} are
    normal numbers with standard deviation 0.1 in the first six experts and zeros in the others; "half_normal" are their
    absolute values, "log_half_normal_root" half the logarithms of these, for log-scales of variances so drawn.

    Attributes:
        n_experts: k*.
        gate: its name, options and parameters.
        experts: the same of the experts; their `log_scale` is the logarithm of the standard deviation.
        family: its name and options.
        residual_variance: if given, targets are the mixture's mean plus normal errors of this variance, as in least
            squares; otherwise they are drawn from the mixture.
    """

    n_experts: int = Field(ge=1, le=MOST_EXPERTS)
    gate: Part
    experts: Part
    family: Part = Part(name="gaussian")
    residual_variance: float | None = Field(default=None, ge=0)


class Starts(Table):
    """Where a fit begins.

    A start near the truth gives every fitted atom a true one (each true one at least once, at random, the last to the
    last), and adds normal numbers to its parameters. Atoms that share a true one share its weight.

    Attributes:
        near: how many starts are near the truth.
        data: how many come from the data, by the strategies of `gatewise.fit.STRATEGIES`. The best of all is kept.
        retries: how often a fit that ends below the truth is started again; the last time at the truth itself.
        gate_noise: standard deviation of what is added to the gate's parameters, times n^(−power).
        expert_noise: the same for the experts' parameters.
        scale_noise: the same for the logarithms of the scales.
        power: how the noise shrinks.
        share_weight: False to leave the true weight to every atom of a cell, as some authors' programs do.
    """

    near: int = Field(default=1, ge=0, le=10_000)
    data: int = Field(default=0, ge=0, le=10_000)
    retries: int = Field(default=2, ge=0, le=10_000)
    gate_noise: float = Field(default=0.005, ge=0)
    expert_noise: float = Field(default=0.05, ge=0)
    scale_noise: float = Field(default=0.005, ge=0)
    power: float = Field(default=0.083, ge=0)
    share_weight: bool = True

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.near + self.data < 1:
            raise ValueError("near and data are both 0: a fit needs a start")
        return self


class Descent(Table):
    """Stochastic gradient descent from the first start, as a control of what an optimiser does to a slope.

    Attributes:
        epochs: passes over the data; 0 to measure the start itself.
        rate: the step's factor.
        batch: rows of one step.
    """

    epochs: int = Field(default=10, ge=0, le=1_000_000)
    rate: float = Field(default=0.1, gt=0)
    batch: int = Field(default=128, ge=1)


class LossTable(Table):
    """A loss between fit and truth.

    Attributes:
        name: the measure is then called "loss.NAME".
        kind: a name in `gatewise.theory.loss_kinds()`; or "hellinger", the distance of the densities of y given x, or
            "l2", that of the mixtures' means, both over the inputs' law: they need no atoms and take nothing else.
        symmetry: as in `voronoi_loss`, or "anchored": without an infimum, after the fit has been translated so that
            the gate of the atom nearest to the last true atom (in its expert) agrees with the truth's.
        cells: as in `voronoi_loss`.
        r: its exponent: one number, or one by the size of the cell.
        top_k: K, or None for the truth's own.
    """

    name: Name
    kind: str
    symmetry: Literal["infimum", "estimate", "none", "anchored"] = "estimate"
    cells: Literal["full", "expert"] = "full"
    r: float | dict[str, float] | None = None
    top_k: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _sizes_are_numbers(self) -> Self:
        if isinstance(self.r, dict) and not all(size.isdecimal() for size in self.r):
            raise ValueError(f"the keys of r must be sizes of cells, not {sorted(self.r)}")
        if self.is_distance and self.model_dump(exclude_defaults=True).keys() - {"name", "kind"}:
            raise ValueError(f'a loss of the kind "{self.kind}" takes a name and nothing else')
        return self

    @property
    def is_distance(self) -> bool:
        """Whether it compares functions and not atoms."""
        return self.kind in DISTANCES

    def exponents(self) -> float | dict[int, float] | None:
        """What `voronoi_loss` takes as r."""
        return {int(size): value for size, value in self.r.items()} if isinstance(self.r, dict) else self.r


class Method(Table):
    """A way to fit; all methods of a study see the same data.

    Attributes:
        name: for tables and keys.
        n_experts: k.
        gate: the fitted gate where it is not the truth's with k experts; parameters, if given, are those of a start.
        experts: the same for the experts.
        objective: "likelihood" or "least_squares".
        starts: where fits begin.
        hold: parameters that stay where the first start has them: "gate.bias" for all, "gate.bias[2]" for those of the
            third expert. Starts near the truth add no noise to them.
        options: other options of `gatewise.fit.FitOptions`.
        descent: to use stochastic gradient descent instead of a fit.
    """

    name: Name
    n_experts: int = Field(ge=1, le=MOST_EXPERTS)
    gate: Part | None = None
    experts: Part | None = None
    objective: Literal["likelihood", "least_squares"] = "likelihood"
    starts: Starts = Starts()
    hold: list[str] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)
    descent: Descent | None = None

    @model_validator(mode="after")
    def _options_are_free(self) -> Self:
        fixed = {"n_starts", "init", "objective", "constraints", "seed", "n_jobs", "n_threads", "verbose", "time_limit"}
        if taken := sorted(fixed & set(self.options)):
            raise ValueError(f"options.{taken[0]} is not for a study to set: it has a key of its own or no effect")
        return self


class SlopeRule(Table):
    """How slopes are read off, fixed before anything runs.

    Attributes:
        low: the smallest n of the window; None for all.
        high: the largest.
        trim: the share that a trimmed mean leaves out at each end.
        resamples: of the bootstrap over replicates.
        level: of the intervals.
        widest: an interval with a larger half-width is called inconclusive.
        sizes: how many sizes a row of a table needs.
        decades: how many decades they must span.
        replicates: how many replicates.
    """

    low: int | None = Field(default=None, ge=1)
    high: int | None = Field(default=None, ge=1)
    trim: float = Field(default=0.1, gt=0, lt=0.5)
    resamples: int = Field(default=2000, ge=100, le=100_000)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    widest: float = Field(default=0.05, gt=0)
    sizes: int = Field(default=10, ge=3)
    decades: float = Field(default=2.0, gt=0)
    replicates: int = Field(default=40, ge=2)


class Expected(Table):
    """What others say about a slope: that of log(measure) against log(n).

    Attributes:
        measure: "loss.NAME", "exact.PARAMETER", "over.PARAMETER" or "weighted.PARAMETERS", see
            `gatewise.study.measures`.
        method: the method's name; None for every method.
        published: the slope that a paper or its authors' results show.
        published_source: where.
        proved: the proved bound of the slope, a number.
        proved_text: what is proved where it is no number, "slower than any polynomial".
        proved_source: the paper, its theorem and how far it was checked.
        modulus: the slope that a measured local modulus α gives, −1/(2α).
        modulus_source: the case it was measured in.
    """

    measure: str
    method: str | None = None
    published: float | None = None
    published_source: str = ""
    proved: float | None = None
    proved_text: str = ""
    proved_source: str = ""
    modulus: float | None = None
    modulus_source: str = ""


class Provenance(Table):
    """Where a value of the design comes from.

    Attributes:
        item: which.
        paper: what the paper says, "" for nothing.
        code: what its authors' program does, "" if it is not public or silent.
        chosen: what this design does.
        status: how sure that is.
    """

    item: str
    paper: str = ""
    code: str = ""
    chosen: str
    status: Literal["read in the paper", "read in the code", "quoted", "recalled", "chosen here"]
