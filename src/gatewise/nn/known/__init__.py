"""Routers of other libraries' models that Gatewise knows: how each of them routes, as data.

Nothing here imports those libraries. A router is known by the name of its class.
"""

from gatewise.nn.known.contracts import CorrectionBias, Refusal, RouterContract
from gatewise.nn.known.lookup import contract_of, refusal_of
from gatewise.nn.known.table import CONTRACTS, REFUSALS
from gatewise.nn.known.words import described

__all__ = [
    "CONTRACTS",
    "REFUSALS",
    "CorrectionBias",
    "Refusal",
    "RouterContract",
    "contract_of",
    "described",
    "refusal_of",
]
