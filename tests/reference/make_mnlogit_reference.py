"""Writes mnlogit.json: multinomial logistic regressions by statsmodels, for the one-expert categorical model.

Usage: python make_mnlogit_reference.py (needs numpy and statsmodels, which the library itself does not use).
Coefficients are turned to those of the classes 0, …, C − 2 against the last class, intercept first.
"""

import json
import platform
from pathlib import Path

import numpy as np
import scipy
import statsmodels
from statsmodels.discrete.discrete_model import MNLogit


def simulated(seed, n, coefficients, make_columns):
    """Rounded columns (n, d) and class codes (n,) from a multinomial logistic model."""
    generator = np.random.default_rng(seed)
    x = make_columns(generator, n).round(3)
    logits = np.column_stack([np.ones(n), x]) @ np.column_stack([coefficients, np.zeros(len(coefficients))])
    return x, (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)


def reference(x, y):
    """Log-likelihood, coefficients (C − 1, 1 + d) and standard errors by Newton's method."""
    last = int(y.max())
    design = np.column_stack([np.ones(len(y)), x])
    # statsmodels takes the first class as the base: number the classes backwards.
    fit = MNLogit(last - y, design).fit(method="newton", tol=1e-13, maxiter=100, disp=False)
    gradient = fit.model.score(fit.params.ravel(order="F"))
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "loglik": float(fit.llf),
        "coefficients": fit.params[:, ::-1].T.tolist(),
        "standard_errors": fit.bse[:, ::-1].T.tolist(),
        "largest_gradient": float(np.abs(gradient).max()),
    }


if __name__ == "__main__":

    def normal(generator, n):
        return generator.normal(size=(n, 2)) * [1.0, 3.0] + [0.0, 10.0]

    def square(generator, n):
        column = generator.uniform(-2.0, 2.0, size=n)
        return np.column_stack([column, column**2])

    cases = {
        "three classes, two features": simulated(1, 300, np.array([[-2.0, 1.0], [1.0, -0.5], [0.2, -0.1]]), normal),
        "four classes, a quadratic": simulated(
            2, 400, np.array([[0.5, 0.0, -0.5], [1.0, -1.0, 0.5], [-0.5, 0.5, 0.3]]), square
        ),
        "two classes": simulated(3, 150, np.array([[0.3], [1.2], [-0.1]]), normal),
    }
    found = {
        "about": "Multinomial logistic regressions by statsmodels MNLogit, Newton's method with tol 1e-13.",
        "tolerance": {"loglik": 1e-10, "coefficients": 1e-7, "standard_errors": 1e-6},
        "versions": {
            "statsmodels": statsmodels.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "python": platform.python_version(),
        },
        "fits": {name: reference(*table) for name, table in cases.items()},
    }
    path = Path(__file__).with_name("mnlogit.json")
    path.write_text(json.dumps(found, indent=None) + "\n", encoding="utf-8")
    for name, fit in found["fits"].items():
        print(name, fit["loglik"], fit["coefficients"], fit["largest_gradient"], np.bincount(fit["y"]))
