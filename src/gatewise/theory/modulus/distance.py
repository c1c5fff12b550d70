"""The distance between a displaced mixture and the truth, as a vector of residuals with derivatives."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gatewise.exceptions import InputError
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Parameters
from gatewise.theory.modulus.coordinates import Coordinates
from gatewise.theory.modulus.design import ModulusDesign
from gatewise.theory.modulus.inputs import InputRule
from gatewise.theory.modulus.kinks import Kinks
from gatewise.theory.modulus.program import Program, derivative_program, value_program
from gatewise.theory.modulus.special import LONG
from gatewise.theory.modulus.targets import target_rule

__all__ = ["MixtureDistance", "check_truth", "flat_parameters"]

_ROUNDINGS = 8.0


class MixtureDistance:
    """Residuals whose norm is the Hellinger distance of densities, or the L2 distance of regression functions.

    With P the quadrature weights over x (and y), the residual of the Hellinger distance is √(P/2) (p − p*)/(√p + √p*),
    and that of L2 is √P (f − f*). Values are formed in 80-bit floats, derivatives in doubles.

    Args:
        truth: the true mixture.
        fitted: a mixture that is the truth when its coordinates are zero.
        coordinates: of the fitted mixture.
        design: distance and quadrature.
        kinks: where on the first axis functions have kinks.

    Attributes:
        size: the number of coordinates.
        floor: the norm of what rounding leaves of a residual that is zero.
        is_exact: whether all is formed in 80-bit floats.
    """

    def __init__(
        self,
        truth: MixtureOfExperts,
        fitted: MixtureOfExperts,
        coordinates: Coordinates,
        design: ModulusDesign,
        kinks: Kinks,
    ) -> None:
        self.coordinates = coordinates
        self.size = coordinates.size
        self._is_l2 = design.distance == "l2"
        self._joint = truth.gate.is_joint and not self._is_l2
        self._normalised = truth.is_normalised and not self._joint
        self._inputs = InputRule(design.inputs, truth.gate.n_features or truth.experts.n_features)
        self._kinks = kinks
        self._true_point = flat_parameters(truth)
        x, weight = self._cut(coordinates.base) if kinks.exist else self._inputs.fixed
        start = x.astype(np.float64)
        self._y, self._dy = (np.zeros(1), np.ones(1)) if self._is_l2 else target_rule(design.targets, truth, start)
        self._truth = _Mixture(truth, start, self._y, self._is_l2)
        self._fitted = _Mixture(fitted, start, self._y, self._is_l2)
        self.is_exact = self._truth.is_exact and self._fitted.is_exact
        self._rule: tuple[Any, ...] | None = None
        if not kinks.exist:
            self._rule = self._prepared(x, weight)
        _, _, target = self._rule or self._prepared(x, weight)
        unit = float(np.finfo(LONG if self.is_exact else np.float64).eps)
        self.floor = _ROUNDINGS * unit * float(np.sqrt((target**2).sum()))

    def _prepared(self, x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes, roots of the weights, and the truth in the form in which residuals want it."""
        long = x.astype(LONG)
        values = self._mixed(self._truth, self._true_point, long)
        roots = np.sqrt(weight.astype(LONG))
        if self._is_l2:
            return long, roots, roots * values
        roots = roots[:, None] * np.sqrt(self._dy.astype(LONG) / 2)
        return long, roots, roots * np.sqrt(values)

    def _at(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._rule is not None:
            return self._rule
        return self._prepared(*self._cut(parameters))

    def _cut(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._inputs.split(self._kinks.breaks(self._true_point, parameters))

    def _weights(self, logits: np.ndarray) -> np.ndarray:
        if not self._normalised:
            return np.exp(logits)
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def _mixed(self, mixture: "_Mixture", parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Regression function (n,), or density (n, number of y)."""
        gate, experts = mixture.split(parameters)
        weights = self._weights(mixture.logits(gate, x))
        location, dispersion = mixture.experts(experts, x)
        if self._is_l2:
            return (weights * location).sum(-1)
        density = np.exp(mixture.family(location[:, None], dispersion))
        return (weights[:, None] * density).sum(-1)

    def residual(self, point: np.ndarray) -> np.ndarray:
        """The residuals at displacements (size,)."""
        parameters = self.coordinates.parameters(point)
        x, roots, target = self._at(parameters)
        values = self._mixed(self._fitted, parameters, x)
        if self._is_l2:
            return roots * values - target
        # √p − √p* loses no more digits than (p − p*)/(√p + √p*), as both are formed in 80 bits from the start.
        return (roots * np.sqrt(values) - target).reshape(-1)

    def jacobian(self, point: np.ndarray) -> np.ndarray:
        """Derivatives (m, size) in doubles; nodes that follow kinks are taken as fixed.

        That leaves the derivative of the norm right, as the residual is continuous over a kink.
        """
        parameters = self.coordinates.parameters(point)
        x, roots, _ = self._at(parameters)
        x, roots = x.astype(np.float64), roots.astype(np.float64)
        mixture = self._fitted
        gate, experts = mixture.split(parameters.astype(np.float64))
        weights = self._weights(mixture.logits(gate, x))
        location, dispersion = mixture.experts(experts, x)
        by_gate = mixture.logits_slope(gate, x)
        by_location, by_dispersion = mixture.experts_slope(experts, x)
        if self._is_l2:
            centred = location - (weights * location).sum(-1, keepdims=True) if self._normalised else location
            found = np.concatenate(
                [
                    np.matmul((weights * centred)[:, None], by_gate)[:, 0],
                    np.matmul(weights[:, None], by_location)[:, 0],
                ],
                axis=-1,
            )
            found *= roots[:, None]
        else:
            spread = location[:, None]
            density = np.exp(mixture.family(spread, dispersion))
            slopes = mixture.family_slope(np.zeros(mixture.channels), spread, dispersion)
            parts = weights[:, None] * density
            mixed = parts.sum(-1)
            centred = parts - weights[:, None] * mixed[..., None] if self._normalised else parts
            expert = 0.0
            outputs = mixture.n_outputs
            scored = parts[..., None] * slopes
            for channel in range(mixture.channels):
                if channel < outputs:
                    change = by_location if outputs == 1 else by_location[:, :, channel]
                else:
                    change = by_dispersion if mixture.n_dispersion == 1 else by_dispersion[:, channel - outputs]
                expert = expert + np.matmul(scored[..., channel], change)
            found = np.concatenate([np.matmul(centred, by_gate), expert], axis=-1)
            found *= (roots / (2 * np.sqrt(mixed)))[..., None]
            found = found.reshape(-1, found.shape[-1])
        return found @ self.coordinates.derivative(point)

    def norm(self, point: np.ndarray) -> float:
        """The distance at displacements (size,)."""
        residual = self.residual(point)
        return float(np.sqrt(residual @ residual))


class _Mixture:
    """Programs of a mixture's parts."""

    def __init__(self, model: MixtureOfExperts, x: np.ndarray, y: np.ndarray, is_l2: bool) -> None:
        gate, experts, family = model.gate, model.experts, model.family
        self.n_outputs, self.n_dispersion = family.n_outputs, family.n_dispersion
        self.channels = self.n_outputs + self.n_dispersion
        point = flat_parameters(model)
        self._n_gate = sum(value.numel() for value in gate.own_parameters().values())
        first, second = point[: self._n_gate], point[self._n_gate :]
        see = (lambda z: z) if gate.n_features else (lambda z: z[..., :0])

        def logits(theta: Tensor, inputs: Tensor) -> Tensor:
            return functional_call(_Method(gate, "logits"), _named(gate, theta, "module."), (see(inputs),))

        def parameters(theta: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return functional_call(experts, _named(experts, theta), (inputs,))

        self.logits = value_program(logits, first, x)
        self.experts = value_program(parameters, second, x)
        self._slopes: dict[str, Callable[[], Program]] = {
            "logits": lambda: derivative_program(logits, first, x),
            "experts": lambda: derivative_program(parameters, second, x),
        }
        self.is_exact = self.logits.is_exact and self.experts.is_exact
        if is_l2:
            return
        targets = torch.from_numpy(y).unsqueeze(0)
        location, dispersion = self.experts(second, x)

        def log_density(spread: Tensor, scale: Tensor) -> Tensor:
            return family.log_density(targets, spread, scale)

        def moved(amounts: Tensor, spread: Tensor, scale: Tensor) -> Tensor:
            step = amounts[: self.n_outputs]
            spread = spread + (step[0] if self.n_outputs == 1 else step)
            if self.n_dispersion:
                change = amounts[self.n_outputs :]
                scale = scale + (change[0] if self.n_dispersion == 1 else change)
            return log_density(spread, scale)

        self.family: Program = value_program(log_density, location[:, None], dispersion)
        zero = np.zeros(self.channels)
        self._slopes["family"] = lambda: derivative_program(moved, zero, location[:, None], dispersion)
        self.is_exact = self.is_exact and self.family.is_exact

    @cached_property
    def logits_slope(self) -> Program:
        """Derivatives of the logits by the gate's parameters; recorded when first wanted, as the others."""
        return self._slopes["logits"]()

    @cached_property
    def experts_slope(self) -> Program:
        """Derivatives of locations and dispersions by the experts' parameters."""
        return self._slopes["experts"]()

    @cached_property
    def family_slope(self) -> Program:
        """Derivatives of the log density by each location and dispersion."""
        return self._slopes["family"]()

    def split(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the gate, and those of the experts."""
        return parameters[: self._n_gate], parameters[self._n_gate :]


class _Method(nn.Module):
    """A module whose call is one of another module's methods."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self._method = method

    def forward(self, *arguments: Tensor) -> Tensor:
        return getattr(self.module, self._method)(*arguments)


def _named(module: Any, theta: Tensor, prefix: str = "") -> Parameters:
    """The module's parameters as parts of one vector."""
    found, at = {}, 0
    for name, value in module.own_parameters().items():
        found[prefix + name] = theta[at : at + value.numel()].reshape(value.shape)
        at += value.numel()
    return found


def flat_parameters(model: MixtureOfExperts) -> np.ndarray:
    """All parameters of gate and experts, in that order, as 80-bit floats."""
    parts: Sequence[Tensor] = [
        value.reshape(-1) for part in (model.gate, model.experts) for value in part.own_parameters().values()
    ]
    return torch.cat(list(parts)).numpy().astype(LONG)


def check_truth(truth: MixtureOfExperts, design: ModulusDesign) -> None:
    """Refuse what has no such distance, or not in this form.

    Raises:
        InputError: with what it is and what to do.
    """
    if truth.gate_scaler is not None or truth.expert_scaler is not None:
        raise InputError("the modulus takes a truth in its own units: build it without stored standardisation")
    if any(value.dtype != torch.float64 for value in truth.state_dict().values() if value.is_floating_point()):
        raise InputError("the modulus needs double precision: call .double() on the truth")
    if truth.gate.n_features not in (0, truth.experts.n_features):
        raise InputError(
            f"gate and experts must see the same inputs, and they have {truth.gate.n_features} and "
            f"{truth.experts.n_features}"
        )
    if design.distance == "l2":
        if not truth.family.is_location_scale or truth.family.event_size:
            raise InputError(
                f"least squares compares means: take a family whose location is one, not the {truth.family.name} family"
            )
    elif not truth.is_normalised and not truth.gate.is_joint:
        raise InputError(f"the {truth.gate.name} gate has no density: take distance = 'l2'")
    if design.distance == "hellinger" and truth.gate.is_joint and not getattr(design.inputs, "volume", False):
        raise InputError("the gate is a density of x too: let the inputs carry the volume, volume = true")
