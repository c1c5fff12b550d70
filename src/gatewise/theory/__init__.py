"""Losses between mixing measures, proved rates, identifiability, and a modulus that measures rates.

The names below are loaded when they are first used: a look-up in the table of rates needs no symbolic algebra.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewise.theory.advice import Advice, advise
    from gatewise.theory.global_copies import GlobalCopy, global_copies
    from gatewise.theory.identifiability import Identifiability, Identity, identify
    from gatewise.theory.mixing_measure import MixingMeasure
    from gatewise.theory.modulus import ModulusDesign, ModulusResult, modulus
    from gatewise.theory.polynomial_system import PolynomialSystem, polynomial_system
    from gatewise.theory.polynomials import ExplicitSolution, RBar, explicit_solution, r_bar
    from gatewise.theory.rate_table import Theorem
    from gatewise.theory.rates import Comparison, ProvedRates, RateRow, proved_rates
    from gatewise.theory.voronoi import LossKind, Term, VoronoiLoss, loss_kinds, voronoi_loss

__all__ = [
    "Advice",
    "Comparison",
    "ExplicitSolution",
    "GlobalCopy",
    "Identifiability",
    "Identity",
    "LossKind",
    "MixingMeasure",
    "ModulusDesign",
    "ModulusResult",
    "PolynomialSystem",
    "ProvedRates",
    "RBar",
    "RateRow",
    "Term",
    "Theorem",
    "VoronoiLoss",
    "advise",
    "explicit_solution",
    "global_copies",
    "identify",
    "loss_kinds",
    "modulus",
    "polynomial_system",
    "proved_rates",
    "r_bar",
    "voronoi_loss",
]

_HOME = {
    "Advice": "advice",
    "Comparison": "rates",
    "ExplicitSolution": "polynomials",
    "GlobalCopy": "global_copies",
    "Identifiability": "identifiability",
    "Identity": "identifiability",
    "LossKind": "voronoi",
    "MixingMeasure": "mixing_measure",
    "ModulusDesign": "modulus",
    "ModulusResult": "modulus",
    "PolynomialSystem": "polynomial_system",
    "ProvedRates": "rates",
    "RBar": "polynomials",
    "RateRow": "rates",
    "Term": "voronoi",
    "Theorem": "rate_table",
    "VoronoiLoss": "voronoi",
    "advise": "advice",
    "explicit_solution": "polynomials",
    "global_copies": "global_copies",
    "identify": "identifiability",
    "loss_kinds": "voronoi",
    "modulus": "modulus",
    "polynomial_system": "polynomial_system",
    "proved_rates": "rates",
    "r_bar": "polynomials",
    "voronoi_loss": "voronoi",
}


class _Package(ModuleType):
    """The import of a module that is named like its function, as `modulus`, would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gatewise.theory.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gatewise.theory' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
