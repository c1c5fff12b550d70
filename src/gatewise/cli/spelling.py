"""The library's messages name arguments as Python spells them; the command line calls them options."""

import re

__all__ = ["in_options"]

# Arguments whose option is not their own name with dashes.
_RENAMED = {"n_starts": "starts", "n_jobs": "jobs"}
_SAME = (
    "encoding",
    "expert_ridge",
    "gate_ridge",
    "jobs",
    "max_iter",
    "missing",
    "objective",
    "overwrite",
    "scale_floor",
    "shared_scale",
    "standardise",
    "time_limit",
    "tol",
    "variance_prior",
)
# Options of gates and families, which are given by --gate-option and --family-option.
_OF_PARTS = {"joint": "gate", "trials": "family"}
# What stands in the parentheses of a call says how something was made, and proposes nothing.
_ARGUMENT = re.compile(
    rf"""(?<!\w\()\b({"|".join([*_RENAMED, *_SAME, *_OF_PARTS])})=(?!None)("[^"]*"|\([^()]*\)|True|False|[\w.+-]*\w)""",
)


def in_options(message: str) -> str:
    """A message with the arguments that it proposes written as options of `gatewise fit`.

    Example:
        >>> in_options('set n_starts=2000, missing="drop" or variance_prior=(1, 0.1), or shared_scale=True')
        'set --starts 2000, --missing drop or --variance-prior 1 0.1, or --shared-scale'
        >>> in_options("give trials=10, or fit classes with GatedClassifier")
        'give --family-option trials=10, or fit classes with --family categorical'
    """
    return _ARGUMENT.sub(_option, message).replace("GatedClassifier", "--family categorical")


def _option(found: re.Match[str]) -> str:
    name, value = found.groups()
    if name in _OF_PARTS:
        return f"--{_OF_PARTS[name]}-option {name}={value.lower()}"
    option = "--" + _RENAMED.get(name, name).replace("_", "-")
    plain = re.sub(r'["(),]', "", value)
    return option if value == "True" else f"{option} {plain}"
