"""The objective of a fit: the mean log-likelihood plus log priors, as a function of θ in internal units."""

import math
from typing import Protocol

import numpy as np
import torch

from gatewise.fit.coordinates import Layout
from gatewise.fit.data import FitData
from gatewise.fit.options import FitOptions
from gatewise.ops.curvature import linear_hessian, linear_responsibilities
from gatewise.ops.linear_pass import LinearPass
from gatewise.ops.linear_torch import TorchLinearPass

__all__ = ["Objective"]


class _Backend(Protocol):
    """Who evaluates the log-likelihood of linear channels: gate (k, q), experts (k, p), log-scales (k,)."""

    def __call__(
        self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]: ...

    def hessian(self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray) -> np.ndarray: ...

    def responsibilities(
        self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]: ...


class _CompiledBackend(LinearPass):
    """The compiled pass with its curvature."""

    def hessian(self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return linear_hessian(self, gate_coefficients, coefficients, log_scale)

    def responsibilities(
        self, gate_coefficients: np.ndarray, coefficients: np.ndarray, log_scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        weights, responsibilities, _, _ = linear_responsibilities(self, gate_coefficients, coefficients, log_scale)
        return weights, responsibilities


class Objective:
    """θ ↦ (Σ_r w_r log p(y_r | x_r; θ) + log prior(θ)) / Σ_r w_r, to be maximised.

    The log priors are −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes and, for each free scale,
    −2 (a + 1) log σ − b / σ² (an inverse-gamma density of σ², up to a constant); all in internal units.

    Args:
        data: the rows in internal units.
        options: priors, floor, device, dtype and threads.
    """

    def __init__(self, data: FitData, options: FitOptions) -> None:
        self.data = data
        self.layout: Layout = data.layout
        self.gate_ridge = options.gate_ridge
        self.variance_prior = options.variance_prior
        self.n_evaluations = 0
        arrays = (data.gate_design, data.design, data.y, data.weight)
        self._backend: _Backend
        if options.device == "cpu" and options.dtype == "float64":
            self._backend = _CompiledBackend(*arrays, n_threads=options.n_threads)
        else:
            self._backend = TorchLinearPass(*arrays, device=options.device, dtype=getattr(torch, options.dtype))
        self.lower = np.full(self.layout.size, -np.inf)
        self.lower[self.layout.scales] = math.log(options.scale_floor)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean objective and its gradient by θ."""
        self.n_evaluations += 1
        gate, coefficients, log_scale = self.layout.unpack(theta)
        value, gate_gradient, gradient, scale_gradient = self._backend(gate, coefficients, log_scale)
        scales = scale_gradient.sum(keepdims=True) if self.layout.shared_scale else scale_gradient
        total = np.concatenate([gate_gradient[:-1].ravel(), gradient.ravel(), scales])
        prior, prior_gradient, _ = self._log_prior(theta)
        weight = self.data.total_weight
        return (value + prior) / weight, (total + prior_gradient) / weight

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of the mean objective."""
        self.n_evaluations += 1
        hessian = self.layout.tie(self._backend.hessian(*self.layout.unpack(theta)))
        return (hessian + self._log_prior(theta)[2]) / self.data.total_weight

    def log_likelihood(self, theta: np.ndarray) -> float:
        """The log-likelihood, without priors, in the user's units of y."""
        value = self._backend(*self.layout.unpack(theta))[0]
        return value - self.data.total_weight * math.log(self.data.coordinates.target_scale)

    def responsibilities(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights π and responsibilities r, each (k, n)."""
        return self._backend.responsibilities(*self.layout.unpack(theta))

    def _log_prior(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        layout = self.layout
        value, gradient, hessian = 0.0, np.zeros(layout.size), np.zeros((layout.size, layout.size))
        if self.gate_ridge > 0.0 and layout.n_experts > 1:
            precision = self.gate_precision()
            gradient[layout.gate] = -precision @ theta[layout.gate]
            hessian[layout.gate, layout.gate] = -precision
            value += 0.5 * float(gradient[layout.gate] @ theta[layout.gate])
        if self.variance_prior is not None:
            a, b = self.variance_prior
            log_scale = theta[layout.scales]
            inverse_variance = np.exp(-2.0 * log_scale)
            value += float(np.sum(-2.0 * (a + 1.0) * log_scale - b * inverse_variance))
            gradient[layout.scales] = -2.0 * (a + 1.0) + 2.0 * b * inverse_variance
            hessian[layout.scales, layout.scales] = np.diag(-4.0 * b * inverse_variance)
        return value, gradient, hessian

    def log_prior(self, theta: np.ndarray) -> float:
        """The log priors at θ."""
        return self._log_prior(theta)[0]

    def gate_precision(self) -> np.ndarray:
        """λ (I − 11ᵀ/k) ⊗ diag(0, 1, …, 1) over the free contrasts: the ridge, blind to the choice of reference."""
        k, q = self.layout.n_experts, self.layout.gate_size
        slopes = np.ones(q)
        slopes[0] = 0.0
        return self.gate_ridge * np.kron((np.eye(k) - 1.0 / k)[:-1, :-1], np.diag(slopes))
