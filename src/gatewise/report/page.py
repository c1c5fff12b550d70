"""One self-contained HTML page on a fitted mixture: status, tables, figures, and how to obtain it again."""

import os
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import gatewise
from gatewise.estimators import GatedRegressor
from gatewise.io.atomic import write_file
from gatewise.report import tables
from gatewise.report.evidence import Evidence
from gatewise.report.sections import sections

__all__ = ["render_report", "write_report"]


def render_report(
    estimator: GatedRegressor,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    title: str | None = None,
    data_name: str | None = None,
    level: float = 0.95,
) -> str:
    """The report on a fitted mixture as the text of one HTML page.

    The page carries its scripts, styles and data, and a content security policy that forbids every request. The
    same fit and the same rows give the same text, character by character.

    Args:
        estimator: a fitted `gatewise.estimators.GatedRegressor`.
        X: the rows to judge the fit on, usually those it was fitted to, (n, d).
        y: target (n,).
        sample_weight: (n,) non-negative, with the meaning of frequencies; None for ones.
        title: the page's title; None for one made of the target's name.
        data_name: what the data are called.
        level: of the parameters' confidence intervals.

    Raises:
        InputError: the rows do not suit the estimator, X, y and the weights differ in length, or `level` does not
            lie strictly between 0 and 1.
    """
    evidence = Evidence.collect(estimator, X, y, sample_weight)
    result = estimator.result_
    groups = tables.parameters(evidence, level)
    optima, unlisted = tables.optima(evidence)
    expert_rows = tables.experts(evidence)
    environment = Environment(
        loader=PackageLoader("gatewise.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        version=gatewise.__version__,
        title=title or _title(evidence),
        subtitle=_subtitle(evidence, data_name),
        status=result.status,
        severity=tables.severity(result.status),
        remark=result.findings[0].message.removeprefix(result.status.sentence).strip(),
        findings=result.findings[1:],
        criteria=tables.criteria(evidence),
        experts=expert_rows,
        any_flag=any(row.flags for row in expert_rows),
        baseline_scale=tables.number(result.baseline.scale),
        parameters=groups,
        level=f"{100.0 * level:g}%",
        parameter_note=_parameter_note(groups),
        sections=sections(evidence),
        optima=optima,
        unlisted=unlisted,
        reproducibility=tables.reproducibility(evidence, data_name),
        call=tables.call_text(estimator),
        plotly=Markup(get_plotlyjs()),
    )


def write_report(
    path: str | os.PathLike[str],
    estimator: GatedRegressor,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    title: str | None = None,
    data_name: str | None = None,
    level: float = 0.95,
) -> None:
    """Write the report on a fitted mixture as one HTML file, whole or not at all; an older file is replaced.

    Args:
        path: the file to write; its folder must exist.
        estimator: a fitted `gatewise.estimators.GatedRegressor`.
        X: the rows to judge the fit on, usually those it was fitted to, (n, d).
        y: target (n,).
        sample_weight: (n,) non-negative, with the meaning of frequencies; None for ones.
        title: the page's title; None for one made of the target's name.
        data_name: what the data are called.
        level: of the parameters' confidence intervals.

    Raises:
        InputError: the rows do not suit the estimator, X, y and the weights differ in length, or `level` does not
            lie strictly between 0 and 1.
        OutputError: the file cannot be written; an older one is then untouched.
    """
    page = render_report(estimator, X, y, sample_weight=sample_weight, title=title, data_name=data_name, level=level)
    write_file(path, page.encode("utf-8"), overwrite=True)


def _title(evidence: Evidence) -> str:
    kind = "One expert" if evidence.n_experts == 1 else f"Mixture of {evidence.n_experts} experts"
    return f"{kind} for {evidence.estimator.target_name_}"


def _subtitle(evidence: Evidence, data_name: str | None) -> str:
    """One line on the model and the data."""
    options = evidence.estimator.get_params(deep=False)
    count = evidence.n_experts
    parts = [
        f"{evidence.estimator.target_name_} from {_few(evidence.estimator.expert_feature_names_)}",
        f"{count} {options['expert']} {str(options['family']).capitalize()} {'expert' if count == 1 else 'experts'}",
    ]
    if count > 1:
        names = evidence.estimator.gate_feature_names_
        parts.append(f"{options['gate']} gate on {_few(names)}" if names else "constant weights")
    parts.append(f"{evidence.n_rows:,} rows" + (f" of {data_name}" if data_name else ""))
    return " · ".join(parts)


def _few(names: list[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:5])} and {len(names) - 5} more"


def _parameter_note(groups: list[tables.ParameterGroup]) -> str:
    """How to read the parameter table, and why there are dashes in it if there are."""
    note = "In the units of the data, rounded by the standard errors, which are from the exact observed information."
    if any(row.standard_error == tables.MISSING for group in groups for row in group.rows):
        note += " A dash stands where there is no standard error to give; the status above says why."
    return note
