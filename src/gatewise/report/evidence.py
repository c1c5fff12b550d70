"""A fitted mixture beside the rows it is judged on: every array that a figure draws, computed once."""

from dataclasses import dataclass
from typing import Any, Protocol

import narwhals as nw
import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.result import FitResult
from gatewise.inference import Summary
from gatewise.model import MixtureOfExperts

__all__ = ["DRAWN_ROWS", "Evidence", "FittedRegressor", "Profile"]

DRAWN_ROWS = 5_000
_BAND_LEVEL = 0.9
_GRID_POINTS = 241


class FittedRegressor(Protocol):
    """What a report needs of a fitted estimator; `gatewise.estimators.GatedRegressor` has it."""

    feature_names_: list[str]
    gate_feature_names_: list[str]
    target_name_: str
    model_: MixtureOfExperts
    result_: FitResult
    aic_: float
    bic_: float
    icl_: float

    def responsibilities(self, X: Any, y: Any) -> np.ndarray:
        """P(expert i | x, y), (n, k)."""
        ...

    def summary(self, level: float = 0.95) -> Summary:
        """Estimates, standard errors and statistics as data."""
        ...

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options of the fit."""
        ...


@dataclass(frozen=True)
class Profile:
    """The fitted model along one feature, all other features held at their weighted means.

    Attributes:
        grid: values of the feature (m,), from its smallest to its largest in the data.
        gate_weights: π (m, k).
        expert_means: (m, k).
        expert_low: the experts' 5 % quantiles (m, k).
        expert_high: the experts' 95 % quantiles (m, k).
        mean: the mixture's mean (m,).
        low: the mixture's 5 % quantile (m,).
        high: the mixture's 95 % quantile (m,).
    """

    grid: np.ndarray
    gate_weights: np.ndarray
    expert_means: np.ndarray
    expert_low: np.ndarray
    expert_high: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """A fitted mixture and the rows of positive weight that it is judged on.

    Attributes:
        estimator: the fitted estimator.
        inputs: the features (n, d).
        target: y (n,).
        weight: w (n,), with the meaning of frequencies.
        responsibilities: P(expert i | x, y), (n, k).
        gate_weights: π(x), (n, k).
        expert_means: (n, k).
        fitted: the mixture's mean (n,).
        deviation: the mixture's standard deviation (n,), in the units of y.
        transform: the probability integral transform P(Y ≤ y | x), (n,).
    """

    estimator: FittedRegressor
    inputs: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    responsibilities: np.ndarray
    gate_weights: np.ndarray
    expert_means: np.ndarray
    fitted: np.ndarray
    deviation: np.ndarray
    transform: np.ndarray

    @classmethod
    def collect(cls, estimator: FittedRegressor, X: Any, y: Any, sample_weight: Any = None) -> "Evidence":
        """Evaluate a fitted estimator on a table.

        Args:
            estimator: a fitted `GatedRegressor`, or anything with the attributes of `FittedRegressor`.
            X: features (n, d), with the columns that the estimator was fitted to.
            y: target (n,).
            sample_weight: (n,) non-negative; rows of weight zero are left out. None for ones.

        Raises:
            InputError: y or the weights do not have one number per row of X, or no weight is positive.
        """
        inputs = _matrix(X)
        target = np.asarray(y, dtype=float).ravel()
        weight = np.ones(len(inputs)) if sample_weight is None else np.asarray(sample_weight, dtype=float).ravel()
        for name, column in (("y", target), ("sample_weight", weight)):
            if len(column) != len(inputs):
                raise InputError(
                    f"{name} has {len(column)} rows and X has {len(inputs)}: pass the same rows in the same order"
                )
        kept = weight > 0.0
        if not kept.any():
            raise InputError("every sample_weight is zero: there is no row to report on")
        responsibilities = np.asarray(estimator.responsibilities(X, target), dtype=float)[kept]
        inputs, target, weight = inputs[kept], target[kept], weight[kept]
        model = estimator.model_
        with torch.no_grad():
            x, gate_x = _model_inputs(estimator, inputs)
            return cls(
                estimator=estimator,
                inputs=inputs,
                target=target,
                weight=weight,
                responsibilities=responsibilities,
                gate_weights=_array(model.log_weights(x, gate_x).exp()),
                expert_means=_array(model.family.mean(*model.experts(x))),
                fitted=_array(model.mean(x, gate_x)),
                deviation=_array(model.variance(x, gate_x).sqrt()),
                transform=_array(model.distribution_function(x, _tensor(model, target), gate_x)),
            )

    @property
    def n_rows(self) -> int:
        """Rows of positive weight."""
        return len(self.target)

    @property
    def n_experts(self) -> int:
        """The number of experts k."""
        return self.responsibilities.shape[1]

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns of `inputs`."""
        return [str(name) for name in self.estimator.feature_names_]

    @property
    def gate_features(self) -> list[int]:
        """Columns of `inputs` that the gate sees; empty for constant weights."""
        return _gate_columns(self.estimator)

    def drawn(self, limit: int = DRAWN_ROWS) -> np.ndarray:
        """Indices of the rows that a scatter plot shows: all, or `limit` of them drawn once with a fixed seed."""
        if self.n_rows <= limit:
            return np.arange(self.n_rows)
        return np.sort(np.random.default_rng(0).choice(self.n_rows, size=limit, replace=False))

    def centre(self) -> np.ndarray:
        """Weighted means of the features, (d,)."""
        return np.average(self.inputs, axis=0, weights=self.weight)

    def profile(self, feature: int) -> Profile:
        """The model along the column `feature` of `inputs`, all other columns at their weighted means."""
        column = self.inputs[:, feature]
        grid = np.linspace(column.min(), column.max(), _GRID_POINTS)
        points = np.tile(self.centre(), (len(grid), 1))
        points[:, feature] = grid
        model = self.estimator.model_
        tail = (1.0 - _BAND_LEVEL) / 2.0
        with torch.no_grad():
            x, gate_x = _model_inputs(self.estimator, points)
            experts = model.experts(x)
            below = torch.full((len(grid),), tail, dtype=experts[0].dtype, device=experts[0].device)
            return Profile(
                grid=grid,
                gate_weights=_array(model.log_weights(x, gate_x).exp()),
                expert_means=_array(model.family.mean(*experts)),
                expert_low=_array(model.family.quantile(below, *experts)),
                expert_high=_array(model.family.quantile(1.0 - below, *experts)),
                mean=_array(model.mean(x, gate_x)),
                low=_array(model.quantile(x, tail, gate_x)),
                high=_array(model.quantile(x, 1.0 - tail, gate_x)),
            )

    def adjusted_target(self, feature: int) -> np.ndarray:
        """Y with the other features' part taken out, (n,): the points of a partial-residual plot.

        yⱼ = y − Σᵢ rᵢ (mᵢ(x) − mᵢ(x with all columns but `feature` at their means)), r the responsibilities and m
        the experts' means. With one feature it is y itself.
        """
        if self.inputs.shape[1] == 1:
            return self.target
        points = np.tile(self.centre(), (self.n_rows, 1))
        points[:, feature] = self.inputs[:, feature]
        model = self.estimator.model_
        with torch.no_grad():
            held = _array(model.family.mean(*model.experts(_model_inputs(self.estimator, points)[0])))
        return self.target - (self.responsibilities * (self.expert_means - held)).sum(axis=1)


def _matrix(X: Any) -> np.ndarray:
    table = nw.from_native(X, eager_only=True, pass_through=True)
    values = table.to_numpy() if isinstance(table, nw.DataFrame) else table
    return np.asarray(values, dtype=float)


def _gate_columns(estimator: FittedRegressor) -> list[int]:
    names = list(estimator.feature_names_)
    return [names.index(name) for name in estimator.gate_feature_names_]


def _tensor(model: MixtureOfExperts, values: np.ndarray) -> torch.Tensor:
    like = model.experts.log_scale
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _model_inputs(estimator: FittedRegressor, inputs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    x = _tensor(estimator.model_, inputs)
    return x, x[:, _gate_columns(estimator)]


def _array(values: torch.Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
