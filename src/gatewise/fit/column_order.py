"""The columns of a table in an order that their contents give, so that a start does not depend on their places.

Two columns are told apart by their joint distribution with the rows' fixed contents, as its characteristic function at
one frequency, E exp(i (u z + s)), gives it; s is a signature of the row. Columns that agree there, as 0/1 columns with
equal counts may, are told apart by refinement: the signatures take in all columns with the ranks known so far, and
the columns are compared again (the colour refinement of graphs, Weisfeiler and Leman 1968, on rows and columns). Of
columns that it leaves tied one is put first, by its place, and refinement goes on; columns that can be exchanged
without changing the table up to the order of its rows are such, and of them any order is as good.

Averages are over the rows with their weights, and rounded, so that they depend neither on the rows' order nor on
whether rows are repeated or weighted.
"""

from collections.abc import Sequence

import numpy as np

from gatewise.fit.standardisation import Standardisation

__all__ = ["canonical_order", "standard_column"]

# Standardised values are rounded to so many decimals, averages to one fewer: what sums in another order leave alone.
_DECIMALS = 10
_FREQUENCY = 1.2360679774997898
_GOLDEN = 0.6180339887498949


def standard_column(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A column (n,) centred, over its standard deviation, and rounded to 10 decimals, whatever stands beside it."""
    column = np.array(values, dtype=float)[:, None]
    return np.round(Standardisation.of(column, weight).design(column)[1], _DECIMALS)


def canonical_order(
    columns: Sequence[np.ndarray], kinds: Sequence[int], contents: Sequence[np.ndarray], weight: np.ndarray
) -> np.ndarray:
    """The order of standard columns: by kind, and within one by what they contain.

    Args:
        columns: d arrays (n,) from `standard_column`.
        kinds: d numbers.
        contents: arrays (n,) of what else the rows contain, whose order is fixed.
        weight: (n,).

    Returns:
        The places (d,) of the columns, the first one's first.

    Example:
        >>> one, other = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
        >>> target, weight = np.array([0.3, -0.2, -1.2, 1.1]), np.ones(4)
        >>> orders = [canonical_order(pair, [0, 0], [target], weight) for pair in ([one, other], [other, one])]
        >>> [order.tolist() for order in orders]
        [[1, 0], [0, 1]]
    """
    if len(columns) < 2:
        return np.arange(len(columns))
    share = weight / weight.sum()
    own = np.zeros(len(weight))
    for number, content in enumerate(contents):
        own = own + (1.0 + number * _GOLDEN % 1.0) * content
    rank = np.unique(kinds, return_inverse=True)[1]
    while True:
        signature = np.round(own + _signature(columns, rank), _DECIMALS - 1)
        angles = [_FREQUENCY * column + signature for column in columns]
        averages = np.array([[share @ np.cos(angle), share @ np.sin(angle)] for angle in angles])
        # Adding 0 makes −0 and 0 the same number, which sorting would tell apart.
        keys = np.column_stack([rank, np.round(averages, _DECIMALS - 1) + 0.0])
        refined = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        if refined.max() + 1 == len(columns):
            return np.argsort(refined)
        if refined.max() == rank.max():
            first = np.flatnonzero(refined == np.flatnonzero(np.bincount(refined) > 1)[0])[0]
            refined = refined + (refined >= refined[first])
            refined[first] -= 1
        rank = refined


def _signature(columns: Sequence[np.ndarray], rank: np.ndarray) -> np.ndarray:
    """For each row a number that depends on its values in the columns of each rank, and not on the order of these."""
    total = np.zeros(len(columns[0]))
    for place in np.argsort(rank, kind="stable"):
        frequency = 1.0 + float(rank[place] + 1) * _GOLDEN % 1.0
        total = total + np.sin(frequency * columns[place] + rank[place])
    return total
