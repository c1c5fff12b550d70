"""`GatedClassifier`: a mixture of multinomial logistic experts as a scikit-learn classifier."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin

from gatewise.estimators.base import GatedEstimator, Target, check_lengths
from gatewise.estimators.inputs import (
    ColumnChoice,
    class_labels,
    feature_matrix,
    label_vector,
    missing_labels,
    row_weights,
    series_name,
)
from gatewise.estimators.seeds import RandomState
from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.families import Categorical
from gatewise.fit import FitOptions
from gatewise.fit.constraints import Constraints
from gatewise.fit.options import Init
from gatewise.fit.rows import checked_weight
from gatewise.gates import Gate
from gatewise.messages import listed, shown

__all__ = ["GatedClassifier"]

_LOG_SMALLEST = float(np.log(np.finfo(float).tiny))


class GatedClassifier(ClassifierMixin, GatedEstimator):
    """Mixture of experts P(y = c | x) = Σᵢ πᵢ(x) P(c | h(x, ηᵢ)) over classes, fitted by maximum likelihood.

    With the defaults, k multinomial logistic regressions, whose weights πᵢ(x) follow a multinomial logistic regression
    on x. An expert's locations are the logits of all classes against the last one in sorted order, `classes_[-1]`; of
    two classes it is the logit of `classes_[0]`.

    Classes that can be told apart without error have no finite maximum: logits then grow without end (separation). The
    fit says so, coefficients that diverge have no standard errors, and probabilities are those reached. A ridge on the
    experts (`expert_ridge`) makes them finite.

    Args:
        n_experts: k, the number of experts.
        gate: a name in `gatewise.gates.GATES`, or a normalised gate.
        expert: a name in `gatewise.experts.EXPERTS`, or a bank of experts with one output less than there are classes.
        gate_features: the columns that the gate sees, by name or index; None for those of the experts, [] for constant
            weights.
        gate_options: of a gate by name; None for its defaults.
        expert_options: of experts by name.
        expert_features: the columns that the experts see, by name or index; None for all of X.
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
        gate_ridge: λ of the log prior −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes in standardised units, for gates that
            separate.
        expert_ridge: λ of the log prior −λ/2 Σ a² on the experts' slopes in standardised units, or on all weights of a
            network's experts, for experts that separate.
        n_jobs: workers for the starts, −1 for all cores; the result does not depend on them.
        n_threads: threads for one pass over the data; the bits of the result do not depend on it.
        device: torch device; other than "cpu" takes the plain torch path.
        dtype: "float64", or "float32" by the plain torch path.
        verbose: print a line per start to the standard error: on a terminal, in a notebook, into a log.
        random_state: a whole number, a NumPy generator, or None for NumPy's global one.

    Attributes:
        classes_: the labels (C,), sorted, among rows with a positive weight.
        result_: the `FitResult`, with every start, the distinct optima and the seed.
        model_: the fitted `MixtureOfExperts`; its targets are codes, places in `classes_`.
        status_: the `FitStatus`: a code with a sentence (`status_.name`, `status_.sentence`).
        parameters_: the identified quantities with standard errors and 95 % intervals, a DataFrame.
        covariance_: their covariance matrix, a DataFrame; NaN where there is no standard error.
        n_parameters_: identified parameters.
        n_iter_: points that the kept start visited.
        log_likelihood_: of exactly these parameters.
        aic_: AIC, smaller is better.
        bic_: BIC, smaller is better; its n is the sum of the weights.
        icl_: ICL by entropy, smaller is better.
        gate_coef_: (k, q) coefficients of the gate's logits, the last expert the reference; present as for
            `GatedRegressor`.
        gate_intercept_: (k,), present as `gate_coef_`.
        expert_coef_: (k, C − 1, d) slopes of the experts' logits, (k, d) of two classes; present for experts that are
            linear in the parameters.
        expert_intercept_: (k, C − 1), or (k,); present as `expert_coef_`.
        n_features_in_: the number of columns of X.
        feature_names_in_: their names, where X has names.
        feature_names_: always d names, "x0", "x1", … where X has none.
        expert_feature_names_: those that the experts see.
        gate_feature_names_: those that the gate sees.
        target_name_: the name of y, or "y".

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(300, 2))
        >>> first = rng.uniform(size=300) < 1.0 / (1.0 + np.exp(-3.0 * x[:, 0]))
        >>> chance = 1.0 / (1.0 + np.exp(np.where(first, -3.0, 3.0) * x[:, 1]))
        >>> y = np.where(rng.uniform(size=300) < chance, "yes", "no")
        >>> classifier = GatedClassifier(n_experts=2, n_starts=2, random_state=0).fit(x, y)
        >>> classifier.predict([[1.5, 1.0], [-1.5, 1.0]])
        array(['yes', 'no'], dtype='<U3')
        >>> classifier.expert_coef_.shape
        (2, 2)
    """

    classes_: np.ndarray
    _stored_as = "GatedClassifier"

    def __init__(
        self,
        n_experts: int = 2,
        gate: str | Gate = "softmax",
        expert: str | Experts = "linear",
        gate_features: ColumnChoice = None,
        *,
        gate_options: Mapping[str, Any] | None = None,
        expert_options: Mapping[str, Any] | None = None,
        expert_features: ColumnChoice = None,
        standardise: str = FitOptions.standardise,
        constraints: Constraints | None = FitOptions.constraints,
        n_starts: int | str = FitOptions.n_starts,
        init: Init = FitOptions.init,
        max_iter: int = FitOptions.max_iter,
        tol: float = FitOptions.tol,
        time_limit: float | None = FitOptions.time_limit,
        gate_ridge: float = FitOptions.gate_ridge,
        expert_ridge: float = FitOptions.expert_ridge,
        n_jobs: int | None = FitOptions.n_jobs,
        n_threads: int = FitOptions.n_threads,
        device: str = FitOptions.device,
        dtype: str = FitOptions.dtype,
        verbose: bool = FitOptions.verbose,
        random_state: RandomState = None,
    ) -> None:
        self._take(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Maximise Σ_r w_r log P(y_r | x_r) over all parameters.

        Args:
            X: covariates (n, d): an array, or a pandas, polars or pyarrow table with numeric columns.
            y: labels of classes (n,), of any type that can be sorted.
            sample_weight: non-negative frequencies (n,): a row of weight 2 counts as two rows, one of weight 0 is not
                there; BIC's n is their sum.

        Raises:
            InputError: the data or an option cannot be used, or there is one class only.

        Warns:
            SeparationWarning: the gate or an expert separates.
            DegenerateExpertWarning: an expert is empty or tight.
            WeakSearchWarning: the search is not complete, so that a better maximum may be left.
            FitWarning: the fit ended with any other status than CONVERGED.
        """
        self._forget()
        matrix = feature_matrix(self, X, reset=True)
        labels, name = class_labels(y)
        check_lengths(len(matrix), labels)
        weight = checked_weight(row_weights(sample_weight), len(labels))
        classes = np.unique(labels[weight > 0.0])
        if len(classes) < 2:
            only = classes.tolist()[0]
            raise InputError(
                f"the target {shown(name)} has one class only, {shown(only)}: a classifier needs at least two classes"
            )
        codes = {label: code for code, label in enumerate(classes.tolist())}
        # Rows of weight 0 may have other labels; they are left out of the fit.
        values = np.array([codes.get(label, 0) for label in labels.tolist()], dtype=float)
        outputs = tuple(f"{name}={label}" for label in classes[:-1])
        target = Target(values, name, outputs, f"{name}={classes[-1]}")
        self.classes_ = classes
        weights = None if sample_weight is None else series_name(sample_weight) or "sample_weight"
        return self._fit_target(matrix, target, Categorical(len(classes)), weight, None, weights)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (n,)."""
        most_probable = self._log_probabilities(X).argmax(axis=1)
        return self.classes_[most_probable]

    def predict_proba(self, X: Any) -> np.ndarray:
        """P(y = c | x) = Σᵢ πᵢ(x) P(c | x, expert i), (n, C), in the order of `classes_`.

        No class is impossible: a probability below the smallest normal float64, 2.2e-308, is given as that number.
        """
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log P(y = c | x), (n, C), the logarithm of `predict_proba`."""
        return np.maximum(self._log_probabilities(X), _LOG_SMALLEST)

    def decision_function(self, X: Any) -> np.ndarray:
        """Log P(y = c | x), (n, C); of two classes the log-odds of `classes_[1]`, (n,).

        Unlike `predict_log_proba` it goes on below the smallest number of a float64.
        """
        log_proba = self._log_probabilities(X)
        return log_proba[:, 1] - log_proba[:, 0] if log_proba.shape[1] == 2 else log_proba

    def expert_probabilities(self, X: Any) -> np.ndarray:
        """Each expert's P(y = c | x, expert i), (n, k, C)."""
        x, _ = self._inputs(X)
        return self._expert_log_probabilities(x).exp().numpy()

    def predict_log_density(self, X: Any, y: Any) -> np.ndarray:
        """Log P(y | x) of each row's own class, (n,); NaN where y is None or NaN.

        Raises:
            InputError: X or y cannot be used, or a class is not among `classes_`.
        """
        return self._log_density(X, y)

    def responsibilities(self, X: Any, y: Any) -> np.ndarray:
        """P(expert i | x, y) of each row, (n, k); NaN where y is None or NaN.

        Raises:
            InputError: as `predict_log_density`.
        """
        return self._responsibilities(X, y)

    def sample(self, X: Any, random_state: RandomState = None) -> np.ndarray:
        """One draw of the class at each row of X, (n,).

        Args:
            X: covariates (n, d).
            random_state: a whole number, a NumPy generator, or None for NumPy's global one.

        Raises:
            InputError: X or `random_state` cannot be used.
        """
        codes = self._draw(X, random_state).astype(int)
        return self.classes_[codes]

    def score_log_density(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The weighted mean of log P(y | x): minus the log-loss, larger is better.

        Raises:
            InputError: as `predict_log_density`.
        """
        return self._mean_log_density(X, y, sample_weight)

    def _log_probabilities(self, X: Any) -> np.ndarray:
        x, gate_x = self._inputs(X)
        log_weights = self.model_.log_weights(x, gate_x).unsqueeze(-1)
        return torch.logsumexp(log_weights + self._expert_log_probabilities(x), dim=1).numpy()

    def _expert_log_probabilities(self, x: torch.Tensor) -> torch.Tensor:
        family = self.model_.family
        if not isinstance(family, Categorical):
            raise TypeError(f"a classifier's family is categorical, not {family!r}")
        return family.log_probabilities(self.model_.expert_parameters(x)[0])

    def _own_state(self) -> dict[str, Any]:
        return {"classes": self.classes_}

    def _take_own_state(self, state: dict[str, Any]) -> None:
        classes = state["classes"]
        if not isinstance(classes, np.ndarray) or classes.shape != (self.model_.family.n_codes,):
            raise InputError("the classes are not those of the model")
        self.classes_ = classes

    def _coded_target(self, y: Any, n: int) -> np.ndarray:
        labels, name = label_vector(y)
        check_lengths(n, labels)
        codes: dict[Any, float] = {label: float(code) for code, label in enumerate(self.classes_.tolist())}
        blank = missing_labels(labels).tolist()
        unknown = [label for label, none in zip(labels.tolist(), blank, strict=True) if not none and label not in codes]
        if unknown:
            known = listed(self.classes_.tolist())
            raise InputError(
                f"the target {shown(name)} has the class {shown(unknown[0])}, and the fit has seen {known}"
            )
        return np.array([np.nan if none else codes[label] for label, none in zip(labels.tolist(), blank, strict=True)])
