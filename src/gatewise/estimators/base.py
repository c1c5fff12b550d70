"""What the estimators share: columns, the fit, what it leaves behind, and what needs no target's kind."""

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from gatewise.estimators.inputs import (
    ColumnChoice,
    chosen_columns,
    feature_matrix,
    row_offset,
    row_weights,
    series_name,
)
from gatewise.estimators.seeds import RandomState, seed_from
from gatewise.estimators.storage import FittedData, Storable
from gatewise.exceptions import (
    DegenerateExpertWarning,
    FitWarning,
    InputError,
    SeparationWarning,
    WeakSearchWarning,
)
from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.fit import FitOptions, FitResult, FitStatus, fit
from gatewise.fit.constraints import Constraints
from gatewise.fit.names import Names
from gatewise.fit.options import Init
from gatewise.fit.rows import check_finite, check_offset, check_row_count, checked_weight
from gatewise.gates import Gate
from gatewise.inference import (
    SquaredErrors,
    Summary,
    confidence_intervals,
    covariance,
    information_criteria,
    parameter_table,
    squared_errors,
    summarise,
)
from gatewise.io import check_level
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.parts.coefficients import linear_coefficients
from gatewise.spec.model import prototype

__all__ = ["GatedEstimator", "Target", "check_lengths"]

_DEGENERATE = (FitStatus.ON_FLOOR, FitStatus.EMPTY_EXPERT, FitStatus.TIGHT)
_SEPARATED = (FitStatus.SEPARATED, FitStatus.EXPERT_SEPARATED)


class Target(NamedTuple):
    """A target as a fit takes it.

    Attributes:
        values: (n,) or (n, e), classes as codes.
        name: of the target.
        outputs: names of what an expert's location is about, see `Names`.
        reference: the class against which logits are taken.
        columns: names of the target's columns, where it has several.
    """

    values: np.ndarray
    name: str
    outputs: tuple[str, ...] = ()
    reference: str | None = None
    columns: tuple[str, ...] = ()


