"""What every rendering of a summary shows, in the order of reading."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gatewise.inference.rivals import changes_in_words, refit_of_rival
from gatewise.inference.rounding import Table, significant
from gatewise.ops.printable import printable

if TYPE_CHECKING:
    from gatewise.inference.summary import Summary

__all__ = ["Page", "errors_of_scales", "page_of"]


@dataclass(frozen=True)
class Page:
    """What every rendering shows, in the order of reading: names and numbers, not yet text.

    Attributes:
        title: what was fitted, in a line.
        status: the code of the status.
        findings: one sentence each, the status's own first.
        tables: the tables.
        remarks: headings with sentences, to stand after the tables.
        basis: what the numbers rest on, in a line: rows, log-likelihood, kind of the standard errors.
        footnote: rows, starts, seed and priors, in a line.
    """

    title: str
    status: str
    findings: list[str]
    tables: list[Table]
    remarks: list[tuple[str, list[str]]]
    basis: str
    footnote: str


def page_of(summary: "Summary") -> Page:
    """A summary in the order of reading, with nothing in it that is a command to a terminal."""
    return Page(
        printable(summary.title),
        summary.statistics["status"],
        [printable(sentence) for sentence in summary.findings],
        _tables(summary),
        [(heading, [printable(sentence) for sentence in sentences]) for heading, sentences in _remarks(summary)],
        _basis(summary),
        _footnote(summary),
    )


def _tables(summary: "Summary") -> list[Table]:
    """The tables in the order of reading, with headings; numbers still numbers."""
    squares = summary.statistics["objective"] == "least_squares"
    level = f"{100.0 * summary.level:g} %"
    held = summary.parameters["held"].to_numpy(dtype=bool)
    error = summary.parameters["standard_error"].to_numpy()
    lower, upper = f"lower {level}", f"upper {level}"
    parameters = summary.parameters.drop(columns="held").rename(
        columns={"standard_error": "std. error", "p_value": "p", "lower": lower, "upper": upper}
    )
    if held.any():
        parameters["held"] = np.where(held, "held", "")
    experts = summary.experts.rename(columns={"effective_rows": "effective rows"})
    if not any(experts["flags"]):
        experts = experts.drop(columns="flags")
    reference = summary.statistics["reference_class"]
    logits = "" if reference is None else f" (the experts' are of logits against {reference})"
    share = "mean weight of the gate" if squares else "mean responsibility"
    tables = [
        Table(
            "fit",
            "Fit (least squares: no likelihood)" if squares else "Fit (smaller criteria are better, ICL is by entropy)",
            _comparison(summary),
        ),
        Table("experts", f"Experts (weight is the {share})", experts, {"scale": errors_of_scales(summary)}),
        Table(
            "parameters",
            f"Parameters{logits}",
            parameters,
            dict.fromkeys(("estimate", "std. error", lower, upper), error),
        ),
    ]
    boundary = summary.boundary
    if boundary is not None and len(boundary):
        heading = "How far each coefficient can move until a row changes its experts"
        width = boundary["width"].to_numpy()
        rounded_by: dict[str, np.ndarray] = dict.fromkeys(("estimate", "lower", "upper", "width"), width)
        tables.append(Table("boundary", heading, boundary, rounded_by, digits=3))
    return tables


def errors_of_scales(summary: "Summary") -> np.ndarray:
    """The standard error of each expert's scale, NaN where it is not in the table of parameters."""
    rows = summary.parameters[summary.parameters["term"] == "scale"]
    known = dict(zip(rows["component"], rows["standard_error"], strict=True))
    shared = known.get("all experts", math.nan)
    return np.array([known.get(f"expert {expert}", shared) for expert in summary.experts["expert"]])


