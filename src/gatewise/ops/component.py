"""What gates and banks of experts have in common: sizes, options that are plain data, parameters by name."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.ops.parameters import Parameters

__all__ = ["Component", "true_or_false"]


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
        n_features: d, the length of an input.
        n_experts: k.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    affine_equivariant: bool = False
    keeps_units: ClassVar[bool] = False
    per_expert: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(self, n_features: int, n_experts: int) -> None:
        super().__init__()
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
            raise InputError(f"{cls.name!r} cannot take the options {options}: {error}") from None

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


def true_or_false(what: str, value: Any) -> bool:
    """The option `value` if it is a boolean: "no" and 0 are refused, since any text counts as true.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, bool):
        raise InputError(f"{what} must be true or false, not {value!r}")
    return value
