"""Stochastic gradient descent, the optimiser of several published simulations: a control, not a way to fit.

θ ← θ − rate · ∇ (mean loss of a batch), epoch by epoch over shuffled rows. It stops where its epochs end, not at a
minimum; a study that uses it beside a fit shows how much of a slope is the optimiser's.
"""

import copy

import numpy as np
import torch

from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import differentiable
from gatewise.parts.component import Component
from gatewise.study.tables import Descent

__all__ = ["descend", "objective_at"]


def objective_at(model: MixtureOfExperts, x: np.ndarray, y: np.ndarray, objective: str) -> float:
    """What `gatewise.fit` maximises, at a model: the log-likelihood, of (x, y) with a joint gate, or −½ Σ e²."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    with torch.no_grad():
        return float(_rows(model, inputs, targets, objective).sum())


def _rows(model: MixtureOfExperts, x: torch.Tensor, y: torch.Tensor, objective: str) -> torch.Tensor:
    if objective == "least_squares":
        return -0.5 * ((y - model.mean(x)) ** 2).reshape(len(y), -1).sum(1)
    return model.log_joint_density(x, y) if model.gate.is_joint else model.log_prob(x, y)


@differentiable()
def descend(
    start: MixtureOfExperts,
    held: dict[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    objective: str,
    table: Descent,
    generator: np.random.Generator,
) -> MixtureOfExperts:
    """The model after all epochs.

    Args:
        start: where it begins.
        held: masks of parameters that do not move.
        x: inputs (n, d).
        y: targets (n,).
        objective: "likelihood" or "least_squares"; of least squares half the mean square is descended.
        table: epochs, rate and batch.
        generator: shuffles the rows.

    Raises:
        ArithmeticError: the parameters have left the finite numbers.
    """
    model = copy.deepcopy(start).requires_grad_(True)
    if objective == "least_squares":
        model.experts.log_scale.requires_grad_(False)
    moving = {name: value for name, value in model.named_parameters() if value.requires_grad}
    free = {name: torch.from_numpy(~mask).double() for name, mask in held.items() if name in moving}
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(table.epochs):
        order = torch.from_numpy(generator.permutation(len(y)))
        for rows in order.split(table.batch):
            loss = -_rows(model, inputs[rows], targets[rows], objective).mean()
            slopes = torch.autograd.grad(loss, list(moving.values()), allow_unused=True, materialize_grads=True)
            with torch.no_grad():
                for (name, value), slope in zip(moving.items(), slopes, strict=True):
                    value.sub_(table.rate * (slope * free[name] if name in free else slope))
    _check_finite(model.gate)
    _check_finite(model.experts)
    return model.requires_grad_(False)


def _check_finite(part: Component) -> None:
    for name, value in part.own_parameters().items():
        if not torch.isfinite(value).all():
            raise ArithmeticError(f"descent has left the finite numbers in {part.name}.{name}: take a smaller rate")
