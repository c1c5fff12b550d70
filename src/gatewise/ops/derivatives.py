"""Derivatives by a vector in reverse mode alone, whatever mode and whichever thread the caller is in.

PyTorch's forward mode has one level for the whole process (`torch.autograd.forward_ad`), so that derivatives in two
threads end each other's: "no level exists". Reverse mode has no such state, and is no slower here. `torch.func` has the
same functions, but the first call of one loads PyTorch's compiler: two seconds in every process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor

__all__ = ["differentiable", "hessian", "jacobian", "two_derivatives"]


@contextmanager
def differentiable() -> Iterator[None]:
    """Within the block derivatives exist, also for a caller inside `torch.no_grad()` or `torch.inference_mode()`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def jacobian(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """The derivatives ∂f/∂p of a function of a vector p, along a last axis.

    The transposed product u ↦ Jᵀu is linear in u, and its derivative by u is J again: as many passes as p is long, and
    not as many as f has entries.

    Args:
        function: p (m,) ↦ a tensor of any shape; twice differentiable by automatic differentiation.
        point: p (m,).

    Returns:
        The shape of f(p), with m entries along a last axis.

    Example:
        >>> jacobian(lambda p: p**2, torch.tensor([1.0, 3.0]))
        tensor([[2., 0.],
                [0., 6.]])
    """
    with differentiable():
        here = point.detach().clone().requires_grad_()
        value = function(here)
        pull = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, here, pull, create_graph=True, materialize_grads=True)
        return _rows(pulled, pull).movedim(0, -1)


def two_derivatives(function: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A function f of a vector p with ∂f/∂p along one last axis and ∂²f/∂p² along two.

    As in `jacobian`, u ↦ uᵀ ∂f/∂p and u ↦ uᵀ ∂²f/∂p² are linear in u: as many passes as p has entries, and then as many
    as it has pairs of them.

    Args:
        function: p (m,) ↦ a tensor of any shape; three times differentiable by automatic differentiation.
        point: p (m,).

    Returns:
        f(p), and derivatives of its shape with m, and with m and m, entries more.

    Example:
        >>> value, first, second = two_derivatives(lambda p: p**3, torch.tensor([1.0, 2.0]))
        >>> first.diagonal(), second[1]
        (tensor([ 3., 12.]), tensor([[ 0.,  0.],
                [ 0., 12.]]))
    """
    with differentiable():
        here = point.detach().clone().requires_grad_()
        value = function(here)
        m = len(here)
        if not value.requires_grad:
            return value, value.new_zeros(*value.shape, m), value.new_zeros(*value.shape, m, m)
        pull = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, here, pull, create_graph=True, materialize_grads=True)
        first = _rows(pulled, pull).movedim(0, -1)
        curved = _rows(pulled, here, further=True).reshape(-1)
        second = _rows(curved, pull).movedim(0, -1).unflatten(-1, (m, m))
        return value.detach(), first, second


def hessian(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """The second derivatives of a scalar function of a vector, (m, m).

    Args:
        function: p (m,) ↦ a single number, twice differentiable.
        point: p (m,).

    Example:
        >>> hessian(lambda p: p[0] * p[1] ** 2, torch.tensor([1.0, 3.0]))
        tensor([[0., 6.],
                [6., 2.]])
    """
    with differentiable():
        here = point.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(here), here, create_graph=True, materialize_grads=True)
        return _rows(gradient, here)


def _rows(vector: Tensor, point: Tensor, *, further: bool = False) -> Tensor:
    """The derivatives of each entry of a vector by the point, one below the other, in one batched pass.

    Whether they are to be differentiated `further`, or the vector once more, decides what of the graph is kept.
    """
    if not vector.requires_grad or not len(vector):
        return point.new_zeros(*vector.shape, *point.shape)
    every = torch.eye(len(vector), dtype=vector.dtype, device=vector.device)
    (found,) = torch.autograd.grad(
        vector, point, every, is_grads_batched=True, allow_unused=True, retain_graph=True, create_graph=further
    )
    if found is None:
        return point.new_zeros(*vector.shape, *point.shape)
    return cast(Tensor, found if further else found.detach())
