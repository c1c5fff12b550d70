"""A mixture of regressions with Gaussian errors, counted from one regression: EM steps, compiled whole."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from gatewise.fit.coordinates import Coordinates
from gatewise.fit.expectation_maximisation import em_step, expectation, maximise_expectation
from gatewise.fit.gaussian_channels import GaussianChannels
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.rays import linear_ray
from gatewise.fit.regression import Regression
from gatewise.fit.rows import FitRows
from gatewise.fit.spreads import RelativeSpread, SpreadsOfModel
from gatewise.fit.start_rows import StartRows
from gatewise.fit.working_residual import working_start_rows
from gatewise.model import MixtureOfExperts

__all__ = ["RegressionProblem"]

# Newton steps on the gate of a start.
_GATE_STEPS = 3
# With fewer rows the interpreter's part of a climb is too large for threads.
_ROWS_FOR_THREADS = 20_000


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
        return maximise_expectation(self, responsibilities, np.zeros(self.size), gate_steps=_GATE_STEPS)

    def improve(self, theta: np.ndarray, steps: int, check: Callable[[], None]) -> np.ndarray:
        """θ after EM steps; `check` may raise to end them."""
        state = expectation(self, theta)
        for _ in range(steps):
            state = em_step(self, state)
            check()
        return state.theta

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
