"""The report's tables as plain rows of text: what the template prints without further thought."""

import math
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from gatewise._version import __version__
from gatewise.fit.result import FitResult, Optimum
from gatewise.fit.status import FitStatus
from gatewise.inference.page import errors_of_scales
from gatewise.inference.rounding import MISSING, p_value, rounded
from gatewise.report.evidence import Evidence
from gatewise.report.palette import expert_colour
from gatewise.report.search import optimum_colour

__all__ = [
    "HELD",
    "LISTED_PARAMETERS",
    "MISSING",
    "BoundaryRow",
    "CriterionRow",
    "ExpertRow",
    "OptimumRow",
    "ParameterGroup",
    "ParameterRow",
    "boundary",
    "criteria",
    "experts",
    "number",
    "optima",
    "parameters",
    "reproducibility",
    "separated_experts",
    "severity",
]

HELD = "held"
_CRITERIA = ("aic", "bic", "icl")
_LISTED_OPTIMA = 12
LISTED_PARAMETERS = 400
_MINUS = "\u2212"
_SEVERE = (FitStatus.INTERRUPTED, FitStatus.SATURATED, FitStatus.ON_FLOOR, FitStatus.NOT_A_MAXIMUM)


@dataclass(frozen=True)
class CriterionRow:
    """One figure of merit of the mixture and of the one-expert fit."""

    name: str
    mixture: str
    baseline: str
    difference: str
    verdict: str


@dataclass(frozen=True)
class ExpertRow:
    """One expert: its colour, how much of the data it holds, and its scale where the family has one."""

    colour: str
    name: str
    weight: str
    effective_rows: str
    scale: str
    relative_scale: str
    flags: str


@dataclass(frozen=True)
class ParameterRow:
    """One estimated parameter."""

    term: str
    estimate: str
    standard_error: str
    z: str
    p_value: str
    lower: str
    upper: str


@dataclass(frozen=True)
class ParameterGroup:
    """The parameters of one component, in the summary's order."""

    component: str
    colour: str | None
    rows: list[ParameterRow]


@dataclass(frozen=True)
class BoundaryRow:
    """How far one coefficient of a gate that selects experts can move until a row changes its own."""

    component: str
    colour: str | None
    term: str
    estimate: str
    lower: str
    upper: str
    width: str


@dataclass(frozen=True)
class OptimumRow:
    """One distinct end point of the starts."""

    colour: str
    rank: str
    value: str
    difference: str
    n_starts: str
    scale: str
    effective_rows: str
    flags: str
    kept: bool


def severity(status: FitStatus) -> str:
    """How alarming a status is: `good`, `caution` or `severe`."""
    if status is FitStatus.CONVERGED:
        return "good"
    return "severe" if status in _SEVERE else "caution"


def number(value: float, decimals: int | None = None) -> str:
    """A number for print: a true minus sign, a dash where there is none.

    Args:
        value: the number.
        decimals: places after the point; None for five significant digits.

    Example:
        >>> number(-1.25, 1), number(float("nan")), number(0.000012345)
        ('−1.2', '–', '1.2345e−05')
    """
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    text = f"{value:.5g}" if decimals is None else f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0.0:
        text = text.removeprefix("-")
    return text.replace("-", _MINUS)


def criteria(evidence: Evidence) -> list[CriterionRow]:
    """Figures of merit beside those of the one-expert fit: criteria of a likelihood, or squared errors."""
    figures = evidence.estimator.summary().statistics
    if figures["objective"] == "least_squares":
        chosen = (
            ("Residual sum of squares", "residual_sum_of_squares", False),
            ("Residual standard deviation", "residual_standard_deviation", False),
            ("R² against the mean", "r_squared", True),
        )
        rows = [
            _criterion(name, figures[key], figures[f"baseline_{key}"], larger_is_better=larger, decimals=None)
            for name, key, larger in chosen
        ]
    else:
        likelihood = "Log-likelihood of (x, y)" if evidence.model.gate.is_joint else "Log-likelihood"
        chosen = ((likelihood, "log_likelihood", True), *((name.upper(), name, False) for name in _CRITERIA))
        rows = [
            _criterion(name, figures[key], figures[f"baseline_{key}"], larger_is_better=larger)
            for name, key, larger in chosen
        ]
    own, base = figures["n_parameters"], figures["baseline_n_parameters"]
    sign = "+" if own > base else ""
    return [*rows, CriterionRow("Free parameters", str(own), str(base), sign + number(own - base, 0), "")]


