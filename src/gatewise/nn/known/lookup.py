"""From a module to what is known about its class."""

from torch import nn

from gatewise.nn.known.contracts import Refusal, RouterContract
from gatewise.nn.known.table import CONTRACTS, REFUSALS

__all__ = ["contract_of", "refusal_of"]

_BY_CLASS = {path: contract for contract in CONTRACTS for path in contract.routers.values()}
_REFUSED = {path: refusal for refusal in REFUSALS for path in refusal.routers.values()}


def contract_of(module: nn.Module) -> RouterContract | None:
    """The contract of a module's class; None if it is no router that is known.

    Example:
        >>> contract_of(nn.Linear(2, 2)) is None
        True
    """
    return _BY_CLASS.get(_path(module))


def refusal_of(module: nn.Module) -> Refusal | None:
    """Why routers of a module's class are refused; None if they are not."""
    return _REFUSED.get(_path(module))


def _path(module: nn.Module) -> str:
    return f"{type(module).__module__}:{type(module).__qualname__}"
