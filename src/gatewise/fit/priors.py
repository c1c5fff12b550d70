"""The log priors of the general path, on named parameters in internal units."""

import math

from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.options import FitOptions
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Parameters

__all__ = ["log_prior"]


def log_prior(
    options: FitOptions, model: MixtureOfExperts, named: Parameters, base_scale: float, zero: Tensor
) -> Tensor:
    """−λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes, −λ/2 Σ a² on the experts', and inverse-gamma densities of the variances.

    Args:
        options: `gate_ridge`, `expert_ridge` and `variance_prior`.
        model: whose parameters.
        named: "gate.…" and "experts.…".
        base_scale: the one-expert scale in internal units, to which the prior of the variances is relative.
        zero: a zero () of the right kind.

    Raises:
        InputError: a prior is asked for that the model has no parameters for.
    """
    total = zero
    if options.gate_ridge > 0.0:
        if "gate.weight" not in named:
            raise InputError(f"gate_ridge needs a gate with slopes; the {model.gate.name} gate has none")
        slopes = named["gate.weight"]
        total = total - 0.5 * options.gate_ridge * ((slopes - slopes.mean(0)) ** 2).sum()
    if options.expert_ridge > 0.0:
        weights = [value for name, value in named.items() if name.startswith("experts.") and name.endswith("weight")]
        if not weights:
            raise InputError(f"expert_ridge needs experts with slopes; {model.experts.name} experts have none")
        for value in weights:
            total = total - 0.5 * options.expert_ridge * value.square().sum()
    if options.variance_prior is not None:
        if not model.family.has_scale or model.family.n_dispersion != 1:
            raise InputError(f"variance_prior needs one scale per expert; {model.family.name} has none")
        a, b = options.variance_prior
        log_scale = named["experts.log_scale"] - math.log(base_scale)
        total = total - (2.0 * (a + 1.0) * log_scale + b * (-2.0 * log_scale).exp()).sum()
    return total
