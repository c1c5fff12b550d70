"""A mixture of regressions with Gaussian errors, counted from one regression, with EM steps before the solver.

The E-step is the fused pass, the M-step weighted least squares and damped Newton for the gate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from gatewise.fit.coordinates import Coordinates
from gatewise.fit.gaussian_channels import GaussianChannels
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.rays import linear_ray
from gatewise.fit.regression import Regression
from gatewise.fit.rows import FitRows
from gatewise.fit.spreads import RelativeSpread, SpreadsOfModel
from gatewise.fit.start_rows import StartRows, working_start_rows
from gatewise.kernels.expectation import ExpectationSums, expectation_sums, gate_derivatives, gate_expectation
from gatewise.kernels.products import weighted_gram
from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import solve_symmetric

__all__ = ["Expectation", "RegressionProblem"]

_EMPTY = 1e-8
_NEGLIGIBLE_GAIN = 1e-10
_SMALLEST_STEP = 1e-4
# Newton steps on the gate of a start.
_GATE_STEPS = 3
# With fewer rows the interpreter's part of a climb is too large for threads.
_ROWS_FOR_THREADS = 20_000


@dataclass(frozen=True)
class Expectation:
    """An E-step: where it was taken, the mean objective there, and its sums."""

    theta: np.ndarray
    value: float
    sums: ExpectationSums


class RegressionProblem(Problem):
    """The likelihood by θ = (contrasts of the gate, experts less the one regression, log σ), see `Regression`.

    The last expert is the gate's reference, so that no symmetry is left but the order of the experts.

    Args:
        model: the prototype.
        rows: the checked rows.
        options: priors, floor, device, dtype, threads.
        regression: the one-expert fit.
    """

    may_have_kinks = False

    def __init__(self, model: MixtureOfExperts, rows: FitRows, options: FitOptions, regression: Regression) -> None:
        self.regression = regression
        super().__init__(model, rows, options, regression.baseline)
        self.runs_in_threads = self.internal.is_fused and self.n_rows >= _ROWS_FOR_THREADS

    def _take_rows(self) -> None:
        known = self.regression
        held = np.zeros(len(known.origin))
        self.coordinates = Coordinates(self.prototype, known.units, known.column, held, origin=known.origin)
        self.internal = known.rows

    @cached_property
    def regressions(self) -> GaussianChannels:
        """The compiled sweeps, whoever evaluates the objective."""
        if isinstance(self.evaluator, GaussianChannels):
            return self.evaluator
        return GaussianChannels(self.coordinates, self.internal.in_float64(), self.options.n_threads)

    @property
    def cheap_hessian_size(self) -> int:
        """On every device: EM has come near enough for a Hessian."""
        return Problem.most_cheap

    def _spreads_in_theta(self) -> SpreadsOfModel:
        """Scales relative to the residuals of the one regression."""
        spread = self.prototype.family.spread
        assert spread is not None
        known = {"experts": {"log_scale": torch.zeros(1, dtype=torch.float64)}}
        rows, weight = {"experts": self.internal.in_float64().y}, torch.tensor(self.rows.weight)
        return SpreadsOfModel({"experts": spread}, self.coordinates, self.n_experts, rows, weight, known)

    def relative_scales(self, theta: np.ndarray) -> np.ndarray:
        """Scales σ (k,) over the residual deviation of the one regression."""
        return np.exp(self.regressions.unpack(theta)[2])

    def relative_spreads(self, theta: np.ndarray) -> tuple[RelativeSpread, ...]:
        """The scales."""
        spread = self._spreads.parts["experts"]
        return (RelativeSpread(spread.name, spread.whole, self.relative_scales(theta)),)

    def score_gram(self, theta: np.ndarray) -> np.ndarray:
        """Σ w s sᵀ of the rows' scores, without any of them."""
        return self.regressions.score_gram(theta)

    def _make_start_rows(self) -> StartRows:
        constant = self.regressions.sweep.design.shape[0] == 1
        return working_start_rows(self.prototype.family, self.rows, self.n_experts, constant, with_gate=False)

    def begin(self, responsibilities: np.ndarray, index: int, seed: int) -> np.ndarray:
        """The closed M-step of the experts, and some Newton steps for the gate."""
        return self.maximise_expectation(responsibilities, np.zeros(self.size), gate_steps=_GATE_STEPS)

    def improve(self, theta: np.ndarray, steps: int, check: Callable[[], None]) -> np.ndarray:
        """θ after EM steps; `check` may raise to end them.

        EM is used for what it is good at, the first steps from a rough start, and to turn responsibilities into
        parameters; it is not iterated to convergence (it slows down without being at a maximum).
        """
        state = self.expectation(theta)
        for _ in range(steps):
            state = self.em_step(state)
            check()
        return state.theta

    def locate(self, model: MixtureOfExperts) -> np.ndarray:
        """θ of a model of the same parts, whose last expert need not have a logit of 0."""
        return self.coordinates.collapse(self._experts.settle(self.coordinates.locate(model)))

    def _sorted(self, theta: np.ndarray, key: np.ndarray) -> np.ndarray:
        gate, coefficients, log_scale = self.regressions.unpack(theta)
        # Of experts with the same key the one with the smaller constant comes first.
        order = np.lexsort([coefficients[:, 0], -key])
        return self.regressions.pack(gate[order], coefficients[order], log_scale[order])

    def symmetry_tangents(self, theta: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """None: the reference takes the gate's translations away, and regressions have no symmetries."""
        return []

    def _separating_ray(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        return linear_ray(self, theta, information, self.regressions.sweep.gate_design, responsibilities)

    # --- expectation maximisation

    def expectation(self, theta: np.ndarray) -> Expectation:
        """The E-step at θ."""
        self.n_evaluations += 1
        data = self.regressions.sweep
        arrays = (data.gate_design, data.design, data.y, data.weight)
        sums = expectation_sums(*arrays, *self.regressions.unpack(theta), data.same_design)
        return Expectation(theta, (sums.log_likelihood + self.log_prior(theta)) / self.total_weight, sums)

    def em_step(self, at: Expectation) -> Expectation:
        """One EM step: the experts' maximum in closed form, a Newton step of the gate, halved until nothing is lost."""
        channels, sums = self.regressions, at.sums
        gate, coefficients, log_scale = channels.unpack(at.theta)
        coefficients = coefficients.copy()
        filled = sums.mass > _EMPTY * self.total_weight
        squares = sums.squares.copy()
        for i in np.flatnonzero(filled):
            change = solve_symmetric(sums.gram[i], sums.moments[i])
            coefficients[i] += change
            # The residual sum of squares about the new coefficients; it cannot be negative but for rounding.
            squares[i] = max(squares[i] - float(change @ sums.moments[i]), 0.0)
        log_scale = self._maximise_scale(sums.mass, squares, filled, log_scale)
        if len(gate) == 1:
            return self.expectation(channels.pack(gate, coefficients, log_scale))
        precision = self.gate_precision()
        slope = sums.gate_gradient - precision @ gate[:-1].ravel()
        step = solve_symmetric(sums.gate_information + precision, slope).reshape(gate[:-1].shape)
        length = 1.0
        while True:
            candidate = gate.copy()
            candidate[:-1] += length * step
            reached = self.expectation(channels.pack(candidate, coefficients, log_scale))
            if reached.value >= at.value or length < _SMALLEST_STEP:
                return reached if reached.value >= at.value else at
            length *= 0.25

    def maximise_expectation(self, responsibilities: np.ndarray, theta: np.ndarray, gate_steps: int) -> np.ndarray:
        """argmax_θ of the expected complete log-likelihood (plus log priors) under the given responsibilities.

        Each expert's coefficients solve weighted least squares; σᵢ² = (Σ w r e² + 2b) / (Σ w r + 2(a + 1)), with (a, b)
        the variance prior and both terms 0 without; a shared σ² pools the sums. An expert without rows keeps what it
        has.

        Args:
            responsibilities: r (k, n).
            theta: where the gate's Newton steps begin, and what empty experts keep.
            gate_steps: Newton steps on the gate.
        """
        data = self.regressions.sweep
        gate, coefficients, log_scale = self.regressions.unpack(theta)
        coefficients = coefficients.copy()
        shares = np.multiply(responsibilities, data.weight, order="C")
        totals = shares.sum(axis=1)
        gram = weighted_gram(data.design, shares)
        right = (shares * data.y) @ data.design.T
        filled = totals > _EMPTY * self.total_weight
        for i in np.flatnonzero(filled):
            coefficients[i] = solve_symmetric(gram[i], right[i])
        squares = (shares * (data.y - coefficients @ data.design) ** 2).sum(axis=1)
        log_scale = self._maximise_scale(totals, squares, filled, log_scale)
        if len(gate) > 1:
            gate = self._maximise_gate(shares, gate, gate_steps)
        return self.regressions.pack(gate, coefficients, log_scale)

    def _maximise_scale(
        self, mass: np.ndarray, squares: np.ndarray, filled: np.ndarray, log_scale: np.ndarray
    ) -> np.ndarray:
        """σᵢ² = (Σ w r e² + 2b) / (Σ w r + 2(a + 1)), not below the floor; experts without rows keep what they have."""
        a, b = self.options.variance_prior or (-1.0, 0.0)
        shared = self.regressions.model.experts.shared_scale
        if shared:
            variance = np.full_like(squares, (squares.sum() + 2.0 * b) / (mass.sum() + 2.0 * (a + 1.0)))
        else:
            variance = (squares + 2.0 * b) / np.where(filled, mass + 2.0 * (a + 1.0), 1.0)
        with np.errstate(divide="ignore"):
            new_scale = np.maximum(0.5 * np.log(variance), self.bounds.lower[-1])
        return np.where(filled | shared, new_scale, log_scale)

    def _maximise_gate(self, shares: np.ndarray, gate: np.ndarray, steps: int) -> np.ndarray:
        """Newton steps on Σ w r log π (plus ridge), each halved until it does not descend."""
        data = self.regressions.sweep
        precision = self.gate_precision()
        arrays = (data.gate_design, shares, data.weight)
        for _ in range(steps):
            flat = gate[:-1].ravel()
            value, gradient, information = gate_derivatives(*arrays, gate)
            value -= 0.5 * float(flat @ precision @ flat)
            gradient = gradient - precision @ flat
            step = solve_symmetric(information + precision, gradient)
            # Nothing to gain: a line search would only compare rounding errors.
            if gradient @ step <= _NEGLIGIBLE_GAIN * self.total_weight:
                return gate
            length = 1.0
            while True:
                moved = flat + length * step
                candidate = np.concatenate([moved.reshape(gate[:-1].shape), gate[-1:]])
                if gate_expectation(*arrays, candidate) - 0.5 * float(moved @ precision @ moved) > value:
                    gate = candidate
                    break
                length *= 0.5
                if length < _SMALLEST_STEP:
                    return gate
        return gate
