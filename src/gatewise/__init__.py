"""Gatewise: mixtures of experts, p(y | x) = Σᵢ πᵢ(x) f(y | h(x, ηᵢ)), fitted at the maximum.

The names below and the packages are loaded when they are first used, so that `import gatewise` and the command line
start quickly. `dir(gatewise)` lists them all.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gatewise._version import __version__ as __version__

if TYPE_CHECKING:
    from gatewise.estimators import GatedClassifier, GatedRegressor
    from gatewise.experts import ConstantExperts, LinearExperts
    from gatewise.families import Gaussian
    from gatewise.fit import FitOptions, FitResult, FitStatus
    from gatewise.gates import SoftmaxGate
    from gatewise.inference import Summary
    from gatewise.io import load_model, save_model
    from gatewise.model import MixtureOfExperts
    from gatewise.report import write_report

__all__ = [
    "ConstantExperts",
    "FitOptions",
    "FitResult",
    "FitStatus",
    "GatedClassifier",
    "GatedRegressor",
    "Gaussian",
    "LinearExperts",
    "MixtureOfExperts",
    "SoftmaxGate",
    "Summary",
    "load_model",
    "save_model",
    "write_report",
]

_HOME = {
    "ConstantExperts": "experts",
    "FitOptions": "fit",
    "FitResult": "fit",
    "FitStatus": "fit",
    "GatedClassifier": "estimators",
    "GatedRegressor": "estimators",
    "Gaussian": "families",
    "LinearExperts": "experts",
    "MixtureOfExperts": "model",
    "SoftmaxGate": "gates",
    "Summary": "inference",
    "load_model": "io",
    "save_model": "io",
    "write_report": "report",
}

_PACKAGES = (
    "datasets",
    "early_exit",
    "estimators",
    "exceptions",
    "experts",
    "families",
    "files",
    "fit",
    "gates",
    "inference",
    "io",
    "kernels",
    "lora",
    "model",
    "nn",
    "ops",
    "parts",
    "report",
    "study",
    "theory",
)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gatewise.{_HOME[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"gatewise.{name}")
    raise AttributeError(f"module 'gatewise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__, *_PACKAGES])