def _comparison(summary: "Summary") -> pd.DataFrame:
    """The mixture beside the one-expert fit."""
    if summary.statistics["objective"] == "least_squares":
        rows = {
            "residual sum of squares": "residual_sum_of_squares",
            "residual std. deviation": "residual_standard_deviation",
            "R² against the mean": "r_squared",
            "parameters": "n_parameters",
        }
    else:
        rows = {"log-likelihood": "log_likelihood", "parameters": "n_parameters"}
        rows |= {"AIC": "aic", "BIC": "bic", "ICL": "icl"}
    return pd.DataFrame(
        {
            "": list(rows),
            "mixture": [float(summary.statistics[key]) for key in rows.values()],
            "one expert": [float(summary.statistics[f"baseline_{key}"]) for key in rows.values()],
        }
    )


def _remarks(summary: "Summary") -> list[tuple[str, list[str]]]:
    """What stands after the tables: rivals of the kept optimum, and what is not identified."""
    remarks = []
    if len(summary.rivals):
        squares = summary.statistics["objective"] == "least_squares"
        near = "4 residual variances" if squares else "2 units of log-likelihood"
        remarks.append(
            (
                f"Rivals: other optima within {near}, and what they would change",
                [_rival(rival) for rival in summary.rivals.to_dict("records")],
            )
        )
    left = [entry for entry in summary.null_directions if not entry["by_reference"]]
    if left:
        total = sum(entry["dimensions"] for entry in left)
        plural = "direction" if total == 1 else "directions"
        heading = f"Not identified: {total} {plural} of the parameters (dimensions and reasons)"
        remarks.append((heading, [f"{entry['dimensions']}: {entry['reason']}" for entry in left]))
    return remarks


def _rival(rival: dict[str, Any]) -> str:
    starts = "1 start" if rival["starts"] == 1 else f"{rival['starts']} starts"
    status = "" if rival["status"] == "CONVERGED" else f", {rival['status']}"
    return (
        f"{rival['rival']}: {rival['below']:.3g} away ({starts}{status}): {changes_in_words(rival['changes'])}. "
        f"To keep it, in Python: fit again with {refit_of_rival(rival['rival'])}"
    )


def _basis(summary: "Summary") -> str:
    """What the numbers rest on: rows, the objective's value, and the kind of the standard errors."""
    figures = summary.statistics
    weight = "" if figures["total_weight"] == figures["n_rows"] else f" of total weight {figures['total_weight']:g}"
    if figures["objective"] == "least_squares":
        value = f"residual sum of squares {significant(figures['residual_sum_of_squares'], 6)}"
    else:
        value = f"log-likelihood {figures['log_likelihood']:.2f}"
    known = np.isfinite(summary.parameters["standard_error"].to_numpy(dtype=float))
    errors = f"standard errors from the {figures['standard_errors']}" if known.any() else "no standard errors"
    withheld = "" if known.all() else ", withheld (–) where there are none to give"
    return (
        f"n = {figures['n_rows']}{weight}; {value} with {figures['n_parameters']} free parameters; {errors}{withheld}; "
        "intervals are estimate ± normal quantile × standard error, those of positive parameters on the log scale."
    )


def _footnote(summary: "Summary") -> str:
    figures = summary.statistics
    ridges = {"gate ridge": figures["gate_ridge"], "expert ridge": figures["expert_ridge"]}
    priors = [f"{name} {value:g}" for name, value in ridges.items() if value]
    if figures["variance_prior"]:
        priors.append("inverse-gamma prior ({:g}, {:g}) on the variances".format(*figures["variance_prior"]))
    goal = "squares with the penalty" if figures["objective"] == "least_squares" else "likelihood times its priors"
    extremum = "minimum of the" if figures["objective"] == "least_squares" else "maximum of the"
    tight = f" ({figures['n_tight_optima']} with a tight expert)" if figures["n_tight_optima"] else ""
    extent = "complete" if figures["search"]["complete"] else "not complete"
    penalty = f"; {extremum} {goal}: {', '.join(priors)}" if priors else ""
    weighed = f" (weights {figures['weights']})" if figures["weights"] not in (None, "sample_weight") else ""
    return (
        f"{figures['n_rows']} rows, total weight {figures['total_weight']:g}{weighed}, {figures['n_starts']} starts, "
        f"distinct optima found: {figures['n_optima']}{tight}, search {extent}, seed {figures['seed']}{penalty}"
    )
