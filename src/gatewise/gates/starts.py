"""Where gates begin in a fit to a table: what the rules of several of them share.

Kernels are imported where they are used: who has gates in a network needs no numba.
"""

import numpy as np
import torch
from torch import Tensor

from gatewise.parts.coefficients import from_coefficients
from gatewise.parts.component import Component
from gatewise.parts.draws import NOISE, Draws
from gatewise.parts.parameters import Parameters

__all__ = ["direction_start", "multinomial_start", "shared_means"]

_STEPS = 3
_SMALLEST_STEP = 1e-3


def multinomial_start(gate: Component, basis: Tensor, shares: Tensor) -> Parameters:
    """Newton steps of the multinomial logistic regression of the shares on what the logits are linear in.

    Args:
        gate: whose parameters.
        basis: φ (n, q), from `gate.basis`.
        shares: weight times responsibility (n, k).
    """
    from gatewise.kernels.expectation import gate_derivatives, gate_expectation
    from gatewise.ops.linalg import solve_symmetric

    design = np.ascontiguousarray(basis.numpy().T)
    arrays = (design, np.ascontiguousarray(shares.numpy().T), shares.sum(-1).numpy())
    coefficients = np.zeros((gate.n_experts, len(design)))
    free = coefficients[:-1].shape
    value = gate_expectation(*arrays, coefficients)
    for _ in range(_STEPS if gate.n_experts > 1 else 0):
        _, gradient, information = gate_derivatives(*arrays, coefficients)
        step = solve_symmetric(information, gradient).reshape(free)
        length = 1.0
        while True:
            candidate = coefficients.copy()
            candidate[:-1] += length * step
            reached = gate_expectation(*arrays, candidate)
            if reached >= value or length < _SMALLEST_STEP:
                break
            length *= 0.25
        if not reached > value:
            break
        coefficients, value = candidate, reached
    return from_coefficients(gate, torch.from_numpy(coefficients))


def direction_start(towards: Tensor, shares: Tensor, draws: Draws, of_features: bool = True) -> Tensor:
    """Unit vectors from the mean direction of all rows to that of each expert's, with a little noise, (k, p).

    Args:
        towards: the rows' directions (n, p).
        shares: weight times responsibility (n, k).
        draws: random numbers.
        of_features: whether p runs over the columns of the table.
    """
    away = shared_means(towards, shares) - shared_means(towards, shares.sum(-1, keepdim=True))
    away = away + NOISE * draws.normal(away, of_features)
    return away / torch.linalg.vector_norm(away, dim=-1, keepdim=True).clamp_min(1e-12)


def shared_means(x: Tensor, shares: Tensor) -> Tensor:
    """Σ s x / Σ s for each column of the shares, (n, d) and (n, k) ↦ (k, d).

    Example:
        >>> shared_means(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0, 0.5], [0.0, 0.5]]))
        tensor([[0.],
                [1.]])
    """
    return (shares.T @ x) / shares.sum(0).clamp_min(1e-12).unsqueeze(-1)
