"""Coefficients of parts that are linear in them, and from coefficients back to the parameters."""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from gatewise.parts.component import Component
from gatewise.parts.parameters import Parameters

__all__ = ["from_coefficients", "linear_coefficients"]

# For each part the derivatives of its coefficients by its parameters: every start of a fit asks for the same ones.
_COLUMNS: WeakKeyDictionary[Component, Tensor] = WeakKeyDictionary()


def from_coefficients(part: Component, coefficients: Tensor) -> Parameters:
    """The parameters, without dispersions, whose `part.coefficients` these are; the map is linear, and onto them.

    Args:
        part: a gate or experts with a `basis`.
        coefficients: B, (k, q) or (k, m, q).

    Example:
        >>> from gatewise.gates import SoftmaxGate
        >>> from_coefficients(SoftmaxGate(1, 2).double(), torch.tensor([[1.0, 2.0], [0.0, 0.0]]).double())["weight"]
        tensor([[2.],
                [0.]], dtype=torch.float64)
    """
    own = part.own_parameters()
    names = [name for name in own if name != "log_scale"]
    sizes = [own[name].numel() for name in names]

    def assemble(flat: Tensor) -> Parameters:
        pieces = zip(names, flat.split(sizes), strict=True)
        return {name: piece.reshape(own[name].shape) for name, piece in pieces}

    if part not in _COLUMNS:
        zero = torch.zeros(sum(sizes), dtype=coefficients.dtype)
        slopes = torch.func.jacrev(lambda flat: part.coefficients({**own, **assemble(flat)}).reshape(-1))(zero)
        _COLUMNS[part] = slopes
    # Not by least squares, whose last bits here differ from call to call.
    return assemble(torch.linalg.solve(_COLUMNS[part], coefficients.reshape(-1)))


def linear_coefficients(part: Component) -> np.ndarray | None:
    """The coefficients (k, q) or (k, m, q) of a part that is linear in them, the intercept's first; otherwise None."""
    parameters = part.own_parameters()
    like = next(iter(parameters.values()))
    basis = part.basis(torch.full((1, part.n_features), 0.5, dtype=like.dtype, device=like.device))
    if basis is None or not bool((basis[..., 0] == 1.0).all()):
        return None
    return part.coefficients(parameters).cpu().numpy()
