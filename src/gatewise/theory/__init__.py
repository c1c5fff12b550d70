"""Losses between mixing measures, proved rates, identifiability, and a modulus that measures rates."""

from gatewise.theory.identifiability import Identifiability, Identity, identify
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.modulus import ModulusDesign, ModulusResult, modulus
from gatewise.theory.polynomial_system import PolynomialSystem, polynomial_system
from gatewise.theory.polynomials import ExplicitSolution, RBar, explicit_solution, r_bar
from gatewise.theory.rate_table import Theorem
from gatewise.theory.rates import Comparison, ProvedRates, RateRow, proved_rates
from gatewise.theory.voronoi import LossKind, Term, VoronoiLoss, loss_kinds, voronoi_loss

__all__ = [
    "Comparison",
    "ExplicitSolution",
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
    "explicit_solution",
    "identify",
    "loss_kinds",
    "modulus",
    "polynomial_system",
    "proved_rates",
    "r_bar",
    "voronoi_loss",
]
