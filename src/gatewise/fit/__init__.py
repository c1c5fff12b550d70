"""Fitting: objective, starts, solvers, one driver, and a result with a status and its evidence."""

from gatewise.fit.constraints import Constraints
from gatewise.fit.fit import fit
from gatewise.fit.options import FitOptions
from gatewise.fit.result import Baseline, FitResult, NullSpace, Optimum, Search, StartRecord
from gatewise.fit.starts import STRATEGIES
from gatewise.fit.status import Finding, FitStatus

__all__ = [
    "STRATEGIES",
    "Baseline",
    "Constraints",
    "Finding",
    "FitOptions",
    "FitResult",
    "FitStatus",
    "NullSpace",
    "Optimum",
    "Search",
    "StartRecord",
    "fit",
]
