"""The data of a fit: checked at the door, then in internal units."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gatewise.exceptions import InputError
from gatewise.experts import ConstantExperts, LinearExperts
from gatewise.families import Gaussian
from gatewise.fit.coordinates import Coordinates, Layout, Standardisation
from gatewise.fit.result import Baseline
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from gatewise.ops.linalg import dependent_columns, weighted_least_squares

__all__ = ["FitData", "check_finite", "checked_weight", "prepare"]

_LARGEST = 1e100
_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class FitData:
    """Rows with a positive weight, in internal units, with the designs channel-major.

    Attributes:
        gate_design: (q, n).
        design: (p, n).
        covariates: the experts' standardised covariates (d, n), also where the experts are constant.
        y: residual of the one-expert fit over its standard deviation (n,).
        weight: (n,).
        coordinates: the way back to user units.
        baseline: the one-expert fit.
        kept: which of the caller's rows these are, a mask.
    """

    gate_design: np.ndarray
    design: np.ndarray
    covariates: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    coordinates: Coordinates
    baseline: Baseline
    kept: np.ndarray

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
    def sorted_rows(self) -> np.ndarray:
        """Row numbers in an order that depends on the rows' content only, so that draws do not depend on theirs."""
        return np.lexsort([*self.gate_design[1:], *self.covariates, self.y])


def prepare(
    model: MixtureOfExperts,
    x: np.ndarray,
    y: np.ndarray,
    gate_x: np.ndarray | None,
    sample_weight: np.ndarray | None,
    names: tuple[list[str], list[str], str] | None = None,
) -> FitData:
    """Check the arrays and change to internal units.

    Args:
        model: the prototype that says how many experts, features and scales there are.
        x: experts' covariates (n, d).
        y: target (n,).
        gate_x: gate's covariates (n, d_gate); None for x, or for nothing if the gate has no features.
        sample_weight: non-negative row weights (n,), or None for ones. They count as frequencies.
        names: the experts' features, the gate's features and the target, for messages.

    Raises:
        InputError: something about the data cannot be used.
    """
    if not (
        isinstance(model.gate, SoftmaxGate)
        and isinstance(model.experts, LinearExperts | ConstantExperts)
        and isinstance(model.family, Gaussian)
    ):
        raise InputError(
            f"cannot fit {type(model.gate).__name__} with {type(model.experts).__name__} and "
            f"{type(model.family).__name__}: fits take a SoftmaxGate, LinearExperts or ConstantExperts, and Gaussian"
        )
    x, y = _matrix("X", x), np.asarray(y, dtype=float)
    if gate_x is None:
        gate_x = x[:, :0] if model.gate.n_features == 0 else x
    gate_x = _matrix("the gate's X", gate_x)
    if names is None:
        names = ([f"x{j}" for j in range(x.shape[1])], [f"x{j}" for j in range(gate_x.shape[1])], "y")
    feature_names, gate_names, target_name = names
    _check_shapes(model, x, y, gate_x)
    check_finite(x, feature_names)
    check_finite(gate_x, gate_names)
    check_finite(y[:, None], [target_name])
    weight = checked_weight(sample_weight, len(y))
    kept = weight > 0.0
    x, y, gate_x, weight = x[kept], y[kept], gate_x[kept], weight[kept]
    k = model.n_experts
    smallest = max(k, 2)
    if len(y) < smallest:
        raise InputError(
            f"{k} {'expert needs' if k == 1 else 'experts need'} at least {smallest} rows with a positive weight; "
            f"there are {len(y)}: n_samples = {len(y)}"
        )

    constant_experts = isinstance(model.experts, ConstantExperts)
    features, gate_features = Standardisation.of(x, weight), Standardisation.of(gate_x, weight)
    full_design, gate_design = features.design(x), gate_features.design(gate_x)
    design = full_design[:1] if constant_experts else full_design
    layout = Layout(k, len(gate_design), len(design), model.experts.shared_scale)
    if len(y) >= layout.size:
        _check_columns(x, features, full_design, weight, feature_names)
        _check_columns(gate_x, gate_features, gate_design, weight, gate_names)

    centre = Standardisation.of(y[:, None], weight)
    spread = y - centre.mean[0]
    deviation = math.sqrt(float(weight @ spread**2) / float(weight.sum()))
    if deviation <= 8.0 * _EPSILON * abs(float(centre.mean[0])) or deviation == 0.0:
        raise InputError(f"the target {target_name!r} is constant at {y[0]:g}: there is nothing to explain")
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
    baseline = Baseline(
        intercept=intercept,
        slope=user_slope,
        scale=scale,
        log_likelihood=-total * (math.log(scale) + 0.5 * math.log(2.0 * math.pi) + 0.5),
        n_parameters=len(design) + 1,
    )
    coordinates = Coordinates(layout, features, gate_features, intercept, user_slope[: len(design) - 1], scale)
    return FitData(gate_design, design, full_design[1:], residual / scale, weight, coordinates, baseline, kept)


