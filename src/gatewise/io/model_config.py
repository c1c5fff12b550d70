"""What config.json of a model folder may say, and the model without values that it describes."""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES, Family
from gatewise.families.bernoulli import Bernoulli
from gatewise.families.categorical import Categorical
from gatewise.gates import GATES
from gatewise.io.coding import ColumnCoding
from gatewise.model import MixtureOfExperts
from gatewise.ops.component import LARGEST_SIZE, Component
from gatewise.ops.standardiser import Standardiser

__all__ = [
    "SCHEMA_VERSION",
    "ModelConfig",
    "ModelMetadata",
    "PartsConfig",
    "build_parts",
    "describe_parts",
    "number_of_classes",
]

SCHEMA_VERSION = 2
"""The version of the folder's format; a folder of a higher version is refused, one of a lower version is read.

Version 1 had no options, outputs, dispersions or standardisation; what it leaves out has the default here.
"""

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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _GateConfig(_Strict):
    name: str
    n_features: Size
    n_experts: Annotated[Size, Field(ge=1)]
    options: SizeOptions = {}


class _ExpertsConfig(_GateConfig):
    shared_scale: bool
    n_outputs: Annotated[Size, Field(ge=1)] = 1
    n_dispersion: Size = 1


class _FamilyConfig(_Strict):
    name: str
    options: NumberOptions = {}


class PartsConfig(_Strict):
    """The parts of a model: registered names, sizes, and options that are plain data.

    Attributes:
        gate: the gate's name, sizes and options.
        experts: the bank's.
        family: the family's name and options.
        gate_scaler: whether a standardisation of the gate's inputs is stored.
        expert_scaler: whether one of the experts' inputs is.
    """

    gate: _GateConfig
    experts: _ExpertsConfig
    family: _FamilyConfig
    gate_scaler: bool = False
    expert_scaler: bool = False


