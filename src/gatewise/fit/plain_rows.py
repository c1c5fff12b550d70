"""Σ w ℓ over the rows with its derivatives, for any gate, experts, family, device and number type.

What evaluates an objective is one of these classes: this one by the plain formula and automatic differentiation, and
those that derive from it where parts, device and number type let compiled passes take the rows. Each answers the same
questions by sums over blocks of rows in a fixed order, so that the bits do not depend on the number of threads.
"""

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.channel_gradient import Channels
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.internal_rows import InternalRows
from gatewise.ops.derivatives import hessian, jacobian
from gatewise.ops.joint_torch import log_mixture_rows, plain_log_mixture
from gatewise.ops.log_space import log_softmax
from gatewise.parts.parameters import Parameters

__all__ = ["PlainRows"]

# What the chunks of a Hessian may hold at once: rows × experts × directions.
_CHUNK = 3_000_000


class PlainRows:
    """θ ↦ Σ w ℓ, its derivatives, and what a row is given: by the formula, differentiated automatically.

    Args:
        coordinates: θ to parameters.
        rows: in internal units.
        n_threads: of a compiled pass over the rows.

    Attributes:
        channels: the module that gives a row's logits, locations and dispersions.
        has_linear_channels: whether logits and locations are linear in θ.
    """

    has_linear_channels = False

    def __init__(self, coordinates: Coordinates, rows: InternalRows, n_threads: int = 1) -> None:
        self.coordinates = coordinates
        self.model = coordinates.prototype
        self.channels = Channels(self.model)
        self.x, self.gate_x, self.y = rows.x, rows.gate_x, rows.y
        self.offset, self.weight = rows.offset, rows.weight
        self.n_threads = n_threads

    @property
    def normalised(self) -> bool:
        """Whether the weights are the softmax of the logits; with a joint gate exp(logits) are, as they are."""
        return not self.model.gate.is_joint

    def point(self, theta: np.ndarray, requires_grad: bool = False) -> Tensor:
        """θ as a tensor where the rows are."""
        return torch.tensor(theta, dtype=self.x.dtype, device=self.x.device).requires_grad_(requires_grad)

    def named(self, theta: Tensor) -> Parameters:
        """The parameters at θ, "gate.…" and "experts.…", in internal units."""
        return self.coordinates.parameters(self.coordinates.full(theta))

    def channels_at(self, theta: Tensor, rows: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, k), locations (n, k) or (n, k, m), and dispersions of some rows; differentiable."""
        arguments = (self.gate_x[rows], self.x[rows], self.offset[rows])
        return torch.func.functional_call(self.channels, self.named(theta), arguments)

    def evaluate(self, theta: Tensor, rows: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor]:
        """Logits and log-densities (n, k) of some rows; differentiable."""
        logits, location, log_scale = self.channels_at(theta, rows)
        return logits, self.model.family.log_density(self.y[rows], location, log_scale)

    def total(self, theta: Tensor, rows: slice = slice(None)) -> Tensor:
        """Σ w ℓ over some rows by the plain formula, differentiable to any order."""
        return plain_log_mixture(*self.evaluate(theta, rows), self.weight[rows], normalised=self.normalised)

    @torch.no_grad()
    def value(self, theta: np.ndarray) -> float:
        """Σ w ℓ."""
        return float(self.total(self.point(theta)))

    def value_and_gradient(self, theta: np.ndarray, responsibilities: Tensor | None = None) -> tuple[float, np.ndarray]:
        """Σ w ℓ, or with responsibilities (n, k) the expected complete log-likelihood, and its gradient by θ."""
        point = self.point(theta, requires_grad=True)
        total = self.total(point) if responsibilities is None else self._expected(point, responsibilities)
        (gradient,) = torch.autograd.grad(total, point)
        return float(total.detach()), gradient.cpu().numpy().astype(float)

    def _expected(self, theta: Tensor, responsibilities: Tensor) -> Tensor:
        """Σ w Σᵢ rᵢ (log πᵢ + log fᵢ)."""
        logits, density = self.evaluate(theta)
        weights = log_softmax(logits) if self.normalised else logits
        share = self.weight.unsqueeze(-1) * responsibilities
        return (share * torch.where(share > 0.0, weights + density, torch.zeros_like(density))).sum()

    @property
    def chunk_rows(self) -> int:
        """How many rows are differentiated at once in all directions."""
        width = self.coordinates.size * self.model.n_experts * self.model.family.n_outputs
        return max(256, _CHUNK // max(1, width))

    def chunks(self) -> list[slice]:
        """The rows in chunks that bound the memory of derivatives in all directions."""
        step = self.chunk_rows
        return [slice(low, low + step) for low in range(0, len(self.weight), step)]

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of Σ w ℓ by θ, (size, size), symmetric but for rounding."""
        point = self.point(theta)
        found = sum(
            (self.chunk_hessian(point, rows) for rows in self.chunks()), point.new_zeros(len(theta), len(theta))
        )
        return found.cpu().numpy().astype(float)

    def chunk_hessian(self, theta: Tensor, rows: slice) -> Tensor:
        """That of some rows."""
        return hessian(lambda at: self.total(at, rows), theta)

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """The gradient of each row's ℓ by θ, (n, size)."""
        point = self.point(theta)

        def of_rows(at: Tensor, rows: slice) -> Tensor:
            return log_mixture_rows(*self.evaluate(at, rows), self.normalised)

        pieces = [jacobian(lambda at, rows=rows: of_rows(at, rows), point) for rows in self.chunks()]
        return torch.cat(pieces).cpu().numpy().astype(float)

    def score_gram(self, theta: np.ndarray) -> np.ndarray:
        """Σ w s sᵀ of the scores, (size, size)."""
        scores = self.scores(theta)
        return (scores.T * self.weight.cpu().numpy()) @ scores

    @torch.no_grad()
    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """Responsibilities r (n, k)."""
        logits, density = self.evaluate(self.point(theta))
        return log_softmax(logits + density).exp().cpu().numpy().astype(float)

    @torch.no_grad()
    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What the mixture says of some rows: log p(y | x), or log p(x, y) with a joint gate, (rows,)."""
        found = self.evaluate(self.point(theta), torch.from_numpy(rows))
        return log_mixture_rows(*found, self.normalised).cpu().numpy().astype(float)

    @torch.no_grad()
    def densities(self, theta: np.ndarray) -> np.ndarray:
        """What a row adds to the objective if one expert has it alone, (n, k)."""
        return self.evaluate(self.point(theta))[1].cpu().numpy().astype(float)
