"""A fitted mixture beside the rows it is judged on: every array that a figure draws, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.estimators.base import GatedEstimator
from gatewise.estimators.inputs import (
    class_labels,
    feature_matrix,
    row_offset,
    row_weights,
    target_columns,
    target_vector,
)
from gatewise.exceptions import InputError
from gatewise.fit.result import FitResult
from gatewise.fit.rows import check_finite, checked_weight
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.report.feature_axis import FeatureAxis
from gatewise.report.reader import Reader
from gatewise.report.targets import TargetKind, observed_numbers

__all__ = ["DRAWN_ROWS", "Evidence", "Profile"]

DRAWN_ROWS = 5_000
_GRID_POINTS = 241


@dataclass(frozen=True)
class Profile:
    """The fitted model along one feature, all other features and the offset held at their weighted means.

    Attributes:
        grid: values of the feature (m,), from its smallest to its largest in the data; if it has two, those.
        gate_weights: π (m, k).
        expert_means: the experts' centres (m, k), or (m, k, e) for targets of several numbers or classes.
        mean: the mixture's centre (m,), or (m, e).
        expert_low: the experts' 5% quantiles (m, k), or None where there are no quantiles.
        expert_high: the experts' 95% quantiles (m, k), or None.
        low: the mixture's 5% quantile (m,), or None.
        high: the mixture's 95% quantile (m,), or None.
    """

    grid: np.ndarray
    gate_weights: np.ndarray
    expert_means: np.ndarray
    mean: np.ndarray
    expert_low: np.ndarray | None = None
    expert_high: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class Evidence:
    """A fitted mixture and the rows of positive weight that it is judged on.

    What has an axis of outputs, written […, e], has it for targets of several numbers, and for classes, whose outputs
    are their probabilities.

    Attributes:
        estimator: the fitted estimator.
        reader: its model, as a function of the inputs.
        inputs: the features (n, d).
        target: y as the model takes it (n,), or (n, columns).
        observed: what was observed of each output, [n, e].
        weight: w (n,), with the meaning of frequencies.
        offset: what is added to the experts' locations (n,), or None.
        responsibilities: P(expert i | x, y), (n, k); for least squares the experts' shares of the weights.
        gate_weights: π(x), (n, k).
        expert_means: the experts' centres [n, k, e].
        fitted: the mixture's centre [n, e].
        deviation: the mixture's standard deviation [n, e], in the units of y; for least squares the root mean square
            of all residuals; None where the family has no standard deviation.
        transform: the probability integral transform P(Y ≤ y | x), (n,), or None where targets are not continuous.
        output_names: what the outputs are: the target, its columns, or its classes.
    """

    estimator: GatedEstimator
    reader: Reader
    inputs: np.ndarray
    target: np.ndarray
    observed: np.ndarray
    weight: np.ndarray
    offset: np.ndarray | None
    responsibilities: np.ndarray
    gate_weights: np.ndarray
    expert_means: np.ndarray
    fitted: np.ndarray
    deviation: np.ndarray | None
    transform: np.ndarray | None
    output_names: tuple[str, ...]

    @classmethod
    def collect(
        cls, estimator: GatedEstimator, X: Any, y: Any, sample_weight: Any = None, offset: Any = None
    ) -> "Evidence":
        """Evaluate a fitted estimator on a table.

        Args:
            estimator: a fitted estimator.
            X: features (n, d), with the columns that the estimator was fitted to.
            y: target (n,), labels of classes (n,), or (n, e) for a family whose targets have several columns.
            sample_weight: (n,) non-negative; rows of weight zero are left out. None for ones.
            offset: log(exposure) of each row (n,), for families with a log link, or None.

        Raises:
            InputError: the columns of X are not those of the fit, a value is missing, y, the weights or the offset do
                not have one number per row of X, a target is none that the family has, or no weight is positive.
            sklearn.exceptions.NotFittedError: the estimator is not fitted.
        """
        check_is_fitted(estimator)
        result, family = estimator.result_, estimator.model_.family
        matrix = feature_matrix(estimator, X, reset=False)
        target, columns = _target(estimator, y)
        if len(target) != len(matrix):
            raise InputError(f"X has {len(matrix)} rows and y {len(target)}: they must be the same")
        weight = checked_weight(row_weights(sample_weight), len(matrix))
        added = row_offset(offset, len(matrix))
        kept = weight > 0.0
        inputs, target, weight = matrix[kept], target[kept], weight[kept]
        added = None if added is None else added[kept]
        check_finite(inputs, estimator.feature_names_)
        check_finite(target.reshape(len(target), -1), columns)
        family.check_target(torch.tensor(target))
        if isinstance(estimator, GatedRegressor) and family.log_link and added is None:
            # An estimator that was fitted with an offset refuses to go on without one.
            estimator.predict(X)
        reader = Reader.of(
            result,
            _columns(estimator, estimator.expert_feature_names_),
            _columns(estimator, estimator.gate_feature_names_),
            inputs,
        )
        observed = observed_numbers(reader.kind, target, reader.n_classes)
        fitted = reader.mixture(inputs, added)
        continuous = reader.has_quantiles and not family.is_discrete
        return cls(
            estimator=estimator,
            reader=reader,
            inputs=inputs,
            target=target,
            observed=observed,
            weight=weight,
            offset=added,
            responsibilities=reader.responsibilities(inputs, target, added),
            gate_weights=reader.weights(inputs),
            expert_means=reader.experts(inputs, added),
            fitted=fitted,
            deviation=_deviation(reader, inputs, target, added, weight, observed - fitted),
            transform=reader.below(inputs, target, added) if continuous else None,
            output_names=_output_names(estimator, reader, columns),
        )

    @property
    def result(self) -> FitResult:
        """The fit."""
        return self.estimator.result_

    @property
    def model(self) -> MixtureOfExperts:
        """The fitted model."""
        return self.reader.model

    @property
    def kind(self) -> TargetKind:
        """What the targets are."""
        return self.reader.kind

    @property
    def is_likelihood(self) -> bool:
        """Whether the fit is one of likelihood, not of least squares."""
        return self.reader.is_likelihood

    @property
    def target_name(self) -> str:
        """What is explained."""
        return self.estimator.target_name_

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
        return list(self.reader.gate_columns)

    @property
    def drawn_outputs(self) -> list[int]:
        """The outputs that have figures of their own: all, but of two classes the second alone."""
        if self.kind is TargetKind.CLASS and len(self.output_names) == 2:
            return [1]
        return list(range(len(self.output_names)))

    def drawn(self, limit: int = DRAWN_ROWS) -> np.ndarray:
        """Indices of the rows that a scatter plot shows: all, or `limit` of them drawn once with a fixed seed."""
        if self.n_rows <= limit:
            return np.arange(self.n_rows)
        return np.sort(np.random.default_rng(0).choice(self.n_rows, size=limit, replace=False))

    def output(self, values: np.ndarray, output: int) -> np.ndarray:
        """One output of an array […, e]; an array without that axis is the only output itself."""
        return values[..., output] if self.observed.ndim == 2 else values

    def centre(self) -> np.ndarray:
        """Weighted means of the features, (d,)."""
        return np.average(self.inputs, axis=0, weights=self.weight)

    def axis(self, feature: int) -> FeatureAxis:
        """How the column `feature` of `inputs` is laid along an axis."""
        return FeatureAxis.of(self.inputs[:, feature])

    def profile(self, feature: int, *, bands: bool = True) -> Profile:
        """The model along the column `feature` of `inputs`, all other columns and the offset at their weighted means.

        Args:
            feature: the column.
            bands: whether quantiles are wanted, where there are any.
        """
        column, reader = self.inputs[:, feature], self.reader
        categories = self.axis(feature).categories
        grid = np.linspace(column.min(), column.max(), _GRID_POINTS) if categories is None else categories
        points = np.tile(self.centre(), (len(grid), 1))
        points[:, feature] = grid
        offset = self._held_offset(len(grid))
        weights, experts = reader.weights(points), reader.experts(points, offset)
        mean = reader.mixture(points, offset)
        if not (bands and reader.has_quantiles):
            return Profile(grid, weights, experts, mean)
        bounds = (*reader.expert_band(points, offset), *reader.mixture_band(points, offset))
        return Profile(grid, weights, experts, mean, *bounds)

    def adjusted_target(self, feature: int, rows: np.ndarray, output: int = 0) -> np.ndarray | None:
        """The target without the other features' and the offset's part: the points of a partial plot.

        yⱼ = y − Σᵢ rᵢ (mᵢ(x) − mᵢ(x with all columns but `feature` at their means)), r the responsibilities and m
        the experts' centres. With a log link it is y · exp(−Σᵢ rᵢ (log mᵢ(x) − log mᵢ(held))), so that counts stay
        counts of something. Least squares has no responsibilities: there it is the residual added to the regression
        function at the held inputs. With one feature and no offset it is y itself.

        Args:
            feature: the column of `inputs` that is not held.
            rows: indices of the rows.
            output: the output.

        Returns:
            One number for each of these rows; None for classes and shares of trials, where such a sum has no meaning.
        """
        observed = self.output(self.observed, output)[rows]
        if self.inputs.shape[1] == 1 and self.offset is None:
            return observed
        if self.kind in (TargetKind.CLASS, TargetKind.SHARE):
            return None
        points = np.tile(self.centre(), (len(rows), 1))
        points[:, feature] = self.inputs[rows, feature]
        offset = self._held_offset(len(rows))
        if not self.is_likelihood:
            held = self.output(self.reader.mixture(points, offset), output)
            return observed - self.output(self.fitted, output)[rows] + held
        held = self.output(self.reader.experts(points, offset), output)
        there = self.output(self.expert_means, output)[rows]
        share = self.responsibilities[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            owed = np.log(there) - np.log(held) if self.model.family.log_link else there - held
        # An expert without a share may have any mean, infinite too.
        total = (share * np.where(share > 0.0, owed, 0.0)).sum(axis=1)
        return observed * np.exp(-total) if self.model.family.log_link else observed - total

    def _held_offset(self, n: int) -> np.ndarray | None:
        return None if self.offset is None else np.full(n, np.average(self.offset, weights=self.weight))


def _deviation(
    reader: Reader,
    inputs: np.ndarray,
    target: np.ndarray,
    offset: np.ndarray | None,
    weight: np.ndarray,
    residual: np.ndarray,
) -> np.ndarray | None:
    if reader.is_likelihood:
        deviation = reader.deviation(inputs, target, offset)
        return deviation if np.isfinite(deviation).all() and not reader.uses_median else None
    root = np.sqrt(np.average(residual**2, axis=0, weights=weight))
    return np.broadcast_to(root, residual.shape).copy()


def _target(estimator: GatedEstimator, y: Any) -> tuple[np.ndarray, list[str]]:
    """The target as the model takes it, (n,) or (n, columns), and the names of its columns."""
    if isinstance(estimator, GatedClassifier):
        labels, name = class_labels(y)
        return _codes(estimator.classes_, labels, name), [name]
    if estimator.model_.family.event_size:
        values, names = target_columns(y)
        if values.shape[1] != estimator.model_.family.event_size:
            size = estimator.model_.family.event_size
            raise InputError(f"y has {values.shape[1]} columns, and the fit was to {size}: give the same")
        return values, names
    return target_vector(y)[0], [estimator.target_name_]


def _codes(classes: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    place = {label: code for code, label in enumerate(classes.tolist())}
    unknown = [row for row, label in enumerate(labels.tolist()) if label not in place]
    if unknown:
        raise InputError(
            f"the target {shown(name)} is {shown(labels.tolist()[unknown[0]])} in row {unknown[0]} ({len(unknown)} "
            f"such rows in all), which is none of the classes of the fit: {', '.join(repr(label) for label in place)}"
        )
    return np.array([float(place[label]) for label in labels.tolist()])


def _output_names(estimator: GatedEstimator, reader: Reader, columns: list[str]) -> tuple[str, ...]:
    if reader.kind is TargetKind.CLASS:
        classes = estimator.classes_ if isinstance(estimator, GatedClassifier) else range(reader.n_classes)
        return tuple(str(label) for label in classes)
    if reader.kind is TargetKind.SHARE:
        return (f"{columns[0]} / {columns[1]}",)
    return tuple(columns) if reader.kind is TargetKind.VECTOR else (estimator.target_name_,)


def _columns(estimator: GatedEstimator, chosen: Sequence[str]) -> list[int]:
    names = list(estimator.feature_names_)
    return [names.index(name) for name in chosen]
