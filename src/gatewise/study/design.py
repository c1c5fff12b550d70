"""A study's design in TOML: truth, inputs, sizes, replicates, methods and losses, all fixed before it runs."""

import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.spec.model import MOST_FEATURES
from gatewise.spec.toml import problem_of, read_toml
from gatewise.study.tables import (
    MOST_NUMBERS,
    Covariates,
    Expected,
    LossTable,
    Method,
    Provenance,
    SizeGrid,
    SlopeRule,
    Table,
    Truth,
)

__all__ = ["StudyDesign", "catalogue", "read_design", "text_of"]

_ABOUT = {"title", "paper", "notes", "expected", "provenance", "slopes"}
"""What does not change a single number of a row."""

_MOST_TASKS = 10_000_000


class StudyDesign(Table):
    """A simulation study: every size × replicate is one data set, to which every method is fitted.

    Attributes:
        title: one line.
        paper: what it reproduces, or "".
        notes: what should be known, in sentences.
        seed: of everything random.
        n_features: d.
        covariates: the inputs' distribution.
        truth: the model that is to be found.
        sizes: sample sizes, or grids of them.
        replicates: data sets of each size.
        methods: the fits.
        losses: what is measured of a fit; the cells are those of the first, which is therefore one between atoms.
        box: by parameter, "gate.weight", the lower and the upper end of the theory's compact set. Fits are not kept in
            it; how many numbers lie outside is counted in each row.
        slopes: how slopes are read off.
        expected: published, proved and measured slopes.
        provenance: where the values come from.

    Example:
        >>> design = read_design("softmax-gaussian-exact")
        >>> design.truth.n_experts, len(design.all_sizes()), design.replicates
        (2, 200, 40)
    """

    title: str
    paper: str = ""
    notes: str = ""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    n_features: int = Field(ge=1, le=MOST_FEATURES)
    covariates: Covariates = Covariates()
    truth: Truth
    sizes: list[SizeGrid] = Field(min_length=1)
    replicates: int = Field(ge=1, le=_MOST_TASKS)
    methods: list[Method] = Field(min_length=1)
    losses: list[LossTable] = Field(min_length=1)
    box: dict[str, tuple[float, float]] = Field(default_factory=dict)
    slopes: SlopeRule = SlopeRule()
    expected: list[Expected] = Field(default_factory=list)
    provenance: list[Provenance] = Field(default_factory=list)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        sizes = self.all_sizes()
        if (tasks := len(sizes) * self.replicates * len(self.methods)) > _MOST_TASKS:
            raise ValueError(
                f"{len(sizes):,} sizes × {self.replicates:,} replicates × {len(self.methods)} methods are {tasks:,} "
                f"tasks, more than {_MOST_TASKS:,}: take fewer"
            )
        if sizes[-1] * self.n_features > MOST_NUMBERS:
            raise ValueError(
                f"{sizes[-1]:,} rows of {self.n_features:,} features are more than {MOST_NUMBERS:,} numbers: take fewer"
            )
        return self

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        for what, names in (
            ("methods", [method.name for method in self.methods]),
            ("losses", [loss.name for loss in self.losses]),
        ):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {what} are called {doubled[0]!r}")
        if self.losses[0].is_distance:
            raise ValueError(f"the first loss must be one between atoms, for its cells, not {self.losses[0].kind}")
        known = {method.name for method in self.methods}
        for row in self.expected:
            if row.method is not None and row.method not in known:
                raise ValueError(f"expected speaks of the method {row.method!r}: there are {', '.join(sorted(known))}")
        if self.covariates.law == "grid" and self.n_features != 1:
            raise ValueError(f'the law "grid" is for one input, and there are {self.n_features}')
        return self

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """A design from TOML.

        Raises:
            InputError: the text is no TOML, or has unknown or impossible values.
        """
        try:
            return cls.model_validate(read_toml(text, name))
        except ValidationError as error:
            raise InputError(f"{name}: {problem_of(error)}") from None

    def with_plan(
        self, sizes: Sequence[int] | None = None, replicates: int | None = None, seed: int | None = None
    ) -> Self:
        """The design with other sizes, replicates or seed.

        Raises:
            InputError: a value is out of range.
        """
        asked = {"sizes": None if sizes is None else list(sizes), "replicates": replicates, "seed": seed}
        changes = {name: value for name, value in asked.items() if value is not None}
        try:
            return self.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise InputError(problem_of(error)) from None

    def all_sizes(self) -> list[int]:
        """The sizes, rising, each once."""
        return sorted({size for grid in self.sizes for size in grid.values()})

    def method(self, name: str) -> Method:
        """The method of that name.

        Raises:
            InputError: there is none.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise InputError(f"there is no method {shown(name)}: there are {', '.join(each.name for each in self.methods)}")

    def digest(self) -> str:
        """SHA-256 of all that decides on the rows: two studies with one digest have the same rows."""
        decisive = self.model_dump(mode="json", exclude=_ABOUT)
        decisive["sizes"] = self.all_sizes()
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def catalogue() -> list[str]:
    """The names of the designs that come with the library."""
    folder = importlib.resources.files("gatewise.study") / "catalog"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def text_of(name_or_path: str) -> str:
    """The TOML of a design of the catalogue, or of a file.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if name_or_path in catalogue():
        folder = importlib.resources.files("gatewise.study") / "catalog"
        return (folder / f"{name_or_path}.toml").read_text(encoding="utf-8")
    try:
        return Path(name_or_path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{name_or_path} is no file that can be read ({error.strerror}) and no study of the catalogue: "
            f"{', '.join(catalogue())}"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{name_or_path} is not UTF-8 text") from None


def read_design(name_or_path: str) -> StudyDesign:
    """A design of the catalogue by name, or one from a file.

    Raises:
        InputError: there is none, it cannot be read, or it has unknown or impossible values.
    """
    return StudyDesign.parse(text_of(name_or_path), name_or_path)
