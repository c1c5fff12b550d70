"""How well each adapter fits a token: the scores z (T, E) that a selection chooses by."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from gatewise.lora.gate_set import is_constant

__all__ = [
    "ArrowScores",
    "EqualScores",
    "RandomScores",
    "Scores",
    "StandardisedScores",
    "arrow_direction",
    "standardised",
]


class Scores(nn.Module, ABC):
    """Tokens u (T, d) ↦ scores z (T, E), computed in float32, or in float64 where the adapters are."""

    @property
    @abstractmethod
    def n_adapters(self) -> int:
        """E."""

    @abstractmethod
    def forward(self, u: Tensor) -> Tensor:
        """Scores (T, E) of tokens (T, d)."""


class _VectorScores(Scores):
    """Scores that come from one vector for each adapter, which stays in float32 where the model is cast to less."""

    vectors: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        # Not persistent: the model's own state dict has the same names with and without a router.
        self.register_buffer("vectors", vectors, persistent=False)

    @property
    def n_adapters(self) -> int:
        """E."""
        return len(self.vectors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.vectors
        super()._apply(fn, recurse)
        if self.vectors.dtype in (torch.bfloat16, torch.float16):
            self.vectors = before.to(self.vectors.device)
        return self


class StandardisedScores(_VectorScores):
    """z_e = v̄_e · ū/τ with v and u standardised over their d entries: PHATGOOSE, and average activation.

    x̄ = (x − mean)/sd, so that z = d·corr(v, u)/τ, and with τ = √d it is √d·corr(v, u): a cosine gate on centred tokens
    with the temperature 1/√d. There is no eps: c·v + b scores as v for every c > 0 and b. A constant v or u has no
    direction and scores 0, up to rounding. With eps it is (x − mean)/√(sd² + eps), as the paper's LayerNorm has it.

    Args:
        vectors: v (E, d).
        temperature: τ > 0.
        eps: None, or LayerNorm's.

    Example:
        >>> scores = StandardisedScores(torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), 3.0**0.5)
        >>> scores(torch.tensor([[5.0, 3.0, 1.0], [2.0, 2.0, 2.0]]))
        tensor([[1.7321, 0.0000],
                [0.0000, 0.0000]])
    """

    def __init__(self, vectors: Tensor, temperature: float, eps: float | None = None) -> None:
        dtype = torch.float64 if vectors.dtype == torch.float64 else torch.float32
        super().__init__((standardised(vectors, eps) / temperature).to(dtype))
        self.eps = eps

    def forward(self, u: Tensor) -> Tensor:
        """D·corr(v, u)/τ, (T, d) ↦ (T, E)."""
        u = u.to(self.vectors.dtype)
        # The smallest number of the dtype changes no variance that is not 0 already, and keeps 0/0 away.
        eps = torch.finfo(u.dtype).tiny if self.eps is None else self.eps
        return nn.functional.layer_norm(u, (u.shape[-1],), eps=eps) @ self.vectors.T


class ArrowScores(_VectorScores):
    """z_e = |a_eᵀu|/τ with a_e the direction of inputs that adapter e changes most (Ostapenko et al. 2024).

    Args:
        directions: a (E, d), as `arrow_direction` gives them.
        temperature: τ > 0; peft's Arrow has 1.
    """

    def __init__(self, directions: Tensor, temperature: float = 1.0) -> None:
        super().__init__(directions / temperature)

    def forward(self, u: Tensor) -> Tensor:
        """|aᵀu|/τ, (T, d) ↦ (T, E)."""
        return (u.to(self.vectors.dtype) @ self.vectors.T).abs()


class EqualScores(Scores):
    """z = 0 for every adapter.

    Args:
        n_adapters: E.
    """

    def __init__(self, n_adapters: int) -> None:
        super().__init__()
        self._n_adapters = n_adapters

    @property
    def n_adapters(self) -> int:
        """E."""
        return self._n_adapters

    def forward(self, u: Tensor) -> Tensor:
        """Zeros, (T, d) ↦ (T, E)."""
        dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
        return torch.zeros(len(u), self._n_adapters, dtype=dtype, device=u.device)


class RandomScores(EqualScores):
    """z uniform on [0, 1), drawn anew for every token from torch's own generator: which says what a choice is worth."""

    def forward(self, u: Tensor) -> Tensor:
        """Random numbers, (T, d) ↦ (T, E)."""
        return torch.rand_like(super().forward(u))


def standardised(vectors: Tensor, eps: float | None = None) -> Tensor:
    """(v − mean)/sd of each row (E, d), in float64; 0 where a row is constant.

    Example:
        >>> standardised(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        tensor([[-1.,  1.],
                [ 0.,  0.]], dtype=torch.float64)
    """
    wide = vectors.detach().double()
    centred = wide - wide.mean(-1, keepdim=True)
    if eps is not None:
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    rows = [
        torch.zeros_like(row) if is_constant(vector) else row / row.square().mean().sqrt()
        for vector, row in zip(vectors, centred, strict=True)
    ]
    return torch.stack(rows)


def arrow_direction(down: Tensor, up: Tensor) -> Tensor:
    """The first right singular vector of B A, (d,): the unit input that the adapter changes most; 0 if BA = 0.

    Without forming B A: with Aᵀ = P R and B = Q S it is P times that of the small S Rᵀ (r, r). Its sign has no meaning.

    Args:
        down: A (r, d).
        up: B (out, r).

    Example:
        >>> arrow_direction(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0], [1.0], [0.0]])).abs()
        tensor([0., 1.])
    """
    dtype = torch.float64 if down.dtype == torch.float64 else torch.float32
    left, right = down.detach().double(), up.detach().double()
    basis, factor = torch.linalg.qr(left.T)
    small = torch.linalg.qr(right).R @ factor.T
    _, values, vectors = torch.linalg.svd(small)
    if not math.isfinite(float(values[0])) or float(values[0]) == 0.0:
        return torch.zeros(down.shape[1], dtype=dtype, device=down.device)
    return (basis @ vectors[0]).to(dtype)
