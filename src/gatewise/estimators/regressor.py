"""`GatedRegressor`: a mixture of experts as a scikit-learn regressor."""

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from gatewise.estimators.inputs import ColumnChoice, chosen_columns, feature_matrix, row_weights, target_vector
from gatewise.estimators.seeds import RandomState, seed_from
from gatewise.exceptions import DegenerateExpertWarning, FitWarning, InputError, SeparationWarning
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.rows import check_finite, checked_weight
from gatewise.gates import GATES
from gatewise.inference import (
    Names,
    Summary,
    confidence_intervals,
    covariance,
    information_criteria,
    parameter_table,
    summarise,
)
from gatewise.model import MixtureOfExperts

__all__ = ["GatedRegressor"]

_DEGENERATE = (FitStatus.ON_FLOOR, FitStatus.EMPTY_EXPERT, FitStatus.TIGHT)


class GatedRegressor(RegressorMixin, BaseEstimator):
    """Mixture of experts p(y | x) = Σᵢ πᵢ(x) f(y | h(x, ηᵢ), σᵢ), fitted by maximum likelihood.

    With the defaults, k linear regressions with Gaussian errors, whose weights πᵢ(x) follow a multinomial logistic
    regression on x. Fits do not depend on the units of X and y; estimates are in the user's units.

    Args:
        n_experts: k, the number of experts.
        gate: a name in `gatewise.gates.GATES`.
        expert: a name in `gatewise.experts.EXPERTS`.
        family: a name in `gatewise.families.FAMILIES`.
        gate_features: the columns that the gate sees, by name or index; None for those of the experts, [] for constant
            weights.
        expert_features: the columns that the experts see, by name or index; None for all of X.
        shared_scale: whether one σ serves all experts.
        n_starts: how many starts are followed to their end; the best is kept.
        init: "auto", a name in `gatewise.fit.STRATEGIES`, or responsibilities (n, k) where the first start begins.
        max_iter: solver iterations per start.
        tol: bound on the largest gradient component of the mean log-likelihood, in standardised units.
        time_limit: seconds for the whole fit, or None.
        scale_floor: smallest σ, as a share of the one-expert residual standard deviation.
        gate_ridge: λ of the log prior −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes in standardised units.
        variance_prior: (a, b) of an inverse-gamma prior on each σ², relative to the one-expert residual variance.
        n_jobs: worker processes for the starts; the result does not depend on it.
        n_threads: threads of one pass over the data; the result does not depend on it.
        device: torch device of the fit.
        dtype: "float64", or "float32" for the fit's passes.
        verbose: whether to print a line per start, on a terminal.
        random_state: a whole number, a NumPy generator, or None for NumPy's global one.

    Attributes:
        result_: the `FitResult`, with every start, the distinct optima and the seed.
        model_: the fitted `MixtureOfExperts`, experts by mean responsibility, largest first.
        status_: the `FitStatus`: a code with a sentence (`status_.name`, `status_.sentence`).
        log_likelihood_: of exactly these parameters.
        n_parameters_: free parameters.
        n_iter_: points that the kept start visited: the end of its EM steps, then one per solver iteration.
        aic_: AIC, smaller is better.
        bic_: BIC, smaller is better; its n is the sum of the weights.
        icl_: ICL, smaller is better.
        parameters_: estimates with standard errors and 95 % intervals, a DataFrame.
        covariance_: the covariance matrix of the estimates, a DataFrame; NaN where there is no standard error.
        gate_coef_: (k, q) slopes of the gate's logits; the last expert is the reference, its row is 0.
        gate_intercept_: (k,).
        expert_coef_: (k, d) slopes of the experts, d their number of features; zeros for constant experts.
        expert_intercept_: (k,).
        scale_: (k,) standard deviations σ.
        n_features_in_: the number of columns of X.
        feature_names_in_: their names, where X has names.
        feature_names_: always d names, "x0", "x1", … where X has none.
        expert_feature_names_: those that the experts see.
        gate_feature_names_: those that the gate sees.
        target_name_: the name of y, or "y".

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(-1.0, 1.0, size=(500, 1))
        >>> rising = rng.uniform(size=500) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))
        >>> y = np.where(rising, 1.0 + 2.0 * x[:, 0], -x[:, 0]) + 0.1 * rng.normal(size=500)
        >>> regressor = GatedRegressor(n_experts=2, random_state=0).fit(x, y)
        >>> regressor.status_.name
        'CONVERGED'
        >>> regressor.expert_coef_.round(1)
        array([[ 2.],
               [-1.]])
        >>> regressor.predict_interval(np.array([[-0.5], [0.5]])).round(1)
        array([[-0.1,  0.7],
               [-0.6,  2.2]])
    """

    def __init__(
        self,
        n_experts: int = 2,
        gate: str = "softmax",
        expert: str = "linear",
        family: str = "gaussian",
        gate_features: ColumnChoice = None,
        *,
        expert_features: ColumnChoice = None,
        shared_scale: bool = False,
        n_starts: int = 20,
        init: str | np.ndarray = "auto",
        max_iter: int = 500,
        tol: float = 1e-8,
        time_limit: float | None = None,
        scale_floor: float = 1e-3,
        gate_ridge: float = 0.0,
        variance_prior: tuple[float, float] | None = None,
        n_jobs: int | None = None,
        n_threads: int = 1,
        device: str = "cpu",
        dtype: str = "float64",
        verbose: bool = False,
        random_state: RandomState = None,
    ) -> None:
        self.n_experts = n_experts
        self.gate = gate
        self.expert = expert
        self.family = family
        self.gate_features = gate_features
        self.expert_features = expert_features
        self.shared_scale = shared_scale
        self.n_starts = n_starts
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.time_limit = time_limit
        self.scale_floor = scale_floor
        self.gate_ridge = gate_ridge
        self.variance_prior = variance_prior
        self.n_jobs = n_jobs
        self.n_threads = n_threads
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Maximise Σ_r w_r log p(y_r | x_r) over all parameters.

        Args:
            X: covariates (n, d): an array, or a pandas, polars or pyarrow table with numeric columns.
            y: targets (n,).
            sample_weight: non-negative frequencies (n,): a row of weight 2 counts as two rows, one of weight 0 is not
                there; BIC's n is their sum.

        Raises:
            InputError: the data or an option cannot be used.

        Warns:
            SeparationWarning: the gate separates.
            DegenerateExpertWarning: an expert is on the variance floor, empty or tight.
            FitWarning: the fit ended with any other status than CONVERGED.
        """
        # If this fit fails nothing is fitted: an older model would not go with the new columns.
        vars(self).pop("model_", None)
        matrix = feature_matrix(self, X, reset=True)
        target, target_name = target_vector(y)
        _check_lengths(len(matrix), target)
        names = [str(name) for name in getattr(self, "feature_names_in_", [f"x{j}" for j in range(matrix.shape[1])])]
        columns = chosen_columns("expert_features", self.expert_features, names)
        gate_columns = (
            columns if self.gate_features is None else chosen_columns("gate_features", self.gate_features, names)
        )
        expert_names = [names[column] for column in columns]
        gate_names = [names[column] for column in gate_columns]
        result = fit(
            self._prototype(len(gate_columns), len(columns)),
            matrix[:, columns],
            target,
            gate_x=matrix[:, gate_columns],
            sample_weight=row_weights(sample_weight),
            options=self._options(),
            names=(expert_names, gate_names, target_name),
        )
        self.result_ = result
        self.model_ = result.model
        self.status_ = result.status
        self.feature_names_ = names
        self.expert_feature_names_ = expert_names
        self.gate_feature_names_ = gate_names
        self.target_name_ = target_name
        self._expert_columns = columns
        self._gate_columns = gate_columns
        self._set_estimates()
        if result.status is not FitStatus.CONVERGED:
            warnings.warn(result.findings[0].message, _warning_of(result.status), stacklevel=2)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The mixture's mean E[y | x] = Σᵢ πᵢ(x) h(x, ηᵢ), (n,)."""
        x, gate_x = self._inputs(X)
        return self.model_.mean(x, gate_x).numpy()

    def predict_quantile(self, X: Any, q: float | Sequence[float] | np.ndarray) -> np.ndarray:
        """The mixture's own quantiles: the y with P(Y ≤ y | x) = q.

        Args:
            X: covariates (n, d).
            q: one probability, or m of them, strictly between 0 and 1.

        Returns:
            (n,) for one probability, (n, m) for m.

        Raises:
            InputError: a probability is out of range, or X cannot be used.
        """
        x, gate_x = self._inputs(X)
        try:
            probabilities = np.asarray(q, dtype=float)
        except (TypeError, ValueError):
            raise InputError(f"q must be a probability or a sequence of them, not {q!r}") from None
        if probabilities.ndim > 1:
            raise InputError(
                f"q must be a probability or a sequence of them, not an array of {probabilities.ndim} axes"
            )
        quantiles = [self.model_.quantile(x, float(p), gate_x).numpy() for p in probabilities.ravel()]
        if probabilities.ndim == 0:
            return quantiles[0]
        return np.column_stack(quantiles) if quantiles else np.empty((len(x), 0))

    def predict_interval(self, X: Any, level: float = 0.9) -> np.ndarray:
        """The mixture's own quantiles at (1 ∓ level)/2: columns lower and upper, (n, 2).

        A new target falls below and above with equal probability. Parameters are taken as known: their uncertainty is
        not in the interval.

        Raises:
            InputError: `level` does not lie strictly between 0 and 1, or X cannot be used.
        """
        _check_level(level)
        return self.predict_quantile(X, [0.5 - 0.5 * level, 0.5 + 0.5 * level])

    def predict_log_density(self, X: Any, y: Any) -> np.ndarray:
        """Log p(y | x) of each row, (n,)."""
        x, gate_x = self._inputs(X)
        return self.model_.log_prob(x, self._target(y, len(x)), gate_x).numpy()

    def responsibilities(self, X: Any, y: Any) -> np.ndarray:
        """P(expert i | x, y) of each row, (n, k)."""
        x, gate_x = self._inputs(X)
        return self.model_.responsibilities(x, self._target(y, len(x)), gate_x).numpy()

    def gate_weights(self, X: Any) -> np.ndarray:
        """The weights πᵢ(x), (n, k)."""
        x, gate_x = self._inputs(X)
        return self.model_.log_weights(x, gate_x).exp().numpy()

    def expert_means(self, X: Any) -> np.ndarray:
        """Each expert's mean h(x, ηᵢ), (n, k)."""
        x, _ = self._inputs(X)
        return self.model_.family.mean(*self.model_.experts(x)).numpy()

    def sample(self, X: Any, random_state: RandomState = None) -> np.ndarray:
        """One draw of y at each row of X, (n,).

        Args:
            X: covariates (n, d).
            random_state: a whole number, a NumPy generator, or None for NumPy's global one.

        Raises:
            InputError: X or `random_state` cannot be used.
        """
        x, gate_x = self._inputs(X)
        # Torch takes 64 bits, a whole number may have more.
        key = np.random.SeedSequence(seed_from(random_state)).generate_state(1, np.uint64)
        return self.model_.sample(x, gate_x, torch.Generator().manual_seed(int(key[0]))).numpy()

    def score_log_density(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The weighted mean of log p(y | x): the proper score of a density, larger is better."""
        log_density = self.predict_log_density(X, y)
        return float(np.average(log_density, weights=checked_weight(row_weights(sample_weight), len(log_density))))

    def summary(self, level: float = 0.95) -> Summary:
        """Everything a reader of the fit needs, as data with text, HTML, LaTeX, Markdown and JSON renderings.

        Raises:
            InputError: `level` does not lie strictly between 0 and 1.
        """
        check_is_fitted(self)
        _check_level(level)
        return summarise(self.result_, self._names(), level)

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Wald intervals of the parameters: columns component, term, lower, upper.

        Raises:
            InputError: `level` does not lie strictly between 0 and 1.
        """
        check_is_fitted(self)
        _check_level(level)
        return confidence_intervals(self.result_, self._names(), level)

    def __sklearn_is_fitted__(self) -> bool:
        # A fit that failed has set the names of the columns, but nothing that could predict.
        return hasattr(self, "model_")

    def _prototype(self, n_gate_features: int, n_features: int) -> MixtureOfExperts:
        k = self.n_experts
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InputError(f"n_experts must be a whole number of at least 1, not {k!r}")
        if not isinstance(self.shared_scale, bool | np.bool_):
            raise InputError(f"shared_scale must be True or False, not {self.shared_scale!r}")
        return MixtureOfExperts(
            GATES[self.gate](n_gate_features, int(k)),
            EXPERTS[self.expert](n_features, int(k), bool(self.shared_scale)),
            FAMILIES[self.family](),
        )

    def _options(self) -> FitOptions:
        return FitOptions(
            n_starts=self.n_starts,
            init=self.init,
            tol=self.tol,
            max_iter=self.max_iter,
            time_limit=self.time_limit,
            scale_floor=self.scale_floor,
            gate_ridge=self.gate_ridge,
            variance_prior=self.variance_prior,
            n_jobs=self.n_jobs,
            n_threads=self.n_threads,
            device=self.device,
            dtype=self.dtype,
            seed=seed_from(self.random_state),
            verbose=bool(self.verbose),
        )

    def _set_estimates(self) -> None:
        result, atoms = self.result_, self.model_.atoms()
        criteria = information_criteria(result)
        self.log_likelihood_ = result.log_likelihood
        self.n_parameters_ = result.n_parameters
        self.n_iter_ = len(result.trace)
        self.aic_, self.bic_, self.icl_ = criteria.aic, criteria.bic, criteria.icl
        self.parameters_ = parameter_table(result, self._names())
        self.covariance_ = covariance(result, self._names())
        self.gate_coef_ = atoms.gate["gate_slope"]
        self.gate_intercept_ = atoms.gate["gate_bias"]
        no_slopes = np.zeros((self.model_.n_experts, len(self.expert_feature_names_)))
        self.expert_coef_ = atoms.expert.get("expert_slope", no_slopes)
        self.expert_intercept_ = atoms.expert["expert_intercept"]
        self.scale_ = np.sqrt(atoms.variance)

    def _names(self) -> Names:
        return Names(self.expert_feature_names_, self.gate_feature_names_, self.target_name_)

    def _inputs(self, X: Any) -> tuple[torch.Tensor, torch.Tensor]:
        check_is_fitted(self)
        matrix = feature_matrix(self, X, reset=False)
        check_finite(matrix, self.feature_names_)
        # A copy, because torch does not take arrays that cannot be written.
        return torch.tensor(matrix[:, self._expert_columns]), torch.tensor(matrix[:, self._gate_columns])

    def _target(self, y: Any, n: int) -> torch.Tensor:
        target, _ = target_vector(y)
        _check_lengths(n, target)
        check_finite(target[:, None], [self.target_name_])
        return torch.tensor(target)


def _check_lengths(n: int, target: np.ndarray) -> None:
    if len(target) != n:
        raise InputError(f"X has {n} rows and y {len(target)}: they must be the same")


def _check_level(level: float) -> None:
    if not (isinstance(level, Real) and 0.0 < level < 1.0):
        raise InputError(f"the level of an interval must lie strictly between 0 and 1, not {level!r}")


def _warning_of(status: FitStatus) -> type[FitWarning]:
    if status is FitStatus.SEPARATED:
        return SeparationWarning
    return DegenerateExpertWarning if status in _DEGENERATE else FitWarning
