"""What the parameters are called."""

from dataclasses import dataclass

from gatewise.fit.coordinates import Layout

__all__ = ["INTERCEPT", "SCALE", "Names", "parameter_names"]

INTERCEPT = "(intercept)"
SCALE = "scale"


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


def parameter_names(layout: Layout, names: Names) -> list[tuple[str, str]]:
    """(component, term) of each entry of θ: "gate 1 vs 2", "expert 1", …, and "all experts" for a shared scale."""
    k = layout.n_experts
    gate_terms = [INTERCEPT, *names.gate_features]
    expert_terms = [INTERCEPT, *names.features][: layout.expert_size]
    gate = [(f"gate {i} vs {k}", term) for i in range(1, k) for term in gate_terms]
    experts = [(f"expert {i}", term) for i in range(1, k + 1) for term in expert_terms]
    scales = ["all experts"] if layout.shared_scale else [f"expert {i}" for i in range(1, k + 1)]
    return gate + experts + [(component, SCALE) for component in scales]
