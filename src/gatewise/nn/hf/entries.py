"""Routers as plain data: what is not a number of a gate, its selection and its bias."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from gatewise.exceptions import InputError
from gatewise.gates import GATES, Gate, build_gate
from gatewise.messages import shown
from gatewise.nn.router import Router
from gatewise.nn.selection import Selection

__all__ = ["DAMAGED", "described_router", "is_registered", "router_of"]

DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What is raised where an entry lacks something or has something of another kind than is expected."""


def is_registered(gate: Gate) -> bool:
    """Whether the gate can be built anew by its name."""
    return gate.name in set(GATES) and GATES[gate.name] is type(gate)


def described_router(name: str, router: Router) -> dict[str, Any]:
    """The gate's name, sizes and options, the selection and all else that `router_of` needs.

    Raises:
        InputError: the gate is of a class that is not registered.
    """
    gate = router.gate
    if not is_registered(gate):
        raise InputError(
            f"the gate of the router {name!r} is a {type(gate).__name__}, which is not registered under a name: it "
            "cannot be saved"
        )
    return {
        "gate": {
            "name": gate.name,
            "n_features": gate.n_features,
            "n_experts": gate.n_experts,
            "options": gate.options(),
        },
        "selection": dataclasses.asdict(router.selection),
        "jitter": router.jitter,
        "correction_bias": router.correction_bias is not None,
    }


def router_of(entry: Mapping[str, Any], d: int, n_experts: int, dtype: torch.dtype) -> Router:
    """The router that an entry describes, without its numbers; its gate is of this type, and in float32 at least.

    Raises:
        InputError: the entry does not fit the sizes, or an option is not what it may be. What is of another kind than
            expected raises one of `DAMAGED`.
    """
    gate = entry["gate"]
    if (gate["n_features"], gate["n_experts"]) != (d, n_experts):
        raise InputError(
            f"its gate has d = {shown(gate['n_features'])} and {shown(gate['n_experts'])} experts, and the model's "
            f"router d = {d} and {n_experts}"
        )
    built = build_gate(gate["name"], d, n_experts, **gate["options"])
    built.to(torch.promote_types(dtype, torch.float32))
    router = Router(built, Selection(**entry["selection"]), entry["correction_bias"], entry["jitter"])
    if not isinstance(entry["correction_bias"], bool):
        raise InputError("correction_bias is neither true nor false")
    return router
