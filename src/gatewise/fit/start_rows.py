"""What the strategies of a start look at: columns in canonical order, and the residual of a working regression.

All of it is computed from columns in the order of their contents and rounded to 10 decimals. So a permutation of the
user's columns does not change a bit of it, and neither it nor one of the rows breaks a tie.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gatewise.families import Family
from gatewise.fit.column_order import canonical_order, standard_column
from gatewise.fit.rows import FitRows
from gatewise.fit.standardisation import Standardisation
from gatewise.ops.linalg import weighted_least_squares

__all__ = ["StartRows", "rows_of_one_regression", "working_start_rows"]

_DECIMALS = 10
# A residual below this share of the target's deviation is rounding.
_EXACT = 1e-10


@dataclass(frozen=True)
class StartRows:
    """What the strategies of a start look at, in units and an order of columns in which the user's no longer matter.

    Attributes:
        n_experts: k.
        residual: residual of the one-expert fit over its standard deviation (n,).
        covariates: standardised (d, n), in canonical order.
        design: a row of ones and what the experts are linear in, (p, n), in canonical order.
        weight: (n,).
        kept: which of the caller's rows these are, a mask.
        sort_keys: arrays (n,) that tell rows of different content apart.
        columns: the places of the experts' columns in canonical order, the first one's first.
        gate_columns: the same of the gate's.
        is_discrete: whether targets are counts or classes.
    """

    n_experts: int
    residual: np.ndarray
    covariates: np.ndarray
    design: np.ndarray
    weight: np.ndarray
    kept: np.ndarray
    sort_keys: tuple[np.ndarray, ...]
    columns: np.ndarray
    gate_columns: np.ndarray
    is_discrete: bool = False

    @property
    def n_rows(self) -> int:
        """Rows with a positive weight."""
        return len(self.weight)

    @cached_property
    def total_weight(self) -> float:
        """Σ w."""
        return float(self.weight.sum())

    @cached_property
    def sorted_rows(self) -> np.ndarray:
        """Row numbers in an order that depends on the rows' content only, so that draws do not depend on theirs."""
        return np.lexsort(self.sort_keys)

    @cached_property
    def content(self) -> np.ndarray:
        """For each row the number of its content in that order (n,): rows of the same content have the same one."""
        keys = np.vstack(self.sort_keys)[:, self.sorted_rows]
        number = np.empty(self.n_rows, dtype=int)
        number[self.sorted_rows] = np.cumsum([0, *(keys[:, 1:] != keys[:, :-1]).any(axis=0)])
        return number


def working_start_rows(
    family: Family, rows: FitRows, n_experts: int, constant_experts: bool = False, with_gate: bool = True
) -> StartRows:
    """Standardised covariates and one residual for each row.

    Args:
        family: of the targets.
        rows: in the user's units.
        n_experts: k.
        constant_experts: whether the working regression has an intercept only.
        with_gate: whether the gate's covariates that the experts do not have are among those that strategies look at.
    """
    weight = rows.weight
    own = [column + 0.0 for column in rows.x.T]
    gate = [column + 0.0 for column in rows.gate_x.T]
    place = {column.tobytes(): number for number, column in reversed(list(enumerate(own)))}
    gate_only = [column for column in gate if column.tobytes() not in place]
    place |= {column.tobytes(): len(own) + number for number, column in reversed(list(enumerate(gate_only)))}
    gate_places = [place[column.tobytes()] for column in gate]
    shared = set(gate_places)
    kinds = [0 if number in shared else 1 for number in range(len(own))] + [2] * len(gate_only)
    columns = [standard_column(column, weight) for column in [*own, *gate_only]]
    numbers = _numbers(family, rows)
    contents = [standard_column(column, weight) for column in numbers.T]
    if rows.offset is not None:
        contents.append(standard_column(rows.offset, weight))
    order = canonical_order(columns, kinds, contents, weight)
    rank = np.argsort(order)
    table = np.array([np.ones(len(weight)), *(columns[column] for column in order)])
    design = table[: 1 if constant_experts else 1 + len(own)]
    residual = _residual(numbers, design, weight)
    return StartRows(
        n_experts=n_experts,
        residual=residual,
        covariates=table[1:] if with_gate else table[1 : 1 + len(own)],
        design=design,
        weight=weight,
        kept=rows.kept,
        sort_keys=(*table[1:], *contents[numbers.shape[1] :], residual),
        columns=np.argsort(rank[: len(own)], kind="stable"),
        gate_columns=np.argsort(rank[gate_places], kind="stable"),
        is_discrete=family.is_discrete,
    )


def rows_of_one_regression(rows: FitRows) -> StartRows:
    """For one expert that is linear in its parameters: all start at the same point, and no order matters."""
    weight = rows.weight
    return StartRows(
        n_experts=1,
        residual=np.zeros(len(weight)),
        covariates=np.empty((0, len(weight))),
        design=np.ones((1, len(weight))),
        weight=weight,
        kept=rows.kept,
        sort_keys=(np.zeros(len(weight)),),
        columns=np.arange(rows.x.shape[1]),
        gate_columns=np.arange(rows.gate_x.shape[1]),
    )


def _residual(columns: np.ndarray, design: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One number per row that tells targets apart: the standardised residual of a working regression.

    Of a target with several numbers, or of several classes, the first principal component of the residuals.
    """
    centre = Standardisation.of(columns, weight)
    spread = columns - centre.mean
    slopes = [weighted_least_squares(design, np.ascontiguousarray(column), weight) for column in spread.T]
    residual = spread - design.T @ np.array(slopes).T
    if float(weight @ (residual**2).sum(axis=1)) <= _EXACT**2 * float(weight @ (spread**2).sum(axis=1)):
        # The regression explains every row: what it leaves is rounding.
        residual = spread
    if residual.shape[1] > 1:
        _, vectors = np.linalg.eigh((residual.T * weight) @ residual)
        residual = residual @ vectors[:, -1:]
    size = math.sqrt(float(weight @ residual[:, 0] ** 2) / float(weight.sum()))
    return np.round(residual[:, 0] / size if size > 0.0 else residual[:, 0], _DECIMALS)


def _numbers(family: Family, rows: FitRows) -> np.ndarray:
    """Targets as columns of numbers for a working regression: classes as indicators, counts by their logarithms."""
    y, offset = rows.y, rows.offset
    if family.n_unordered is not None:
        return np.eye(int(y.max()) + 1)[y.astype(int)]
    if family.event_size and family.is_discrete:
        return ((y[:, 0] + 0.5) / (y[:, 1] + 1.0))[:, None]
    if family.log_link:
        rate = y if offset is None else y * np.exp(rows.weight @ offset / rows.weight.sum() - offset)
        return np.log(rate + (0.5 if family.is_discrete else 0.0))[:, None]
    return y.reshape(len(y), -1)
