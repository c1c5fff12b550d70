"""The sections on how far a fit can be believed: residuals, calibration, starts and optima."""

from gatewise.fit.findings import seen
from gatewise.report import checks, discrete, search
from gatewise.report.evidence import DRAWN_ROWS, Evidence
from gatewise.report.layout import Cell, Grid, Panel, Section
from gatewise.report.search_tables import rivals, what_was_seen
from gatewise.report.targets import TargetKind

__all__ = ["check_section", "search_section", "thinned"]

_MAX_OUTPUTS = 6
# Residuals of counts up to this lie on stripes that can be seen.
_STRIPES = 50
_PIT = (
    "Probability integral transform: bars of a well calibrated fit are level and mostly inside the band; a hump in the "
    "middle means that the fitted spread is too wide, high ends that it is too narrow."
)
_SPREAD = (
    "The typical size of a residual along the fitted values, the dotted line that of all rows: where the line rises or "
    "falls the errors do not have one variance. The standard errors in the table do not assume that they have."
)
_ROOTOGRAM = (
    "Hanging rootogram: the dark curve is the square root of how often the fit expects each count, and bars of what "
    "was observed hang from it. Feet below the axis are counts that occur more often than expected, feet above it less "
    "often; inside the band that may be chance."
)


def check_section(evidence: Evidence) -> Section:
    """What shows misfit: residuals, and for each kind of target how far its fitted distribution is calibrated."""
    if evidence.kind is TargetKind.CLASS:
        return _class_checks(evidence)
    outputs = list(range(len(evidence.output_names)))
    note = ""
    if len(outputs) > _MAX_OUTPUTS:
        note = f"Of {len(outputs)} columns of the target the first {_MAX_OUTPUTS} are drawn."
        outputs = outputs[:_MAX_OUTPUTS]
    panels = []
    for output in outputs:
        place = f"-{output + 1}" if len(evidence.output_names) > 1 else ""
        figure = checks.residuals(evidence, output=output)
        panels.append(Panel(f"figure-residuals{place}", figure, _residual_caption(evidence, output)))
        if not evidence.is_likelihood:
            panels.append(Panel(f"figure-spread{place}", checks.spread_of_residuals(evidence, output=output), _SPREAD))
    if evidence.transform is not None:
        panels.append(Panel("figure-pit", checks.pit_histogram(evidence), _pit_caption(evidence)))
    if evidence.kind is TargetKind.COUNT and evidence.reader.has_quantiles:
        caption = _ROOTOGRAM + thinned(evidence, discrete.FREQUENCY_ROWS, "counted")
        panels.append(Panel("figure-rootogram", discrete.rootogram(evidence), caption))
    if evidence.kind is TargetKind.SHARE:
        panels.append(Panel("figure-calibration", discrete.calibration(evidence), _calibration_caption(evidence)))
    heading = "Residuals and calibration" if evidence.is_likelihood else "Residuals"
    return Section("residuals", "Residuals", heading, panels, note)


def _pit_caption(evidence: Evidence) -> str:
    distance, p = checks.pit_uniformity(evidence)
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return (
        f"{_PIT} Kolmogorov–Smirnov test of level bars: D = {distance:.3f}, {shown}. It does not know that parameters "
        "were estimated: on the rows of the fit it is too lenient, so that a small p counts and a large one proves "
        "little."
    )


def _residual_caption(evidence: Evidence, output: int) -> str:
    rows = thinned(evidence, DRAWN_ROWS)
    if not evidence.is_likelihood:
        return (
            "Residuals from the regression function over their root mean square: a trend says that the function is "
            f"missed, a funnel that the errors do not have one variance.{rows}"
        )
    if evidence.deviation is None:
        which = "Residuals in the units of the target"
        if evidence.transform is not None:
            which = "Normal quantiles of the probability integral transform"
        return (
            f"{which}, since the fit has no finite standard deviation to divide by: a trend or a funnel says that the "
            f"centre or the spread is missed.{rows}"
        )
    column = f" of {evidence.output_names[output]}" if len(evidence.output_names) > 1 else ""
    striped = evidence.kind is TargetKind.COUNT and evidence.target.max() <= _STRIPES
    stripes = " Counts make stripes, one for each." if striped else ""
    arms = " (two arms are natural where two experts are far apart)" if evidence.n_experts > 1 else ""
    return (
        f"Residuals{column} from the mixture’s mean in units of the mixture’s standard deviation: a trend or a funnel "
        f"says that the mean or the spread is missed{arms}.{stripes}{rows}"
    )


