"""Draws where the starts of a search end: `python docs/pictures/search.py` writes search.svg beside this file."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from draw import INK, MUTED, plt, save

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import GatewiseWarning
from gatewise.fit import STRATEGIES
from gatewise.report.search import optimum_colour

TABLE = Path(__file__).parents[2] / "tests" / "fit" / "data" / "insurance.csv"


def searched(n_starts):
    """The fit of the insurance data with so many starts."""
    table = pd.read_csv(TABLE)
    X = pd.get_dummies(table[["Group", "Age"]], drop_first=True, dtype=float)
    regressor = GatedRegressor(2, family="poisson", gate_features=[], n_starts=n_starts, random_state=0)
    regressor.fit(X, table["Claims"], offset=np.log(table["Holders"]))
    return regressor.result_


def search():
    result = searched(200)
    used = {start.strategy for start in result.starts}
    names = [*STRATEGIES, *sorted(used - set(STRATEGIES), reverse=True)]
    generator = np.random.default_rng(0)
    figure, axes = plt.subplots(figsize=(8.4, 4.4))
    for start in result.starts:
        axes.plot(
            start.log_likelihood,
            len(names) - 1 - names.index(start.strategy) + generator.uniform(-0.28, 0.28),
            marker="o",
            ms=5.5,
            mec="white",
            mew=0.5,
            color=optimum_colour(start.optimum),
        )
    axes.axvline(result.log_likelihood, color=INK, lw=0.8, ls=":", zorder=0)
    axes.axhline(len(names) - len(STRATEGIES) - 0.5, color=MUTED, lw=0.8)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in reversed(names)])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("log-likelihood where the start ended")
    save(figure, "search")


if __name__ == "__main__":
    warnings.simplefilter("ignore", GatewiseWarning)
    search()
