"""From names, options and tables, or from parts that exist already, to a mixture: the one way above the model."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field

from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.gates import Gate
from gatewise.messages import choose, shown
from gatewise.model import MixtureOfExperts
from gatewise.parts.component import Component
from gatewise.spec.toml import Table

__all__ = ["MOST_EXPERTS", "MOST_FEATURES", "Part", "assign_values", "build", "prototype"]

MOST_FEATURES = 10_000
MOST_EXPERTS = 1_000
"""Losses and moduli compare each expert with each."""


class Part(Table):
    """A gate, a bank of experts or a family.

    Attributes:
        name: as registered.
        options: plain data.
        parameters: values by parameter name; those that are left out stay as they are built.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)


def build(
    gate: Part,
    experts: Part,
    family: Part,
    n_features: int,
    n_experts: int,
    values: Callable[[str, Component, Mapping[str, Any]], Mapping[str, Any]] = lambda what, module, given: given,
) -> MixtureOfExperts:
    """The mixture of these parts in float64, with parameters that need no gradients.

    Args:
        gate: its name, options and parameters.
        experts: the same of the bank.
        family: name and options.
        n_features: d, of the gate and of the experts.
        n_experts: k.
        values: ("gate" or "experts", the module, its table of parameters) ↦ the values, for tables that say more than
            numbers.

    Raises:
        InputError: a name, an option or a parameter is unknown or has another shape.

    Example:
        >>> experts = Part(name="linear", parameters={"bias": [0.0, 1.0]})
        >>> build(Part(name="softmax"), experts, Part(name="gaussian"), n_features=1, n_experts=2).experts.bias.tolist()
        [0.0, 1.0]
    """
    model = MixtureOfExperts.build(
        gate.name,
        experts.name,
        family.name,
        n_features=n_features,
        n_experts=n_experts,
        gate_options=gate.options,
        expert_options=experts.options,
        family_options=family.options,
    ).double()
    assign_values("gate", model.gate, values("gate", model.gate, gate.parameters))
    assign_values("experts", model.experts, values("experts", model.experts, experts.parameters))
    return model.requires_grad_(False)


def prototype(
    gate: str | Gate,
    experts: str | Experts,
    family: Family,
    *,
    n_gate_features: int,
    n_features: int,
    n_experts: int,
    shared_scale: bool,
    gate_options: Mapping[str, Any] | None,
    expert_options: Mapping[str, Any] | None,
) -> MixtureOfExperts:
    """A model of these parts; parts that exist already are copied, never changed.

    Args:
        gate: a gate or its name.
        experts: a bank of experts or its name; by name it gets the outputs and dispersions that the family needs.
        family: the family.
        n_gate_features: columns that the gate sees.
        n_features: columns that the experts see.
        n_experts: k.
        shared_scale: whether one dispersion serves all experts.
        gate_options: of a gate by name.
        expert_options: of experts by name.

    Raises:
        InputError: a name or an option is unknown, the sizes do not fit, or options come with a part that exists.
    """
    if isinstance(gate, Gate):
        gate = copy.deepcopy(gate)
    if isinstance(experts, Experts):
        experts = copy.deepcopy(experts)
        shared_scale = shared_scale or experts.shared_scale
    return MixtureOfExperts.build(
        gate,
        experts,
        family,
        n_features,
        n_experts,
        n_gate_features=n_gate_features,
        shared_scale=shared_scale,
        gate_options=gate_options,
        expert_options=expert_options,
    )


def assign_values(what: str, module: Component, values: Mapping[str, Any]) -> None:
    """Set the parameters that are named, leave the others as they are.

    Raises:
        InputError: a name is unknown, or a value is no array of its parameter's shape.
    """
    own = module.own_parameters()
    unknown = sorted(set(values) - set(own))
    if unknown:
        raise InputError(f"the {what} has no parameter {shown(unknown[0])}: {choose(unknown[0], own, 'it has')}")
    try:
        found = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"the parameters of the {what} must be arrays of numbers: {error}") from None
    module.assign_parameters({**own, **found})
