"""Elementwise functions by name, so that strings, TOML and model folders can say which one is meant."""

from collections.abc import Callable

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

__all__ = ["Activation", "activation", "activation_names", "register_activation"]

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Activation] = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "cos": torch.cos,
    "cube": lambda z: z * z * z,
}


def activation(name: str) -> Activation:
    """The function of that name.

    Raises:
        InputError: the name is unknown; the message lists those that are known.

    Example:
        >>> activation("cube")(torch.tensor([2.0]))
        tensor([8.])
    """
    try:
        return _ACTIVATIONS[name]
    except (KeyError, TypeError):
        raise InputError(f"unknown activation {shown(name)}: {choose(name, activation_names())}") from None


def activation_names() -> list[str]:
    """The known names, sorted."""
    return sorted(_ACTIVATIONS)


def register_activation(name: str, function: Activation) -> None:
    """Enter an elementwise, differentiable function of tensors under a name, once per process.

    Raises:
        InputError: the name is taken.
    """
    if name in _ACTIVATIONS:
        raise InputError(f"the activation {shown(name)} is registered already: choose another name")
    _ACTIVATIONS[name] = function
