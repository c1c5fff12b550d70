"""How far a fit to counts or classes can be believed: observed against expected frequencies, as figures and a table."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from gatewise.report.evidence import Evidence
from gatewise.report.palette import (
    BAND,
    INK,
    MUTED,
    blank_figure,
    class_colour,
    class_symbol,
    label,
    name_axes,
    translucent,
)
from gatewise.report.targets import TargetKind

__all__ = ["Confusion", "Frequencies", "calibration", "confusion", "count_frequencies", "rootogram"]

# Distribution functions of counts are slow: more rows than this are represented by a sample.
FREQUENCY_ROWS = 5_000
_MOST_BINS = 40
_GROUPS = 10
_MOST_CLASSES = 12
_DRAWN_CLASSES = 8


@dataclass(frozen=True)
class Frequencies:
    """How often counts were observed, and how often the fit expects them.

    The last bin is open above, and the first one below.

    Attributes:
        first: the smallest observable count of each bin (b,).
        last: its largest; for the last bin the largest observed (b,).
        observed: Σ w of the rows in it (b,).
        expected: Σ w P(the bin | x) (b,); the sums of both are equal.
    """

    first: np.ndarray
    last: np.ndarray
    observed: np.ndarray
    expected: np.ndarray


def count_frequencies(evidence: Evidence) -> Frequencies:
    """Observed and expected frequencies of counts, in at most 41 bins of equal width, the outer ones open.

    Bins begin at 0, unless all counts are far from it. With more than 5,000 rows they are those of a sample drawn with
    a fixed seed.
    """
    rows = evidence.drawn(FREQUENCY_ROWS)
    count, weight = evidence.target[rows], evidence.weight[rows]
    inputs = evidence.inputs[rows]
    offset = None if evidence.offset is None else evidence.offset[rows]
    smallest, largest = int(count.min()), int(count.max())
    start = smallest if smallest > largest - smallest else 0
    span = largest - start
    # Where counts must share bins, few rows have few bins: a frequency below one is no frequency.
    bins = _MOST_BINS if span < _MOST_BINS else int(np.clip(len(rows) // 8, 10, _MOST_BINS))
    width = 1 + span // bins
    first = np.arange(start, largest + 1, width)
    last = np.minimum(first + width - 1, largest)
    reader, total = evidence.reader, float(weight.sum())
    below = [float(weight @ reader.below(inputs, np.full(len(rows), float(end)), offset)) for end in last[:-1]]
    expected = np.diff(np.array([0.0, *below, total]))
    observed = np.bincount(((count - start) // width).astype(int), weight, len(first))
    return Frequencies(first, last, observed, expected)


def rootogram(evidence: Evidence, *, height: int = 300) -> go.Figure:
    """A hanging rootogram (Tukey 1977): bars of √observed hang from the curve of √expected.

    A square root of a frequency has a standard deviation of about ½, so feet outside ±1 are worth a second look.
    """
    frequencies = count_frequencies(evidence)
    root_expected, root_observed = np.sqrt(np.maximum(frequencies.expected, 0.0)), np.sqrt(frequencies.observed)
    middle = (frequencies.first + frequencies.last) / 2.0
    width = float(frequencies.last[0] - frequencies.first[0] + 1)
    names = [
        f"{first:,}" if first == last else f"{first:,} to {last:,}"
        for first, last in zip(frequencies.first, frequencies.last, strict=True)
    ]
    if frequencies.first[0] > 0:
        names[0] = f"{frequencies.last[0]:,} or fewer"
    names[-1] = f"{frequencies.first[-1]:,} or more" if len(names) > 1 else "all"
    figure = blank_figure(height=height)
    low, high = middle[0] - width, middle[-1] + width
    figure.add_scatter(
        x=[low, high, high, low],
        y=[-1, -1, 1, 1],
        mode="lines",
        fill="toself",
        fillcolor=BAND,
        line={"width": 1, "color": MUTED, "dash": "dot"},
        name="±1",
        hoverinfo="skip",
    )
    figure.add_bar(
        x=middle,
        y=root_observed,
        base=root_expected - root_observed,
        width=0.86 * width,
        name="√observed",
        marker={"color": "#8fa3b3"},
        customdata=[
            [name, float(observed), float(expected)]
            for name, observed, expected in zip(names, frequencies.observed, frequencies.expected, strict=True)
        ],
        hovertemplate="%{customdata[0]}: %{customdata[1]:.4~g} rows, expected %{customdata[2]:.4~g}<extra></extra>",
    )
    figure.add_scatter(
        x=middle,
        y=root_expected,
        mode="lines+markers",
        name="√expected",
        line={"color": INK, "width": 1.6},
        marker={"color": INK, "size": 5},
        hoverinfo="skip",
    )
    figure.add_hline(y=0.0, line={"color": INK, "width": 1})
    figure.update_xaxes(range=[low, high])
    name_axes(figure, label(evidence.target_name), "√ rows")
    return figure


def calibration(evidence: Evidence, *, height: int = 340) -> go.Figure:
    """Reliability: the share observed against the probability fitted, in groups of rows of similar probability.

    Vertical lines are what 95% of the observed shares would be if the fit were true, from the variance that the fit
    itself states. Of more than eight classes the most frequent are drawn; of two the second, since the first is its
    mirror image.
    """
    figure = blank_figure(height=height)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfectly calibrated",
        line={"color": INK, "width": 1.4, "dash": "dot"},
        hoverinfo="skip",
    )
    for output in drawn_classes(evidence):
        _add_reliability(figure, evidence, output)
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    name_axes(figure, "probability fitted", "share observed")
    return figure


def drawn_classes(evidence: Evidence) -> list[int]:
    """The classes of a calibration plot in their order: all, the second of two, or the eight most frequent."""
    outputs = evidence.drawn_outputs
    if len(outputs) <= _DRAWN_CLASSES:
        return outputs
    often = evidence.weight @ evidence.observed
    return sorted(np.argsort(-often, kind="stable")[:_DRAWN_CLASSES].tolist())


def _add_reliability(figure: go.Figure, evidence: Evidence, output: int) -> None:
    fitted, observed = (evidence.output(values, output) for values in (evidence.fitted, evidence.observed))
    deviation = np.zeros(len(fitted)) if evidence.deviation is None else evidence.output(evidence.deviation, output)
    # A share among trials counts as many times as it has trials.
    trials = evidence.target[:, 1] if evidence.kind is TargetKind.SHARE else np.ones(len(fitted))
    mass = evidence.weight * trials
    groups = _equal_groups(fitted, mass)
    centre, share, spread, rows = (np.empty(len(groups)) for _ in range(4))
    for place, members in enumerate(groups):
        total = mass[members].sum()
        centre[place] = mass[members] @ fitted[members] / total
        share[place] = mass[members] @ observed[members] / total
        spread[place] = np.sqrt(evidence.weight[members] @ (trials[members] * deviation[members]) ** 2) / total
        rows[place] = evidence.weight[members].sum()
    colour, name = class_colour(output), label(evidence.output_names[output])
    gap = np.full(len(groups), np.nan)
    low, high = np.clip(centre - 1.96 * spread, 0.0, 1.0), np.clip(centre + 1.96 * spread, 0.0, 1.0)
    figure.add_scatter(
        x=np.column_stack([centre, centre, gap]).ravel(),
        y=np.column_stack([low, high, gap]).ravel(),
        mode="lines",
        name=f"{name}, 95% if true",
        legendgroup=name,
        showlegend=False,
        line={"color": translucent(colour, 0.4), "width": 5},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=centre,
        y=share,
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": translucent(colour, 0.6), "width": 1.2},
        marker={"color": colour, "size": 8, "symbol": class_symbol(output)},
        customdata=rows,
        hovertemplate=f"{name}: fitted %{{x:.1%}}, observed %{{y:.1%}} of %{{customdata:.4~g}} rows<extra></extra>",
    )


def _equal_groups(values: np.ndarray, mass: np.ndarray) -> list[np.ndarray]:
    """Indices of rows in at most ten groups of neighbouring values and about equal mass; equal values stay together."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(mass[order]) / mass.sum()
    n_groups = int(np.clip(len(values) // 10, 1, _GROUPS))
    number = np.minimum((share * n_groups * (1.0 - 1e-12)).astype(int), n_groups - 1)
    starts = np.append(True, np.diff(values[order]) > 0.0)
    number = number[np.maximum.accumulate(np.where(starts, np.arange(len(values)), 0))]
    return [order[number == group] for group in np.unique(number)]


@dataclass(frozen=True)
class Confusion:
    """How often the rows of each class have each class as their most probable one.

    Attributes:
        names: of the classes in the table, those that are rare put together as the last one.
        rows: Σ w by observed (row) and most probable (column) class, (c, c).
        together: the place of the class that stands for several, or None.
        correct: the share of Σ w whose most probable class is theirs.
        largest: the share of the most frequent class.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    together: int | None
    correct: float
    largest: float


def confusion(evidence: Evidence) -> Confusion:
    """The confusion table of a fit to classes; beyond twelve classes the rarest are put together."""
    observed, predicted = evidence.observed.argmax(axis=1), evidence.fitted.argmax(axis=1)
    total = evidence.weight.sum()
    often = evidence.weight @ evidence.observed
    names = list(evidence.output_names)
    place, together = np.arange(len(names)), None
    if len(names) > _MOST_CLASSES:
        kept = np.sort(np.argsort(-often, kind="stable")[: _MOST_CLASSES - 1])
        place = np.full(len(names), _MOST_CLASSES - 1)
        place[kept] = np.arange(len(kept))
        together = len(kept)
        names = [names[code] for code in kept] + [f"{len(names) - len(kept)} others"]
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (place[observed], place[predicted]), evidence.weight)
    correct = float(evidence.weight @ (observed == predicted) / total)
    return Confusion(tuple(names), table, together, correct, float(often.max() / total))