def _matrix(what: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 2:
        raise InputError(f"{what} must be a table (rows, columns); got an array of shape {array.shape}")
    return array


def _check_shapes(model: MixtureOfExperts, x: np.ndarray, y: np.ndarray, gate_x: np.ndarray) -> None:
    if y.ndim != 1 or len(y) != len(x) or len(gate_x) != len(x):
        raise InputError(f"X has {len(x)} rows, the gate's X {len(gate_x)} and y has shape {y.shape}: make them agree")
    if x.shape[1] != model.experts.n_features or gate_x.shape[1] != model.gate.n_features:
        raise InputError(
            f"the experts take {model.experts.n_features} features and the gate {model.gate.n_features}; "
            f"got {x.shape[1]} and {gate_x.shape[1]} columns"
        )


def check_finite(columns: np.ndarray, names: list[str]) -> None:
    """Refuse NaN, infinities and numbers whose squares overflow, (n, d), naming the column and the row.

    Raises:
        InputError: there is such a value.
    """
    bad = ~(np.abs(columns) < _LARGEST)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"column {names[column]!r} has the value {columns[row, column]} in row {row} ({int(bad.sum())} such "
            "values in all): remove or impute rows with NaN or infinity, and rescale columns that reach 1e100"
        )


def checked_weight(sample_weight: np.ndarray | None, n: int) -> np.ndarray:
    """One weight per row, (n,): ones without `sample_weight`.

    Raises:
        InputError: not one number per row, one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(sample_weight, dtype=float)
    if weight.shape != (n,):
        raise InputError(f"sample_weight has shape {weight.shape}; it must be one number for each of the {n} rows")
    bad = ~((weight >= 0.0) & (weight < _LARGEST))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"sample_weight is {weight[row]} in row {row}: weights must be finite and not negative")
    if not weight.any():
        raise InputError("every sample_weight is zero: at least one row must count")
    return weight


def _check_columns(
    x: np.ndarray, standardised: Standardisation, design: np.ndarray, weight: np.ndarray, names: list[str]
) -> None:
    # Rounding at a distance of `offset` standard deviations from zero leaves this much of a column undetermined.
    offset = np.abs(standardised.mean) / standardised.scale
    constant = np.ptp(x, axis=0) <= 8.0 * _EPSILON * np.abs(standardised.mean)
    if constant.any():
        column = int(np.flatnonzero(constant)[0])
        raise InputError(
            f"column {names[column]!r} is constant at {x[0, column]:g}: remove it, the intercept is always there"
        )
    tolerance = 1e-10 + 8.0 * _EPSILON * float(offset.max(initial=0.0))
    dependent = [names[index - 1] for index in dependent_columns(design, weight, tolerance)]
    if dependent:
        listed = ", ".join(repr(name) for name in dependent)
        raise InputError(f"column {listed} is a linear combination of the columns before it: remove it")