class GatedEstimator(Storable):
    """A mixture of experts behind scikit-learn's conventions; subclasses say what a target is.

    The parameters are documented where a subclass lists them.
    """

    n_experts: int
    gate: str | Gate
    expert: str | Experts
    gate_features: ColumnChoice
    gate_options: Mapping[str, Any] | None
    expert_options: Mapping[str, Any] | None
    expert_features: ColumnChoice
    standardise: str
    constraints: Constraints | None
    n_starts: int | str
    init: Init
    max_iter: int
    tol: float
    time_limit: float | None
    gate_ridge: float
    expert_ridge: float
    n_jobs: int | None
    n_threads: int
    device: str
    dtype: str
    verbose: bool
    random_state: RandomState
    status_: FitStatus
    feature_names_: list[str]
    expert_feature_names_: list[str]
    gate_feature_names_: list[str]

    def _take(self, told: Mapping[str, Any]) -> None:
        """Keep the parameters of the constructor as they are: they are checked when a fit begins."""
        for name in told.keys() - {"self"}:
            setattr(self, name, told[name])

    @abstractmethod
    def _coded_target(self, y: Any, n: int) -> np.ndarray:
        """The targets of n rows in the form of the fit, checked but for blanks, which are NaN.

        They may be rows that the fit has not seen.
        """

    def _has_shared_scale(self) -> bool:
        return False

    def _fit_target(
        self,
        matrix: np.ndarray,
        target: Target,
        family: Family,
        sample_weight: np.ndarray | None,
        offset: Any,
        weights_name: str | None,
    ) -> Self:
        """Fit the columns of X, already a matrix, to a target; set all that a fit leaves behind."""
        names = [str(name) for name in getattr(self, "feature_names_in_", [f"x{j}" for j in range(matrix.shape[1])])]
        columns = chosen_columns("expert_features", self.expert_features, names)
        gate_columns = (
            columns if self.gate_features is None else chosen_columns("gate_features", self.gate_features, names)
        )
        # Compared before anything is built, which takes memory for every expert.
        counted = checked_weight(sample_weight, len(matrix)) > 0.0
        check_row_count(self._number_of_experts(), int(counted.sum()))
        expert_names = [names[column] for column in columns]
        gate_names = [names[column] for column in gate_columns]
        added = row_offset(offset, len(matrix))
        named = Names(
            expert_names,
            gate_names,
            target.name,
            target.outputs,
            target.reference,
            None if added is None else series_name(offset) or "offset",
            weights_name,
        )
        result = fit(
            self._prototype(family, len(gate_columns), len(columns)),
            matrix[:, columns],
            target.values,
            gate_x=matrix[:, gate_columns],
            sample_weight=sample_weight,
            offset=added,
            options=self._fit_options(),
            names=named,
        )
        self._data = FittedData(
            features=names,
            are_named=hasattr(self, "feature_names_in_"),
            expert_columns=columns,
            gate_columns=gate_columns,
            target_columns=target.columns,
            offset=named.offset,
        )
        self._names = named
        self._metadata = None
        self._keep(result)
        if result.kind == "least_squares":
            self._errors = self._squared_errors(matrix, target.values, sample_weight, added)
        self._set_estimates()
        if result.status is not FitStatus.CONVERGED:
            # Two frames up is the caller of `fit`.
            warnings.warn(result.findings[0].message, _warning_of(result.status), stacklevel=3)
        return self

    def _forget(self) -> None:
        """Drop what an earlier fit has left: if the next one fails nothing is fitted, and not all have all of it."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)

    @property
    def names_(self) -> Names:
        """What columns and parameters are called in tables and findings."""
        check_is_fitted(self)
        return self._names

    def gate_weights(self, X: Any) -> np.ndarray:
        """The weights πᵢ(x), (n, k); those of a gate that is not normalised need not sum to 1."""
        x, gate_x = self._inputs(X)
        return self.model_.log_weights(x, gate_x).exp().numpy()

    def summary(self, level: float = 0.95) -> Summary:
        """Everything a reader of the fit needs, as data with text, HTML, LaTeX, Markdown and JSON renderings.

        Raises:
            InputError: `level` does not lie strictly between 0 and 1.
        """
        check_is_fitted(self)
        check_level(level)
        return summarise(self.result_, self._names, level, self._errors)

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Wald intervals of the parameters: columns component, term, lower, upper.

        Raises:
            InputError: `level` does not lie strictly between 0 and 1.
        """
        check_is_fitted(self)
        check_level(level)
        return confidence_intervals(self.result_, self._names, level)

    def __sklearn_is_fitted__(self) -> bool:
        # A fit that failed has set the names of the columns, but nothing that could predict.
        return hasattr(self, "model_")

    def _number_of_experts(self) -> int:
        k = self.n_experts
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InputError(f"n_experts must be a whole number of at least 1, not {shown(k)}")
        return int(k)

    def _prototype(self, family: Family, n_gate_features: int, n_features: int) -> MixtureOfExperts:
        return prototype(
            self.gate,
            self.expert,
            family,
            n_gate_features=n_gate_features,
            n_features=n_features,
            n_experts=self._number_of_experts(),
            shared_scale=self._has_shared_scale(),
            gate_options=self.gate_options,
            expert_options=self.expert_options,
        )

    def _fit_options(self) -> FitOptions:
        own = self.get_params(deep=False)
        told = {option.name: own[option.name] for option in dataclasses.fields(FitOptions) if option.name in own}
        return FitOptions(**{**told, "seed": seed_from(self.random_state), "verbose": bool(self.verbose)})

    def _keep(self, result: FitResult, errors: SquaredErrors | None = None) -> None:
        self.result_ = result
        self.model_ = result.model
        self.status_ = result.status
        self.feature_names_ = self._data.features
        self.expert_feature_names_ = list(self._names.features)
        self.gate_feature_names_ = list(self._names.gate_features)
        self.target_name_ = self._names.target
        self._errors = errors

    def _set_estimates(self) -> None:
        result = self.result_
        self.n_parameters_ = result.n_parameters
        self.n_iter_ = len(result.trace)
        self.parameters_ = parameter_table(result, self._names)
        self.covariance_ = covariance(result, self._names)
        if self._errors is None:
            criteria = information_criteria(result)
            self.log_likelihood_ = result.log_likelihood
            self.aic_, self.bic_, self.icl_ = criteria.aic, criteria.bic, criteria.icl
            if result.scale.size:
                self.scale_ = result.scale
        else:
            self.residual_sum_of_squares_ = self._errors.residual_sum
            self.residual_standard_deviation_ = self._errors.residual_deviation
            self.r_squared_ = self._errors.r_squared
        gate = linear_coefficients(self.model_.gate)
        if gate is not None:
            # Only contrasts of logits mean something: the last expert is the reference.
            self.gate_coef_, self.gate_intercept_ = (gate - gate[-1])[:, 1:], (gate - gate[-1])[:, 0]
        expert = linear_coefficients(self.model_.experts)
        if expert is not None:
            self.expert_intercept_ = expert[..., 0]
            d = len(self.expert_feature_names_)
            self.expert_coef_ = np.zeros((*expert.shape[:-1], d)) if expert.shape[-1] == 1 else expert[..., 1:]

    def _squared_errors(
        self, matrix: np.ndarray, target: np.ndarray, sample_weight: np.ndarray | None, offset: np.ndarray | None
    ) -> SquaredErrors:
        x, gate_x = (torch.tensor(matrix[:, chosen]) for chosen in (self._data.expert_columns, self._data.gate_columns))
        mean = self.model_.mean(x, gate_x, None if offset is None else torch.tensor(offset)).numpy()
        weight = checked_weight(sample_weight, len(matrix))
        return squared_errors(target, mean, weight, self.result_.n_parameters)

    def _inputs(self, X: Any) -> tuple[torch.Tensor, torch.Tensor]:
        check_is_fitted(self)
        matrix = feature_matrix(self, self._coded(X), reset=False)
        check_finite(matrix, self.feature_names_)
        # A copy, because torch does not take arrays that cannot be written.
        return torch.tensor(matrix[:, self._data.expert_columns]), torch.tensor(matrix[:, self._data.gate_columns])

    def _offset(self, offset: Any, n: int) -> torch.Tensor | None:
        """The offset of n rows, which a model that was fitted with one needs."""
        values = row_offset(offset, n)
        if values is None:
            if self._data.offset is None:
                return None
            exposure = None if self._metadata is None else self._metadata.exposure_name
            raise InputError(
                "the model was fitted with an offset: give the rows' own, or offset=0.0 for an exposure of 1"
                if exposure is None
                else f"the model was fitted with the exposure {exposure!r}: give the logarithm of the rows' own as the "
                "offset, or offset=0.0 for an exposure of 1"
            )
        check_offset(values)
        return torch.tensor(values)

    def _need_density(self, what: str) -> None:
        check_is_fitted(self)
        if self.result_.kind == "least_squares":
            raise InputError(
                f"least squares gives no distribution of y, so there is no {what}: read `predict`, or fit with "
                'objective="likelihood"'
            )

    def _log_density(self, X: Any, y: Any, offset: Any = None) -> np.ndarray:
        self._need_density("log density")
        return self._of_known_rows(self.model_.log_prob, X, y, offset, ())

    def _responsibilities(self, X: Any, y: Any, offset: Any = None) -> np.ndarray:
        self._need_density("share of an expert in a row")
        return self._of_known_rows(self.model_.responsibilities, X, y, offset, (self.model_.n_experts,))

    def _of_known_rows(
        self, formula: Callable[..., torch.Tensor], X: Any, y: Any, offset: Any, shape: tuple[int, ...]
    ) -> np.ndarray:
        """A formula of x and y, NaN in rows where y is blank."""
        x, gate_x = self._inputs(X)
        target, added = self._coded_target(y, len(x)), self._offset(offset, len(x))
        known = np.array(pd.DataFrame(target).notna().all(axis=1))
        there = torch.tensor(target[known])
        self.model_.family.check_target(there)
        found = np.full((len(x), *shape), np.nan)
        found[known] = formula(x[known], there, gate_x[known], None if added is None else added[known]).numpy()
        return found

    def _complete_target(self, y: Any, n: int) -> np.ndarray:
        """The targets of n rows, none of them blank."""
        target = self._coded_target(y, n)
        columns = target.reshape(len(target), -1)
        check_finite(columns, [self.target_name_] * columns.shape[1])
        return target

    def _mean_log_density(self, X: Any, y: Any, sample_weight: Any, offset: Any = None) -> float:
        log_density = self._log_density(X, y, offset)
        self._complete_target(y, len(log_density))
        return float(np.average(log_density, weights=checked_weight(row_weights(sample_weight), len(log_density))))

    def _draw(self, X: Any, random_state: RandomState, offset: Any = None) -> np.ndarray:
        self._need_density("sample")
        x, gate_x = self._inputs(X)
        # Torch takes 64 bits, a whole number may have more.
        key = np.random.SeedSequence(seed_from(random_state)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key[0]))
        return self.model_.sample(x, gate_x, generator, self._offset(offset, len(x))).numpy()


def check_lengths(n: int, target: np.ndarray) -> None:
    """Refuse a target that has not one entry for each of n rows.

    Raises:
        InputError: it has not.
    """
    if len(target) != n:
        raise InputError(f"X has {n} rows and y {len(target)}: they must be the same")


def _warning_of(status: FitStatus) -> type[FitWarning]:
    if status in _SEPARATED:
        return SeparationWarning
    if status is FitStatus.WEAK_SEARCH:
        return WeakSearchWarning
    return DegenerateExpertWarning if status in _DEGENERATE else FitWarning
