"""Lines through the logarithms of statistics of replicates, with bootstrap intervals over replicates: arrays only.

    log s(n) = h + b (log n − c)  and  log s(n) = h' + b' (log n − c) + q (log n − c)²

by least squares over the sizes, where s(n) is the mean, the median or the trimmed mean of the replicates of size n, and
c the mean of log n. A resample draws, at every size for itself, as many replicates as there are, with replacement.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "LEAST_SIZES",
    "STATISTICS",
    "Estimate",
    "FittedLine",
    "Lines",
    "Sample",
    "estimate_of",
    "fit_lines",
    "generator_of_resamples",
    "resampled",
    "statistics_of",
    "through",
]

STATISTICS = ("mean", "median", "trimmed mean")

LEAST_SIZES = 3
"""Of a line; with fewer there is no telling whether it bends."""

_RESAMPLES = 3
"""The first entry of the key of resamples; 0, 1 and 2 are those of data, of starts and of a truth's own draws."""

_CHUNK = 1_000_000
"""How many drawn replicates are held at once."""

_BAND_POINTS = 41

_ROUNDING = 1e-9
"""What rounding can do to a coefficient of a line through exact points."""

_LEAST_SHARE = 0.99
"""Of the resamples must give a line; otherwise their percentiles say little."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the number.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2.0

    def covers(self, value: float) -> bool:
        """Whether a value lies in the interval, up to rounding.

        Example:
            >>> Estimate(-0.5, -0.52, -0.47).covers(-0.5), Estimate(-0.5, -0.52, -0.47).covers(-0.25)
            (True, False)
        """
        return self.low - _ROUNDING <= value <= self.high + _ROUNDING

    def is_above(self, value: float) -> bool:
        """Whether the whole interval lies above a value, by more than rounding."""
        return self.low > value + _ROUNDING

    def is_below(self, value: float) -> bool:
        """Whether the whole interval lies below a value, by more than rounding."""
        return self.high < value - _ROUNDING

    def to_dict(self) -> dict[str, float]:
        """The three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def to_text(self, form: str = ".3f") -> str:
        """The number with its interval in brackets, all three in a format.

        Example:
            >>> Estimate(-0.5, -0.52, -0.47).to_text()
            '-0.500 [-0.520, -0.470]'
        """
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


@dataclass(frozen=True)
class Sample:
    """The replicates of one size.

    Attributes:
        n: the size.
        values: (m, c), one column for each of c series that are drawn together.
    """

    n: int
    values: np.ndarray

    def sorted(self) -> "Sample":
        """The same with its rows in the order of their values, so that no other order matters."""
        return Sample(self.n, self.values[np.lexsort(self.values.T[::-1])])


@dataclass(frozen=True)
class FittedLine:
    """A line through one statistic.

    Attributes:
        slope: b.
        curvature: q.
        height: h, the logarithm of the statistic at the centre.
        centre: c, a logarithm of a size.
        sizes: through which it goes, rising.
        band: sizes with the lower and upper ends of the line's interval there, (·, 3).
        lost: resamples that gave no line, because too many of their statistics were 0.
    """

    slope: Estimate
    curvature: Estimate
    height: Estimate
    centre: float
    sizes: tuple[int, ...]
    band: np.ndarray
    lost: int

    @property
    def is_curved(self) -> bool:
        """Whether the interval of the curvature leaves 0 out."""
        return not self.curvature.covers(0.0)

    @property
    def decades(self) -> float:
        """log₁₀ of the largest size over the smallest."""
        return math.log10(self.sizes[-1] / self.sizes[0])

    def at(self, n: np.ndarray) -> np.ndarray:
        """The line's height, not its logarithm, at sizes."""
        return np.exp(self.height.value + self.slope.value * (np.log(n) - self.centre))


