"""The summary of a fit as data; `gatewise.inference.render` turns it into text."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from gatewise.exceptions import InputError
from gatewise.fit import FitResult
from gatewise.fit.names import Names
from gatewise.inference import render
from gatewise.inference.criteria import SquaredErrors, baseline_criteria, baseline_errors, information_criteria
from gatewise.inference.parameters import parameter_table
from gatewise.inference.rivals import changes_in_words, refit_of_rival, rivals_table
from gatewise.ops.component import Component
from gatewise.ops.printable import printable

__all__ = ["Summary", "summarise"]

_SQUARES = {
    "residual_sum_of_squares": "residual_sum",
    "residual_standard_deviation": "residual_deviation",
    "r_squared": "r_squared",
}


@dataclass(frozen=True)
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
        return render.text(self._page())

    def to_markdown(self) -> str:
        """Markdown tables."""
        return render.markdown(self._page())

    def to_html(self) -> str:
        """HTML tables, every name escaped."""
        return render.html(self._page())

    def to_latex(self) -> str:
        """LaTeX tabulars (booktabs), every name escaped."""
        return render.latex(self._page())

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

    def _page(self) -> render.Page:
        remarks = _remarks(self)
        return render.Page(
            printable(self.title),
            self.statistics["status"],
            [printable(sentence) for sentence in self.findings],
            _tables(self),
            [(heading, [printable(sentence) for sentence in sentences]) for heading, sentences in remarks],
            printable(_footnote(self)),
        )


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


def _tables(summary: Summary) -> list[tuple[str, pd.DataFrame]]:
    """The tables in the order of reading, with headings; numbers still numbers."""
    squares = summary.statistics["objective"] == "least_squares"
    level = f"{100.0 * summary.level:g} %"
    held = summary.parameters["held"].to_numpy(dtype=bool)
    parameters = summary.parameters.drop(columns="held").rename(
        columns={
            "standard_error": "std. error",
            "p_value": "p",
            "lower": f"lower {level}",
            "upper": f"upper {level}",
        }
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
        (
            "Fit (least squares: no likelihood)" if squares else "Fit (smaller criteria are better, ICL is by entropy)",
            _comparison(summary),
        ),
        (f"Experts (weight is the {share})", experts),
        (f"Parameters{logits}", parameters),
    ]
    if summary.boundary is not None and len(summary.boundary):
        tables.append(("How far each coefficient can move until a row changes its experts", summary.boundary))
    return tables


def _comparison(summary: Summary) -> pd.DataFrame:
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


def _remarks(summary: Summary) -> list[tuple[str, list[str]]]:
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


def _footnote(summary: Summary) -> str:
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
