"""The likelihood of linear Gaussian experts with a softmax gate, by the compiled pass with its exact Hessian."""

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import scipy.special
import torch

from gatewise.experts import ConstantExperts, LinearExperts
from gatewise.families import Gaussian
from gatewise.fit.bounds import Bounds
from gatewise.fit.coordinates import Layout, LinearCoordinates
from gatewise.fit.expectation_maximisation import em_step, expectation, maximise_expectation
from gatewise.fit.linear_data import LinearData
from gatewise.fit.names import Names
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem, StartRows
from gatewise.fit.spreads import FloorEntry, RelativeSpread
from gatewise.gates import SoftmaxGate
from gatewise.kernels.curvature import linear_hessian, linear_responsibilities, linear_score_gram
from gatewise.kernels.linear_pass import LinearPass
from gatewise.model import MixtureOfExperts
from gatewise.ops.linear_torch import TorchLinearPass
from gatewise.ops.separation import separating_direction

__all__ = ["LinearObjective", "is_linear_gaussian"]

_GATE_STEPS_AT_START = 3
# A separating ray leaves the gate no curvature; above this smallest eigenvalue there is none to look for.
_CURVED_GATE = 1e-4
# With fewer rows the interpreter's part of a climb is too large for threads.
_ROWS_FOR_THREADS = 20_000
_RAY_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)


def is_linear_gaussian(model: MixtureOfExperts) -> bool:
    """Whether the compiled path serves: a softmax gate, linear or constant experts with one output, Gaussian."""
    return (
        type(model.gate) is SoftmaxGate
        and type(model.experts) in (LinearExperts, ConstantExperts)
        and model.experts.n_outputs == model.experts.n_dispersion == 1
        and type(model.family) is Gaussian
    )


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


