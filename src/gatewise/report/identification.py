"""What the data cannot tell about a fit, and in what units its parameters are: null directions, separation, z(x)."""

from dataclasses import dataclass

import numpy as np

from gatewise.fit.names import Names
from gatewise.fit.result import FitResult
from gatewise.fit.status import FitStatus
from gatewise.parts.standardiser import Standardiser
from gatewise.report.evidence import Evidence
from gatewise.report.tables import number, separated_experts

__all__ = ["Direction", "Standardised", "directions", "separations", "standardised_features"]

# Entries of a direction below this share of its length are not named.
_NAMED = 0.1
_MOST_NAMED = 4
_MOST_DIRECTIONS = 20


@dataclass(frozen=True)
class Direction:
    """Something that can be done to the parameters without the objective noticing.

    Attributes:
        count: in how many dimensions.
        sentence: what it is.
        remark: what kind of direction it is, where it is not just a symmetry of the model; "" for these.
        is_warning: whether it is no property of the model, so that something about the fit is left open.
    """

    count: int
    sentence: str
    remark: str = ""
    is_warning: bool = False

    @property
    def dimensions(self) -> str:
        """The count in words."""
        return f"{self.count} dimension{'' if self.count == 1 else 's'}"


@dataclass(frozen=True)
class Standardised:
    """A feature that a part of the model sees standardised, z(x) = (x − mean)/scale.

    Attributes:
        part: "gate" or "experts".
        feature: its name.
        mean: what is subtracted.
        scale: what is divided by.
    """

    part: str
    feature: str
    mean: str
    scale: str


def directions(result: FitResult, names: Names) -> list[Direction]:
    """The null directions of a fit: symmetries of the model, what a selection alone depends on, and any others.

    The gate of one expert has nothing to say, so that nothing of it could be identified: it is left out. So is what
    taking the last expert as the reference settles, as in the summary: nothing is open there.
    """
    space, gate = result.null_space, result.model.gate
    pinned = {f"{gate.name} {symmetry.name}: {symmetry.sentence}" for symmetry in gate.symmetries() if symmetry.pins}
    experts = result.model.experts.name
    found = [
        Direction(count, _readable(sentence))
        for sentence, count in space.sentences
        if count and sentence not in pinned and (result.model.n_experts > 1 or sentence.startswith(f"{experts} "))
    ]
    if len(space.by_selection):
        labels = result.coordinates.entry_names(names.features, names.gate_features)
        moved = np.flatnonzero(np.abs(space.by_selection).max(axis=0) > _NAMED)
        listed = ", ".join(labels[entry] for entry in moved[:_MOST_NAMED])
        more = f" and {len(moved) - _MOST_NAMED} more" if len(moved) > _MOST_NAMED else ""
        act = "acts" if len(moved) == 1 else "act"
        sentence = f"{listed}{more} {act} only through which experts are selected: the objective is flat between jumps"
        found.append(Direction(len(space.by_selection), sentence, "by selection only", is_warning=True))
    for row in space.further[:_MOST_DIRECTIONS]:
        sentence = f"along {_named(result, names, row)}, in the fit’s own units"
        found.append(Direction(1, sentence, "not explained by a symmetry", is_warning=True))
    rest = len(space.further) - _MOST_DIRECTIONS
    if rest > 0:
        found.append(Direction(rest, "not listed", "not explained by a symmetry", is_warning=True))
    return found


def separations(result: FitResult) -> list[str]:
    """What separates, in a sentence each: its coefficients have no finite maximum, and no standard errors."""
    codes = {finding.code for finding in result.findings}
    found = []
    if FitStatus.SEPARATED in codes:
        found.append(
            "The gate separates: its coefficients grow without end while the likelihood does not fall. The values in "
            "the table are where the fit stopped."
        )
    experts = separated_experts(result)
    if experts:
        names = ", ".join(str(expert + 1) for expert in experts)
        who = f"Expert {names} separates" if len(experts) == 1 else f"Experts {names} separate"
        found.append(
            f"{who}: some of the coefficients grow without end while the likelihood does not fall. The values in the "
            "table are where the fit stopped."
        )
    return found


def standardised_features(evidence: Evidence) -> list[Standardised]:
    """The features whose standardisation is a layer of the model, in the parameter table as z(…)."""
    model, estimator = evidence.model, evidence.estimator
    return [
        *_standardised("gate", estimator.gate_feature_names_, model.gate_scaler),
        *_standardised("experts", estimator.expert_feature_names_, model.expert_scaler),
    ]


def _standardised(part: str, features: list[str], scaler: Standardiser | None) -> list[Standardised]:
    if scaler is None:
        return []
    return [
        Standardised(part, feature, number(mean), number(scale))
        for feature, mean, scale in zip(features, scaler.mean.tolist(), scaler.scale.tolist(), strict=True)
    ]


def _named(result: FitResult, names: Names, direction: np.ndarray) -> str:
    """What changes most along a direction, as a sum."""
    along = names.along(result.coordinates, result.model.family, result.theta, direction)
    moved = [(speed, name) for speed, name in along if abs(speed) > _NAMED]
    terms = " ".join(f"{speed:+.2g}".replace("-", "−") + f"·{name}" for speed, name in moved[:_MOST_NAMED])
    return terms + (" and smaller parts" if len(moved) > _MOST_NAMED else "")


def _readable(sentence: str) -> str:
    """A symmetry's sentence without the marks of code, its part's registered name in words."""
    part, colon, rest = sentence.replace("`", "").partition(":")
    return part.replace("_", " ") + colon + rest