def experts(evidence: Evidence) -> list[ExpertRow]:
    """One row per expert; flags name experts that are tight, on the variance floor, or separate."""
    result = evidence.result
    scale = result.scale if result.scale.size else np.full(evidence.n_experts, math.nan)
    errors = errors_of_scales(evidence.estimator.summary())
    separating = separated_experts(result)
    return [
        ExpertRow(
            colour=expert_colour(expert),
            name=f"Expert {expert + 1}",
            weight=f"{result.effective_rows[expert] / result.total_weight:.1%}",
            effective_rows=number(float(result.effective_rows[expert]), 1),
            scale=rounded(float(scale[expert]), float(errors[expert])).replace("-", _MINUS),
            relative_scale=_percent(float(scale[expert]), result.baseline.scale),
            flags=_flags(expert, result.tight, result.on_floor, separating),
        )
        for expert in range(evidence.n_experts)
    ]


def separated_experts(result: FitResult) -> tuple[int, ...]:
    """The experts whose coefficients have no finite maximum."""
    found = [finding for finding in result.findings if finding.code is FitStatus.EXPERT_SEPARATED]
    return tuple(found[0].evidence.get("experts", ())) if found else ()


def parameters(evidence: Evidence, level: float = 0.95) -> list[ParameterGroup]:
    """The summary's parameter table by component; every row is rounded to its own standard error.

    A network has thousands of parameters, which nobody reads in a page: the first 400 are listed.
    """
    frame = evidence.estimator.summary(level=level).parameters
    groups: dict[str, ParameterGroup] = {}
    for record in frame.head(LISTED_PARAMETERS).to_dict("records"):
        component = str(record["component"])
        group = groups.setdefault(component, ParameterGroup(component, _component_colour(component), []))
        group.rows.append(_parameter(record))
    return list(groups.values())


def boundary(evidence: Evidence) -> list[BoundaryRow]:
    """The intervals of a gate that selects experts, rounded by their widths; at most 400, and none for other gates."""
    rows = []
    for found in (evidence.result.boundary or ())[:LISTED_PARAMETERS]:
        estimate, lower, upper, width = (
            rounded(value, found.width, digits=3).replace("-", _MINUS)
            for value in (found.estimate, found.lower, found.upper, found.width)
        )
        rows.append(
            BoundaryRow(
                component=found.component,
                colour=_component_colour(found.component),
                term=found.term,
                estimate=estimate,
                lower=lower,
                upper=upper,
                width=width,
            )
        )
    return rows


def optima(evidence: Evidence) -> tuple[list[OptimumRow], int]:
    """The best distinct end points and the number of those not listed."""
    result = evidence.result
    squares = result.kind == "least_squares"
    kept = next((rank for rank, optimum in enumerate(result.optima) if _is_kept(optimum, result)), None)
    rows = []
    for rank, optimum in enumerate(result.optima):
        value = -2.0 * optimum.objective if squares else optimum.log_likelihood
        difference = value - (-2.0 * result.objective if squares else result.log_likelihood)
        flags = [
            f"expert {expert + 1} {flags}"
            for expert in range(evidence.n_experts)
            if (flags := _flags(expert, optimum.tight, optimum.on_floor))
        ]
        rows.append(
            OptimumRow(
                colour=optimum_colour(rank),
                rank=str(rank + 1),
                value=f"{value:.8g}".replace("-", _MINUS) if squares else number(value, 6),
                difference="kept" if rank == kept else number(difference, None if squares else 4),
                n_starts=str(optimum.n_starts),
                scale=_list(optimum.scale) if optimum.scale.size else MISSING,
                effective_rows=", ".join(number(float(rows), 1) for rows in optimum.effective_rows),
                flags="; ".join(flags),
                kept=rank == kept,
            )
        )
    return rows[:_LISTED_OPTIMA], max(0, len(rows) - _LISTED_OPTIMA)


