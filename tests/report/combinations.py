"""One small fit for each kind of model that a report must be able to show."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.estimators.base import GatedEstimator
from gatewise.exceptions import FitWarning
from gatewise.report import Evidence

_ROWS = 160


@dataclass(frozen=True)
class Combination:
    """Options of an estimator, and the data it is fitted to.

    Attributes:
        target: the regime (n,), the inputs (n, d) and a generator ↦ y.
        options: of the estimator.
        n_features: columns of X.
        classifier: whether it is a `GatedClassifier`.
        offset: whether there is an exposure.
    """

    target: Callable[[np.ndarray, np.ndarray, np.random.Generator], Any]
    options: dict[str, Any] = field(default_factory=dict)
    n_features: int = 1
    classifier: bool = False
    offset: bool = False


def _line(regime, x, _):
    return np.where(regime, 1.0 + 2.0 * x[:, 0], -1.0 - x[:, 0])


def _numbers(regime, x, rng):
    return pd.Series(_line(regime, x, rng) + 0.3 * rng.normal(size=len(x)), name="y")


def _tailed(regime, x, rng):
    return pd.Series(_line(regime, x, rng) + 0.2 * rng.standard_t(6.0, size=len(x)), name="y")


def _heavy(regime, x, rng):
    return pd.Series(_line(regime, x, rng) + 0.2 * rng.standard_t(1.0, size=len(x)), name="y")


def _columns(regime, x, rng):
    first = _line(regime, x, rng)
    noise = rng.normal(size=(len(x), 2))
    return pd.DataFrame({"left": first + 0.3 * noise[:, 0], "right": 1.0 - first + 0.4 * noise.sum(axis=1)})


def _counts(regime, x, rng):
    return pd.Series(rng.poisson(np.exp(np.where(regime, 2.0 + 0.5 * x[:, 0], 0.3 - 0.5 * x[:, 0]))), name="visits")


def _overdispersed(regime, x, rng):
    return pd.Series(rng.poisson(rng.gamma(2.0, np.exp(np.where(regime, 2.0 + x[:, 0], 0.0)) / 2.0)), name="visits")


def _positive(regime, x, rng):
    mean = np.exp(np.where(regime, 1.0 + x[:, 0], -1.0))
    return pd.Series(rng.gamma(4.0, mean / 4.0), name="cost")


def _chance(regime, x, rng):
    return 1.0 / (1.0 + np.exp(-np.where(regime, 2.0 + 2.0 * x[:, 0], -2.0 + x[:, 0])))


def _zero_or_one(regime, x, rng):
    return pd.Series((rng.uniform(size=len(x)) < _chance(regime, x, rng)).astype(float), name="won")


def _successes(regime, x, rng):
    return pd.Series(rng.binomial(8, _chance(regime, x, rng)), name="germinated")


def _of_trials(regime, x, rng):
    trials = rng.integers(3, 20, size=len(x))
    return pd.DataFrame({"germinated": rng.binomial(trials, _chance(regime, x, rng)), "seeds": trials})


def _species(regime, x, rng):
    score = np.column_stack([1.5 * x[:, 0], np.where(regime, 2.0, -2.0), np.zeros(len(x))])
    names = np.array(["adelie", "chinstrap", "gentoo"])
    return pd.Series(names[(score + rng.gumbel(size=score.shape)).argmax(axis=1)], name="species")


def _yes_no(regime, x, rng):
    return pd.Series(np.where(rng.uniform(size=len(x)) < _chance(regime, x, rng), "yes", "no"), name="answer")


COMBINATIONS: dict[str, Combination] = {
    # every family
    "gaussian, polynomial": Combination(_numbers, {"expert": "polynomial_basis", "expert_options": {"degree": 2}}),
    "student_t": Combination(_tailed, {"family": "student_t", "n_starts": 1}),
    "student_t without a mean": Combination(_heavy, {"family": "student_t", "family_options": {"df": 1.0}}, 2),
    "laplace": Combination(_numbers, {"family": "laplace"}, 2),
    "gamma": Combination(_positive, {"family": "gamma"}),
    "poisson": Combination(_counts, {"family": "poisson"}),
    "poisson with an offset": Combination(_counts, {"family": "poisson", "gate_features": [0]}, 2, offset=True),
    "negative_binomial": Combination(_overdispersed, {"family": "negative_binomial", "gate_features": []}),
    "binomial": Combination(_successes, {"family": "binomial", "family_options": {"trials": 8}}),
    "binomial, trials by row": Combination(_of_trials, {"family": "binomial"}),
    "bernoulli": Combination(_zero_or_one, {"family": "bernoulli", "expert": "constant"}),
    "categorical": Combination(_species, {"gate_ridge": 0.5}, 2, classifier=True),
    "categorical of two": Combination(_yes_no, {"gate_ridge": 0.5}, classifier=True),
    "multivariate_gaussian": Combination(_columns, {"family": "multivariate_gaussian"}, 2),
    # every gate
    "modified_softmax": Combination(_numbers, {"gate": "modified_softmax"}),
    "dense_to_sparse": Combination(_numbers, {"gate": "dense_to_sparse"}),
    "activation_dense_to_sparse": Combination(_numbers, {"gate": "activation_dense_to_sparse"}, 2),
    "cosine": Combination(_numbers, {"gate": "cosine"}, 2),
    "perturbed_cosine": Combination(_numbers, {"gate": "perturbed_cosine", "n_starts": 1, "max_iter": 15}, 2),
    "sigmoid": Combination(_numbers, {"gate": "sigmoid"}),
    "laplace gate": Combination(_numbers, {"gate": "laplace"}),
    "gaussian gate": Combination(_numbers, {"gate": "gaussian"}, 2),
    "gaussian gate, conditional": Combination(_numbers, {"gate": "gaussian", "gate_options": {"joint": False}}),
    "quadratic": Combination(_numbers, {"gate": "quadratic"}, 2),
    "hierarchical": Combination(_numbers, {"gate": "hierarchical", "n_experts": 3, "n_starts": 1, "max_iter": 20}, 2),
    "top_k": Combination(
        _numbers, {"gate": "top_k", "n_experts": 3, "gate_options": {"n_active": 2}, "n_starts": 1, "max_iter": 10}, 2
    ),
    "top_k of one": Combination(_numbers, {"gate": "top_k", "gate_options": {"n_active": 1, "select_on": "logit"}}),
    # least squares
    "least squares": Combination(_numbers, {"objective": "least_squares"}, 2),
    "least squares, unnormalised": Combination(
        _numbers,
        {"objective": "least_squares", "gate": "sigmoid", "gate_options": {"normalised": False}, "gate_ridge": 0.01},
    ),
    "least squares, network": Combination(
        _numbers,
        {
            "objective": "least_squares",
            "expert": "feed_forward",
            "expert_options": {"hidden": 2, "activation": "tanh", "output_bias": True},
            "expert_ridge": 0.01,
            "n_starts": 1,
            "max_iter": 10,
        },
    ),
    "least squares, counts": Combination(_counts, {"objective": "least_squares", "family": "poisson"}),
    "least squares, two columns": Combination(
        _columns, {"objective": "least_squares", "family": "multivariate_gaussian"}
    ),
    "least squares, one expert": Combination(_numbers, {"objective": "least_squares", "n_experts": 1}, 2),
}


@dataclass(frozen=True)
class Case:
    """A fitted combination and its rows."""

    estimator: GatedEstimator
    X: pd.DataFrame
    y: Any
    offset: np.ndarray | None

    @property
    def evidence(self) -> Evidence:
        """What a report would draw."""
        return Evidence.collect(self.estimator, self.X, self.y, offset=self.offset)

    @property
    def more(self) -> dict[str, Any]:
        """What a report is given beside the rows."""
        return {} if self.offset is None else {"offset": self.offset}


def fitted(name: str) -> Case:
    """The combination of that name, fitted to a few rows."""
    chosen = COMBINATIONS[name]
    rng = np.random.default_rng(7)
    x = rng.uniform(-2.0, 2.0, size=(_ROWS, chosen.n_features))
    regime = rng.uniform(size=_ROWS) < 1.0 / (1.0 + np.exp(-2.0 * x.sum(axis=1)))
    X = pd.DataFrame(x, columns=["height", "weight"][: chosen.n_features])
    y = chosen.target(regime, x, rng)
    offset = np.log(rng.uniform(0.5, 2.0, size=_ROWS)) if chosen.offset else None
    options = {"n_starts": 2, "random_state": 0, "max_iter": 40} | chosen.options
    estimator = GatedClassifier(**options) if chosen.classifier else GatedRegressor(**options)
    with warnings.catch_warnings():
        # What these fits warn of is what the page must be able to show.
        warnings.simplefilter("ignore", FitWarning)
        estimator.fit(X, y, **({} if offset is None else {"offset": offset}))
    return Case(estimator, X, y, offset)
