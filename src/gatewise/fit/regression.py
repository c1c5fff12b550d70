"""Mixtures of regressions with Gaussian errors: counted from the fit of one regression, in units of its residuals.

With logits B φ(x), locations A ψ(x) and scales σ of which nothing is held, θ = (contrasts of B, A − a, log σ/s) with
the coefficients a and the residual standard deviation s of the one-expert fit. Standardising y alone would leave a
steep common slope in every expert, and lose digits where y is far from zero; in these units σ = 1 means "as good as one
regression".
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.coordinates import InternalUnits
from gatewise.fit.gaussian_channels import has_compiled_sweep
from gatewise.fit.internal_rows import InternalRows, internal_inputs, internal_units, refuse_columns
from gatewise.fit.linear_channels import designs
from gatewise.fit.options import FitOptions
from gatewise.fit.result import Baseline
from gatewise.fit.rows import EPSILON, FitRows
from gatewise.fit.standardisation import Standardisation
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import weighted_least_squares

__all__ = ["Regression", "channel_places", "counted_from", "one_regression"]

# A residual deviation below this share of the target's is rounding.
_EXACT = 1e-10


@dataclass(frozen=True)
class Regression:
    """The one-expert fit in closed form, and what a mixture is counted in from there.

    Attributes:
        units: of the inputs, and of the residuals.
        rows: the rows in these units, their targets the residuals.
        column: for each entry of the full vector its place in θ, −1 for the last expert's logit, which is held at 0.
        origin: the full vector with a for every expert, in units of s, and 0 elsewhere.
        baseline: the one-expert fit.
    """

    units: InternalUnits
    rows: InternalRows
    column: np.ndarray
    origin: np.ndarray
    baseline: Baseline


def one_regression(model: MixtureOfExperts, rows: FitRows, options: FitOptions) -> Regression | None:
    """The one-expert fit that a mixture is counted from, or None where a model or its options do not let it.

    A penalty on the experts' slopes and parameters that are held mean those of the model itself.

    Raises:
        InputError: a column is constant or a linear combination of others, or the target is constant.
    """
    free = options.objective == "likelihood" and options.constraints is None and options.expert_ridge == 0.0
    kept = options.standardise == "off" and not (model.gate.affine_equivariant and model.experts.affine_equivariant)
    if not free or kept or not has_compiled_sweep(model) or model.experts.output_change != "affine":
        return None
    places = channel_places(model)
    if places is None:
        return None
    weight, total = rows.weight, float(rows.weight.sum())
    refuse_columns(model, rows, len(places) - model.gate.coefficients(model.gate.own_parameters()).shape[-1])

    units = internal_units(model, rows, standardise=True)
    x, gate_x = internal_inputs(model, rows, units)
    centre = Standardisation.of(rows.y[:, None], weight)
    spread = rows.y - centre.mean[0]
    deviation = math.sqrt(float(weight @ spread**2) / total)
    if deviation <= 8.0 * EPSILON * abs(float(centre.mean[0])) or deviation == 0.0:
        name = shown(rows.names.target)
        raise InputError(f"the target {name} is constant at {rows.y[0]:g}: there is nothing to explain")
    both = designs(model, gate_x, x)
    design = both[1].T
    slope = weighted_least_squares(design, spread, weight)
    residual = spread - slope @ design
    scale = math.sqrt(float(weight @ residual**2) / total)
    if scale <= _EXACT * deviation:
        # One expert explains every row, so its residual is no unit to measure in. The target's own deviation is, and
        # the fit ends on the floor, which says that the likelihood is unbounded.
        slope, residual, scale = np.zeros(len(design)), spread, deviation

    target = torch.from_numpy(centre.mean), torch.tensor([scale], dtype=torch.float64)
    units = replace(units, target=target)
    column, origin = counted_from(model, places, slope / scale)
    log_likelihood = -total * (math.log(scale) + 0.5 * math.log(2.0 * math.pi) + 0.5)
    baseline = Baseline(scale, log_likelihood, log_likelihood, n_parameters=len(slope) + 1)
    internal = InternalRows.of(x, gate_x, torch.from_numpy(residual / scale), math.log(scale), rows, options)
    internal = replace(internal, designs=both if internal.is_fused else None)
    return Regression(units, internal, column, origin, baseline)


def counted_from(
    model: MixtureOfExperts, places: np.ndarray, coefficients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`column` and `origin` of a `Regression` with `channel_places` and with coefficients a (p,) in units of s."""
    n_gate, p = sum(value.numel() for value in model.gate.parameters()), len(coefficients)
    q = n_gate // model.n_experts
    column = np.where(places < n_gate - q, places, np.where(places < n_gate, -1, places - q))
    origin, own = np.zeros(len(places)), (places >= n_gate) & (places < n_gate + model.n_experts * p)
    origin[own] = coefficients[(places[own] - n_gate) % p]
    return column, origin


def channel_places(model: MixtureOfExperts) -> np.ndarray | None:
    """For each entry of the full vector its place among (B, A, dispersions), or None where these are other numbers."""
    generator = np.random.default_rng(0)
    drawn, blocks = [], []
    for part in (model.gate, model.experts):
        inputs = torch.from_numpy(generator.normal(size=(2, part.n_features)))
        basis = part.basis(inputs)
        if basis is None or not bool((basis[:, 0] == 1.0).all()):
            return None
        # Numbers of their own, by which each is found again.
        own = {name: torch.from_numpy(generator.normal(size=tuple(v.shape))) for name, v in part.named_parameters()}
        drawn += [value.reshape(-1) for value in own.values()]
        blocks.append(part.coefficients(own).reshape(-1))
        if "log_scale" in own:
            blocks.append(own["log_scale"].reshape(-1))
    entries, found = torch.cat(drawn).numpy(), torch.cat(blocks).numpy()
    order, found_order = np.argsort(entries), np.argsort(found)
    if len(entries) != len(found) or not np.array_equal(entries[order], found[found_order]):
        return None
    places = np.empty(len(entries), dtype=int)
    places[order] = found_order
    return places
