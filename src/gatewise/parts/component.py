"""What gates and banks of experts have in common: sizes, options that are plain data, parameters by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.parts.parameters import Parameters

__all__ = ["LARGEST_SIZE", "Atoms", "Component", "Coordinates", "of_possible_size", "true_or_false"]

LARGEST_SIZE = 10**6
"""The most features, experts, hidden units and so on that a part may have."""

MOST_NUMBERS = 10**8
"""The most parameters that a part may have: 800 MB in float64."""


Atoms = Mapping[str, np.ndarray]
"""Entries of a mixing measure by name, one row for each atom: what `atoms` gives, as arrays."""


class Coordinates(NamedTuple):
    """Atoms in coordinates: blocks (k, p) by the names of entries, and what a block is called where it is no entry."""

    blocks: dict[str, np.ndarray]
    labels: Mapping[str, str] = {}


class Component(nn.Module):
    """A module of fixed sizes that is rebuilt from plain data and described by functions of its parameters.

    Attributes:
        name: the registered name, for strings, TOML and model folders.
        formula: the defining formula, in one line.
        source: paper and equation.
        affine_equivariant: whether every affine change of x can be undone by a change of the parameters
            (`unstandardise` does it). If it cannot, fitting must not standardise the inputs silently.
        keeps_units: whether fitting must leave the inputs as they are, because a user's own formula reads them.
        per_expert: names of the parameters with a leading axis of length k.
        fixed_atoms: names of entries of the mixing measure that no fit changes.
        n_features: d, the length of an input.
        n_experts: k.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    affine_equivariant: bool = False
    keeps_units: ClassVar[bool] = False
    per_expert: ClassVar[tuple[str, ...]] = ("weight", "bias")
    fixed_atoms: tuple[str, ...] = ()

    def __init__(self, n_features: int, n_experts: int) -> None:
        super().__init__()
        _check_sizes(self.name, n_features, n_experts)
        self.n_features = n_features
        self.n_experts = n_experts

    @classmethod
    def of(cls, n_features: int, n_experts: int, **options: Any) -> Self:
        """A component of these sizes from options that are plain data, as strings and TOML have them.

        Raises:
            InputError: an option is unknown or out of range.
        """
        try:
            return cls(n_features, n_experts, **options)
        except TypeError as error:
            raise InputError(f"{cls.name!r} cannot take the options {shown(options)}: {error}") from None

    def options(self) -> dict[str, Any]:
        """Plain data from which `of` rebuilds the component but for its parameters' values."""
        return {}

    def allows(self, order: Sequence[int]) -> bool:
        """Whether the experts may be put in this order: all orders, unless a subclass says otherwise."""
        return sorted(order) == list(range(self.n_experts))

    def permute(self, parameters: Parameters, order: Sequence[int]) -> Parameters:
        """Parameters whose expert i is the old expert order[i].

        Raises:
            InputError: this order is not allowed.
        """
        if not self.allows(order):
            raise InputError(f"{self.name!r} does not allow the order {list(order)} of its experts")
        index = list(order)
        return {name: value[index] if name in self.per_expert else value for name, value in parameters.items()}

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Parameters that give at x what the given ones give at (x − shift)/scale; shift and scale are (d,).

        Raises:
            InputError: the component is not affine equivariant.
        """
        raise InputError(f"{self.name!r} is not equivariant under affine changes of x")

    def basis(self, x: Tensor) -> Tensor | None:
        """φ(x) (…, q) if the output is linear in `coefficients`, φ(x) Bᵀ, else None."""
        return None

    def coefficients(self, parameters: Parameters) -> Tensor:
        """B of `basis`, linear in the parameters: (k, q), or (k, m, q) with m outputs.

        Raises:
            InputError: the output is not linear in the parameters.
        """
        raise InputError(f"{self.name!r} is not linear in its parameters")

    def coordinates(self, atoms: Atoms) -> Coordinates:
        """The atoms in which losses take differences: what a scale moves is divided out, a translation adds a vector.

        By default the entries as they are, but for those that are fixed.

        Args:
            atoms: entries of `atoms` by name, with rows of any number of atoms.

        Raises:
            InputError: there are no such coordinates.
        """
        return Coordinates(
            {n: value.reshape(len(value), -1) for n, value in atoms.items() if n not in self.fixed_atoms}
        )

    def kinks(self, parameters: Mapping[str, np.ndarray], rest: np.ndarray) -> Sequence[np.ndarray]:
        """Where the output bends sharply along the first input, arrays (n,) or numbers; none unless it is said.

        Args:
            parameters: by name, 80-bit floats.
            rest: the other inputs, (n, d − 1).
        """
        return ()

    def own_parameters(self) -> Parameters:
        """The parameters by name, detached."""
        return {name: value.detach() for name, value in self.named_parameters()}

    def assign_parameters(self, parameters: Parameters) -> None:
        """Set all parameters by name.

        Raises:
            InputError: a name is missing or unknown, or a shape differs.
        """
        own = dict(self.named_parameters())
        if set(own) != set(parameters):
            raise InputError(f"{self.name!r} has the parameters {sorted(own)}, not {sorted(parameters)}")
        with torch.no_grad():
            for name, value in parameters.items():
                if value.shape != own[name].shape:
                    raise InputError(f"{name} has the shape {tuple(own[name].shape)}, not {tuple(value.shape)}")
                own[name].copy_(value)

    def extra_repr(self) -> str:
        """The sizes and options, for printing."""
        sizes = {"n_features": self.n_features, "n_experts": self.n_experts, **self.options()}
        return ", ".join(f"{name}={value!r}" for name, value in sizes.items())


C = TypeVar("C", bound=Component)


def of_possible_size(build: Callable[[], C]) -> C:
    """What `build` makes, refused before it takes any memory if it has too many parameters.

    Args:
        build: makes a part; it is called twice, first without memory for the parameters (torch's device "meta").

    Raises:
        InputError: the part would have more than 100,000,000 parameters; or `build` raises it.
    """
    try:
        with torch.device("meta"):
            shell = build()
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        # A part of the user's own may need values where it is made; what is wrong with it is said there.
        return build()
    count = sum(value.numel() for value in shell.parameters())
    if count > MOST_NUMBERS:
        raise InputError(
            f"{shell!r} has {count:,} parameters, more than {MOST_NUMBERS:,}: take fewer experts or features, or "
            "smaller options"
        )
    return build()


def _check_sizes(name: str, n_features: int, n_experts: int) -> None:
    for what, size in (("features", n_features), ("experts", n_experts)):
        if size > LARGEST_SIZE:
            raise InputError(f"{shown(name)} with {size:,} {what}: there may be at most {LARGEST_SIZE:,}")
    if n_features * n_experts > MOST_NUMBERS:
        raise InputError(
            f"{shown(name)} with {n_features:,} features and {n_experts:,} experts has more than {MOST_NUMBERS:,} "
            "parameters: take fewer"
        )


def true_or_false(what: str, value: Any) -> bool:
    """The option `value` if it is a boolean: "no" and 0 are refused, since any text counts as true.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, bool):
        raise InputError(f"{what} must be true or false, not {shown(value)}")
    return value
