"""Experts that are linear in their coefficients, given responsibilities: iteratively reweighted least squares.

With location h = φ(x)ᵀA and responsibilities r, one step of Fisher scoring solves, for each expert,

    (Σ w r I φφᵀ) δ = Σ w r s φ,      s = ∂ log f / ∂h,   I = E[−∂² log f / ∂h²],

which is weighted least squares, exact in one step, for a Gaussian, and weighted IRLS for the other families
(McCullagh and Nelder 1989, §2.5).
"""

import numpy as np
import torch
from torch import Tensor

from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.kernels.curvature import weighted_gram
from gatewise.parts.draws import Draws
from gatewise.parts.parameters import Parameters

__all__ = ["experts_start", "reweighted_least_squares"]

_STEPS = 12
_NEGLIGIBLE = 1e-9
_SMALLEST_STEP = 1e-3
# Relative ridge under which a direction of the coefficients without rows stays where it is.
_RIDGE = 1e-9


def experts_start(
    experts: Experts,
    family: Family,
    x: Tensor,
    y: Tensor,
    shares: Tensor,
    offset: Tensor,
    draws: Draws,
) -> Parameters:
    """Where the experts' parameters begin: the maximum given the responsibilities where it is a weighted regression.

    Args:
        experts: whose parameters.
        family: of the targets.
        x: inputs in internal units (n, d).
        y: targets in internal units (n,) or (n, e).
        shares: weight times responsibility (n, k).
        offset: added to the locations (n,).
        draws: random numbers, keyed by the start.
    """
    scales, regressions = [], []
    design = experts.start_design(x)
    every = shares.sum(-1)
    for i in range(experts.n_experts):
        weight = shares[:, i] if float(shares[:, i].sum()) > 1e-8 * float(every.sum()) else every
        # Counts are compared with what their exposure lets one expect.
        location, log_scale = family.moment_start(_without_offset(y, offset), weight)
        scales.append(log_scale)
        if design is not None:
            start = torch.zeros(*location.shape, design.shape[1], dtype=x.dtype)
            start[..., 0] = location
            regressions.append(reweighted_least_squares(family, design, y, weight, start, log_scale, offset))
    dispersion = torch.stack(scales)
    dispersion = dispersion.mean(0, keepdim=True) if experts.shared_scale else dispersion
    found = experts.start(x, shares, torch.stack(regressions) if regressions else None, draws)
    return {**found, "log_scale": dispersion.reshape(experts.log_scale.shape)}


def _without_offset(y: Tensor, offset: Tensor) -> Tensor:
    return y if not bool(offset.any()) else y * torch.exp(offset.mean() - offset)


def reweighted_least_squares(
    family: Family, basis: Tensor, y: Tensor, weight: Tensor, coefficients: Tensor, log_scale: Tensor, offset: Tensor
) -> Tensor:
    """The coefficients that maximise Σ w log f(y | φᵀA) for one expert, from given ones; halved until nothing is lost.

    Args:
        family: of the targets.
        basis: φ (n, p).
        y: targets (n,) or (n, e).
        weight: w r (n,).
        coefficients: A, (p,) or (m, p), where to begin.
        log_scale: the expert's dispersions, () or (s,).
        offset: added to the location (n,).

    Returns:
        A of the same shape.
    """
    outputs = coefficients.reshape(-1, coefficients.shape[-1])
    design = np.ascontiguousarray(basis.numpy().T)
    value, score, information = _derivatives(family, basis, y, weight, outputs, log_scale, offset)
    for _ in range(_STEPS):
        step = _solve(design, weight, score, information)
        length = 1.0
        while True:
            candidate = outputs + length * step
            reached = _derivatives(family, basis, y, weight, candidate, log_scale, offset)
            if bool(reached[0] >= value) or length < _SMALLEST_STEP:
                break
            length *= 0.25
        gained = float(reached[0] - value)
        if not gained >= 0.0:
            break
        outputs, (value, score, information) = candidate, reached
        if gained <= _NEGLIGIBLE * (1.0 + abs(float(value))):
            break
    return outputs.reshape(coefficients.shape)


def _derivatives(
    family: Family, basis: Tensor, y: Tensor, weight: Tensor, outputs: Tensor, log_scale: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ w log f, and for each row the score (n, m) and the expected information (n, m, m)."""
    m = len(outputs)
    plain = basis @ outputs.T + offset.unsqueeze(-1)
    location = plain if m == 1 else plain.unsqueeze(-2)
    canonical = family.n_dispersion == 0
    closed = family.closed_derivatives(y, location, log_scale.unsqueeze(0), with_second=canonical)
    if closed is None:
        location = location.detach().requires_grad_()
        with torch.enable_grad():
            density = family.log_density(y, location, log_scale.unsqueeze(0))
            (score,) = torch.autograd.grad(density.sum(), location)
        location, density = location.detach(), density.detach()
    else:
        density, score = closed[0], closed[1][..., :m]
    score = score.reshape(len(basis), m)
    value = (weight * torch.where(weight > 0.0, density.squeeze(-1), 0.0)).sum()
    if closed is not None and closed[2] is not None:
        return value, score, -closed[2].reshape(len(basis), m, m)
    information = family.information(location, log_scale.unsqueeze(0)) * family.information_factor(y).reshape(
        -1, *([1] * (1 if m == 1 else 3))
    )
    return value, score, information.reshape(len(basis), m, m)


def _solve(design: np.ndarray, weight: Tensor, score: Tensor, information: Tensor) -> Tensor:
    """The step δ (m, p) for a design φᵀ (p, n)."""
    m, p = score.shape[1], len(design)
    row, column = np.tril_indices(m)
    pairs = weighted_gram(design, (weight * information[:, row, column].T).numpy())
    gram = np.empty((m, p, m, p))
    for a, b, pair in zip(row, column, pairs, strict=True):
        gram[a, :, b, :] = pair
        gram[b, :, a, :] = pair
    right = design @ (weight.unsqueeze(-1) * score).numpy()
    square = gram.reshape(m * p, m * p)
    ridge = _RIDGE * max(float(square.diagonal().mean()), 1e-300)
    step = np.linalg.solve(square + ridge * np.eye(m * p), right.T.reshape(-1))
    return torch.from_numpy(step.reshape(m, p))
