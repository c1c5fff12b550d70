"""What a page says in its own words about the model that was fitted: titles, and notes beside the tables."""

from gatewise.fit.result import FitResult
from gatewise.gates import Gate
from gatewise.inference.covariance import standard_error_kind
from gatewise.parts.coefficients import linear_coefficients
from gatewise.report import tables
from gatewise.report.evidence import Evidence
from gatewise.report.identification import Direction
from gatewise.report.targets import TargetKind

__all__ = [
    "criteria_note",
    "experts_note",
    "identification_note",
    "optima_note",
    "parameter_note",
    "subtitle",
    "title",
]

# Words of names that English writes with a capital.
_PROPER_NAMES = {word.lower(): word for word in ("Gaussian", "Poisson", "Bernoulli", "Laplace", "Student")}


def title(evidence: Evidence) -> str:
    """What was fitted to what, as a heading."""
    kind = "One expert" if evidence.n_experts == 1 else f"Mixture of {evidence.n_experts} experts"
    return f"{kind} for {evidence.target_name}"


def subtitle(evidence: Evidence, data_name: str | None) -> str:
    """One line on the model and the data."""
    model, count = evidence.model, evidence.n_experts
    family = f" {_plain(model.family.name)}" if evidence.is_likelihood else ""
    noun = "expert" if count == 1 else "experts"
    features = _few(evidence.estimator.expert_feature_names_)
    parts = [
        f"{evidence.target_name} from {features or 'no features'}",
        f"{count} {_plain(model.experts.name)}{family} {noun}",
    ]
    if count > 1:
        names = evidence.estimator.gate_feature_names_
        kind = _gate_name(model.gate)
        if names:
            parts.append(f"{kind} on {_few(names)}")
        else:
            parts.append("constant weights" if evidence.model.is_normalised else f"{kind} without features")
    if not evidence.is_likelihood:
        parts.append("fitted by least squares")
    if evidence.offset is not None:
        named = evidence.estimator.names_.offset
        parts.append("with an offset" if named in (None, "offset") else f"with the offset {named}")
    weights = evidence.estimator.names_.weights
    if weights not in (None, "sample_weight"):
        parts.append(f"weights {weights}")
    parts.append(f"{evidence.n_rows:,} rows" + (f" of {data_name}" if data_name else ""))
    return " · ".join(parts)


def criteria_note(evidence: Evidence) -> str:
    """The caption of the figures of merit."""
    model = evidence.model
    ordinary = model.family.is_least_squares and linear_coefficients(model.experts) is not None
    kind = " (ordinary least squares)" if ordinary and not model.gate.is_joint else " of the same kind"
    against = f"Against one expert{kind}."
    if not evidence.is_likelihood:
        columns = f"{len(evidence.output_names)} Σw" if evidence.kind is TargetKind.VECTOR else "Σw"
        return (
            f"{against} The residual standard deviation is √(sum of squares / ({columns} − parameters)). Least squares "
            f"has no likelihood, and no criteria made of one.{_prior_note(evidence)}"
        )
    joint = " The likelihood is that of target and gate features together." if model.gate.is_joint else ""
    return f"{against}{joint} Of AIC, BIC and ICL (by entropy) smaller is better.{_prior_note(evidence)}"


def _prior_note(evidence: Evidence) -> str:
    options = evidence.estimator.get_params(deep=False)
    if not (options["gate_ridge"] or options["expert_ridge"] or options.get("variance_prior")):
        return ""
    return " The mixture was fitted with a prior or ridge, the one expert without."


def experts_note(evidence: Evidence) -> str:
    """The caption of the table of experts."""
    result = evidence.result
    if not evidence.is_likelihood:
        share = "their share of the gate’s weights, averaged over the rows"
        return f"Experts by {share}. Least squares does not say which expert made a row."
    note = "Experts by mean responsibility, largest first."
    if evidence.model.gate.dense.branches:
        note = "Experts by mean responsibility, as far as the tree of the gate lets them be ordered."
    if result.scale.size:
        what = "a standard deviation" if evidence.model.family.is_least_squares else "the family’s σ"
        base = tables.number(result.baseline.scale)
        note += (
            f" The scale is {what} in the units of the target; beside it, its share of the one-expert scale ({base})."
        )
    return note


