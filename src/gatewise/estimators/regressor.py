"""`GatedRegressor`: a mixture of experts as a scikit-learn regressor."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from gatewise.estimators.base import GatedEstimator, Target, check_lengths
from gatewise.estimators.inputs import (
    ColumnChoice,
    feature_matrix,
    row_weights,
    series_name,
    target_columns,
    target_vector,
)
from gatewise.estimators.seeds import RandomState
from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.families import Family, build_family, family_takes
from gatewise.fit import FitOptions
from gatewise.fit.constraints import Constraints
from gatewise.fit.options import Init
from gatewise.fit.rows import check_finite, checked_weight
from gatewise.gates import Gate
from gatewise.io import check_level
from gatewise.messages import shown
from gatewise.parts.options import given_or_named

__all__ = ["GatedRegressor"]


class GatedRegressor(RegressorMixin, GatedEstimator):
    """Mixture of experts p(y | x) = Σᵢ πᵢ(x) f(y | h(x, ηᵢ)), fitted by maximum likelihood or by least squares.

    With the defaults, k linear regressions with Gaussian errors, whose weights πᵢ(x) follow a multinomial logistic
    regression on x. Fits do not depend on the units of X and y; estimates are in the user's units.

    Gate, experts and family are names, whose options are dictionaries of plain data, or objects. An object is a
    prototype, which is copied and never changed; its sizes must be those of the data.

    Args:
        n_experts: k, the number of experts.
        gate: a name in `gatewise.gates.GATES`, or a gate.
        expert: a name in `gatewise.experts.EXPERTS`, or a bank of experts.
        family: a name in `gatewise.families.FAMILIES`, or a family; classes are for `GatedClassifier`.
        gate_features: the columns that the gate sees, by name or index; None for those of the experts, [] for constant
            weights.
        gate_options: of a gate by name, {"inner": "laplace", "n_active": 2} for `"top_k"`; None for its defaults.
        expert_options: of experts by name, {"degree": 2} for `"polynomial_basis"`.
        family_options: of a family by name, {"trials": 10} for `"binomial"`; a multivariate Gaussian takes the number
            of columns from y if it is not told.
        expert_features: the columns that the experts see, by name or index; None for all of X.
        shared_scale: whether one dispersion serves all experts.
        objective: "likelihood", or "least_squares" on the mixture's mean Σᵢ πᵢ(x) E[y | expert i].
        standardise: "auto": gate and experts are fitted on standardised inputs, which is undone where they are
            equivariant and stored as a layer of the model where they are not; "off": they are fitted on the inputs as
            they are.
        constraints: parameters of a prototype that are held or tied, `gatewise.fit.constraints.Constraints`, or None.
        n_starts: how many starts are followed to their end, the best being kept; "auto" goes on until the evidence is
            in that no better optimum is left, up to a limit of counted work.
        init: "auto", a name in `gatewise.fit.STRATEGIES`, responsibilities (n, k) where the first start begins, or a
            model or several at whose parameters the first starts begin.
        max_iter: solver iterations per start.
        tol: bound on the largest component of the gradient of the mean objective, in internal units.
        time_limit: seconds for the whole fit, after which the best so far is returned; without a limit by default.
        scale_floor: smallest spread of an expert (σ, or what the family has for it), as a share of that of the
            one-expert fit; lowered, and said so, where many rows agree more closely.
        gate_ridge: λ of the log prior −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes in standardised units, for gates that
            separate.
        expert_ridge: λ of the log prior −λ/2 Σ a² on the experts' slopes in standardised units, or on all weights of a
            network's experts, for experts that separate.
        variance_prior: a pair (a, b): an inverse-gamma prior on each σ² relative to the one-expert residual variance,
            density ∝ (σ²)^(−a−1) exp(−b/σ²), for scales that shrink without end; none by default.
        n_jobs: workers for the starts, −1 for all cores; the result does not depend on them.
        n_threads: threads for one pass over the data; the bits of the result do not depend on it.
        device: torch device; other than "cpu" takes the plain torch path.
        dtype: "float64", or "float32" by the plain torch path.
        verbose: print a line per start to the standard error: on a terminal, in a notebook, into a log.
        random_state: a whole number, a NumPy generator, or None for NumPy's global one.

    Attributes:
        result_: the `FitResult`, with every start, the distinct optima and the seed.
        model_: the fitted `MixtureOfExperts`, experts by mean responsibility, largest first, as far as the gate allows.
        status_: the `FitStatus`: a code with a sentence (`status_.name`, `status_.sentence`).
        parameters_: the identified quantities with standard errors and 95 % intervals, a DataFrame.
        covariance_: their covariance matrix, a DataFrame; NaN where there is no standard error.
        n_parameters_: identified parameters.
        n_iter_: points that the kept start visited: the end of its EM steps, then one per solver iteration.
        log_likelihood_: of exactly these parameters; with a joint gate of y and of what the gate sees. This and the
            criteria are absent after least squares.
        aic_: AIC, smaller is better.
        bic_: BIC, smaller is better; its n is the sum of the weights.
        icl_: ICL by entropy, smaller is better.
        residual_sum_of_squares_: after least squares only, as the next two.
        residual_standard_deviation_: with the degrees of freedom Σ w less the parameters.
        r_squared_: against the mean of y.
        gate_coef_: (k, q) coefficients of the gate's logits but for the intercept, with the last expert as the
            reference, whose row is 0; present for gates whose logits are linear in the parameters, of the features for
            a softmax, of monomials for a quadratic gate. With a stored standardisation, of standardised features.
        gate_intercept_: (k,), present as `gate_coef_`.
        expert_coef_: (k, d) slopes of the experts, or (k, q) coefficients of monomials, with several outputs m (k, m,
            …); zeros for constant experts; present for experts that are linear in the parameters.
        expert_intercept_: (k,) or (k, m), present as `expert_coef_`.
        scale_: (k,) scales σ in the units of y; present for families with a scale, after maximum likelihood.
        n_features_in_: the number of columns of X.
        feature_names_in_: their names, where X has names.
        feature_names_: always d names, "x0", "x1", … where X has none.
        expert_feature_names_: those that the experts see.
        gate_feature_names_: those that the gate sees.
        target_name_: the name of y, or "y"; of several columns, their names with commas.

    Where an attribute is absent, `parameters_` says what is identified, and `model_` has the arrays.

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

    family: str | Family
    family_options: Mapping[str, Any] | None
    shared_scale: bool
    objective: str
    _stored_as = "GatedRegressor"

    def __init__(
        self,
        n_experts: int = 2,
        gate: str | Gate = "softmax",
        expert: str | Experts = "linear",
        family: str | Family = "gaussian",
        gate_features: ColumnChoice = None,
        *,
        gate_options: Mapping[str, Any] | None = None,
        expert_options: Mapping[str, Any] | None = None,
        family_options: Mapping[str, Any] | None = None,
        expert_features: ColumnChoice = None,
        shared_scale: bool = False,
        objective: str = FitOptions.objective,
        standardise: str = FitOptions.standardise,
        constraints: Constraints | None = FitOptions.constraints,
        n_starts: int | str = FitOptions.n_starts,
        init: Init = FitOptions.init,
        max_iter: int = FitOptions.max_iter,
        tol: float = FitOptions.tol,
        time_limit: float | None = FitOptions.time_limit,
        scale_floor: float = FitOptions.scale_floor,
        gate_ridge: float = FitOptions.gate_ridge,
        expert_ridge: float = FitOptions.expert_ridge,
        variance_prior: tuple[float, float] | None = FitOptions.variance_prior,
        n_jobs: int | None = FitOptions.n_jobs,
        n_threads: int = FitOptions.n_threads,
        device: str = FitOptions.device,
        dtype: str = FitOptions.dtype,
        verbose: bool = FitOptions.verbose,
        random_state: RandomState = None,
    ) -> None:
        self._take(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None) -> Self:
        """Maximise Σ_r w_r log p(y_r | x_r), or minimise Σ_r w_r ‖y_r − Σᵢ πᵢ E[y | expert i]‖², over all parameters.

        Args:
            X: covariates (n, d): an array, or a pandas, polars or pyarrow table with numeric columns.
            y: targets (n,); (n, e) for the multivariate Gaussian; successes and trials, (n, 2), for the binomial family
                without `trials`.
            sample_weight: non-negative frequencies (n,): a row of weight 2 counts as two rows, one of weight 0 is not
                there; BIC's n is their sum.
            offset: the logarithm of each row's exposure (n,), for families with a log link.

        Raises:
            InputError: the data or an option cannot be used.

        Warns:
            SeparationWarning: the gate or an expert separates.
            DegenerateExpertWarning: an expert is on the variance floor, empty or tight.
            WeakSearchWarning: the search is not complete, so that a better maximum may be left.
            FitWarning: the fit ended with any other status than CONVERGED.
        """
        self._forget()
        matrix = feature_matrix(self, X, reset=True)
        family = self._family(y)
        target = self._target(y, family)
        check_lengths(len(matrix), target.values)
        weights = None if sample_weight is None else series_name(sample_weight) or "sample_weight"
        return self._fit_target(matrix, target, family, row_weights(sample_weight), offset, weights)

    def predict(self, X: Any, offset: Any = None) -> np.ndarray:
        """The mixture's mean Σᵢ πᵢ(x) E[y | expert i], (n,) or (n, e).

        For the binomial family without `trials` it is the probability of success.

        Args:
            X: covariates (n, d).
            offset: the logarithm of each row's exposure (n,), or one number for all; needed if the fit had one.

        Raises:
            InputError: X or the offset cannot be used.
        """
        x, gate_x = self._inputs(X)
        return self.model_.mean(x, gate_x, self._offset(offset, len(x))).numpy()

    def predict_quantile(self, X: Any, q: float | Sequence[float] | np.ndarray, offset: Any = None) -> np.ndarray:
        """The mixture's own quantiles: the smallest y with P(Y ≤ y | x) ≥ q.

        Args:
            X: covariates (n, d).
            q: one probability, or m of them, strictly between 0 and 1.
            offset: as in `predict`.

        Returns:
            (n,) for one probability, (n, m) for m.

        Raises:
            InputError: a probability is out of range, X cannot be used, the family's targets have no order, or the fit
                was by least squares.
        """
        self._need_density("quantile")
        x, gate_x = self._inputs(X)
        try:
            probabilities = np.asarray(q, dtype=float)
        except (TypeError, ValueError):
            raise InputError(f"q must be a probability or a sequence of them, not {shown(q)}") from None
        if probabilities.ndim > 1:
            raise InputError(
                f"q must be a probability or a sequence of them, not an array of {probabilities.ndim} axes"
            )
        added = self._offset(offset, len(x))
        quantiles = [self.model_.quantile(x, float(p), gate_x, added).numpy() for p in probabilities.ravel()]
        if probabilities.ndim == 0:
            return quantiles[0]
        return np.column_stack(quantiles) if quantiles else np.empty((len(x), 0))

    def predict_interval(self, X: Any, level: float = 0.95, offset: Any = None) -> np.ndarray:
        """The mixture's own quantiles at (1 ∓ level)/2: columns lower and upper, (n, 2).

        A new target falls below and above with equal probability, for counts with at most that. Parameters are taken
        as known: their uncertainty is not in the interval.

        Raises:
            InputError: `level` does not lie strictly between 0 and 1; otherwise as `predict_quantile`.
        """
        check_level(level)
        return self.predict_quantile(X, [0.5 - 0.5 * level, 0.5 + 0.5 * level], offset)

    def predict_log_density(self, X: Any, y: Any, offset: Any = None) -> np.ndarray:
        """Log p(y | x) of each row, (n,): of counts a log probability; NaN where y is.

        Raises:
            InputError: X, y or the offset cannot be used, or the fit was by least squares.
        """
        return self._log_density(X, y, offset)

    def responsibilities(self, X: Any, y: Any, offset: Any = None) -> np.ndarray:
        """P(expert i | x, y) of each row, (n, k); NaN where y is.

        Raises:
            InputError: as `predict_log_density`.
        """
        return self._responsibilities(X, y, offset)

    def expert_means(self, X: Any, offset: Any = None) -> np.ndarray:
        """Each expert's mean E[y | x, expert i], (n, k) or (n, k, e).

        Raises:
            InputError: X or the offset cannot be used.
        """
        x, _ = self._inputs(X)
        return self.model_.family.mean(*self.model_.expert_parameters(x, self._offset(offset, len(x)))).numpy()

    def sample(self, X: Any, random_state: RandomState = None, offset: Any = None) -> np.ndarray:
        """One draw of y at each row of X, (n,) or (n, e).

        Args:
            X: covariates (n, d).
            random_state: a whole number, a NumPy generator, or None for NumPy's global one.
            offset: as in `predict`.

        Raises:
            InputError: X or `random_state` cannot be used, or the fit was by least squares.
        """
        return self._draw(X, random_state, offset)

    def score(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None) -> float:
        """R² of `predict`, larger is better; of several columns the mean of their R².

        For the binomial family without `trials` it is that of the share of successes, weighted by the trials.

        Raises:
            InputError: X, y or the offset cannot be used.
        """
        prediction = self.predict(X, offset)
        target = self._complete_target(y, len(prediction))
        weight = None if sample_weight is None else checked_weight(row_weights(sample_weight), len(target))
        if target.ndim > prediction.ndim:
            successes, trials = target.T
            weight = trials if weight is None else weight * trials
            target = successes / trials
        return float(r2_score(target, prediction, sample_weight=weight))

    def score_log_density(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None) -> float:
        """The weighted mean of log p(y | x): the proper score of a density, larger is better.

        Raises:
            InputError: as `predict_log_density`.
        """
        return self._mean_log_density(X, y, sample_weight, offset)

    def _family(self, y: Any) -> Family:
        family, options = self.family, self.family_options
        named = isinstance(family, str)
        if named:
            has_classes = family_takes(family, "n_classes")
        else:
            has_classes = isinstance(family, Family) and family.n_unordered is not None
        if has_classes:
            name = family if named else family.name
            raise InputError(f"targets of the {name} family are classes: fit them with GatedClassifier")
        if named and family_takes(family, "n_targets") and "n_targets" not in (options or {}):
            options = {**(options or {}), "n_targets": target_columns(y)[0].shape[1]}
        return given_or_named("family", self.family, Family, options, build_family)

    def _target(self, y: Any, family: Family) -> Target:
        if not family.event_size:
            return Target(*target_vector(y))
        if np.ndim(y) == 1:
            # The family says what it takes, and what may stand for the other columns.
            family.check_target(torch.tensor(target_vector(y)[0]))
        values, columns = target_columns(y)
        if values.shape[1] != family.event_size:
            raise InputError(
                f"y has {values.shape[1]} columns, and {shown(family)} takes {family.event_size}: give it as many"
            )
        named = columns[0] != "y[0]"
        name = ", ".join(columns) if named else "y"
        outputs = tuple(columns) if named and family.n_outputs > 1 else ()
        return Target(values, name, outputs, columns=tuple(columns))

    def _coded_target(self, y: Any, n: int) -> np.ndarray:
        values = self._target(y, self.model_.family).values
        check_lengths(n, values)
        columns = values.reshape(len(values), -1)
        check_finite(
            np.nan_to_num(columns, nan=0.0, posinf=np.inf, neginf=-np.inf), [self.target_name_] * columns.shape[1]
        )
        return values

    def _has_shared_scale(self) -> bool:
        if not isinstance(self.shared_scale, bool | np.bool_):
            raise InputError(f"shared_scale must be True or False, not {shown(self.shared_scale)}")
        return bool(self.shared_scale)