def reproducibility(evidence: Evidence, data_name: str | None) -> list[tuple[str, str]]:
    """What somebody needs to obtain the same fit: seed, rows, evidence of the end point, versions."""
    estimator, result = evidence.estimator, evidence.result
    packages = ("numpy", "scipy", "torch", "numba", "plotly")
    return [
        ("Data", data_name or MISSING),
        ("Rows, total weight", f"{result.n_rows:,} rows, Σw = {result.total_weight:,.6g}"),
        ("Target", evidence.target_name),
        ("Features of the experts", ", ".join(estimator.expert_feature_names_) or "none"),
        ("Features of the gate", ", ".join(estimator.gate_feature_names_) or "none: constant weights"),
        ("Seed", str(result.seed)),
        _must_give(result),
        ("Starts", f"{len(result.starts)}, with {_count(len(result.optima), 'distinct end point')}"),
        ("Relative gradient at the end", number(result.relative_gradient)),
        ("Smallest eigenvalue of the information per row", number(result.smallest_eigenvalue)),
        ("Wall time of the fit", f"{result.seconds:.2f} s"),
        (
            "Versions",
            ", ".join(
                [f"gatewise {__version__}", f"Python {platform.python_version()}"]
                + [f"{package} {version(package)}" for package in packages]
            ),
        ),
    ]


def _must_give(result: FitResult) -> tuple[str, str]:
    """The figure by which somebody sees that the same fit was obtained."""
    if result.kind == "least_squares":
        return "Residual sum of squares to obtain, with penalties", f"{-2.0 * result.objective:.10g}"
    return "Log-likelihood to obtain", f"{result.log_likelihood:.10g}".replace("-", _MINUS)


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}{'' if number_of == 1 else 's'}"


def _criterion(
    name: str, mixture: float, baseline: float, *, larger_is_better: bool, decimals: int | None = 3
) -> CriterionRow:
    difference = mixture - baseline
    if math.isnan(difference):
        return CriterionRow(name, number(mixture, decimals), number(baseline, decimals), MISSING, "")
    gain = difference if larger_is_better else -difference
    verdict = "better" if gain > 0 else ("worse" if gain < 0 else "equal")
    sign = "+" if difference > 0 else ""
    shown = number(mixture, decimals), number(baseline, decimals), sign + number(difference, decimals)
    return CriterionRow(name, *shown, verdict)


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if math.isfinite(part) and math.isfinite(whole) and whole > 0.0 else MISSING


def _parameter(record: dict[Any, Any]) -> ParameterRow:
    error = float(record["standard_error"])

    def shown(column: str) -> str:
        return rounded(float(record[column]), error).replace("-", _MINUS)

    return ParameterRow(
        term=str(record["term"]),
        estimate=shown("estimate"),
        standard_error=HELD if record["held"] else shown("standard_error"),
        z=number(float(record["z"]), 2),
        p_value=p_value(float(record["p_value"])),
        lower=shown("lower"),
        upper=shown("upper"),
    )


def _component_colour(component: str) -> str | None:
    """The colour of the expert that a component such as `gate 1 vs 2` or `expert 1` belongs to."""
    found = re.match(r"(?:gate|expert) (\d+)", component)
    return expert_colour(int(found.group(1)) - 1) if found else None


def _is_kept(optimum: Optimum, result: FitResult) -> bool:
    difference = abs(optimum.objective - result.objective)
    same_rows = np.allclose(optimum.effective_rows, result.effective_rows, rtol=1e-3, atol=1e-3)
    return same_rows and difference <= 1e-6 * max(1.0, abs(result.objective))


def _flags(expert: int, tight: Sequence[int], on_floor: Sequence[int], separating: Sequence[int] = ()) -> str:
    kinds = (("on the floor", on_floor), ("tight", tight), ("separates", separating))
    return ", ".join(name for name, members in kinds if expert in members)


def _shared_places(values: np.ndarray) -> int | None:
    """Places after the point that give the smallest of a column's values four significant digits, if that is few."""
    smallest = float(np.min(values))
    if not (smallest > 0.0 and np.isfinite(values).all()):
        return None
    places = max(0, 3 - math.floor(math.log10(smallest)))
    return places if places <= 8 and float(np.max(values)) < 1e7 else None


def _list(values: np.ndarray) -> str:
    places = _shared_places(values)
    return ", ".join(number(float(value), places) for value in values)
