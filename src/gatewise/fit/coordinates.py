"""Internal and user units, and how a flat parameter vector θ is laid out.

A fit runs in internal units: every covariate is centred and scaled, and the target is replaced by the residual of
the one-expert fit over its standard deviation. For linear channels both changes of units are affine in θ, so that
user-unit parameters are J θ + c and covariances J V Jᵀ, exactly; fits cannot depend on the units of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from gatewise.parts.parameters import Quantity

__all__ = ["Coordinates", "Layout", "LinearCoordinates", "Standardisation"]


@runtime_checkable
class Coordinates(Protocol):
    """From θ, in internal units, to the identified quantities, in the user's units."""

    @property
    def size(self) -> int:
        """The length of θ."""
        ...

    @property
    def n_gate(self) -> int:
        """How many of the quantities are the gate's; they come first."""
        ...

    def estimates(self, theta: np.ndarray) -> np.ndarray:
        """The quantities (m,): the gate's, the experts', the dispersions."""
        ...

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Their derivatives by θ, (m, size)."""
        ...

    def quantities(self, features: Sequence[str], gate_features: Sequence[str], target: str) -> list[Quantity]:
        """What they are, (m,)."""
        ...

    def along(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """How fast they, as the user has them, change along a direction of θ, (m,).

        Each in a unit of its own, in which it is as sensitive to θ as its namesake in internal units: so that speeds
        can be compared, and what the table's value does not change with has none.
        """
        ...

    def entry_names(self, features: Sequence[str], gate_features: Sequence[str]) -> list[str]:
        """What the entries of θ are called where no quantity stands for them."""
        ...


@dataclass(frozen=True)
class Standardisation:
    """x ↦ (x − mean) / scale, column by column.

    Attributes:
        mean: (d,).
        scale: standard deviations (d,), 1 for a column that does not vary.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray) -> "Standardisation":
        """Weighted mean and standard deviation, in two passes so that a large offset costs no digits."""
        share = weight / weight.sum()
        mean = x.mean(axis=0)
        # Averaging the differences again removes the rounding error of a mean taken far from zero.
        mean = mean + share @ (x - mean)
        scale = np.sqrt(share @ (x - mean) ** 2)
        return cls(mean, np.where(scale > 0.0, scale, 1.0))

    def design(self, x: np.ndarray) -> np.ndarray:
        """The channel-major design (1 + d, n): a row of ones, then the standardised columns."""
        design = np.empty((1 + x.shape[1], len(x)))
        design[0] = 1.0
        design[1:] = ((x - self.mean) / self.scale).T
        return design

    def matrix(self) -> np.ndarray:
        """M with (1, x) coefficients = M (1, z) coefficients, shape (1 + d, 1 + d)."""
        matrix = np.diag(np.concatenate([[1.0], 1.0 / self.scale]))
        matrix[0, 1:] = -self.mean / self.scale
        return matrix


