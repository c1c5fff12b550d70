"""One self-contained HTML page on a fitted mixture: status, tables, figures, and how to obtain it again."""

from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gatewise._version import __version__
from gatewise.estimators.base import GatedEstimator
from gatewise.report import identification, tables, wording
from gatewise.report.evidence import Evidence
from gatewise.report.rendering import rendered
from gatewise.report.reproduction import python_text
from gatewise.report.sections import sections
from gatewise.report.write import render_report

__all__ = ["fit_page"]


@render_report.register
def fit_page(
    estimator: GatedEstimator,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    title: str | None = None,
    data_name: str | None = None,
    level: float = 0.95,
    command: str | None = None,
) -> str:
    """The report on a fitted mixture as the text of one HTML page.

    The page carries its scripts, styles and data, and a content security policy that forbids every request. The
    same fit and the same rows give the same text, character by character.

    Args:
        estimator: a fitted `gatewise.estimators.GatedRegressor` or `GatedClassifier`.
        X: the rows to judge the fit on, usually those it was fitted to, (n, d).
        y: target (n,), labels of classes (n,), or (n, e) for a family whose targets have several columns.
        sample_weight: (n,) non-negative, with the meaning of frequencies; None for ones.
        offset: log(exposure) of each row (n,), needed if the fit had one.
        title: the page's title; None for one made of the target's name.
        data_name: what the data are called. If it is the path of a CSV or parquet file, or a shipped data set, and its
            columns are X and y, the page has the Python that loads them.
        level: of the parameters' confidence intervals, and of what counts as significant among rivals.
        command: the command line that makes the fit again; None for a page that shows it in Python.

    Raises:
        InputError: the rows do not suit the estimator, X, y, the weights and the offset differ in length, or `level`
            does not lie strictly between 0 and 1.
    """
    evidence = Evidence.collect(estimator, X, y, sample_weight, offset)
    result = evidence.result
    groups = tables.parameters(evidence, level)
    optima, unlisted = tables.optima(evidence)
    expert_rows = tables.experts(evidence)
    directions = identification.directions(result, evidence.estimator.names_)
    return rendered(
        "report.html",
        version=__version__,
        title=title or wording.title(evidence),
        subtitle=wording.subtitle(evidence, data_name),
        status=result.status,
        severity=tables.severity(result.status),
        remark=result.findings[0].message.removeprefix(result.status.sentence).strip(),
        findings=result.findings[1:],
        criteria=tables.criteria(evidence),
        criteria_note=wording.criteria_note(evidence),
        experts=expert_rows,
        experts_note=wording.experts_note(evidence),
        has_scales=bool(result.scale.size),
        any_flag=any(row.flags for row in expert_rows),
        parameters=groups,
        parameter_note=wording.parameter_note(evidence, groups),
        boundary=tables.boundary(evidence),
        boundary_note=wording.boundary_note(evidence),
        level=f"{100.0 * level:g}%",
        directions=directions,
        identification_note=wording.identification_note(result, directions),
        separations=identification.separations(result),
        standardised=identification.standardised_features(evidence),
        sections=sections(evidence, level),
        optima=optima,
        optimum_value="Log-likelihood" if evidence.is_likelihood else "Residual sum of squares",
        optima_note=wording.optima_note(evidence, unlisted),
        reproducibility=tables.reproducibility(evidence, data_name),
        call=command or python_text(estimator, X, y, sample_weight=sample_weight, offset=offset, data_name=data_name),
        plotly=Markup(get_plotlyjs()),
    )
