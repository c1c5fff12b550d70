"""The summary of a fit as data; `gatewise.inference.render` turns it into text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from gatewise.exceptions import InputError
from gatewise.fit import FitResult
from gatewise.fit.names import Names
from gatewise.inference import render
from gatewise.inference.covariance import standard_error_kind
from gatewise.inference.criteria import SquaredErrors, baseline_criteria, baseline_errors, information_criteria
from gatewise.inference.latex import latex
from gatewise.inference.page import page_of
from gatewise.inference.parameters import parameter_table
from gatewise.inference.rivals import rivals_table
from gatewise.parts.component import Component

__all__ = ["Summary", "summarise"]

_SQUARES = {
    "residual_sum_of_squares": "residual_sum",
    "residual_standard_deviation": "residual_deviation",
    "r_squared": "r_squared",
}


@dataclass(frozen=True, eq=False)
class Summary:
    """Everything a reader of a fit needs, as tables and plain numbers.

    Attributes:
        title: what was fitted, in a line.
        parameters: see `parameter_table`.
        experts: one row per expert: expert, weight (mean responsibility, for least squares mean weight of the gate),
            effective_rows, scale if the family has one, flags.
        optima: one row per distinct end point, best first, those on the floor last: log_likelihood (NaN for least
            squares), objective, starts, smallest_scale (NaN without scales), smallest_rows, flags.
        rivals: one row per optimum whose log-likelihood is at most 2 below that of the kept one, with what it would
            change: see `rivals_table`.
        statistics: plain numbers and strings: status, parts and their options, criteria, squared errors, the
            one-expert baseline, rows, seed; NaN where the fit has no such number.
        findings: one sentence each, the status's own first.
        null_directions: what can be done to the parameters without changing the model, or without the data noticing:
            dimensions and reason of each, and whether taking the last expert as the reference settles it, so that the
            renderings need not mention it.
        boundary: for a gate that selects experts, how far each coefficient can move, all else equal, until a row
            changes its own: component, term, estimate, lower, upper, width, ±∞ where no row ever does; by the names and
            in the units that the fit had. None for other gates.
        level: of the intervals.
    """

    title: str
    parameters: pd.DataFrame
    experts: pd.DataFrame
    optima: pd.DataFrame
    rivals: pd.DataFrame
    statistics: dict[str, Any]
    findings: list[str]
    null_directions: list[dict[str, Any]]
    boundary: pd.DataFrame | None
    level: float

    def to_frame(self) -> pd.DataFrame:
        """The parameter table."""
        return self.parameters.copy()

    def to_text(self) -> str:
        """Plain text, as the command line prints it."""
        return render.text(page_of(self))

    def to_markdown(self) -> str:
        """Markdown tables."""
        return render.markdown(page_of(self))

    def to_html(self) -> str:
        """HTML tables, every name escaped."""
        return render.html(page_of(self))

    def to_latex(
        self,
        *,
        caption: str | None = None,
        label: str = "tab:mixture",
        columns: Sequence[str] = ("estimate", "standard_error", "interval", "p"),
    ) -> str:
        r"""Floating LaTeX tables for an article, with rules of the booktabs package; every name is escaped.

        Below each table stands the status of the fit, below that of the parameters also every finding, what the numbers
        rest on, and how they were found. The tables fit the text width of the article class, one column at 10 points:
        components stand in blocks, letters become smaller and long names are broken where they must. A long table goes
        on in another float.

        Args:
            caption: what the captions begin with, plain text; None for the title.
            label: of the table of parameters, for `\ref`; the others have it with -experts and -fit behind.
            columns: of the table of parameters, in this order, among estimate, standard_error, z, p and interval. For a
                narrow place leave some out; the default is what a reader can judge an estimate by. z is the estimate
                over its standard error, so that a table with both needs it no more.

        Raises:
            InputError: there is no such column, one is given twice, or the label is none that LaTeX has.
        """
        return latex(page_of(self), caption, label, columns)

    def to_json(self) -> str:
        """JSON; NaN and infinities become null."""
        content = {
            "title": self.title,
            "statistics": self.statistics,
            "findings": self.findings,
            "level": self.level,
            "parameters": self.parameters.to_dict("records"),
            "experts": self.experts.to_dict("records"),
            "optima": self.optima.to_dict("records"),
            "rivals": self.rivals.to_dict("records"),
            "null_directions": self.null_directions,
            "boundary": None if self.boundary is None else self.boundary.to_dict("records"),
        }
        return render.json_text(content)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()


def summarise(result: FitResult, names: Names, level: float = 0.95, errors: SquaredErrors | None = None) -> Summary:
    """The summary of a fit.

    Args:
        result: a fit.
        names: the user's names.
        level: of the confidence intervals.
        errors: the squared errors of a fit by least squares, which a result without its rows does not tell; without
            them there is no residual sum of squares in the summary.

    Raises:
        InputError: `level` does not lie strictly between 0 and 1.

    Example:
        >>> import numpy as np
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.fit import fit
        >>> from gatewise.gates import SoftmaxGate
        >>> from gatewise.model import MixtureOfExperts
        >>> y = np.array([1.0, 2.0, 4.0, 3.0])
        >>> one = MixtureOfExperts(SoftmaxGate(1, 1), LinearExperts(1, 1), Gaussian())
        >>> summary = summarise(fit(one, np.arange(4.0)[:, None], y), Names(["x"], ["x"], "y"))
        >>> summary.parameters[["component", "term", "estimate"]].round(3)
          component         term  estimate
        0  expert 1  (intercept)     1.300
        1  expert 1            x     0.800
        2  expert 1        scale     0.671
    """
    model, k = result.model, result.model.n_experts
    statistics: dict[str, Any] = {
        "status": result.status.name,
        "sentence": result.status.sentence,
        "finding_codes": [finding.code.name for finding in result.findings],
        "target": names.target,
        "features": list(names.features),
        "gate_features": list(names.gate_features),
        "offset": names.offset,
        "weights": names.weights,
        "n_experts": k,
        "gate": model.gate.name,
        "gate_options": _plain_options(model.gate),
        "experts": model.experts.name,
        "expert_options": _plain_options(model.experts),
        "family": model.family.name,
        "family_options": model.family.options(),
        "reference_class": names.reference,
        "objective": result.kind,
        "n_rows": result.n_rows,
        "total_weight": result.total_weight,
        "n_parameters": result.n_parameters,
        "log_likelihood": result.log_likelihood,
        "penalised_log_likelihood": math.nan if result.kind == "least_squares" else result.objective,
        **_criteria(result),
        **_squares(result, errors),
        "standard_errors": standard_error_kind(result),
        "baseline_n_parameters": result.baseline.n_parameters,
        "baseline_scale": result.baseline.scale,
        "relative_gradient": result.relative_gradient,
        "smallest_eigenvalue": result.smallest_eigenvalue,
        "n_starts": len(result.starts),
        "n_optima": sum(not optimum.on_floor for optimum in result.optima),
        "n_tight_optima": sum(bool(optimum.tight) and not optimum.on_floor for optimum in result.optima),
        "search": asdict(result.search),
        "gate_ridge": result.gate_ridge,
        "expert_ridge": result.expert_ridge,
        "variance_prior": None if result.variance_prior is None else list(result.variance_prior),
        "seed": result.seed,
        "seconds": result.seconds,
    }
    experts: dict[str, Any] = {
        "expert": range(1, k + 1),
        "weight": result.effective_rows / result.total_weight,
        "effective_rows": result.effective_rows,
    }
    if result.scale.size:
        experts["scale"] = result.scale
    experts["flags"] = [_flags(i, result.on_floor, result.tight) for i in range(k)]
    return Summary(
        title=_title(result, names),
        parameters=parameter_table(result, names, level),
        experts=pd.DataFrame(experts),
        optima=_optima(result),
        rivals=rivals_table(result, names, level),
        statistics=statistics,
        findings=[finding.message for finding in result.findings],
        null_directions=_null_directions(result),
        boundary=_boundary(result),
        level=level,
    )


def _title(result: FitResult, names: Names) -> str:
    model = result.model
    gate = f"{model.gate.name} gate on {', '.join(names.gate_features)}" if names.gate_features else "constant weights"
    parts = [f"One {model.experts.name} expert for {names.target}", f"{model.family.name} family"]
    if names.offset is not None:
        parts.append("with an offset" if names.offset == "offset" else f"with the offset {names.offset}")
    if model.n_experts > 1:
        parts[0] = f"Mixture of {model.n_experts} {model.experts.name} experts for {names.target}"
        parts.append(gate)
    if result.kind == "least_squares":
        parts.append("by least squares")
    elif model.gate.is_joint:
        parts.append("fitted jointly with its inputs")
    return ", ".join(parts)


def _plain_options(part: Component) -> dict[str, Any] | None:
    """The part's options, or None where they hold a function of the user's own."""
    try:
        return part.options()
    except InputError:
        return None


def _criteria(result: FitResult) -> dict[str, float]:
    criteria = information_criteria(result)
    base = baseline_criteria(result.baseline, result.total_weight)
    return {
        "aic": criteria.aic,
        "bic": criteria.bic,
        "icl": criteria.icl,
        "baseline_log_likelihood": result.baseline.log_likelihood,
        "baseline_aic": base.aic,
        "baseline_bic": base.bic,
        "baseline_icl": base.icl,
    }


def _squares(result: FitResult, errors: SquaredErrors | None) -> dict[str, float]:
    both = {"": errors, "baseline_": None if errors is None else baseline_errors(result, errors)}
    return {
        f"{prefix}{name}": math.nan if found is None else getattr(found, attribute)
        for prefix, found in both.items()
        for name, attribute in _SQUARES.items()
    }


def _optima(result: FitResult) -> pd.DataFrame:
    flags = [" ".join(n for n, hit in (("floor", o.on_floor), ("tight", o.tight)) if hit) for o in result.optima]
    return pd.DataFrame(
        {
            "log_likelihood": [optimum.log_likelihood for optimum in result.optima],
            "objective": [optimum.objective for optimum in result.optima],
            "starts": [optimum.n_starts for optimum in result.optima],
            "smallest_scale": [o.scale.min() if o.scale.size else math.nan for o in result.optima],
            "smallest_rows": [optimum.effective_rows.min() for optimum in result.optima],
            "flags": flags,
        }
    )


def _null_directions(result: FitResult) -> list[dict[str, Any]]:
    space, gate = result.null_space, result.model.gate
    # The gate of one expert has nothing to say, and so nothing that could be identified.
    parts = (result.model.experts.name,) if result.model.n_experts == 1 else ("",)
    pinned = {f"{gate.name} {s.name}: {s.sentence}" for s in gate.symmetries() if s.pins is not None}
    found = [
        {"dimensions": count, "reason": reason, "by_reference": reason in pinned}
        for reason, count in space.sentences
        if count and reason.startswith(parts)
    ]
    if len(space.further):
        reason = "no declared symmetry explains it; what depends on it has no standard error"
        found.append({"dimensions": len(space.further), "reason": reason, "by_reference": False})
    if len(space.by_selection):
        reason = "acts through the selection of the experts only, so that the likelihood has no derivative by it"
        found.append({"dimensions": len(space.by_selection), "reason": reason, "by_reference": False})
    return found


def _boundary(result: FitResult) -> pd.DataFrame | None:
    if result.boundary is None:
        return None
    columns = ("component", "term", "estimate", "lower", "upper", "width")
    return pd.DataFrame(
        [{name: getattr(found, name) for name in columns} for found in result.boundary], columns=columns
    )


def _flags(expert: int, on_floor: tuple[int, ...], tight: tuple[int, ...]) -> str:
    return " ".join(name for name, members in (("floor", on_floor), ("tight", tight)) if expert in members)
