"""First and second derivatives of log-densities by each expert's own channels, row by row, for any family."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["channel_derivatives"]

LogDensity = Callable[[Tensor, Tensor, Tensor], Tensor]


def _row_gradients(value: Tensor, location: Tensor, log_scale: Tensor, keep: bool) -> list[Tensor]:
    """∂value_ri by each channel of expert i, a list of c arrays (n, k); differentiable in turn if `keep`.

    The log-density of row r and expert i depends on location r, i and on the dispersions of expert i. The former is
    therefore the gradient of the sum. The gradient by a dispersion has already added up the rows: it is
    Σ_r v_ri ∂value_ri with v = 1, and its derivative by v_ri takes the sum apart again.
    """
    if not value.requires_grad:
        n_locations = location.shape[-1] if location.ndim > value.ndim else 1
        n_dispersions = 1 if log_scale.ndim == 1 else log_scale.shape[-1]
        return [torch.zeros_like(value)] * (n_locations + n_dispersions)
    upstream = torch.ones_like(value, requires_grad=True)
    by_location, by_scale = torch.autograd.grad(
        value, (location, log_scale), upstream, create_graph=True, allow_unused=True, materialize_grads=True
    )
    gradients = list(by_location.unbind(-1)) if location.ndim > value.ndim else [by_location]
    for column in (by_scale,) if log_scale.ndim == 1 else by_scale.unbind(-1):
        gradient = torch.zeros_like(value)
        if column.requires_grad:
            (gradient,) = torch.autograd.grad(
                column.sum(), upstream, create_graph=keep, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        gradients.append(gradient)
    return gradients


def channel_derivatives(
    log_density: LogDensity, y: Tensor, location: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-densities and their derivatives by automatic differentiation, exact to rounding.

    Args:
        log_density: (y, location, log_scale) ↦ (n, k), twice differentiable, as a family's; entry (r, i) may depend on
            location r, i and on the dispersions of expert i only.
        y: targets (n,) or (n, e).
        location: (n, k) or (n, k, m).
        log_scale: dispersions (k,) or (k, s); (k, 0) if there are none.

    Returns:
        value (n, k), first (n, k, c) and second (n, k, c, c) derivatives by expert i's own c = m + s channels, those of
        the location first. Where the log-density does not depend on a channel, they are 0.

    Example:
        >>> def log_poisson(y, location, log_scale):
        ...     return y.unsqueeze(-1) * location - location.exp()
        >>> y, location = torch.tensor([3.0]), torch.zeros(1, 1)
        >>> _, first, second = channel_derivatives(log_poisson, y, location, torch.zeros(1, 0))
        >>> first.item(), second.item()
        (2.0, -1.0)
    """
    location, log_scale = location.detach().requires_grad_(), log_scale.detach().requires_grad_()
    with torch.enable_grad():
        value = log_density(y, location, log_scale)
        first = _row_gradients(value, location, log_scale, keep=True)
        second = [torch.stack(_row_gradients(column, location, log_scale, keep=False), -1) for column in first]
    return value.detach(), torch.stack(first, -1).detach(), torch.stack(second, -2).detach()