@dataclass(frozen=True)
class Layout:
    """θ = (gate rows 1 … k−1, expert rows, log-scales): sizes k, q and p, and whether one scale serves all."""

    n_experts: int
    gate_size: int
    expert_size: int
    shared_scale: bool

    @cached_property
    def n_scales(self) -> int:
        """k, or 1 if shared."""
        return 1 if self.shared_scale else self.n_experts

    @cached_property
    def gate(self) -> slice:
        """Where the gate's contrasts stand."""
        return slice(0, (self.n_experts - 1) * self.gate_size)

    @cached_property
    def experts(self) -> slice:
        """Where the experts' coefficients stand."""
        return slice(self.gate.stop, self.gate.stop + self.n_experts * self.expert_size)

    @cached_property
    def scales(self) -> slice:
        """Where the log-scales stand."""
        return slice(self.experts.stop, self.experts.stop + self.n_scales)

    @cached_property
    def size(self) -> int:
        """The number of free parameters."""
        return self.scales.stop

    def unpack(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """θ ↦ gate (k, q) with a last row of zeros, experts (k, p), log-scales (k,)."""
        gate = np.zeros((self.n_experts, self.gate_size))
        gate[:-1] = theta[self.gate].reshape(self.n_experts - 1, self.gate_size)
        coefficients = theta[self.experts].reshape(self.n_experts, self.expert_size).copy()
        own = theta[self.scales]
        log_scale = np.repeat(own, self.n_experts) if self.shared_scale else own.copy()
        return gate, coefficients, log_scale

    def pack(self, gate: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """The inverse of `unpack`; the gate is taken relative to its last row."""
        scales = log_scale[:1] if self.shared_scale else log_scale
        return np.concatenate([(gate[:-1] - gate[-1]).ravel(), coefficients.ravel(), scales])

    def tie(self, hessian: np.ndarray) -> np.ndarray:
        """A Hessian with k log-scales ↦ one with the free ones."""
        if not self.shared_scale:
            return hessian
        start = self.scales.start
        rows = np.concatenate([hessian[:start], hessian[start:].sum(axis=0, keepdims=True)])
        return np.concatenate([rows[:, :start], rows[:, start:].sum(axis=1, keepdims=True)], axis=1)

    def permute(self, theta: np.ndarray, order: np.ndarray) -> np.ndarray:
        """θ with the experts in another order, the gate again relative to the last."""
        gate, coefficients, log_scale = self.unpack(theta)
        return self.pack(gate[order], coefficients[order], log_scale[order])


@dataclass(frozen=True)
class LinearCoordinates:
    """The affine map from internal to user units.

    Attributes:
        layout: how θ is laid out.
        features: the experts' covariates.
        gate_features: the gate's covariates.
        baseline_intercept: one-expert intercept, user units.
        baseline_slope: one-expert slopes (d,), user units.
        target_scale: user units of y per internal unit: the one-expert residual standard deviation.
    """

    layout: Layout
    features: Standardisation
    gate_features: Standardisation
    baseline_intercept: float
    baseline_slope: np.ndarray
    target_scale: float

    def to_user(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """θ ↦ gate (k, 1 + d_gate), experts (k, p) and σ (k,) in user units, intercepts first."""
        gate, coefficients, log_scale = self.layout.unpack(theta)
        user_coefficients = self.target_scale * coefficients @ self._expert_matrix().T
        user_coefficients[:, 0] += self.baseline_intercept
        user_coefficients[:, 1:] += self.baseline_slope
        return gate @ self.gate_features.matrix().T, user_coefficients, self.target_scale * np.exp(log_scale)

    def from_user(self, gate: np.ndarray, coefficients: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """The inverse of `to_user`; the gate is taken relative to its last row."""
        internal = coefficients.copy()
        internal[:, 0] -= self.baseline_intercept
        internal[:, 1:] -= self.baseline_slope
        internal = np.linalg.solve(self._expert_matrix(), internal.T).T / self.target_scale
        contrasts = np.linalg.solve(self.gate_features.matrix(), gate.T).T
        return self.layout.pack(contrasts, internal, np.log(scale / self.target_scale))

    @property
    def size(self) -> int:
        """The number of free parameters."""
        return self.layout.size

    @property
    def n_gate(self) -> int:
        """How many of the quantities are the gate's."""
        return self.layout.gate.stop

    def estimates(self, theta: np.ndarray) -> np.ndarray:
        """Gate contrasts, expert coefficients and σ in user units."""
        gate, coefficients, scale = self.to_user(theta)
        return np.concatenate([gate[:-1].ravel(), coefficients.ravel(), scale[: self.layout.n_scales]])

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of `estimates` by θ."""
        jacobian = self._affine_jacobian()
        scales = self.layout.scales
        jacobian[scales, scales] *= self.target_scale * np.exp(theta[scales])
        return jacobian

    def quantities(self, features: Sequence[str], gate_features: Sequence[str], target: str) -> list[Quantity]:
        """The gate's contrasts, the experts' coefficients and the scales."""
        k = self.layout.n_experts
        terms = ["(intercept)", *features][: self.layout.expert_size]
        gate = [Quantity(f"gate {i} vs {k}", term) for i in range(1, k) for term in ("(intercept)", *gate_features)]
        experts = [Quantity(f"expert {i}", term) for i in range(1, k + 1) for term in terms]
        owners = ["all experts"] if self.layout.shared_scale else [f"expert {i}" for i in range(1, k + 1)]
        return gate + experts + [Quantity(owner, "scale", positive=True) for owner in owners]

    def along(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """In internal units θ is made of these quantities: the units are the lengths of the rows of the map."""
        jacobian = self._affine_jacobian()
        return jacobian @ direction / np.linalg.norm(jacobian, axis=1)

    def entry_names(self, features: Sequence[str], gate_features: Sequence[str]) -> list[str]:
        """Those of the quantities."""
        return [f"{quantity.component}: {quantity.term}" for quantity in self.quantities(features, gate_features, "y")]

    def _affine_jacobian(self) -> np.ndarray:
        """Derivatives of (gate contrasts, expert coefficients, log σ) in user units by θ."""
        layout = self.layout
        jacobian = np.zeros((layout.size, layout.size))
        gate_block = np.kron(np.eye(layout.n_experts - 1), self.gate_features.matrix())
        expert_block = np.kron(np.eye(layout.n_experts), self.target_scale * self._expert_matrix())
        jacobian[layout.gate, layout.gate] = gate_block
        jacobian[layout.experts, layout.experts] = expert_block
        jacobian[layout.scales, layout.scales] = np.eye(layout.n_scales)
        return jacobian

    def _expert_matrix(self) -> np.ndarray:
        return self.features.matrix()[: self.layout.expert_size, : self.layout.expert_size]
