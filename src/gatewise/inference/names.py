"""What the parameters are called."""

from dataclasses import dataclass

__all__ = ["Names"]


@dataclass(frozen=True)
class Names:
    """The user's names of the columns.

    Attributes:
        features: the experts' covariates.
        gate_features: the gate's covariates; empty for constant weights.
        target: what is explained.
    """

    features: list[str]
    gate_features: list[str]
    target: str