def parameter_note(evidence: Evidence, groups: list[tables.ParameterGroup]) -> str:
    """How to read the parameter table, and why there are dashes in it if there are."""
    result = evidence.result
    standardised = evidence.model.gate_scaler is not None or evidence.model.expert_scaler is not None
    units = "In the units of the data, those of z(…) in the units of the standardised features (below)"
    note = f"{units if standardised else 'In the units of the data'}, rounded by the standard errors"
    note += f", which are from the {standard_error_kind(result)}."
    active = evidence.model.gate.own_top_k
    if active is not None and active < evidence.n_experts:
        note += " They hold for the selection of experts as it is, which the estimates themselves decide."
    rows = [row for group in groups for row in group.rows]
    if any(row.standard_error == tables.HELD for row in rows):
        note += " What the constraints of the fit hold is marked “held”: it was not estimated."
    if evidence.kind is TargetKind.CLASS and evidence.model.family.n_outputs > 0:
        note += _reference(evidence)
    listed = len(rows)
    if listed < len(evidence.estimator.parameters_):
        note += f" The first {listed:,} of {len(evidence.estimator.parameters_):,} are listed."
    if any(row.standard_error == tables.MISSING for row in rows):
        open_directions = len(result.null_space.further) + len(result.null_space.by_selection)
        where = "“What is not identified” (below)" if open_directions else "the status above"
        note += f" A dash stands where there is no standard error to give; {where} says why."
    return note


def boundary_note(evidence: Evidence) -> str:
    """What the intervals of a gate that selects experts are, and what they are not."""
    gate = evidence.model.gate
    note = (
        "How far each coefficient can move, all others held, until a row changes its experts. These are no confidence "
        "intervals. Standard errors are conditional on the partition of the rows by their experts"
    )
    if gate.own_top_k == 1:
        note += ", and the gate, which acts only through it, has none"
    units = ", those of z(…) in the units of the standardised features" if evidence.model.gate_scaler else ""
    note += f". In the units of the data{units}"
    if gate.own_top_k == 1 and any(row.component.partition(" vs ")[1] for row in evidence.result.boundary or ()):
        note += "; all coefficients together are brought to length 1, as a factor of all scores changes no border"
    listed = len(evidence.result.boundary or ())
    more = f" The first {tables.LISTED_PARAMETERS:,} of {listed:,} are listed." * (listed > tables.LISTED_PARAMETERS)
    return f"{note}.{more}"


def _reference(evidence: Evidence) -> str:
    """Against which class the experts' logits are."""
    if evidence.model.family.n_unordered is None:
        return f" The experts’ coefficients are of the logit of {evidence.target_name} = {evidence.output_names[1]}."
    return f" The experts’ coefficients are of logits against {evidence.target_name} = {evidence.output_names[-1]}."


def identification_note(result: FitResult, directions: list[Direction]) -> str:
    """What null directions mean for the parameter table."""
    count = sum(direction.count for direction in directions)
    # The gate of a single expert has no part in the model.
    size = result.coordinates.size - (result.n_gate_parameters if result.model.n_experts == 1 else 0)
    note = (
        f"The model has {size:,} parameters; the data say nothing about {count:,} "
        f"{'direction' if count == 1 else 'directions'} among them."
    )
    if any(not direction.is_warning for direction in directions):
        note += (
            " What moves along the model’s own symmetries is not in the table above, which holds functions of the "
            "parameters that they leave alone."
        )
    if any(direction.is_warning for direction in directions):
        note += " What moves along any other direction has no standard error."
    return note


def optima_note(evidence: Evidence, unlisted: int) -> str:
    """The caption of the table of optima."""
    what = "responsibility" if evidence.is_likelihood else "share of the weights"
    more = f" {unlisted} more are not listed." if unlisted else ""
    return f"Distinct end points of the starts, best first; experts in each are ordered by mean {what}.{more}"


def _gate_name(gate: Gate) -> str:
    if gate.dense is not gate:
        return f"top-{gate.own_top_k} {_gate_name(gate.dense)}"
    if gate.is_joint:
        return f"joint {_plain(gate.name)} gate"
    return f"{_plain(gate.name)} gate" if gate.normaliser == "softmax" else f"unnormalised {_plain(gate.name)} gate"


def _plain(name: str) -> str:
    """A registered name as a reader writes it.

    Example:
        >>> _plain("multivariate_gaussian"), _plain("negative_binomial"), _plain("student_t")
        ('multivariate Gaussian', 'negative binomial', 'Student t')
    """
    return " ".join(_PROPER_NAMES.get(word, word) for word in name.split("_"))


def _few(names: list[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:5])} and {len(names) - 5} more"
