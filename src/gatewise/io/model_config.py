"""What config.json of a model folder may say: its parts, the names of its inputs and target, and its checksums."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gatewise.exceptions import InputError
from gatewise.io.coding import ColumnCoding
from gatewise.model import MixtureOfExperts
from gatewise.spec.parts import PartsConfig
from gatewise.spec.toml import Table

__all__ = ["SCHEMA_VERSION", "ModelConfig", "ModelMetadata"]

SCHEMA_VERSION = 2
"""The version of the folder's format; a folder of a higher version is refused, one of a lower version is read.

Version 1 had no options, outputs, dispersions or standardisation; what it leaves out has the default here.
"""


class _WeightsConfig(Table):
    dtype: Literal["float64", "float32"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _CreationConfig(Table):
    time: str
    python: str
    torch: str


class ModelMetadata(Table):
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
        n_classes = model.family.n_codes
        if self.class_names is not None and len(self.class_names) != n_classes:
            raise InputError(
                f"the metadata name {len(self.class_names)} classes, and the {model.family.name} family has "
                f"{n_classes or 'none'}"
            )


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
