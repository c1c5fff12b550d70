"""What the strategies of a start look at."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["StartRows"]


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
