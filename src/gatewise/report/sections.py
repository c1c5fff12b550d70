"""The sections of a report in their order, each figure with the sentence that tells how to read it."""

import numpy as np

from gatewise.report import checks, figures, gates
from gatewise.report.check_sections import check_section, search_section, thinned
from gatewise.report.dependence import dependences
from gatewise.report.evidence import DRAWN_ROWS, Evidence
from gatewise.report.layout import Cell, Grid, Panel, Section
from gatewise.report.palette import expert_colour
from gatewise.report.targets import TargetKind

__all__ = ["sections"]

_MAX_PANELS = 12
_MAX_OUTPUTS = 6
_PANEL_ROWS = 12_000
_LISTED_TIES = 3


def sections(evidence: Evidence, level: float = 0.95) -> list[Section]:
    """Every section that the fitted mixture has: a single expert has neither gate nor responsibilities.

    Args:
        evidence: the fit and its rows.
        level: a coefficient is significant if its interval of this level leaves out 0.
    """
    several = evidence.n_experts > 1
    found = [_data(evidence)]
    if several:
        found.append(_gate(evidence))
    if several and evidence.is_likelihood:
        found.append(_responsibilities(evidence))
    return [*found, check_section(evidence), search_section(evidence, level)]


# --- data and experts


def _data(evidence: Evidence) -> Section:
    colours = _how_drawn(evidence)
    outputs, outputs_left = _drawn_outputs(evidence)
    n_features = evidence.inputs.shape[1]
    if n_features == 1 and len(outputs) == 1:
        caption = _what_is_held(evidence) + colours + thinned(evidence, DRAWN_ROWS)
        figure = figures.expert_lines(evidence, output=outputs[0])
        return Section("data", "Data", "Data and experts", [Panel("figure-data", figure, caption)])
    shown, left_out = _panels(evidence, list(range(n_features)), max(1, _MAX_PANELS // len(outputs)))
    limit = max(400, min(DRAWN_ROWS, _PANEL_ROWS // (len(shown) * len(outputs))))
    ties = dependences(evidence.inputs, evidence.feature_names)
    panels = [
        Panel(
            f"figure-data-{feature + 1}" + (f"-{output + 1}" if len(outputs) > 1 else ""),
            figures.expert_lines(evidence, feature, output=output, limit=limit, legend=False, height=330),
            _misleading(ties.get(feature)),
        )
        for feature in shown
        for output in outputs
    ]
    note = _what_is_held(evidence) + colours + outputs_left + left_out + thinned(evidence, limit)
    several_outputs = {TargetKind.CLASS: "class by class", TargetKind.VECTOR: "column by column"}.get(evidence.kind, "")
    how = [*(["feature by feature"] if n_features > 1 else []), *([several_outputs] if len(outputs) > 1 else [])]
    return Section("data", "Data", f"Data and experts, {', '.join(how)}", panels, note, _legend(evidence))


def _misleading(ties: list[str] | None) -> str:
    """What is said below a panel along a column that no row can move alone."""
    if not ties:
        return ""
    more = f"; and {len(ties) - _LISTED_TIES} more" if len(ties) > _LISTED_TIES else ""
    return (
        f"Misleading: {'; '.join(ties[:_LISTED_TIES])}{more}. The panel moves one and holds the others at their means, "
        "as no row does."
    )


def _legend(evidence: Evidence) -> list[str]:
    if evidence.n_experts == 1:
        return []
    centre = f"mixture {evidence.reader.centre_name}" if evidence.model.is_normalised else "regression function"
    found = [f"dotted black: {centre}"]
    return [*found, "grey: its 90% interval"] if evidence.reader.has_quantiles else found


def _how_drawn(evidence: Evidence) -> str:
    """How to read lines, areas and rows."""
    several, normalised = evidence.n_experts > 1, evidence.model.is_normalised
    bands, one_feature = evidence.reader.has_quantiles, evidence.inputs.shape[1] == 1
    found = []
    if several and (one_feature or evidence.kind is not TargetKind.SHARE):
        mark = "tick" if evidence.kind is TargetKind.CLASS else "row"
        what = "responsibility for it" if evidence.is_likelihood else "share of the weights there"
        found.append(f"Each {mark} has the colours of the experts mixed by their {what}.")
    if bands:
        found.append(f"Coloured areas hold 90% of what {'their expert' if several else 'the expert'} makes.")
        if evidence.kind is TargetKind.COUNT:
            found.append("Quantiles of counts are whole numbers, so that areas have steps.")
    if several and normalised:
        found.append("A line is thin where the gate gives its expert less than 5%.")
    elif not normalised:
        found.append("Each expert’s line is its weight times its mean; the lines add up to the regression function.")
    if evidence.kind is TargetKind.CLASS:
        dots = "; dots are its share among neighbouring rows" if one_feature else ""
        found.append(f"Lines are probabilities of the class; ticks at the top are rows of the class{dots}.")
    if evidence.reader.uses_median:
        found.append("Lines are medians, since the fitted distribution of an expert has no mean.")
    if several and normalised:
        interval = " and the grey area its 90% interval" if bands else ""
        found.append(f"The dotted black line is the mixture’s {evidence.reader.centre_name}{interval}.")
    elif several:
        found.append("The dotted black line is the regression function.")
    return " ".join(found)


def _what_is_held(evidence: Evidence) -> str:
    if evidence.inputs.shape[1] == 1:
        return "The offset is held at its mean, and the rows are brought to it. " if evidence.offset is not None else ""
    held = "One panel per feature, all other features held at their means: the lines are partial"
    offset = " and the offset held at its mean too" if evidence.offset is not None else ""
    if evidence.kind in (TargetKind.CLASS, TargetKind.SHARE):
        return f"{held}{offset}. "
    if not evidence.is_likelihood:
        return f"{held}{offset}, and the points are partial residuals, residuals added to the dotted line. "
    if evidence.model.family.log_link:
        return (
            f"{held}{offset}, and the points are partial residuals, the target times the ratio of what its experts "
            "expect with the other features at their means to what they expect of it. "
        )
    return (
        f"{held}{offset}, and the points are partial residuals, the target less what its experts owe to the other "
        "features’ distance from their means. "
    )


def _drawn_outputs(evidence: Evidence) -> tuple[list[int], str]:
    """The outputs with panels: all that there is room for, of classes the most frequent ones."""
    outputs = evidence.drawn_outputs
    most = _MAX_PANELS if evidence.inputs.shape[1] == 1 else _MAX_OUTPUTS
    if len(outputs) <= most:
        return outputs, ""
    if evidence.kind is not TargetKind.CLASS:
        return outputs[:most], f" Of {len(outputs)} columns of the target the first {most} are drawn."
    often = np.argsort(-(evidence.weight @ evidence.observed), kind="stable")[:most]
    return sorted(often.tolist()), f" Of {len(outputs)} classes the {most} most frequent are drawn."


# --- the gate


def _gate(evidence: Evidence) -> Section:
    normalised = evidence.model.is_normalised
    grids = [_tree(evidence)] if gates.tree_of(evidence) else []
    heading = "Gate probabilities" if normalised else "Gate weights"
    what = "probabilities of each expert" if normalised else "weights of each expert, which need not sum to one"
    if evidence.is_likelihood:
        what += ", before the target is seen"
    if not evidence.gate_features:
        panel = Panel(
            "figure-gate",
            gates.gate_constant(evidence),
            f"The gate has no features, so that every row has the same {what}.",
        )
        return Section("gate", "Gate", "Gate", [panel], grids=grids)
    ticks = " Ticks at the foot mark rows." + _sparse(evidence)
    if len(evidence.gate_features) == 1:
        dots = (
            "; dots, the mean responsibility in groups of neighbouring rows, lie around the lines where the gate’s "
            "form suits the data."
            if evidence.is_likelihood
            else "."
        )
        figure = gates.gate_along(evidence, evidence.gate_features[0], height=340)
        caption = f"Lines are the {what}{dots}{ticks}"
        return Section("gate", "Gate", heading, [Panel("figure-gate", figure, caption)], grids=grids)
    features = evidence.gate_features
    shown, left_out = _panels(evidence, features, _MAX_PANELS)
    ties = dependences(evidence.inputs[:, features], [evidence.feature_names[feature] for feature in features])
    panels = [
        Panel(
            f"figure-gate-{feature + 1}",
            gates.gate_along(evidence, feature, legend=False),
            _misleading(ties.get(features.index(feature))),
        )
        for feature in shown
    ]
    if len(evidence.gate_features) == 2 and all(np.ptp(evidence.inputs[:, evidence.gate_features], axis=0) > 0.0):
        panels.append(
            Panel(
                "figure-gate-map",
                gates.leading_expert(evidence),
                "The expert with the largest weight at each place, in its colour: pale where its lead is small, full "
                "where it has nearly all the weight. Dots are rows, in the colours of their "
                f"{'responsibilities' if evidence.is_likelihood else 'weights'}.",
            )
        )
    note = (
        f"{what.capitalize()}, along one gate feature with the other features held at their means." + ticks + left_out
    )
    legend = [""] if normalised else ["dotted black: sum of the weights"]
    return Section("gate", "Gate", f"{heading}, feature by feature", panels, note, legend, grids)


def _sparse(evidence: Evidence) -> str:
    active = evidence.model.gate.own_top_k
    if active is None or active == evidence.n_experts:
        return ""
    others = "expert has" if active == 1 else f"{active} experts have"
    return f" At every place only the best {others} weight; lines jump where the selection changes."


def _tree(evidence: Evidence) -> Grid:
    rows = [
        [
            Cell(
                branch.name,
                None if branch.expert is None else expert_colour(branch.expert),
                branch.depth,
                branch.expert is None,
            ),
            Cell(branch.chosen_by),
            Cell(f"{branch.weight:.1%}"),
        ]
        for branch in gates.tree_of(evidence)
    ]
    return Grid(
        "The tree of the gate. Each group or expert is weighed against its siblings by a gate of the kind in the "
        "second column; the last is the mean over the rows of its weight, the product down the tree.",
        [("", False), ("Weighed by", False), ("Mean weight", True)],
        rows,
    )


# --- responsibilities


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


def _panels(evidence: Evidence, features: list[int], most: int) -> tuple[list[int], str]:
    """The features to draw: all, or those along which the experts' means and the gate move most, in column order."""
    if len(features) <= most:
        return features, ""
    span = max(float(np.ptp(evidence.observed, axis=0).max()), np.finfo(float).tiny)
    movement = []
    for feature in features:
        profile = evidence.profile(feature, bands=False)
        means = np.nan_to_num(np.ptp(profile.expert_means, axis=0), nan=0.0, posinf=0.0).max() / span
        movement.append(means + np.ptp(profile.gate_weights, axis=0).max())
    strongest = np.argsort(-np.array(movement), kind="stable")[:most]
    return sorted(features[index] for index in strongest), (
        f" Of {len(features)} features the {most} along which the fit changes most are drawn."
    )
