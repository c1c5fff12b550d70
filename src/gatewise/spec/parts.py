"""The parts of a model as plain data, as config.json has them, and the parts without values that it describes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, JsonValue, ValidationError

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, Experts
from gatewise.families import FAMILIES, Family
from gatewise.gates import GATES, Gate
from gatewise.model import MixtureOfExperts
from gatewise.parts.component import LARGEST_SIZE, Component
from gatewise.parts.standardiser import Standardiser
from gatewise.spec.toml import Table

__all__ = [
    "ExpertsConfig",
    "FamilyConfig",
    "GateConfig",
    "PartsConfig",
    "build_experts",
    "build_family",
    "build_gate",
    "build_parts",
    "describe_experts",
    "describe_family",
    "describe_gate",
    "describe_parts",
]

_EXPERT_SIZES = ("shared_scale", "n_outputs", "n_dispersion")
_LARGEST_WHOLE = 2**53
_DEEPEST = 32

# What a constructor raises when an option is of another kind than it expects.
_CONSTRUCTOR_ERRORS = (
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    MemoryError,
)


def _check_plain(value: JsonValue, largest: int, depth: int = 0) -> None:
    """Refuse numbers that are not finite or too large for a size, and nesting that no model has."""
    if depth > _DEEPEST:
        raise ValueError(f"options are nested more than {_DEEPEST} deep")
    if isinstance(value, dict):
        for entry in value.values():
            _check_plain(entry, largest, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            _check_plain(entry, largest, depth + 1)
    elif isinstance(value, int) and abs(value) > largest:
        raise ValueError(f"{value} is more than {largest}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not finite")


def _sizes(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _check_plain(options, LARGEST_SIZE)
    return options


def _numbers(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _check_plain(options, _LARGEST_WHOLE)
    return options


Size = Annotated[int, Field(ge=0, le=LARGEST_SIZE)]
SizeOptions = Annotated[dict[str, JsonValue], AfterValidator(_sizes)]
NumberOptions = Annotated[dict[str, JsonValue], AfterValidator(_numbers)]


class GateConfig(Table):
    """A gate by its registered name, with its sizes and options."""

    name: str
    n_features: Size
    n_experts: Annotated[Size, Field(ge=1)]
    options: SizeOptions = Field(default_factory=dict)


class ExpertsConfig(GateConfig):
    """A bank of experts by its registered name."""

    shared_scale: bool
    n_outputs: Annotated[Size, Field(ge=1)] = 1
    n_dispersion: Size = 1


class FamilyConfig(Table):
    """A family by its registered name."""

    name: str
    options: NumberOptions = Field(default_factory=dict)


class PartsConfig(Table):
    """The parts of a model: registered names, sizes, and options that are plain data.

    Attributes:
        gate: the gate's name, sizes and options.
        experts: the bank's.
        family: the family's name and options.
        gate_scaler: whether a standardisation of the gate's inputs is stored.
        expert_scaler: whether one of the experts' inputs is.
    """

    gate: GateConfig
    experts: ExpertsConfig
    family: FamilyConfig
    gate_scaler: bool = False
    expert_scaler: bool = False


def describe_parts(model: MixtureOfExperts) -> PartsConfig:
    """The configuration from which `build_parts` makes a model of the same classes and sizes.

    Raises:
        InputError: an option is no plain data or beyond the limits of the format; or a part cannot name a function of
            the user's own.
    """
    return PartsConfig(
        gate=describe_gate(model.gate),
        experts=describe_experts(model.experts),
        family=describe_family(model.family),
        gate_scaler=model.gate_scaler is not None,
        expert_scaler=model.expert_scaler is not None,
    )


def describe_gate(gate: Gate) -> GateConfig:
    """The configuration from which `build_gate` makes such a gate.

    Raises:
        InputError: as `describe_parts`.
    """
    with _plain_refusals("gate"):
        return GateConfig.model_validate({**_named(gate), "options": gate.options()}, strict=True)


def describe_experts(experts: Experts) -> ExpertsConfig:
    """The configuration from which `build_experts` makes such a bank.

    Raises:
        InputError: as `describe_parts`.
    """
    with _plain_refusals("experts"):
        return ExpertsConfig.model_validate(
            {**_named(experts), "options": experts.options(), **experts.sizes()}, strict=True
        )


def describe_family(family: Family) -> FamilyConfig:
    """The configuration from which `build_family` makes such a family.

    Raises:
        InputError: as `describe_parts`.
    """
    with _plain_refusals("family"):
        return FamilyConfig.model_validate({"name": family.name, "options": family.options()}, strict=True)


@contextmanager
def _plain_refusals(what: str) -> Iterator[None]:
    """What is no plain data, as one sentence with its place."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([what, *map(str, first["loc"])])
        raise InputError(f"this model cannot be saved: {place}: {first['msg']}") from None


