"""From names and options, or from parts that exist already, to the prototype of a model."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, Experts
from gatewise.families import FAMILIES, Family
from gatewise.gates import GATES, Gate
from gatewise.messages import choose, shown
from gatewise.model import MixtureOfExperts
from gatewise.parts.component import Component, of_possible_size

__all__ = ["REQUIRED", "build_prototype", "linear_coefficients", "named_family", "part_options"]

REQUIRED = inspect.Parameter.empty
"""Stands for the default of an option that has none."""

# Sizes, which come from the data and from n_experts, n_features and shared_scale.
_SIZES = frozenset({"n_features", "n_experts", "shared_scale", "n_outputs", "n_dispersion"})

# What a constructor raises when an option is of another kind than it expects.
_CONSTRUCTOR_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)


def part_options(cls: type[Gate | Experts | Family]) -> dict[str, Any] | None:
    """The options of a gate, of experts or of a family by name, with their defaults; None if it takes any names.

    They are read from the signature of `of`, or from that of the constructor where `of` only hands them on.

    Example:
        >>> from gatewise.gates import CosineGate
        >>> part_options(CosineGate)
        {'temperature': None, 'projection': None}
    """
    found = [parameter for name, parameter in inspect.signature(cls.of).parameters.items() if name not in _SIZES]
    if all(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        found = [parameter for name, parameter in inspect.signature(cls).parameters.items() if name not in _SIZES]
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
            return None
    return {p.name: p.default for p in found if p.kind is not p.VAR_KEYWORD}


def named_family(family: str | Family, options: Mapping[str, Any] | None) -> Family:
    """The family of that name with these options, or the given one.

    Raises:
        InputError: the name or an option is unknown, or options come with a family that exists.
    """
    if isinstance(family, Family):
        _refuse_options("family", family, options)
        return family
    cls = FAMILIES[family]
    return _built("family", cls, options, lambda given: cls.of(**given))


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
        _refuse_options("gate", gate, gate_options)
        gate = copy.deepcopy(gate)
    else:
        cls = GATES[gate]
        gate = _built("gate", cls, gate_options, lambda given: _sized(cls, n_gate_features, n_experts, given))
    if isinstance(experts, Experts):
        _refuse_options("expert", experts, expert_options)
        experts = copy.deepcopy(experts)
        shared_scale = shared_scale or experts.shared_scale
    else:
        bank = EXPERTS[experts]
        sizes = {
            "shared_scale": shared_scale,
            "n_outputs": family.n_outputs,
            "n_dispersion": family.n_dispersion,
        }
        experts = _built(
            "expert", bank, expert_options, lambda given: _sized(bank, n_features, n_experts, {**sizes, **given})
        )
    return MixtureOfExperts.build(
        gate,
        experts,
        family,
        n_features,
        n_experts,
        n_gate_features=n_gate_features,
        shared_scale=shared_scale,
    )


def _sized(cls: Any, n_features: int, n_experts: int, options: Mapping[str, Any]) -> Any:
    return of_possible_size(lambda: cls.of(n_features, n_experts, **options))


def _refuse_options(kind: str, part: object, options: Mapping[str, Any] | None) -> None:
    if options:
        raise InputError(
            f"{kind}_options go with a name, and the {kind} is {shown(part)}: give it its options where it is made"
        )


def _built(kind: str, cls: Any, options: Mapping[str, Any] | None, build: Any) -> Any:
    """A part by its constructor; errors say which part, and which options there are."""
    given = {} if options is None else options
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{kind}_options must be a dictionary from names to values, not {shown(options)}")
    known = part_options(cls)
    if known is not None:
        unknown = [name for name in given if name not in known]
        if unknown:
            has = choose(unknown[0], known, "it has")
            raise InputError(f"the {kind} {cls.name!r} has no option {shown(unknown[0])}: {has}")
        missing = [name for name, default in known.items() if default is REQUIRED and name not in given]
        if missing:
            raise InputError(f"the {kind} {cls.name!r} needs the option {shown(missing[0])}")
        for name, value in given.items():
            # A text like "no" would count as true.
            if isinstance(known[name], bool) and not isinstance(value, bool):
                raise InputError(
                    f"the option {shown(name)} of the {kind} {cls.name!r} is true or false, not {shown(value)}"
                )
    try:
        return build(dict(given))
    except InputError:
        raise
    except _CONSTRUCTOR_ERRORS as error:
        raise InputError(f"the {kind} {cls.name!r} cannot take the options {shown(dict(given))}: {error}") from None


def linear_coefficients(part: Component) -> np.ndarray | None:
    """The coefficients (k, q) or (k, m, q) of a part that is linear in them, the intercept's first; otherwise None."""
    parameters = part.own_parameters()
    like = next(iter(parameters.values()))
    basis = part.basis(torch.full((1, part.n_features), 0.5, dtype=like.dtype, device=like.device))
    if basis is None or not bool((basis[..., 0] == 1.0).all()):
        return None
    return part.coefficients(parameters).cpu().numpy()
