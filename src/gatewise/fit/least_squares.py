"""Least squares on the mixture's mean, m(x) = Σᵢ wᵢ(x) E[y | expert i]: an objective without a likelihood.

The weights w are those of the gate, normalised or not (Nguyen, Ho and Rinaldo 2024, arXiv:2402.02952 and 2405.13997, as
restated in the literature of the softmax gate). Standard errors come from the Gauss–Newton matrix, which assumes errors
of one variance, or from the sandwich, which does not.
"""

import dataclasses
import math

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.result import Baseline
from gatewise.fit.rows import FitRows
from gatewise.fit.spreads import SpreadsOfModel
from gatewise.fit.squared_channels import SquaredChannels, SquaredRows, has_squared_channels
from gatewise.model import MixtureOfExperts

__all__ = ["GaussNewton", "LeastSquaresProblem"]


class LeastSquaresProblem(Problem):
    """θ ↦ −½ Σ w ‖y − m(x; θ)‖² / Σ w; the family's dispersions are no part of θ.

    Args:
        model: the prototype.
        rows: the checked rows.
        options: device, dtype, constraints.
        baseline: the one-expert fit, or None for the one-expert problem itself.

    Raises:
        InputError: the model has no mean that least squares could use, or an option belongs to likelihoods.
    """

    kind = "least_squares"
    evaluator: SquaredRows

    def __init__(self, model: MixtureOfExperts, rows: FitRows, options: FitOptions, baseline: Baseline | None) -> None:
        if options.variance_prior is not None:
            raise InputError("variance_prior belongs to the likelihood; least squares has no variances to hold")
        super().__init__(model, rows, options, baseline)
        self.is_smooth = True

    def _evaluator(self) -> SquaredRows:
        """The regression function's derivatives by formula, where its channels are linear in the parameters."""
        by_formula = self.internal.is_fused and has_squared_channels(self.prototype) and self._is_linear
        kind = SquaredChannels if by_formula else SquaredRows
        return kind(self.coordinates, self.internal, self.options.n_threads)

    @classmethod
    def check_model(cls, model: MixtureOfExperts) -> None:
        """Refuse a model that has no such objective.

        Raises:
            InputError: it has none.
        """
        if model.gate.is_joint:
            raise InputError(
                f"the {model.gate.name} gate is a joint model of inputs and target, which has a likelihood and no "
                "least squares: use its conditional form"
            )
        if model.family.n_unordered is not None or (model.family.event_size and model.family.is_discrete):
            raise InputError(f"least squares needs numbers as targets, which those of {model.family.name} are not")

    def _free(self, options: FitOptions) -> tuple[np.ndarray, np.ndarray]:
        """As for the likelihood, with the dispersions held."""
        column, base = super()._free(options)
        names = [name for name, _ in self.prototype.experts.named_parameters()]
        if names[0] != "log_scale":
            raise InputError("the dispersions must be the first parameters of the experts")
        column = np.where(self._matters, column, -1)
        used = np.unique(column[column >= 0])
        return np.where(column >= 0, np.searchsorted(used, column), -1), base

    @property
    def _matters(self) -> np.ndarray:
        """All but the dispersions."""
        start = sum(value.numel() for value in self.prototype.gate.parameters())
        size = start + sum(value.numel() for value in self.prototype.experts.parameters())
        numbers = np.arange(size)
        return (numbers < start) | (numbers >= start + self.prototype.experts.log_scale.numel())

    def _spreads_in_theta(self) -> SpreadsOfModel:
        """The dispersions are no part of θ: nothing can run away, and there is no floor."""
        return SpreadsOfModel({}, self.coordinates, self.n_experts, {}, torch.tensor(self.rows.weight), None)

    def gauss_newton(self, theta: np.ndarray) -> np.ndarray:
        """Σ w JᵀJ / Σ w, which is the negative Hessian but for the curvature of m times the residuals."""
        self.n_evaluations += 1
        return self._with_prior(self.evaluator.gauss_newton(theta), theta, -1.0)

    def information(self, theta: np.ndarray) -> np.ndarray:
        """The Gauss–Newton matrix per unit of weight."""
        return self.gauss_newton(theta)

    def information_at_kink(self, theta: np.ndarray) -> np.ndarray:
        """The Gauss–Newton matrix, which needs no second derivatives either."""
        return self.gauss_newton(theta)

    def curvature_matrix(self, theta: np.ndarray, information: np.ndarray) -> np.ndarray:
        """The negative Hessian."""
        return -self.exact_hessian(theta)

    def residual_variance(self, theta: np.ndarray) -> float:
        """s² = Σ w ‖e‖² / (e Σ w − parameters), in internal units."""
        residual = self.evaluator.slopes_and_residuals(theta)[1]
        count = self.total_weight * residual.shape[1] - (self.size - len(self.explained(theta)))
        return float(self.rows.weight @ (residual**2).sum(axis=1)) / count if count > 0 else math.nan

    def objective(self, theta: np.ndarray) -> float:
        """−½ Σ w ‖e‖² plus log priors, in the user's units of y."""
        units = self.coordinates.units.target
        factor = 1.0 if units is None else float(units[1][0]) ** 2
        return self.total_weight * factor * self.value_and_gradient(theta)[0]

    def log_likelihood(self, theta: np.ndarray) -> float:
        """NaN: there is none."""
        return math.nan

    def relative_scales(self, theta: np.ndarray) -> None:
        """Least squares has no scales."""
        return

    def as_baseline(self, theta: np.ndarray) -> Baseline:
        """The one-expert fit, with its residual standard deviation in the user's units."""
        base = super().as_baseline(theta)
        return dataclasses.replace(base, scale=math.sqrt(-2.0 * base.objective / self.total_weight))


class GaussNewton:
    """A least-squares problem whose Hessian is minus its Gauss–Newton matrix.

    Newton's method within a trust region is then the Levenberg–Marquardt method (Moré 1978).
    """

    def __init__(self, problem: LeastSquaresProblem) -> None:
        self.problem = problem
        self.bounds = problem.bounds

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The problem's own."""
        return self.problem.value_and_gradient(theta)

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """Minus the Gauss–Newton matrix, curved downward along the symmetries."""
        return self.problem.bend(theta, -self.problem.gauss_newton(theta))