class LinearObjective(Problem):
    """θ ↦ (Σ_r w_r log p(y_r | x_r; θ) + log prior(θ)) / Σ_r w_r, to be maximised.

    The log priors are −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes and, for each free scale,
    −2 (a + 1) log σ − b / σ² (an inverse-gamma density of σ², up to a constant); all in internal units.

    Args:
        data: the rows in internal units.
        options: priors, floor, device, dtype and threads.
    """

    def __init__(self, data: LinearData, options: FitOptions) -> None:
        self.data = data
        self.prototype = data.prototype
        self.layout: Layout = data.layout
        self.size, self.n_gate = data.layout.size, data.layout.gate.stop
        self.n_rows, self.total_weight = data.n_rows, data.total_weight
        self.baseline = data.baseline
        self.row_need = data.layout.expert_size + 2
        self.unit = data.coordinates.target_scale
        self.gate_ridge = options.gate_ridge
        self.variance_prior = options.variance_prior
        self.n_evaluations = 0
        arrays = (data.gate_design, data.design, data.y, data.weight)
        self._backend: _Backend
        if options.device == "cpu" and options.dtype == "float64":
            self._backend = _CompiledBackend(*arrays, n_threads=options.n_threads)
            self.runs_in_threads = self.n_rows >= _ROWS_FOR_THREADS
        else:
            self._backend = TorchLinearPass(*arrays, device=options.device, dtype=getattr(torch, options.dtype))
        scales = range(self.layout.scales.start, self.layout.size)
        k = self.layout.n_experts
        owners = [tuple(range(k))] if self.layout.shared_scale else [(i,) for i in range(k)]
        self.floor_entries = {
            entry: FloorEntry(experts, power=1.0, unit=0.0) for entry, experts in zip(scales, owners, strict=True)
        }
        self._set_floor(options.scale_floor)

    def _set_floor(self, scale_floor: float) -> None:
        self.scale_floor = scale_floor
        self.bounds = Bounds.none(self.layout.size)
        self.bounds.lower[self.layout.scales] = math.log(scale_floor)

    def with_floor(self, scale_floor: float) -> Self:
        """The same problem with another floor under the scales."""
        other = copy.copy(self)
        other.n_evaluations = 0
        other._set_floor(scale_floor)
        return other

    @property
    def coordinates(self) -> LinearCoordinates:
        """From contrasts, coefficients and log-scales to those in the user's units."""
        return self.data.coordinates

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

    def score_gram(self, theta: np.ndarray) -> np.ndarray:
        """Σ w s sᵀ of the rows' scores; in float64 on the CPU wherever the objective is evaluated."""
        data = self.data
        rows = LinearPass(data.gate_design, data.design, data.y, data.weight)
        return self.layout.tie(linear_score_gram(rows, *self.layout.unpack(theta)))

    def log_likelihood(self, theta: np.ndarray) -> float:
        """The log-likelihood, without priors, in the user's units of y."""
        value = self._backend(*self.layout.unpack(theta))[0]
        return value - self.data.total_weight * math.log(self.data.coordinates.target_scale)

    def information(self, theta: np.ndarray) -> np.ndarray:
        """The negative Hessian of the mean objective."""
        return -self.hessian(theta)

    def objective(self, theta: np.ndarray) -> float:
        """The log-likelihood plus log priors, in the user's units of y."""
        value, _ = self.value_and_gradient(theta)
        return self.data.total_weight * (value - math.log(self.data.coordinates.target_scale))

    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """Responsibilities (k, n)."""
        return self._backend.responsibilities(*self.layout.unpack(theta))[1]

    @property
    def start_rows(self) -> StartRows:
        """The rows in internal units."""
        return self.data.start_rows

    @property
    def weight(self) -> np.ndarray:
        """Row weights (n,)."""
        return self.data.weight

    def begin(self, responsibilities: np.ndarray, index: int, seed: int) -> np.ndarray:
        """The closed M-step of the experts, and some Newton steps for the gate."""
        return maximise_expectation(self, responsibilities, np.zeros(self.size), gate_steps=_GATE_STEPS_AT_START)

    def locate(self, model: MixtureOfExperts) -> np.ndarray:
        """θ of a model with linear or constant experts."""
        gate, experts = model.gate, model.experts
        coefficients = experts.coefficients(experts.own_parameters()).double().numpy()
        scale = experts.log_scale.detach().double().exp().expand(self.n_experts).numpy()
        gate_coefficients = gate.coefficients(gate.own_parameters()).double().numpy()
        return self.data.coordinates.from_user(gate_coefficients, coefficients, scale)

    def improve(self, theta: np.ndarray, steps: int, check: Callable[[], None]) -> np.ndarray:
        """θ after EM steps."""
        state = expectation(self, theta)
        for _ in range(steps):
            state = em_step(self, state)
            check()
        return state.theta

    def canonical_order(self, theta: np.ndarray, key: np.ndarray | None = None) -> np.ndarray:
        """θ with experts by mean responsibility, or by a key, then by first coefficient; the last is the reference."""
        if key is None:
            key = np.round(self.responsibilities(theta) @ self.data.weight / self.total_weight, 9)
        _, coefficients, _ = self.layout.unpack(theta)
        return self.layout.permute(theta, np.lexsort([coefficients[:, 0], -key]))

    def build_model(self, theta: np.ndarray) -> MixtureOfExperts:
        """A copy of the prototype, in float64 on the CPU, with the user-unit parameters of θ."""
        gate, coefficients, scale = (torch.from_numpy(array) for array in self.data.coordinates.to_user(theta))
        model = copy.deepcopy(self.prototype)
        model.to(device="cpu", dtype=torch.float64)
        gate_module, experts_module = model.gate, model.experts
        assert isinstance(gate_module, SoftmaxGate)
        assert isinstance(experts_module, LinearExperts | ConstantExperts)
        gate_module.assign(gate)
        experts_module.assign(coefficients, scale.log())
        model.requires_grad_(False)
        return model

    @property
    def names(self) -> Names:
        """The names of the columns."""
        return self.data.rows.names

    def relative_scales(self, theta: np.ndarray) -> np.ndarray:
        """Scales σ (k,) over the one-expert residual standard deviation."""
        return np.exp(self.layout.unpack(theta)[2])

    def relative_spreads(self, theta: np.ndarray) -> tuple[RelativeSpread, ...]:
        """The scales."""
        spread = self.prototype.family.spread
        assert spread is not None
        return (RelativeSpread(spread.name, spread.whole, self.relative_scales(theta)),)

    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The log-densities log p(y | x) (rows,)."""
        gate, coefficients, log_scale = self.layout.unpack(theta)
        weights = scipy.special.log_softmax(gate @ self.data.gate_design[:, rows], axis=0)
        z = (self.data.y[rows] - coefficients @ self.data.design[:, rows]) / np.exp(log_scale)[:, None]
        density = -0.5 * (z**2 + math.log(2.0 * math.pi)) - log_scale[:, None]
        return np.logaddexp.reduce(weights + density, axis=0)

    def gate_direction(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        """A direction of the gate's contrasts along which it separates, or None.

        The linear programme runs only where the gate's information is nearly singular, and its answer counts only if
        the likelihood does not fall along the ray.
        """
        if self.n_experts < 2 or self.gate_ridge > 0.0:
            return None
        if np.linalg.eigvalsh(information[: self.n_gate, : self.n_gate])[0] > _CURVED_GATE:
            return None
        direction = separating_direction(self.data.gate_design, responsibilities)
        if direction is None:
            return None
        ray = np.zeros(self.size)
        ray[: self.n_gate] = (direction[:-1] - direction[-1]).ravel()
        here = self.value_and_gradient(theta)[0]
        slack = 1e-9 * max(1.0, abs(here))
        for length in _RAY_LENGTHS:
            if self.value_and_gradient(theta + length * ray)[0] < here - slack:
                return None
        return ray

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
        return self._gate_precision

    @cached_property
    def _gate_precision(self) -> np.ndarray:
        k, q = self.layout.n_experts, self.layout.gate_size
        slopes = np.ones(q)
        slopes[0] = 0.0
        return self.gate_ridge * np.kron((np.eye(k) - 1.0 / k)[:-1, :-1], np.diag(slopes))
