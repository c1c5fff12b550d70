"""Policies: who leaves at which exit. All have one interface and are chosen by name from `POLICIES`."""

from gatewise.early_exit.policies.base import Aim, Policy, Situation
from gatewise.early_exit.policies.geometric import GeometricBudgets
from gatewise.early_exit.policies.jei import JEI
from gatewise.early_exit.policies.patience import Patience
from gatewise.early_exit.policies.reference import FixedExit, Oracle
from gatewise.early_exit.policies.stopping import OptimalStopping
from gatewise.early_exit.policies.thresholds import (
    EntropyThreshold,
    FailurePrediction,
    MarginThreshold,
    MaxProbability,
)

__all__ = [
    "JEI",
    "POLICIES",
    "Aim",
    "EntropyThreshold",
    "FailurePrediction",
    "FixedExit",
    "GeometricBudgets",
    "MarginThreshold",
    "MaxProbability",
    "OptimalStopping",
    "Oracle",
    "Patience",
    "Policy",
    "Situation",
]

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        JEI,
        OptimalStopping,
        MaxProbability,
        GeometricBudgets,
        EntropyThreshold,
        MarginThreshold,
        Patience,
        FailurePrediction,
        Oracle,
        FixedExit,
    )
}
"""All policies by name."""