def _named(part: Component) -> dict[str, Any]:
    return {"name": part.name, "n_features": int(part.n_features), "n_experts": int(part.n_experts)}


def build_parts(config: PartsConfig) -> MixtureOfExperts:
    """The model with its initial values, on torch's current default device.

    Raises:
        InputError: a name is unknown, a constructor refuses its options or takes them for something else, or the parts
            do not fit each other.
    """
    with _named_refusals(config.gate.options, config.experts.options, config.family.options):
        return MixtureOfExperts(
            build_gate(config.gate),
            build_experts(config.experts),
            build_family(config.family),
            gate_scaler=_blank(config.gate.n_features) if config.gate_scaler else None,
            expert_scaler=_blank(config.experts.n_features) if config.expert_scaler else None,
        )


def build_gate(config: GateConfig) -> Gate:
    """A gate with its initial values.

    Raises:
        InputError: as `build_parts`.
    """
    cls = GATES[config.name]
    _refuse_sizes(config)
    with _named_refusals(config.options):
        gate = cls.of(config.n_features, config.n_experts, **config.options)
    _check_options(config, gate)
    return gate


def build_experts(config: ExpertsConfig) -> Experts:
    """A bank of experts with its initial values.

    Raises:
        InputError: as `build_parts`.
    """
    cls = EXPERTS[config.name]
    _refuse_sizes(config)
    sizes = {name: getattr(config, name) for name in _EXPERT_SIZES}
    with _named_refusals(config.options):
        experts = cls.of(config.n_features, config.n_experts, **sizes, **config.options)
    _check_options(config, experts)
    return experts


def build_family(config: FamilyConfig) -> Family:
    """A family.

    Raises:
        InputError: as `build_parts`.
    """
    cls = FAMILIES[config.name]
    with _named_refusals(config.options):
        family = cls.of(**config.options)
    _check_options(config, family)
    return family


def _refuse_sizes(config: GateConfig) -> None:
    if doubled := sorted({"n_features", "n_experts", "cls", *_EXPERT_SIZES} & set(config.options)):
        raise InputError(f"the options of {config.name!r} hold {doubled[0]!r}, which is a size")


def _check_options(config: "GateConfig | FamilyConfig", part: "Component | Family") -> None:
    own = part.options()
    if not _contains(own, config.options):
        raise InputError(f"{config.name!r} takes the options {config.options} for {own}")


@contextmanager
def _named_refusals(*options: dict[str, JsonValue]) -> Iterator[None]:
    """What a constructor raises for options of another kind than it expects, as one sentence."""
    try:
        yield
    except InputError:
        raise
    except _CONSTRUCTOR_ERRORS as error:
        listed = ", ".join(map(str, options))
        raise InputError(f"no model has the options {listed}: {type(error).__name__}: {error}") from None


def _blank(n_features: int) -> Standardiser:
    return Standardiser(torch.zeros(n_features), torch.ones(n_features))


def _contains(own: Any, asked: Any) -> bool:
    """Whether all that is asked for is there, of the same type; a later version may know more options."""
    if isinstance(asked, dict):
        return isinstance(own, dict) and all(key in own and _contains(own[key], asked[key]) for key in asked)
    if isinstance(asked, list):
        return isinstance(own, list | tuple) and len(own) == len(asked) and all(map(_contains, own, asked))
    return type(own) is type(asked) and own == asked
