"""Early exits: a network answers from an intermediate block when that is good enough."""

from gatewise.early_exit.cache import FeatureCache, load_features
from gatewise.early_exit.costs import CostTable
from gatewise.early_exit.exporting import ExportedStage
from gatewise.early_exit.model import EarlyExitModel
from gatewise.early_exit.outputs import EarlyExitOutput, ExitLogits
from gatewise.early_exit.policies import POLICIES, Policy
from gatewise.early_exit.training import ExitTraining

__all__ = [
    "POLICIES",
    "CostTable",
    "EarlyExitModel",
    "EarlyExitOutput",
    "ExitLogits",
    "ExitTraining",
    "ExportedStage",
    "FeatureCache",
    "Policy",
    "load_features",
]
