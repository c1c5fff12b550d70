"""What the library says, for readers of the command line: it names Python's arguments, and they have options."""

import copy
import dataclasses
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gatewise.estimators import GatedClassifier, GatedRegressor

__all__ = ["OPTIONS", "for_command_line", "with_options"]

OPTIONS = {
    "encoding": "--encoding",
    "expert_ridge": "--expert-ridge",
    "gate_ridge": "--gate-ridge",
    "level": "--level",
    "max_iter": "--max-iter",
    "missing": "--missing",
    "n_experts": "--experts",
    "n_jobs": "--jobs",
    "n_starts": "--starts",
    "objective": "--objective",
    "overwrite": "--overwrite",
    "random_state": "--seed",
    "scale_floor": "--scale-floor",
    "shared_scale": "--shared-scale",
    "standardise": "--standardise",
    "time_limit": "--time-limit",
    "tol": "--tol",
}
"""The option that sets each of Python's arguments."""

E = TypeVar("E", bound="GatedRegressor | GatedClassifier")

_ASSIGNMENT = re.compile(rf"\b({'|'.join(OPTIONS)})=(\"[^\"]*\"|'[^']*'|[\w.+-]*\w)")


def with_options(text: str) -> str:
    """A message with options in the place of arguments.

    Example:
        >>> with_options('set a ridge (gate_ridge=1), or n_starts="auto", or overwrite=True')
        'set a ridge (--gate-ridge 1), or --starts auto, or --overwrite'
    """

    def option(found: re.Match[str]) -> str:
        name, value = OPTIONS[found[1]], found[2].strip("\"'")
        return name if value == "True" else f"{name} {value}"

    return _ASSIGNMENT.sub(option, text)


def for_command_line(estimator: E) -> E:
    """A copy of a fitted estimator whose findings advise with options."""
    spoken, result = copy.copy(estimator), estimator.result_
    findings = tuple(dataclasses.replace(found, message=with_options(found.message)) for found in result.findings)
    spoken.result_ = dataclasses.replace(result, findings=findings)
    return spoken