def statistics_of(values: np.ndarray, trim: float, counts: np.ndarray | None = None) -> np.ndarray:
    """Mean, median and trimmed mean of values (m,), of which the i-th is taken counts[·, i] times: (b, 3).

    All three are means of a range of the sorted values; trimmed, ⌊trim · m⌋ are left out at each end.

    Args:
        values: (m,).
        trim: share left out at each end.
        counts: (b, m), with rows of sum m; None for each value once.

    Example:
        >>> statistics_of(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), 0.2)
        array([[22.,  3.,  3.]])
    """
    m = len(values)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    taken = np.ones((1, m), dtype=np.int64) if counts is None else counts[:, order]
    ends = np.cumsum(taken, axis=1)
    cut = int(trim * m)
    found = np.empty((len(taken), 3))
    found[:, 0] = taken.astype(float) @ ranked / m
    for place, (low, high) in enumerate((((m - 1) // 2, m // 2 + 1), (cut, m - cut)), start=1):
        # How many of each value have a rank between low and high.
        inside = np.diff(np.clip(ends, low, high), axis=1, prepend=low)
        found[:, place] = inside.astype(float) @ ranked / (high - low)
    return found


def generator_of_resamples(seed: int, n: int, stream: int = 0) -> np.random.Generator:
    """What draws the replicates of one size; of two streams the draws are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_RESAMPLES, n, stream)))


def resampled(sample: Sample, trim: float, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """The statistics of resamples of a size, (resamples, c, 3); the c series share their draws."""
    m, c = sample.values.shape
    found = np.empty((resamples, c, 3))
    rows = max(1, _CHUNK // m)
    for begin in range(0, resamples, rows):
        part = slice(begin, min(begin + rows, resamples))
        counts = _drawn_counts(generator, m, part.stop - begin)
        for series in range(c):
            found[part, series] = statistics_of(sample.values[:, series], trim, counts)
    return found


def _drawn_counts(generator: np.random.Generator, m: int, rows: int) -> np.ndarray:
    drawn = generator.integers(m, size=(rows, m))
    drawn += m * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * m).reshape(rows, m)


class Lines:
    """Least-squares lines and parabolas through points that come size by size, for many resamples at once.

    Only sums are kept, so that memory does not grow with the number of sizes. Points that are not positive are left
    out, each in its own resample.

    Args:
        shape: of the arrays of statistics.
        centre: c.
        reach: of log n around the centre, for a good scale.
    """

    def __init__(self, shape: tuple[int, ...], centre: float, reach: float) -> None:
        self._centre, self._reach = centre, reach
        self._powers = np.zeros((5, *shape))
        self._moments = np.zeros((3, *shape))

    def add(self, n: int, statistics: np.ndarray, used: np.ndarray) -> None:
        """Add the statistics of a size; `used` says, broadcast against them, which may count."""
        positive = used & (statistics > 0.0)
        logarithms = np.log(statistics, out=np.zeros_like(statistics), where=positive)
        u = (math.log(n) - self._centre) / self._reach
        for power in range(5):
            self._powers[power] += positive * u**power
        for power in range(3):
            self._moments[power] += logarithms * u**power

    def coefficients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Heights, slopes and curvatures; NaN where there are fewer than `LEAST_SIZES` points."""
        (s0, s1, s2, s3, s4), (t0, t1, t2) = self._powers, self._moments
        enough = s0 >= LEAST_SIZES
        determinant = np.where(enough, s0 * s2 - s1**2, np.nan)
        height, slope = (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant
        # u² without its projection on 1 and u: what only a parabola can follow.
        p0, p1 = (s2 * s2 - s1 * s3) / determinant, (s0 * s3 - s1 * s2) / determinant
        bend = (t2 - p0 * t0 - p1 * t1) / (s4 - p0 * s2 - p1 * s3)
        return height, slope / self._reach, bend / self._reach**2


def through(sizes: Sequence[int]) -> tuple[float, float]:
    """The centre of the logarithms of sizes, and how far they reach from it; 1 if there is only one size."""
    logarithms = np.log(np.asarray(sizes, dtype=float))
    centre = float(logarithms.mean())
    return centre, float(np.abs(logarithms - centre).max()) or 1.0


def estimate_of(value: float, draws: np.ndarray, level: float) -> Estimate | None:
    """A number with the percentile interval of its resamples; None if too few of them gave one."""
    finite = draws[np.isfinite(draws)]
    if not math.isfinite(value) or len(finite) < _LEAST_SHARE * len(draws):
        return None
    low, high = np.quantile(finite, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Estimate(value, float(low), float(high))


def fit_lines(
    samples: Sequence[Sample], trim: float, resamples: int, level: float, seed: int
) -> list[FittedLine | None]:
    """One line for each of `STATISTICS`, or None where there is none.

    Args:
        samples: at least one, of one series each, in the order of their sizes.
        trim: of the trimmed mean.
        resamples: how many.
        level: of the intervals.
        seed: of the resamples.

    Example:
        >>> samples = [Sample(n, np.full((5, 1), 3.0 * n**-0.5)) for n in (100, 1000, 10_000)]
        >>> line = fit_lines(samples, 0.1, 100, 0.95, 0)[0]
        >>> line.slope.to_text(), line.is_curved
        ('-0.500 [-0.500, -0.500]', False)
    """
    centre, reach = through([sample.n for sample in samples])
    observed, drawn = Lines((1, 1, 3), centre, reach), Lines((resamples, 1, 3), centre, reach)
    used: list[tuple[int, np.ndarray]] = []
    for sample in (each.sorted() for each in samples):
        here = statistics_of(sample.values[:, 0], trim)[:, None, :]
        positive = here > 0.0
        used.append((sample.n, positive[0, 0]))
        observed.add(sample.n, here, positive)
        drawn.add(sample.n, resampled(sample, trim, resamples, generator_of_resamples(seed, sample.n)), positive)
    return list(_fitted(observed, drawn, used, centre, level))


def _fitted(
    observed: Lines, drawn: Lines, used: Sequence[tuple[int, np.ndarray]], centre: float, level: float
) -> Iterator[FittedLine | None]:
    values = [part[0, 0] for part in observed.coefficients()]
    draws = [part[:, 0] for part in drawn.coefficients()]
    for place in range(3):
        height, slope, curvature = (
            estimate_of(float(value[place]), draw[:, place], level) for value, draw in zip(values, draws, strict=True)
        )
        sizes = tuple(n for n, positive in used if positive[place])
        if height is None or slope is None or curvature is None:
            yield None
            continue
        heights, slopes = draws[0][:, place], draws[1][:, place]
        kept = np.isfinite(slopes)
        band = []
        for n in np.geomspace(sizes[0], sizes[-1], _BAND_POINTS):
            ends = heights[kept] + slopes[kept] * (math.log(n) - centre)
            band.append([n, *np.exp(np.quantile(ends, [(1.0 - level) / 2.0, (1.0 + level) / 2.0]))])
        yield FittedLine(slope, curvature, height, centre, sizes, np.array(band), int((~kept).sum()))
