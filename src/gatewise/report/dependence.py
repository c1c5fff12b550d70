"""Columns that no row can move alone: powers and products of others, and indicators of one category."""

from collections.abc import Sequence

import numpy as np

__all__ = ["dependences"]

_ROWS = 300
_MOST_COLUMNS = 60
_DEGREE = 4
_ROUNDING = 1e-7
# So many rows would have two independent indicators together if chance alone decided: none is then no chance.
_EXPECTED = 5.0


def dependences(inputs: np.ndarray, names: Sequence[str]) -> dict[int, list[str]]:
    """For each column what ties it to others, in words; columns that can move alone are not there.

    A column is a function of another if it is a polynomial of it, to rounding, of degree four at most (powers, centred
    powers, multiples), and made of two others if it is their product, up to a bilinear function. Indicators that no row
    has together, though chance would have put them so, are those of one category. With more than 60 columns nothing is
    looked for.

    Args:
        inputs: (n, d).
        names: of the columns.

    Example:
        >>> x = np.linspace(-1.0, 2.0, 20)
        >>> dependences(np.column_stack([x, x**2, np.cos(9.0 * x)]), ["x", "x²", "other"])
        {0: ['x² is a function of x'], 1: ['x² is a function of x']}
    """
    found: dict[int, list[str]] = {}
    n, d = inputs.shape
    if not 2 <= d <= _MOST_COLUMNS or n < 2 * _DEGREE:
        return found
    chosen = np.linspace(0, n - 1, min(n, _ROWS)).astype(int)
    columns = inputs[chosen] - inputs[chosen].mean(axis=0)
    lengths = np.abs(columns).max(axis=0)
    moving = lengths > 0.0
    columns = columns / np.where(moving, lengths, 1.0)

    def tie(members: tuple[int, ...], sentence: str) -> None:
        for member in members:
            found.setdefault(member, []).append(sentence)

    explained: dict[int, set[int]] = {column: set() for column in range(d)}
    for base in np.flatnonzero(moving).tolist():
        powers = columns[:, [base]] ** np.arange(_DEGREE + 1)
        for column in _within(powers, columns, moving):
            if column != base and base not in explained[column] and column not in explained[base]:
                explained[column].add(base)
                tie((base, column), f"{names[column]} is a function of {names[base]}")
    for first, second in _pairs(np.flatnonzero(moving).tolist()):
        a, b = columns[:, first], columns[:, second]
        known = explained[first] | explained[second] | {first, second}
        for column in _within(np.column_stack([np.ones(len(a)), a, b, a * b]), columns, moving):
            if column not in known and not explained[column] & {first, second}:
                tie((first, second, column), f"{names[column]} is made of {names[first]} and {names[second]}")
    for block in _categories(inputs, moving):
        tie(tuple(block), f"no row has two of {', '.join(names[column] for column in block)}")
    return found


def _pairs(columns: list[int]) -> list[tuple[int, int]]:
    return [(first, second) for place, first in enumerate(columns) for second in columns[place + 1 :]]


def _within(basis: np.ndarray, columns: np.ndarray, moving: np.ndarray) -> list[int]:
    """The columns that a basis spans, to rounding."""
    directions, sizes, _ = np.linalg.svd(basis, full_matrices=False)
    directions = directions[:, sizes > 1e-10 * sizes[0]]
    left = columns - directions @ (directions.T @ columns)
    # A basis of as many functions as rows spans everything.
    if directions.shape[1] >= len(columns) // 2:
        return []
    return np.flatnonzero(moving & (np.abs(left).max(axis=0) <= _ROUNDING)).tolist()


def _categories(inputs: np.ndarray, moving: np.ndarray) -> list[list[int]]:
    """Groups of columns with two values each, of which no row has the larger one twice."""
    blocks: list[list[int]] = []
    on = {
        column: inputs[:, column] == inputs[:, column].max()
        for column in np.flatnonzero(moving).tolist()
        if len(np.unique(inputs[:, column])) == 2
    }
    for column, rows in on.items():
        home = next((block for block in blocks if all(_exclude(rows, on[other]) for other in block)), None)
        if home is None:
            blocks.append([column])
        else:
            home.append(column)
    return [block for block in blocks if len(block) > 1]


def _exclude(first: np.ndarray, second: np.ndarray) -> bool:
    return not (first & second).any() and first.mean() * second.sum() >= _EXPECTED
