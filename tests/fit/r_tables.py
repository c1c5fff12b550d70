"""Two tables of R's MASS as columns of zeros and ones, with models whose likelihood has many maxima."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gatewise import MixtureOfExperts

__all__ = ["RTable", "dummies", "insurance", "quine"]

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class RTable:
    """A model, its rows, and the best log-likelihood that is known.

    Attributes:
        model: the prototype.
        x: the experts' columns (n, d).
        gate_x: the gate's columns (n, d) or (n, 0).
        y: counts (n,).
        offset: (n,) or None.
        best: of more than 1,000 starts.
    """

    model: MixtureOfExperts
    x: np.ndarray
    gate_x: np.ndarray
    y: np.ndarray
    offset: np.ndarray | None
    best: float


def dummies(name, columns, target):
    """0/1 columns for all levels but the first of each factor, and the target, of MASS::Insurance or MASS::quine."""
    with (DATA / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    levels = [(column, level) for column in columns for level in sorted({row[column] for row in rows})[1:]]
    x = np.array([[float(row[column] == level) for column, level in levels] for row in rows])
    return x, np.array([float(row[target]) for row in rows]), rows


def insurance() -> RTable:
    """Claims by group of cars and age, constant weights, log of the holders as offset."""
    x, claims, rows = dummies("insurance", ["Group", "Age"], "Claims")
    model = MixtureOfExperts.build("softmax", "linear", "poisson", x.shape[1], 2, n_gate_features=0)
    offset = np.log([float(row["Holders"]) for row in rows])
    return RTable(model, x, x[:, :0], claims, offset, -188.10078140)


def quine() -> RTable:
    """Days absent from school by everything else, which the gate sees too."""
    x, days, _ = dummies("quine", ["Eth", "Sex", "Age", "Lrn"], "Days")
    return RTable(
        MixtureOfExperts.build("softmax", "linear", "poisson", x.shape[1], 2), x, x, days, None, -629.40254074
    )
