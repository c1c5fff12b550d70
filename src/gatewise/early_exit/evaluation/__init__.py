"""What policies do on test data, with intervals."""

from gatewise.early_exit.evaluation.conformal import ConformalExits, coverage_band
from gatewise.early_exit.evaluation.drift import ExitDrift, exit_drift
from gatewise.early_exit.evaluation.evaluate import Evaluation, evaluate
from gatewise.early_exit.evaluation.frontier import Difference, Frontier, compare
from gatewise.early_exit.evaluation.metrics import Scores, expected_calibration_error, scores_of

__all__ = [
    "ConformalExits",
    "Difference",
    "Evaluation",
    "ExitDrift",
    "Frontier",
    "Scores",
    "compare",
    "coverage_band",
    "evaluate",
    "exit_drift",
    "expected_calibration_error",
    "scores_of",
]
