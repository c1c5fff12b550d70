"""Cases in TOML: a truth, what is measured of it, and what the literature says about that."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from gatewise.exceptions import InputError
from gatewise.model import MixtureOfExperts
from gatewise.spec.model import MOST_EXPERTS, MOST_FEATURES, Part, build
from gatewise.spec.toml import Table, problem_of, read_toml
from gatewise.theory.modulus.design import ModulusDesign
from gatewise.theory.modulus.given_copy import verified_copy
from gatewise.theory.modulus.measure import modulus
from gatewise.theory.modulus.result import CoordinateModulus, ModulusResult

__all__ = [
    "Case",
    "Expected",
    "Group",
    "case_names",
    "compare",
    "read_case",
    "run_group",
]

_AGREES = 0.1
_TOO_WIDE = 0.6


class Expected(Table):
    """One coordinate, and what is said about it.

    Attributes:
        parameter: its full name.
        proved: the exponent that the literature gives, as a bound of the rate n^(−1/(2α)), or "flat" for "slower than
            any polynomial"; None if there is no statement.
        source: the paper and its theorem, and how far it was checked.
        modulo: whether the statement is about what is left when declared symmetries are settled.
        note: what we think of it.
    """

    parameter: str
    proved: float | Literal["flat"] | None = None
    source: str = ""
    modulo: bool = False
    note: str = ""


class Group(Table):
    """Coordinates of one allocation.

    Attributes:
        title: of the allocation, for tables.
        cells: the true atom of each fitted atom; None if the mixture is fitted as it is.
        hold: parameters that stay at the truth.
        fitted_gate: the fitted gate where it cannot be enlarged in one way only.
        fitted_experts: the same for the experts.
        is_copy: `copy` in TOML: the fitted mixture is a copy of the truth with other parameters. It is verified, and
            the rows are flat by it.
        design: tables that replace those of the case.
        rows: what is measured.
    """

    title: str
    cells: list[int] | None = None
    hold: list[str] = Field(default_factory=list)
    fitted_gate: Part | None = None
    fitted_experts: Part | None = None
    is_copy: bool = Field(default=False, alias="copy")
    design: dict[str, Any] = Field(default_factory=dict)
    rows: list[Expected] = Field(min_length=1)


class Case(Table):
    """A truth with what is measured of it.

    Attributes:
        title: for tables.
        n_features: d.
        n_experts: k*.
        gate: the true gate.
        experts: the true experts.
        family: the family.
        design: what is fixed before.
        groups: what is measured.
    """

    title: str
    n_features: int = Field(ge=1, le=MOST_FEATURES)
    n_experts: int = Field(ge=1, le=MOST_EXPERTS)
    gate: Part
    experts: Part
    family: Part = Part(name="gaussian")
    design: dict[str, Any] = Field(default_factory=dict)
    groups: list[Group] = Field(min_length=1)

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """A case from TOML.

        Raises:
            InputError: the text is no TOML, or has unknown or impossible values.
        """
        try:
            case = cls.model_validate(read_toml(text, name))
            for group in case.groups:
                case.design_of(group)
        except ValidationError as error:
            raise InputError(f"{name}: {problem_of(error)}") from None
        return case

    def design_of(self, group: Group) -> ModulusDesign:
        """The design of a group: the case's tables, and the group's over them."""
        return ModulusDesign.model_validate(_merged(self.design, group.design))

    def truth(self) -> MixtureOfExperts:
        """The true mixture.

        Raises:
            InputError: a name, an option or a parameter is unknown or has another shape.
        """
        return self._mixture(self.gate, self.experts, self.n_experts)

    def fitted(self, group: Group) -> MixtureOfExperts | None:
        """The mixture that a group gives explicitly, or None.

        Raises:
            InputError: as `truth`.
        """
        if group.fitted_gate is None and group.fitted_experts is None:
            return None
        if group.cells is None:
            raise InputError("a group with a fitted mixture must say by cells which true atom each atom stands for")
        experts = group.fitted_experts or _repeated(self.experts, group.cells)
        return self._mixture(group.fitted_gate or _repeated(self.gate, group.cells), experts, len(group.cells))

    def _mixture(self, gate: Part, experts: Part, n_experts: int) -> MixtureOfExperts:
        return build(gate, experts, self.family, self.n_features, n_experts)


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    found = dict(lower)
    for name, value in upper.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = {**found[name], **value} if both else value
    return found


def _repeated(part: Part, cells: Sequence[int]) -> Part:
    parameters = {name: [value[cell] for cell in cells] for name, value in part.parameters.items()}
    return part.model_copy(update={"parameters": parameters})


def case_names() -> list[str]:
    """The cases that come with the library.

    Example:
        >>> "softmax-linear" in case_names()
        True
    """
    folder = importlib.resources.files("gatewise.theory.modulus") / "cases"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_case(name_or_path: str) -> Case:
    """A case that comes with the library, or one from a file.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if name_or_path in case_names():
        entry = importlib.resources.files("gatewise.theory.modulus") / "cases" / f"{name_or_path}.toml"
        return Case.parse(entry.read_text(encoding="utf-8"), name_or_path)
    path = Path(name_or_path)
    try:
        return Case.parse(path.read_text(encoding="utf-8"), name_or_path)
    except OSError as error:
        known = ", ".join(case_names())
        raise InputError(
            f"{name_or_path} is no file that can be read ({error.strerror}) and no case: {known}"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{name_or_path} is not UTF-8 text") from None


def run_group(case: Case, group: Group, *, jobs: int = 1, out: Path | None = None) -> ModulusResult:
    """Measure a group.

    Raises:
        InputError: something cannot be measured.
    """
    if group.is_copy:
        fitted = case.fitted(group)
        if fitted is None or group.cells is None:
            raise InputError(f"{group.title}: a copy needs its parameters, in fitted_gate or fitted_experts, and cells")
        names = [row.parameter for row in group.rows]
        return verified_copy(case.truth(), fitted, group.cells, names, case.design_of(group), group.hold)
    return modulus(
        case.truth(),
        parameters=[row.parameter for row in group.rows],
        design=case.design_of(group),
        cells=group.cells,
        fitted=case.fitted(group),
        hold=group.hold,
        jobs=jobs,
        out=out,
        fit_k=None if group.cells is None else len(group.cells),
    )


def compare(expected: Expected, row: CoordinateModulus) -> str:
    """How a measured exponent stands to the proved one.

    Returns:
        "agrees", "faster than the bound", "slower than proved", "flat where a rate is proved", "not flat", "no
        statement", "not settled" if the band is too wide to tell, or "not measured".
    """
    found = row.modulo if expected.modulo and row.modulo is not None else row
    if not found.is_flat and found.exponent != found.exponent:
        return "not measured"
    if not found.is_flat and found.high - found.low > _TOO_WIDE:
        return "not settled"
    if expected.proved is None:
        return "no statement"
    if expected.proved == "flat":
        return "agrees" if found.is_flat else "not flat"
    if found.is_flat:
        return "flat where a rate is proved"
    if abs(found.exponent - expected.proved) <= _AGREES:
        return "agrees"
    return "faster than the bound" if found.exponent < expected.proved else "slower than proved"
