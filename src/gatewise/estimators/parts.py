"""From names and options, or from parts that exist already, to the prototype of a model."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.gates import Gate
from gatewise.model import MixtureOfExperts
from gatewise.parts.component import Component

__all__ = ["build_prototype", "linear_coefficients"]


def build_prototype(
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


def linear_coefficients(part: Component) -> np.ndarray | None:
    """The coefficients (k, q) or (k, m, q) of a part that is linear in them, the intercept's first; otherwise None."""
    parameters = part.own_parameters()
    like = next(iter(parameters.values()))
    basis = part.basis(torch.full((1, part.n_features), 0.5, dtype=like.dtype, device=like.device))
    if basis is None or not bool((basis[..., 0] == 1.0).all()):
        return None
    return part.coefficients(parameters).cpu().numpy()