class _WeightsConfig(_Strict):
    dtype: Literal["float64", "float32"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _CreationConfig(_Strict):
    time: str
    python: str
    torch: str


class ModelMetadata(_Strict):
    """What a model does not know about itself: the names of its inputs and of its target.

    Attributes:
        feature_names: of the experts' inputs, in order, after coding.
        gate_feature_names: of the gate's inputs, in order.
        target_name: the target's.
        coding: how the features are made from the columns of a table, or None if they are these columns.
        offset_name: the column that is added to the experts' locations, or None.
        exposure_name: the column whose logarithm is added to the experts' locations, or None.
        class_names: of the target's classes in the order of their codes 0, 1, …, or None if it has none.
        target_columns: of a target with several columns, or None if it has the one that is called `target_name`.
        objective: "least_squares" if the fit was to the mean alone, so that the model gives no distribution.

    Raises:
        ValueError: (pydantic's ValidationError) names are repeated, the target or the offset is a feature, there are
            both an offset and an exposure, or the coding makes other features.

    Example:
        >>> ModelMetadata(feature_names=("x",), gate_feature_names=(), target_name="y").column_coding().coded_names
        ['x']
    """

    feature_names: tuple[str, ...]
    gate_feature_names: tuple[str, ...]
    target_name: str
    coding: ColumnCoding | None = None
    offset_name: str | None = None
    exposure_name: str | None = None
    class_names: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    target_columns: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    objective: Literal["likelihood", "least_squares"] = "likelihood"

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns of the target."""
        return (self.target_name,) if self.target_columns is None else self.target_columns

    @model_validator(mode="after")
    def _names_agree(self) -> "ModelMetadata":
        for names in (self.feature_names, self.gate_feature_names):
            if len(set(names)) < len(names):
                raise ValueError(f"the feature names {list(names)} are not distinct; rename one of them")
        inputs = self._input_names()
        targets = self.target_names
        if len(set(targets)) < len(targets):
            raise ValueError(f"the columns {list(targets)} of the target are not distinct")
        for target in targets:
            if target in inputs:
                raise ValueError(f"the target {target!r} is among the features")
        if self.offset_name is not None and self.exposure_name is not None:
            raise ValueError("there are both an offset and an exposure: the one is the logarithm of the other")
        for what, name in (("offset", self.offset_name), ("exposure", self.exposure_name)):
            if name is not None and name in (*targets, *inputs):
                raise ValueError(f"the {what} {name!r} is the target or among the features")
        if self.class_names is not None and len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"the class names {list(self.class_names)} are not distinct")
        if self.coding is not None and sorted(self.coding.coded_names) != sorted(inputs):
            raise ValueError(f"the coding makes {self.coding.coded_names}, not the features {inputs}")
        return self

    def _input_names(self) -> list[str]:
        """The experts' features, then those of the gate alone."""
        return list(dict.fromkeys([*self.feature_names, *self.gate_feature_names]))

    def column_coding(self) -> ColumnCoding:
        """The coding, or the one that takes every feature as a numeric column."""
        if self.coding is not None:
            return self.coding
        return ColumnCoding.model_validate(
            {"columns": [{"kind": "numeric", "name": name} for name in self._input_names()]}
        )

    def check_fits(self, model: MixtureOfExperts) -> None:
        """Refuse names that are not as many as the model's inputs and classes.

        Raises:
            InputError: the numbers differ, or a column or classes are named that the model has no use for.
        """
        named = (len(self.feature_names), len(self.gate_feature_names))
        sizes = (model.experts.n_features, model.gate.n_features)
        if named != sizes:
            raise InputError(
                f"the model has {sizes[0]} features and {sizes[1]} gate features, the metadata name "
                f"{named[0]} and {named[1]}"
            )
        for what, name in (("offset", self.offset_name), ("exposure", self.exposure_name)):
            if name is not None and not model.family.log_link:
                raise InputError(
                    f"the metadata name the {what} {name!r}, and the {model.family.name} family takes none"
                )
        if self.target_columns is not None and len(self.target_columns) != model.family.event_size:
            raise InputError(
                f"the metadata name {len(self.target_columns)} columns of the target, and {model.family!r} takes "
                f"{model.family.event_size or 1}"
            )
        n_classes = number_of_classes(model.family)
        if self.class_names is not None and len(self.class_names) != n_classes:
            raise InputError(
                f"the metadata name {len(self.class_names)} classes, and the {model.family.name} family has "
                f"{n_classes or 'none'}"
            )


def number_of_classes(family: Family) -> int:
    """How many classes the codes 0, 1, … of a family's targets stand for; 0 if they are numbers of their own."""
    if isinstance(family, Bernoulli):
        return 2
    return family.n_classes if isinstance(family, Categorical) else 0


class ModelConfig(PartsConfig):
    """All of config.json.

    Attributes:
        schema_version: of the format.
        gatewise_version: that wrote it.
        created: when, and by which versions of Python and torch.
        metadata: the names of the inputs and the target.
        weights: the type and the checksum of weights.safetensors.
        sha256: of the canonical JSON of all the rest.
    """

    schema_version: Literal[1, 2]
    gatewise_version: str
    created: _CreationConfig
    metadata: ModelMetadata
    weights: _WeightsConfig
    sha256: str


def describe_parts(model: MixtureOfExperts) -> PartsConfig:
    """The configuration from which `build_parts` makes a model of the same classes and sizes.

    Raises:
        InputError: an option is no plain data or beyond the limits of the format; or a part cannot name a function of
            the user's own.
    """
    try:
        return PartsConfig.model_validate(
            {
                "gate": {**_named(model.gate), "options": model.gate.options()},
                "experts": {**_named(model.experts), "options": model.experts.options(), **model.experts.sizes()},
                "family": {"name": model.family.name, "options": model.family.options()},
                "gate_scaler": model.gate_scaler is not None,
                "expert_scaler": model.expert_scaler is not None,
            },
            strict=True,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"this model cannot be saved: {place}: {first['msg']}") from None


def _named(part: Component) -> dict[str, Any]:
    return {"name": part.name, "n_features": int(part.n_features), "n_experts": int(part.n_experts)}


def build_parts(config: PartsConfig) -> MixtureOfExperts:
    """The model with its initial values, on torch's current default device.

    Raises:
        InputError: a name is unknown, a constructor refuses its options or takes them for something else, or the parts
            do not fit each other.
    """
    gate, experts, family = config.gate, config.experts, config.family
    sizes = {name: getattr(experts, name) for name in ("shared_scale", "n_outputs", "n_dispersion")}
    # Looked up first: the errors of these three name what is unknown.
    classes = GATES[gate.name], EXPERTS[experts.name], FAMILIES[family.name]
    for part in (gate, experts):
        if doubled := sorted({"n_features", "n_experts", "cls", *sizes} & set(part.options)):
            raise InputError(f"the options of {part.name!r} hold {doubled[0]!r}, which is a size")
    try:
        model = MixtureOfExperts(
            classes[0].of(gate.n_features, gate.n_experts, **gate.options),
            classes[1].of(experts.n_features, experts.n_experts, **sizes, **experts.options),
            classes[2].of(**family.options),
            gate_scaler=_blank(gate.n_features) if config.gate_scaler else None,
            expert_scaler=_blank(experts.n_features) if config.expert_scaler else None,
        )
    except InputError:
        raise
    except _CONSTRUCTOR_ERRORS as error:
        raise InputError(
            f"no model has the options {gate.options}, {experts.options}, {family.options}: "
            f"{type(error).__name__}: {error}"
        ) from None
    for asked, part in ((gate, model.gate), (experts, model.experts), (family, model.family)):
        own = part.options()
        if not _contains(own, asked.options):
            raise InputError(f"{asked.name!r} takes the options {asked.options} for {own}")
    return model


def _blank(n_features: int) -> Standardiser:
    return Standardiser(torch.zeros(n_features), torch.ones(n_features))


def _contains(own: Any, asked: Any) -> bool:
    """Whether all that is asked for is there, of the same type; a later version may know more options."""
    if isinstance(asked, dict):
        return isinstance(own, dict) and all(key in own and _contains(own[key], asked[key]) for key in asked)
    if isinstance(asked, list):
        return isinstance(own, list | tuple) and len(own) == len(asked) and all(map(_contains, own, asked))
    return type(own) is type(asked) and own == asked
