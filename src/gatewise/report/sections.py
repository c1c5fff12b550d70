"""The figures of a report in their order, each with the sentence that tells how to read it."""

import json
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.utils import PlotlyJSONEncoder

from gatewise.report import checks, figures, search
from gatewise.report.evidence import DRAWN_ROWS, Evidence

__all__ = ["Panel", "Section", "sections"]

_MAX_PANELS = 12
_PANEL_ROWS = 12_000


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
class Section:
    """A heading with figures."""

    identifier: str
    short: str
    heading: str
    panels: list[Panel]
    note: str = ""
    legend: list[str] = field(default_factory=list)


def sections(evidence: Evidence) -> list[Section]:
    """Every section of figures that the fitted mixture has: a single expert has neither gate nor responsibilities."""
    several = evidence.n_experts > 1
    found = [_data(evidence)]
    if several:
        found += [_gate(evidence), _responsibilities(evidence)]
    return [*found, _residuals(evidence), _search(evidence)]


def _data(evidence: Evidence) -> Section:
    several = evidence.n_experts > 1
    mixture = " The dotted black line is the mixture’s mean and the grey area its 90% interval." if several else ""
    colours = (
        "Each row has the colours of the experts mixed by their responsibility for it; coloured areas hold 90% of what "
        "their expert makes, and a line is thin where the gate gives its expert less than 5%."
        if several
        else "The coloured area holds 90% of what the expert makes."
    )
    if evidence.inputs.shape[1] == 1:
        caption = colours + mixture + _thinned(evidence, DRAWN_ROWS)
        return Section(
            "data", "Data", "Data and experts", [Panel("figure-data", figures.expert_lines(evidence), caption)]
        )
    shown, left_out = _panels(evidence, list(range(evidence.inputs.shape[1])))
    limit = max(400, min(DRAWN_ROWS, _PANEL_ROWS // len(shown)))
    panels = [
        Panel(
            f"figure-data-{feature + 1}", figures.expert_lines(evidence, feature, limit=limit, legend=False, height=330)
        )
        for feature in shown
    ]
    note = (
        "One panel per feature, all other features held at their means: the lines are partial, and the points are "
        "partial residuals, the target less what its experts owe to the other features’ distance from their means. "
        + colours
        + mixture
        + left_out
        + _thinned(evidence, limit)
    )
    legend = ["dotted black: mixture mean", "grey: its 90% interval"] if several else []
    return Section("data", "Data", "Data and experts, feature by feature", panels, note, legend)


def _gate(evidence: Evidence) -> Section:
    if not evidence.gate_features:
        panel = Panel(
            "figure-gate",
            figures.gate_constant(evidence),
            "The gate has no features: before its target is seen, every row has these probabilities of each expert.",
        )
        return Section("gate", "Gate", "Gate", [panel])
    ticks = " Ticks at the foot mark rows."
    if len(evidence.gate_features) == 1:
        panel = Panel(
            "figure-gate",
            figures.gate_along(evidence, evidence.gate_features[0], height=340),
            "Lines are the probabilities of each expert before the target is seen; dots, the mean responsibility in "
            "groups of neighbouring rows, lie around the lines where the gate’s form suits the data." + ticks,
        )
        return Section("gate", "Gate", "Gate probabilities", [panel])
    shown, left_out = _panels(evidence, evidence.gate_features)
    panels = [
        Panel(f"figure-gate-{feature + 1}", figures.gate_along(evidence, feature, legend=False)) for feature in shown
    ]
    note = (
        "Probabilities of each expert before the target is seen, along one gate feature with the other features held "
        "at their means." + ticks + left_out
    )
    return Section("gate", "Gate", "Gate probabilities, feature by feature", panels, note, [""])


def _responsibilities(evidence: Evidence) -> Section:
    largest = evidence.responsibilities.max(axis=1)
    sharp = np.average(largest >= 0.9, weights=evidence.weight)
    panels = [
        Panel(
            "figure-responsibility-histogram",
            checks.responsibility_histogram(evidence),
            f"How sure the fit is which expert made a row: bars at the right are rows with a clear owner, bars at the "
            f"left rows in doubt; {sharp:.0%} of the rows have an owner with 90% or more.",
        ),
        Panel(
            "figure-responsibility-curves",
            checks.responsibility_curves(evidence),
            "Rows sorted by each expert’s responsibility: a steep fall separates the experts cleanly, a long slope "
            "means that they share rows.",
        ),
    ]
    return Section("responsibilities", "Responsibilities", "Responsibilities", panels)


def _residuals(evidence: Evidence) -> Section:
    panels = [
        Panel(
            "figure-residuals",
            checks.residuals(evidence),
            "Residuals from the mixture’s mean in units of the mixture’s standard deviation: a trend or a funnel says "
            "that the mean or the spread is missed (two arms are natural where two experts are far apart)."
            + _thinned(evidence, DRAWN_ROWS),
        ),
        Panel(
            "figure-pit",
            checks.pit_histogram(evidence),
            "Probability integral transform: bars of a well calibrated fit are level and mostly inside the band; a "
            "hump in the middle means that the fitted spread is too wide, high ends that it is too narrow.",
        ),
    ]
    return Section("residuals", "Residuals", "Residuals and calibration", panels)


def _search(evidence: Evidence) -> Section:
    result = evidence.estimator.result_
    panels = [
        Panel(
            "figure-starts",
            search.starts(result),
            "The log-likelihood at which every start ended; the dotted line is the kept fit, hollow circles ended on "
            "the variance floor, where a higher likelihood means nothing. The more starts end on the line, the less "
            "likely is it that a better maximum was missed.",
        ),
    ]
    # A start at its end from the first (one expert has a closed form) has no ascent to show.
    if len(result.trace) and result.trace.min() < result.trace[-1]:
        panels.append(
            Panel(
                "figure-trace",
                search.trace(result),
                "The ascent of the kept start: how much log-likelihood it still had to gain after each iteration, on "
                "a logarithmic scale; it should fall ever more steeply at the end.",
            )
        )
    return Section("search", "Starts and optima", "Starts and optima", panels)


def _panels(evidence: Evidence, features: list[int]) -> tuple[list[int], str]:
    """The features to draw: all, or those along which the experts' means and the gate move most, in column order."""
    if len(features) <= _MAX_PANELS:
        return features, ""
    movement = []
    for feature in features:
        profile = evidence.profile(feature)
        means = np.ptp(profile.expert_means, axis=0).max() / max(float(np.ptp(evidence.target)), np.finfo(float).tiny)
        movement.append(means + np.ptp(profile.gate_weights, axis=0).max())
    strongest = np.argsort(-np.array(movement), kind="stable")[:_MAX_PANELS]
    return sorted(features[index] for index in strongest), (
        f" Of {len(features)} features the {_MAX_PANELS} along which the fit changes most are drawn."
    )


def _thinned(evidence: Evidence, limit: int) -> str:
    if evidence.n_rows <= limit:
        return ""
    return f" {limit:,} of {evidence.n_rows:,} rows are drawn, chosen at random with a fixed seed; the fit used all."
