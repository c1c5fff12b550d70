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
    "granularity": "--granularity",
    "level": "--level",
    "max_iter": "--max-iter",
    "missing": "--missing",
    "n_experts": "--experts",
    "jobs": "--jobs",
    "n_jobs": "--jobs",
    "n_starts": "--starts",
    "objective": "--objective",
    "overwrite": "--overwrite",
    "random_state": "--seed",
    "scale_floor": "--scale-floor",
    "shared_scale": "--shared-scale",
    "standardise": "--standardise",
    "steps": "--steps",
    "temperature": "--temperature",
    "time_limit": "--time-limit",
    "tol": "--tol",
    "top_k": "--top-k",
    "variance_prior": "--variance-prior",
}
"""The option that sets each of Python's arguments."""

E = TypeVar("E", bound="GatedRegressor | GatedClassifier")

# Options of gates and families, which are given by --gate-option and --family-option.
_OF_PARTS = {"joint": "gate", "trials": "family"}
# What stands in the parentheses of a call says how something was made, and proposes nothing.
_ASSIGNMENT = re.compile(
    rf"""(?<!\w\()\b({"|".join([*OPTIONS, *_OF_PARTS])})=(?!None)("[^"]*"|'[^']*'|\([^()]*\)|[\w.+-]*\w)""",
)


def with_options(text: str) -> str:
    """A message with options in the place of arguments.

    Example:
        >>> with_options('set a ridge (gate_ridge=1), or n_starts="auto", or overwrite=True')
        'set a ridge (--gate-ridge 1), or --starts auto, or --overwrite'
        >>> with_options("give trials=10, or fit classes with GatedClassifier")
        'give --family-option trials=10, or fit classes with --family categorical'
    """
    return _ASSIGNMENT.sub(_option, text).replace("GatedClassifier", "--family categorical")


def _option(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if name in _OF_PARTS:
        return f"--{_OF_PARTS[name]}-option {name}={value.lower()}"
    plain = re.sub(r"[\"'(),]", "", value)
    return OPTIONS[name] if value == "True" else f"{OPTIONS[name]} {plain}"


def for_command_line(estimator: E) -> E:
    """A copy of a fitted estimator whose findings advise with options."""
    spoken, result = copy.copy(estimator), estimator.result_
    findings = tuple(dataclasses.replace(found, message=with_options(found.message)) for found in result.findings)
    spoken.result_ = dataclasses.replace(result, findings=findings)
    return spoken
