"""Linear Gaussian experts with a softmax gate: the rows in internal units, channel-major for the compiled pass."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gatewise.exceptions import InputError
from gatewise.experts import ConstantExperts
from gatewise.fit.coordinates import Layout, LinearCoordinates, Standardisation
from gatewise.fit.problem import StartRows
from gatewise.fit.result import Baseline
from gatewise.fit.rows import EPSILON, FitRows, check_columns
from gatewise.fit.working_residual import working_start_rows
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import weighted_least_squares

__all__ = ["LinearData", "linear_data"]


@dataclass(frozen=True)
class LinearData:
    """Rows with a positive weight, in internal units, with the designs channel-major.

    Attributes:
        gate_design: (q, n).
        design: (p, n).
        y: residual of the one-expert fit over its standard deviation (n,).
        weight: (n,).
        coordinates: the way back to user units.
        baseline: the one-expert fit.
        rows: the rows in the user's units.
        prototype: the model that is fitted.
    """

    gate_design: np.ndarray
    design: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    coordinates: LinearCoordinates
    baseline: Baseline
    rows: FitRows
    prototype: MixtureOfExperts

    @property
    def layout(self) -> Layout:
        """How θ is laid out."""
        return self.coordinates.layout

    @property
    def n_rows(self) -> int:
        """Rows with a positive weight."""
        return len(self.y)

    @property
    def is_saturated(self) -> bool:
        """Whether there are fewer rows than parameters."""
        return self.n_rows < self.layout.size

    @cached_property
    def total_weight(self) -> float:
        """Σ w."""
        return float(self.weight.sum())

    @cached_property
    def same_design(self) -> bool:
        """Whether the gate and the experts see the same covariates."""
        return self.gate_design is self.design or np.array_equal(self.gate_design, self.design)

    @cached_property
    def start_rows(self) -> StartRows:
        """What the strategies of a start look at."""
        model = self.prototype
        constant = isinstance(model.experts, ConstantExperts)
        return working_start_rows(model.family, self.rows, model.n_experts, constant, with_gate=False)


def linear_data(model: MixtureOfExperts, rows: FitRows) -> LinearData:
    """Change to internal units.

    Args:
        model: the prototype; its channels are linear and its family Gaussian (see `fit.problem.is_linear_gaussian`).
        rows: the checked rows.

    Raises:
        InputError: a column is constant or a linear combination of others, or the target is constant.
    """
    x, y, gate_x, weight = rows.x, rows.y, rows.gate_x, rows.weight
    k = model.n_experts
    constant_experts = isinstance(model.experts, ConstantExperts)
    features, gate_features = Standardisation.of(x, weight), Standardisation.of(gate_x, weight)
    full_design, gate_design = features.design(x), gate_features.design(gate_x)
    design = full_design[:1] if constant_experts else full_design
    layout = Layout(k, len(gate_design), len(design), model.experts.shared_scale)
    if len(y) >= layout.size:
        check_columns(x, features, full_design, weight, rows.names.features)
        check_columns(gate_x, gate_features, gate_design, weight, rows.names.gate_features)

    centre = Standardisation.of(y[:, None], weight)
    spread = y - centre.mean[0]
    deviation = math.sqrt(float(weight @ spread**2) / float(weight.sum()))
    if deviation <= 8.0 * EPSILON * abs(float(centre.mean[0])) or deviation == 0.0:
        raise InputError(f"the target {shown(rows.names.target)} is constant at {y[0]:g}: there is nothing to explain")
    slope = weighted_least_squares(design, spread, weight)
    residual = spread - slope @ design
    scale = math.sqrt(float(weight @ residual**2) / float(weight.sum()))
    if scale <= 1e-10 * deviation:
        # One expert explains every row, so its residual is no unit to measure in. The target's own deviation is, and
        # the fit ends on the floor, which says that the likelihood is unbounded.
        slope, residual, scale = np.zeros(len(design)), spread, deviation

    total = float(weight.sum())
    user_slope = np.zeros(x.shape[1])
    user_slope[: len(design) - 1] = slope[1:] / features.scale[: len(design) - 1]
    intercept = float(centre.mean[0] + slope[0] - user_slope @ features.mean)
    log_likelihood = -total * (math.log(scale) + 0.5 * math.log(2.0 * math.pi) + 0.5)
    baseline = Baseline(scale, log_likelihood, log_likelihood, n_parameters=len(design) + 1)
    coordinates = LinearCoordinates(layout, features, gate_features, intercept, user_slope[: len(design) - 1], scale)
    return LinearData(gate_design, design, residual / scale, weight, coordinates, baseline, rows, model)
