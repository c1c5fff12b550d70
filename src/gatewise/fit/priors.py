"""The log priors by θ: ridges, which are quadratic in it, and inverse-gamma densities of the variances."""

import math

import numpy as np

from gatewise.exceptions import InputError
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.options import FitOptions

__all__ = ["LogPrior"]


class LogPrior:
    """−λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes, −λ/2 Σ a² on the experts', and inverse-gamma densities of the variances.

    The last are −2 (a + 1) log σ − b / σ² for each free scale, up to a constant. All are in internal units, the
    variances relative to the one-expert one.

    Args:
        options: `gate_ridge`, `expert_ridge` and `variance_prior`.
        coordinates: θ to parameters.
        base_scale: the one-expert scale in internal units.

    Raises:
        InputError: a prior is asked for that the model has no parameters for.
    """

    def __init__(self, options: FitOptions, coordinates: Coordinates, base_scale: float) -> None:
        model, size = coordinates.prototype, coordinates.size
        self.is_flat = options.gate_ridge == options.expert_ridge == 0.0 and options.variance_prior is None
        self._coordinates = coordinates
        if options.gate_ridge > 0.0 and "gate.weight" not in coordinates.names:
            raise InputError(f"gate_ridge needs a gate with slopes; the {model.gate.name} gate has none")
        if options.expert_ridge > 0.0 and not self._slopes():
            raise InputError(f"expert_ridge needs experts with slopes; {model.experts.name} experts have none")
        if options.variance_prior is not None and (not model.family.has_scale or model.family.n_dispersion != 1):
            raise InputError(f"variance_prior needs one scale per expert; {model.family.name} has none")
        self._curvature, self._slope, self._constant = np.zeros((size, size)), np.zeros(size), 0.0
        if options.gate_ridge > 0.0:
            k = model.n_experts
            for column, base in zip(*(each.reshape(k, -1).T for each in self._entries("gate.weight")), strict=True):
                self._add(column, base, options.gate_ridge * (np.eye(k) - 1.0 / k))
        if options.expert_ridge > 0.0:
            for name in self._slopes():
                for column, base in zip(*(each.reshape(-1, 1) for each in self._entries(name)), strict=True):
                    self._add(column, base, np.array([[options.expert_ridge]]))
        self._gamma = options.variance_prior
        if self._gamma is not None:
            column, held = (each.reshape(-1) for each in self._entries("experts.log_scale"))
            self._scales = (column[:, None] == np.arange(size)).astype(float)
            self._logarithms = np.where(column < 0, held, 0.0) - math.log(base_scale)

    def _slopes(self) -> list[str]:
        return [name for name in self._coordinates.names if name.startswith("experts.") and name.endswith("weight")]

    def _entries(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """For each entry of a parameter its place in θ, −1 if it is held, and what it holds then."""
        known = self._coordinates
        return known.parameters(known.column)[name].numpy(), known.parameters(known.base)[name].numpy()

    def _add(self, column: np.ndarray, base: np.ndarray, precision: np.ndarray) -> None:
        """Add −½ vᵀPv of some entries v, of which those without a place in θ are held."""
        free = column >= 0
        held, places = np.where(free, 0.0, base), column[free]
        pull = precision @ held
        np.add.at(self._curvature, np.ix_(places, places), -precision[np.ix_(free, free)])
        np.add.at(self._slope, places, -pull[free])
        self._constant -= 0.5 * float(held @ pull)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The log priors and their gradient."""
        turned = self._curvature @ theta
        value, gradient = self._constant + float((self._slope + 0.5 * turned) @ theta), self._slope + turned
        if self._gamma is not None:
            a, b = self._gamma
            log_scale = self._logarithms + self._scales @ theta
            precision = np.exp(-2.0 * log_scale)
            value -= float((2.0 * (a + 1.0) * log_scale + b * precision).sum())
            gradient = gradient - (2.0 * (a + 1.0) - 2.0 * b * precision) @ self._scales
        return value, gradient

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """Their Hessian, (size, size)."""
        if self._gamma is None:
            return self._curvature
        precision = np.exp(-2.0 * (self._logarithms + self._scales @ theta))
        return self._curvature - 4.0 * self._gamma[1] * (self._scales.T * precision) @ self._scales
