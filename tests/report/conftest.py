"""Fits that several tests of the report share; each is small and made once."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from gatewise import datasets
from gatewise.estimators import GatedRegressor
from gatewise.exceptions import SeparationWarning
from gatewise.report import Evidence
from tests.report.combinations import Case, fitted

_HOSTILE = "</script><script>alert(1)</script>"
_LABEL = "<b onclick='alert(2)'>x</b> %{y} & <a href=\"https://example.org\">z</a>"


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator and the rows it was fitted to."""

    estimator: GatedRegressor
    X: pd.DataFrame
    y: pd.Series

    @property
    def evidence(self) -> Evidence:
        return Evidence.collect(self.estimator, self.X, self.y)


def _fit(X: pd.DataFrame, y: pd.Series, **options: object) -> Fitted:
    estimator = GatedRegressor(**{"n_starts": 5, "random_state": 0} | options)
    return Fitted(estimator.fit(X, y), X, y)


def _shipped(name: str) -> tuple[pd.DataFrame, pd.Series]:
    data = datasets.load(name)
    return data.frame[list(data.features)], data.frame[data.target]


@pytest.fixture(scope="package")
def tone() -> Fitted:
    """One feature, which the gate sees too."""
    return _fit(*_shipped("tone"), n_starts="auto")


@pytest.fixture(scope="package")
def npreg() -> Fitted:
    """Two features, x and x², with several distinct optima."""
    frame = datasets.load("npreg").frame
    return _fit(pd.DataFrame({"x": frame["x"], "x squared": frame["x"] ** 2}), frame["yn"], n_starts=20)


@pytest.fixture(scope="package")
def co2() -> Fitted:
    """Constant weights."""
    return _fit(*_shipped("co2"), gate_features=[], n_starts=20)


@pytest.fixture(scope="package")
def temperature() -> Fitted:
    """A gate that separates, so that its coefficients have no standard errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeparationWarning)
        return _fit(*_shipped("temperature"))


@pytest.fixture(scope="package")
def constant_experts() -> Fitted:
    """Three experts that do not look at the feature."""
    return _fit(*_shipped("tone"), expert="constant", n_experts=3)


@pytest.fixture(scope="package")
def one_expert() -> Fitted:
    """Ordinary least squares: no gate, no responsibilities."""
    return _fit(*_shipped("tone"), n_experts=1)


@pytest.fixture(scope="package")
def hostile() -> Fitted:
    """Names of columns and target that would run as scripts or as plotly's markup if they were not escaped."""
    generator = np.random.default_rng(3)
    X = pd.DataFrame(generator.uniform(size=(120, 2)), columns=[_HOSTILE, _LABEL])
    first = generator.uniform(size=120) < 0.5
    y = np.where(first, 3.0 * X[_HOSTILE], 1.0 - 2.0 * X[_LABEL]) + 0.1 * generator.normal(size=120)
    return _fit(X, pd.Series(y, name="<img src=x onerror=alert(3)>"))


@pytest.fixture(scope="package")
def case() -> Callable[[str], Case]:
    """The combination of a name, fitted once for all tests that ask for it."""
    found: dict[str, Case] = {}

    def of(name: str) -> Case:
        if name not in found:
            found[name] = fitted(name)
        return found[name]

    return of
