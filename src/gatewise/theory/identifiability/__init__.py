"""Which derivatives of an atom's function depend on each other, and what that means for the published conditions."""

from gatewise.parts.expressions import inputs, parameter, vector
from gatewise.parts.formulas import Formula, TheoryParameter
from gatewise.theory.identifiability.conditions import Condition, Verdict
from gatewise.theory.identifiability.identify import identify
from gatewise.theory.identifiability.identities import Identity
from gatewise.theory.identifiability.rank import Rank
from gatewise.theory.identifiability.result import Identifiability, SpecialPoint
from gatewise.theory.identifiability.squares import Squares
from gatewise.theory.identifiability.weights import Translation, Weights

__all__ = [
    "Condition",
    "Formula",
    "Identifiability",
    "Identity",
    "Rank",
    "SpecialPoint",
    "Squares",
    "TheoryParameter",
    "Translation",
    "Verdict",
    "Weights",
    "identify",
    "inputs",
    "parameter",
    "vector",
]
