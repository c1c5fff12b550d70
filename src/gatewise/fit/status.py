"""How a fit ended: a code whose value is a sentence, and findings with their evidence."""

from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any

__all__ = ["Finding", "FitStatus"]


@unique
class FitStatus(Enum):
    """The outcome of a fit. The first that applies, from the top, is the status; the rest are findings beside it.

    The last three are never the status. They stand beside it: PARTITION beside every status of a gate that selects
    experts, the others where the floor of the spreads had a part in the search.
    """

    INTERRUPTED = "The fit was interrupted; this is the best point found so far, not a maximum."
    TIME_LIMIT = "The time limit was reached; this is the best point found so far, not a maximum."
    SATURATED = (
        "There are fewer rows than parameters: the likelihood is unbounded, and no standard error has a meaning."
    )
    SEPARATED = (
        "The gate separates: the likelihood keeps rising while gate coefficients diverge, so they have no maximum."
    )
    EXPERT_SEPARATED = (
        "An expert separates: its probabilities or means run to the boundary, so its coefficients have no maximum."
    )
    ON_FLOOR = (
        "Every start ended with an expert on the variance floor: the likelihood rises as the expert narrows further."
    )
    MAX_ITER = "The largest number of iterations was reached before a first-order point; raise max_iter."
    STALLED = "No further ascent was possible in floating point although the gradient is not yet small enough."
    EMPTY_EXPERT = "An expert is responsible for almost no rows; its coefficients are not determined by the data."
    SINGULAR = (
        "A first-order point whose information matrix is singular: some direction of the parameters is not identified."
    )
    NOT_A_MAXIMUM = "A first-order point at which the objective still curves upward: a saddle, not a maximum."
    TIGHT = (
        "A maximum, but one expert is tight: it fits a few rows, or rows that agree almost exactly; read the optima."
    )
    WEAK_SEARCH = "A maximum, but a better one may not have been found: the search is not complete."
    CONVERGED = "Converged to a maximum of the objective among the starts that were tried."
    FLOOR_LOWERED = (
        "The floor under the spreads of the experts was lowered: many rows agree more closely than it allowed."
    )
    TIED_ROWS = "Many rows agree exactly, or nearly so, with one expert on the floor; such a start never wins."
    PARTITION = (
        "Standard errors are conditional on which experts each row selects; they do not count that this was estimated."
    )

    @property
    def sentence(self) -> str:
        """The sentence that a report prints."""
        return self.value

    @property
    def is_early(self) -> bool:
        """Whether no first-order point was reached, so that there is nothing a search could have found again."""
        early = (FitStatus.INTERRUPTED, FitStatus.TIME_LIMIT, FitStatus.SATURATED)
        return self in (*early, FitStatus.MAX_ITER, FitStatus.STALLED)

    @property
    def is_maximum(self) -> bool:
        """Whether the estimate is an interior local maximum with a regular information matrix."""
        return self in (
            FitStatus.CONVERGED,
            FitStatus.WEAK_SEARCH,
            FitStatus.TIGHT,
            FitStatus.FLOOR_LOWERED,
            FitStatus.TIED_ROWS,
            FitStatus.PARTITION,
        )


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed: its code, a sentence with the evidence and the advice, and the figures behind it."""

    code: FitStatus
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