def _class_checks(evidence: Evidence) -> Section:
    table = discrete.confusion(evidence)
    totals = table.rows.sum(axis=1)
    rows = []
    for row, name in enumerate(table.names):
        counts = [Cell(f"{count:,.6g}", strong=column == row) for column, count in enumerate(table.rows[row])]
        right = "–" if row == table.together or not totals[row] else f"{table.rows[row, row] / totals[row]:.1%}"
        rows.append([Cell(name), *counts, Cell(right)])
    grid = Grid(
        f"Rows by their class (down) and by the most probable class of the fit (across). {table.correct:.1%} of all "
        "rows have the class that the fit thinks most probable; always naming the most frequent class would be right "
        f"for {table.largest:.1%}.",
        [("Observed", False), *((name, True) for name in table.names), ("Right", True)],
        rows,
    )
    panel = Panel("figure-calibration", discrete.calibration(evidence), _calibration_caption(evidence))
    return Section("residuals", "Calibration", "Calibration and confusion", [panel], grids=[grid])


def _calibration_caption(evidence: Evidence) -> str:
    drawn = discrete.drawn_classes(evidence)
    of = "success" if evidence.kind is TargetKind.SHARE else "the class"
    caption = (
        f"Groups of rows of similar fitted probability of {of}: a mark on the dotted line has the share that the fit "
        "says. Pale bars hold 95% of the shares that chance would give if the fit were true."
    )
    if len(drawn) < len(evidence.drawn_outputs):
        caption += f" Of {len(evidence.output_names)} classes the {len(drawn)} most frequent are drawn."
    return caption


def search_section(evidence: Evidence, level: float) -> Section:
    """How the fit was found: every start, the way of the kept one, what was seen, and rivals with what they change."""
    result = evidence.result
    panels = [Panel("figure-starts", search.starts(result), _starts_caption(evidence))]
    # A start at its end from the first (one expert has a closed form) has no ascent to show.
    if len(result.trace) and result.trace.min() < result.trace[-1]:
        what = "The ascent of the kept start: how much log-likelihood it still had to gain"
        if not evidence.is_likelihood:
            what = "The descent of the kept start: how far its sum of squares was above the last one, as a share of it,"
        caption = f"{what} after each iteration, on a logarithmic scale; it should fall ever more steeply at the end."
        panels.append(Panel("figure-trace", search.trace(result), caption))
    grids = [*what_was_seen(result.search), *rivals(evidence, level)]
    note = "" if result.search.n_independent else seen(result.search)
    return Section("search", "Starts and optima", "Starts and optima", panels, note, grids=grids)


def _starts_caption(evidence: Evidence) -> str:
    often = "The more independent starts end on the line, the less likely is it that a better"
    if evidence.is_likelihood:
        hollow = ""
        if evidence.model.family.has_scale:
            hollow = ", hollow circles ended on the variance floor, where a higher likelihood means nothing"
        return (
            f"The log-likelihood at which every start ended; the dotted line is the kept fit{hollow}. {often} maximum "
            "was missed."
        )
    options = evidence.estimator.get_params(deep=False)
    penalty = ", with the penalty of the ridge" if options["gate_ridge"] or options["expert_ridge"] else ""
    return (
        f"The residual sum of squares{penalty} at which every start ended; the dotted line is the kept fit. {often} "
        "one was missed."
    )


def thinned(evidence: Evidence, limit: int, what: str = "drawn") -> str:
    """A sentence for a caption, if only a sample of the rows is in the figure."""
    if evidence.n_rows <= limit:
        return ""
    return f" {limit:,} of {evidence.n_rows:,} rows are {what}, chosen at random with a fixed seed; the fit used all."
