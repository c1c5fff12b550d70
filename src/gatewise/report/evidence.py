"""A fitted mixture beside the rows it is judged on: every array that a figure draws, computed once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from gatewise.estimators import GatedRegressor
from gatewise.estimators.inputs import feature_matrix, row_weights, target_vector
from gatewise.exceptions import InputError
from gatewise.fit.data import check_finite, checked_weight
from gatewise.model import MixtureOfExperts

__all__ = ["DRAWN_ROWS", "Evidence", "Profile"]

DRAWN_ROWS = 5_000
_BAND_LEVEL = 0.9
_GRID_POINTS = 241


@dataclass(frozen=True)
class Profile:
    """The fitted model along one feature, all other features held at their weighted means.

    Attributes:
        grid: values of the feature (m,), from its smallest to its largest in the data.
        gate_weights: π (m, k).
        expert_means: (m, k).
        expert_low: the experts' 5% quantiles (m, k).
        expert_high: the experts' 95% quantiles (m, k).
        mean: the mixture's mean (m,).
        low: the mixture's 5% quantile (m,).
        high: the mixture's 95% quantile (m,).
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

    estimator: GatedRegressor
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
    def collect(cls, estimator: GatedRegressor, X: Any, y: Any, sample_weight: Any = None) -> "Evidence":
        """Evaluate a fitted estimator on a table.

        Args:
            estimator: a fitted `GatedRegressor`.
            X: features (n, d), with the columns that the estimator was fitted to.
            y: target (n,).
            sample_weight: (n,) non-negative; rows of weight zero are left out. None for ones.

        Raises:
            InputError: the columns of X are not those of the fit, a value is missing, y or the weights do not have
                one number per row of X, or no weight is positive.
            sklearn.exceptions.NotFittedError: the estimator is not fitted.
        """
        check_is_fitted(estimator)
        matrix = feature_matrix(estimator, X, reset=False)
        target, _ = target_vector(y)
        if len(target) != len(matrix):
            raise InputError(f"X has {len(matrix)} rows and y {len(target)}: they must be the same")
        weight = checked_weight(row_weights(sample_weight), len(matrix))
        kept = weight > 0.0
        inputs, target, weight = matrix[kept], target[kept], weight[kept]
        check_finite(inputs, estimator.feature_names_)
        check_finite(target[:, None], [estimator.target_name_])
        model = estimator.model_
        with torch.no_grad():
            x, gate_x = _model_inputs(estimator, inputs)
            y_values = _tensor(model, target)
            return cls(
                estimator=estimator,
                inputs=inputs,
                target=target,
                weight=weight,
                responsibilities=_array(model.responsibilities(x, y_values, gate_x)),
                gate_weights=_array(model.log_weights(x, gate_x).exp()),
                expert_means=_array(model.family.mean(*model.experts(x))),
                fitted=_array(model.mean(x, gate_x)),
                deviation=_array(model.variance(x, gate_x).sqrt()),
                transform=_array(model.distribution_function(x, y_values, gate_x)),
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
        return list(self.estimator.feature_names_)

    @property
    def gate_features(self) -> list[int]:
        """Columns of `inputs` that the gate sees; empty for constant weights."""
        return _columns(self.estimator, self.estimator.gate_feature_names_)

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

    def adjusted_target(self, feature: int, rows: np.ndarray) -> np.ndarray:
        """The target without the other features' part, for the rows of those indices: the points of a partial plot.

        yⱼ = y − Σᵢ rᵢ (mᵢ(x) − mᵢ(x with all columns but `feature` at their means)), r the responsibilities and m
        the experts' means. With one feature it is y itself.
        """
        if self.inputs.shape[1] == 1:
            return self.target[rows]
        points = np.tile(self.centre(), (len(rows), 1))
        points[:, feature] = self.inputs[rows, feature]
        model = self.estimator.model_
        with torch.no_grad():
            held = _array(model.family.mean(*model.experts(_model_inputs(self.estimator, points)[0])))
        owed = self.responsibilities[rows] * (self.expert_means[rows] - held)
        return self.target[rows] - owed.sum(axis=1)


def _columns(estimator: GatedRegressor, chosen: list[str]) -> list[int]:
    names = list(estimator.feature_names_)
    return [names.index(name) for name in chosen]


def _tensor(model: MixtureOfExperts, values: np.ndarray) -> torch.Tensor:
    like = model.experts.log_scale
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _model_inputs(estimator: GatedRegressor, inputs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    x = _tensor(estimator.model_, inputs)
    columns = (
        _columns(estimator, chosen) for chosen in (estimator.expert_feature_names_, estimator.gate_feature_names_)
    )
    expert_x, gate_x = (x[:, chosen] for chosen in columns)
    return expert_x, gate_x


def _array(values: torch.Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
