"""The local modulus of continuity: how slowly a displaced parameter shows in the distance between mixtures."""

from gatewise.theory.modulus.design import (
    BallInputs,
    BoxInputs,
    Extrapolation,
    Locality,
    ModulusDesign,
    Search,
    TargetGrid,
    Window,
)
from gatewise.theory.modulus.measure import modulus
from gatewise.theory.modulus.result import CoordinateModulus, ModulusResult, Witness

__all__ = [
    "BallInputs",
    "BoxInputs",
    "CoordinateModulus",
    "Extrapolation",
    "Locality",
    "ModulusDesign",
    "ModulusResult",
    "Search",
    "TargetGrid",
    "Window",
    "Witness",
    "modulus",
]
