"""Least squares on the mixture's mean, m(x) = Σᵢ wᵢ(x) E[y | expert i]: an objective without a likelihood.

The weights w are those of the gate, normalised or not (Nguyen, Ho and Rinaldo 2024, arXiv:2402.02952 and 2405.13997, as
restated in the literature of the softmax gate). Standard errors come from the Gauss–Newton matrix, which assumes errors
of one variance, or from the sandwich, which does not.
"""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.module_problem import ModuleProblem
from gatewise.fit.options import FitOptions
from gatewise.fit.result import Baseline
from gatewise.fit.rows import FitRows
from gatewise.fit.spreads import SpreadsOfModel
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import jacobian
from gatewise.ops.log_space import log_softmax

__all__ = ["GaussNewton", "LeastSquaresProblem"]


class LeastSquaresProblem(ModuleProblem):
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

    def __init__(self, model: MixtureOfExperts, rows: FitRows, options: FitOptions, baseline: Baseline | None) -> None:
        if options.variance_prior is not None:
            raise InputError("variance_prior belongs to the likelihood; least squares has no variances to hold")
        super().__init__(model, rows, options, baseline)
        self.is_smooth = True

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

    def mean(self, theta: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
        """The regression function m (n,) or (n, e) at some rows, differentiable."""
        arguments = (self._gate_x[rows], self._x[rows], self._offset[rows])
        logits, location, log_scale = torch.func.functional_call(self._channels, self._named(theta), arguments)
        weights = (log_softmax(logits) if self.prototype.gate.normaliser == "softmax" else logits).exp()
        means = self.prototype.family.mean(location, log_scale)
        return (weights.reshape(*weights.shape, *([1] * (means.ndim - 2))) * means).sum(1)

    def _sum(self, theta: Tensor, rows: slice = slice(None)) -> Tensor:
        residual = (self._y[rows] - self.mean(theta, rows)).reshape(len(self._y[rows]), -1)
        return -0.5 * (self._weight[rows].unsqueeze(-1) * residual.square()).sum()

    def _fused_sum(self, theta: Tensor) -> Tensor:
        return self._sum(theta)

    def _jacobian(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∂m/∂θ (n, e, size) and residuals (n, e)."""
        point = self._tensors(theta, requires_grad=False)
        step = self.chunk_rows
        pieces = [
            jacobian(lambda at, low=low: self.mean(at, slice(low, low + step)), point)
            for low in range(0, self.n_rows, step)
        ]
        slopes = torch.cat(pieces).cpu().numpy().astype(float)
        residual = (self._y - self.mean(point)).detach().cpu().numpy().astype(float)
        return slopes.reshape(self.n_rows, -1, self.size), residual.reshape(self.n_rows, -1)

    def gauss_newton(self, theta: np.ndarray) -> np.ndarray:
        """Σ w JᵀJ / Σ w, which is the negative Hessian but for the curvature of m times the residuals."""
        self.n_evaluations += 1
        slopes, _ = self._jacobian(theta)
        weighted = slopes * self.rows.weight[:, None, None]
        matrix = np.tensordot(weighted, slopes, axes=((0, 1), (0, 1))) / self.total_weight
        prior = self._prior_hessian(self._tensors(theta, requires_grad=False))
        return matrix - prior.cpu().numpy().astype(float) / self.total_weight

    def information(self, theta: np.ndarray) -> np.ndarray:
        """The Gauss–Newton matrix per unit of weight."""
        return self.gauss_newton(theta)

    def information_at_kink(self, theta: np.ndarray) -> np.ndarray:
        """The Gauss–Newton matrix, which needs no second derivatives either."""
        return self.gauss_newton(theta)

    def curvature_matrix(self, theta: np.ndarray) -> np.ndarray:
        """The negative Hessian."""
        return -self.exact_hessian(theta)

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """eᵀ ∂m/∂θ for each row, (n, size)."""
        slopes, residual = self._jacobian(theta)
        return (slopes * residual[:, :, None]).sum(axis=1)

    def residual_variance(self, theta: np.ndarray) -> float:
        """s² = Σ w ‖e‖² / (e Σ w − parameters), in internal units."""
        residual = self._jacobian(theta)[1]
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

    @torch.no_grad()
    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """The weights (k, n), normalised where the gate's are not: least squares has no other share of a row."""
        logits, _ = self._evaluate(self._tensors(theta, requires_grad=False))
        return log_softmax(logits).exp().T.cpu().numpy().astype(float)

    def relative_scales(self, theta: np.ndarray) -> None:
        """Least squares has no scales."""
        return

    @torch.no_grad()
    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """m(x) (rows,) or (rows, e)."""
        mean = self.mean(self._tensors(theta, requires_grad=False), torch.from_numpy(rows))
        return mean.cpu().numpy().astype(float)

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
