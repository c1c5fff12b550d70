"""The summary of a fit as data; `gatewise.inference.render` turns it into text."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from gatewise.fit import FitResult
from gatewise.inference import render
from gatewise.inference.criteria import baseline_criteria, information_criteria
from gatewise.inference.names import Names
from gatewise.inference.parameters import parameter_table

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    """Everything a reader of a fit needs, as tables and plain numbers.

    Attributes:
        title: what was fitted, in a line.
        parameters: see `parameter_table`.
        experts: one row per expert: expert, weight (mean responsibility), effective_rows, scale, flags.
        optima: one row per distinct end point, best first, those on the floor last: log_likelihood, starts,
            smallest_scale, smallest_rows, flags.
        statistics: plain numbers and strings: status, criteria, the one-expert baseline, rows, seed.
        findings: one sentence each, the status's own first.
        level: of the intervals.
    """

    title: str
    parameters: pd.DataFrame
    experts: pd.DataFrame
    optima: pd.DataFrame
    statistics: dict[str, Any]
    findings: list[str]
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
        }
        return render.json_text(content)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def _page(self) -> render.Page:
        return render.Page(self.title, self.statistics["status"], self.findings, _tables(self), _footnote(self))


def summarise(result: FitResult, names: Names, level: float = 0.95) -> Summary:
    """The summary of a fit.

    Args:
        result: a fit.
        names: the user's names.
        level: of the confidence intervals.

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
    criteria = information_criteria(result)
    base = baseline_criteria(result.baseline, result.total_weight)
    gate_name, experts_name = result.model.gate.name, result.model.experts.name
    k, family = result.model.n_experts, result.model.family.name
    gate = f"{gate_name} gate on {', '.join(names.gate_features)}" if names.gate_features else "constant weights"
    title = f"One {experts_name} expert for {names.target}, {family} family"
    if k > 1:
        title = f"Mixture of {k} {experts_name} experts for {names.target}, {family} family, {gate}"
    statistics: dict[str, Any] = {
        "status": result.status.name,
        "sentence": result.status.sentence,
        "target": names.target,
        "features": list(names.features),
        "gate_features": list(names.gate_features),
        "n_experts": k,
        "gate": gate_name,
        "experts": experts_name,
        "family": family,
        "n_rows": result.n_rows,
        "total_weight": result.total_weight,
        "n_parameters": result.n_parameters,
        "log_likelihood": result.log_likelihood,
        "penalised_log_likelihood": result.objective,
        "aic": criteria.aic,
        "bic": criteria.bic,
        "icl": criteria.icl,
        "baseline_log_likelihood": result.baseline.log_likelihood,
        "baseline_n_parameters": result.baseline.n_parameters,
        "baseline_scale": result.baseline.scale,
        "baseline_aic": base.aic,
        "baseline_bic": base.bic,
        "baseline_icl": base.icl,
        "relative_gradient": result.relative_gradient,
        "smallest_eigenvalue": result.smallest_eigenvalue,
        "n_starts": len(result.starts),
        "n_optima": sum(not optimum.on_floor for optimum in result.optima),
        "gate_ridge": result.gate_ridge,
        "variance_prior": None if result.variance_prior is None else list(result.variance_prior),
        "seed": result.seed,
        "seconds": result.seconds,
    }
    return Summary(
        title=title,
        parameters=parameter_table(result, names, level),
        experts=pd.DataFrame(
            {
                "expert": range(1, k + 1),
                "weight": result.effective_rows / result.total_weight,
                "effective_rows": result.effective_rows,
                "scale": result.scale,
                "flags": [_flags(i, result.on_floor, result.tight) for i in range(k)],
            }
        ),
        optima=pd.DataFrame(
            {
                "log_likelihood": [optimum.log_likelihood for optimum in result.optima],
                "starts": [optimum.n_starts for optimum in result.optima],
                "smallest_scale": [optimum.scale.min() for optimum in result.optima],
                "smallest_rows": [optimum.effective_rows.min() for optimum in result.optima],
                "flags": [
                    " ".join(name for name, hit in (("floor", o.on_floor), ("tight", o.tight)) if hit)
                    for o in result.optima
                ],
            }
        ),
        statistics=statistics,
        findings=[finding.message for finding in result.findings],
        level=level,
    )


def _flags(expert: int, on_floor: tuple[int, ...], tight: tuple[int, ...]) -> str:
    return " ".join(name for name, members in (("floor", on_floor), ("tight", tight)) if expert in members)


def _tables(summary: Summary) -> list[tuple[str, pd.DataFrame]]:
    """The tables in the order of reading, with headings; numbers still numbers."""
    figures = summary.statistics
    comparison = pd.DataFrame(
        {
            "": ["log-likelihood", "parameters", "AIC", "BIC", "ICL"],
            "mixture": [figures[key] for key in ("log_likelihood", "n_parameters", "aic", "bic", "icl")],
            "one expert": [
                figures[f"baseline_{key}"] for key in ("log_likelihood", "n_parameters", "aic", "bic", "icl")
            ],
        }
    )
    level = f"{100.0 * summary.level:g} %"
    parameters = summary.parameters.rename(
        columns={
            "standard_error": "std. error",
            "p_value": "p",
            "lower": f"lower {level}",
            "upper": f"upper {level}",
        }
    )
    experts = summary.experts.rename(columns={"effective_rows": "effective rows"})
    if not any(experts["flags"]):
        experts = experts.drop(columns="flags")
    return [
        ("Fit (smaller criteria are better)", comparison),
        ("Experts (weight is the mean responsibility)", experts),
        ("Parameters", parameters),
    ]


def _footnote(summary: Summary) -> str:
    figures = summary.statistics
    priors = [f"gate ridge {figures['gate_ridge']:g}"] if figures["gate_ridge"] else []
    if figures["variance_prior"]:
        priors.append("inverse-gamma prior ({:g}, {:g}) on the variances".format(*figures["variance_prior"]))
    penalty = f"; maximum of the likelihood times its priors: {', '.join(priors)}" if priors else ""
    return (
        f"{figures['n_rows']} rows, total weight {figures['total_weight']:g}, {figures['n_starts']} starts, "
        f"distinct optima found: {figures['n_optima']}, seed {figures['seed']}{penalty}"
    )
