"""What is known about a class of routers: its formula, and where its options, logits and biases are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, Protocol

from torch import nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.selection import Selection

__all__ = ["Attribute", "Constant", "CorrectionBias", "Option", "Positive", "Refusal", "RouterContract"]

Place = Literal["buffer", "parameter", "submodule", "argument"]


class Option(Protocol):
    """What an option of a selection is for one router."""

    def of(self, router: nn.Module) -> Any:
        """The option's value.

        Raises:
            InputError: the router has a value that is not known.
        """
        ...

    @property
    def words(self) -> str:
        """The same in words, for tables."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value for all routers of a class."""

    value: Any

    def of(self, router: nn.Module) -> Any:
        """The value."""
        return self.value

    @property
    def words(self) -> str:
        """The value as text."""
        return repr(self.value)


@dataclass(frozen=True)
class Attribute:
    """What an attribute of the router says.

    Attributes:
        path: dotted, from the router.
        meanings: what the attribute's values mean; None where the value itself is the option.
    """

    path: str
    meanings: Mapping[Any, Option] | None = None

    def of(self, router: nn.Module) -> Any:
        """The attribute's value, or what it means.

        Raises:
            InputError: the value is none of those that are known.
        """
        value = attrgetter(self.path)(router)
        if self.meanings is None:
            return value
        if value not in self.meanings:
            known = ", ".join(map(repr, self.meanings))
            raise InputError(
                f"a {type(router).__name__} with {self.path} = {shown(value)} is not known: known are {known}"
            )
        return self.meanings[value].of(router)

    @property
    def words(self) -> str:
        """The attribute's name, and what its values mean."""
        name = self.path.removesuffix(".__class__.__name__")
        if self.meanings is None:
            return name
        return f"{name} ({', '.join(f'{value}: {option.words}' for value, option in self.meanings.items())})"


@dataclass(frozen=True)
class Positive:
    """A positive number of the router, or None where it is 0.

    Attributes:
        path: dotted, from the router.
    """

    path: str

    def of(self, router: nn.Module) -> Any:
        """The number, or None."""
        return attrgetter(self.path)(router) or None

    @property
    def words(self) -> str:
        """The attribute's name."""
        return self.path


@dataclass(frozen=True)
class CorrectionBias:
    """Where the bias b (E,) is kept that acts on the choice only.

    Attributes:
        place: a "buffer" or "parameter" of the router, or of a "submodule" of it; or an "argument" of the router's
            forward pass, which the layer keeps under the same name and passes.
        path: dotted, from the router, or from the layer for an argument.
    """

    place: Place
    path: str

    @property
    def words(self) -> str:
        """The place in words, for tables."""
        if self.place == "argument":
            return f"argument {self.path}, kept by the layer"
        return f"{self.place} {self.path} of the router" if self.place != "submodule" else f"submodule {self.path}"


@dataclass(frozen=True)
class RouterContract:
    """How a class of routers goes from tokens x (T, d) to logits z (T, E), weights (T, K) and indices (T, K).

    All of them have z = W x, some with a bias, and give (logits, weights, indices).

    Attributes:
        formula: how weights w come from logits z and correction bias b.
        routers: for each model type the router's class, as "module:class".
        options: of the `Selection` that does the same.
        bias: where the correction bias is kept; None where there is none.
        weight: W (E, d), dotted from the router.
        gate_bias: of the logits, dotted from the router; None where there is none.
        capped: whether the logits given are those after the cap.
        exact: whether weights stay in float32, and are not cast to the tokens' dtype.
        jitter: the factor by which the tokens are disturbed in training.
        skipped: why a router of this class is read but not swapped; "" where it is swapped.
    """

    formula: str
    routers: Mapping[str, str]
    options: Mapping[str, Option]
    bias: CorrectionBias | None = None
    weight: str = "weight"
    gate_bias: str | None = None
    capped: bool = False
    exact: bool = True
    jitter: Option = field(default_factory=lambda: Constant(0.0))
    skipped: str = ""

    def selection(self, router: nn.Module) -> Selection:
        """The selection that does what this router does.

        Raises:
            InputError: the router has an option that is not known, or one that no selection has.
        """
        return Selection(**{name: option.of(router) for name, option in self.options.items()})

    @property
    def selection_words(self) -> str:
        """The selection's options and where they come from, for tables."""
        return ", ".join(f"{name} = {option.words}" for name, option in self.options.items())


@dataclass(frozen=True)
class Refusal:
    """Why routers of a class can neither be read nor swapped.

    Attributes:
        routers: for each model type the router's class, as "module:class".
        reason: as the end of a sentence.
    """

    routers: Mapping[str, str]
    reason: str
