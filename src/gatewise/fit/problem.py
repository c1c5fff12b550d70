"""What a solver and a verdict need to know of a fit: a function of θ to be maximised, and what θ means."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch

from gatewise.fit.bounds import Bounds
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.names import Names
from gatewise.fit.result import Baseline, BoundaryInterval
from gatewise.fit.spreads import FloorEntry, RelativeSpread
from gatewise.model import MixtureOfExperts

__all__ = ["Ascendable", "Problem", "StartRows"]

_COMPARED_ROWS = 256
# How near to its bound a logarithm of a spread is on it.
_ON_FLOOR = 1e-9


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


class Ascendable(Protocol):
    """What a solver climbs: a function of θ with its derivatives and bounds."""

    bounds: Bounds

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The value and the gradient."""
        ...

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian, or what stands for it."""
        ...


class Problem(ABC):
    """θ ↦ the mean objective over the rows, to be maximised, with what a start, a solver and a verdict ask of it.

    θ is in internal units; its first entries are the gate's.

    Attributes:
        prototype: the model whose parameters are sought.
        size: the length of θ.
        n_gate: how many of its entries are the gate's.
        n_rows: rows with a positive weight.
        total_weight: Σ w.
        bounds: of θ, from the floors of the spreads.
        n_evaluations: passes over the data so far.
        baseline: the one-expert fit.
        scale_floor: the smallest spread of an expert, as a share of that of the one-expert fit.
        floor_entries: the entries of θ that this bounds.
        row_need: rows an expert needs for its own parameters and two more; with fewer it is tight.
        is_smooth: whether the objective has two derivatives wherever a solver may stand.
        may_have_kinks: whether a smooth solver that stalls may have met a kink, which gradient sampling would tell.
        unit: user units of y per internal unit of a scale, 1 where there is none.
        cheap_hessian_size: above this many parameters a Hessian costs more than the gradients it saves, until close to
            the maximum.
        runs_in_threads: whether copies of this problem can climb in threads at the same time, and nearly all time is
            spent where Python's lock is not held: then a worker needs neither imports nor data of its own.
        kind: "likelihood" or "least_squares".
    """

    prototype: MixtureOfExperts
    size: int
    n_gate: int
    n_rows: int
    total_weight: float
    bounds: Bounds
    n_evaluations: int = 0
    baseline: Baseline
    scale_floor: float
    floor_entries: dict[int, FloorEntry]
    row_need: int
    is_smooth: bool = True
    may_have_kinks: bool = True
    unit: float = 1.0
    cheap_hessian_size: int = 600
    runs_in_threads: bool = False
    kind: str = "likelihood"

    @property
    def n_experts(self) -> int:
        """The number of experts."""
        return self.prototype.n_experts

    @property
    def is_one_regression(self) -> bool:
        """Whether there is one expert, linear in its parameters: then there is one maximum, and nothing to search."""
        experts = self.prototype.experts
        return self.n_experts == 1 and experts.basis(torch.zeros(1, experts.n_features).double()) is not None

    @property
    def is_saturated(self) -> bool:
        """Whether there are fewer rows than parameters."""
        return self.n_rows < self.size

    @property
    @abstractmethod
    def coordinates(self) -> Coordinates:
        """What θ means to the user."""

    @abstractmethod
    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean objective and its gradient."""

    @abstractmethod
    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of the mean objective, for a solver."""

    @abstractmethod
    def information(self, theta: np.ndarray) -> np.ndarray:
        """The information per unit of weight: the negative Hessian, or what stands for it where there is none."""

    @property
    def selection_entries(self) -> np.ndarray:
        """Entries of θ that act only through which experts a row keeps, so that nothing has a derivative by them."""
        return np.empty(0, dtype=int)

    def boundary(self, theta: np.ndarray) -> tuple[BoundaryInterval, ...] | None:
        """How far each coefficient of a gate that selects experts can move until a row changes its own; else None."""
        return None

    def information_at_kink(self, theta: np.ndarray) -> np.ndarray:
        """What stands for the information where the objective has a kink, and its Hessian leaves the kink out."""
        return self.information(theta)

    def curvature_matrix(self, theta: np.ndarray, information: np.ndarray) -> np.ndarray:
        """Per unit of weight what must be positive at a maximum: the information, unless that cannot be otherwise."""
        return information

    def expert_directions(self, theta: np.ndarray, information: np.ndarray) -> dict[int, np.ndarray]:
        """For each expert that separates, a direction of its own parameters along which the objective does not fall."""
        return {}

    @abstractmethod
    def log_likelihood(self, theta: np.ndarray) -> float:
        """The log-likelihood, without priors, in the user's units; NaN for least squares."""

    @abstractmethod
    def objective(self, theta: np.ndarray) -> float:
        """The sum that is maximised, with priors, in the user's units."""

    @abstractmethod
    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """P(expert | row) (k, n)."""

    @property
    @abstractmethod
    def start_rows(self) -> StartRows:
        """What the strategies look at."""

    @property
    @abstractmethod
    def weight(self) -> np.ndarray:
        """Row weights (n,)."""

    @abstractmethod
    def begin(self, responsibilities: np.ndarray, index: int, seed: int) -> np.ndarray:
        """θ from the responsibilities (k, n) of start number `index`: an M-step."""

    @abstractmethod
    def locate(self, model: MixtureOfExperts) -> np.ndarray:
        """θ of a model of the same parts: the inverse of `build_model`, up to symmetries.

        Raises:
            InputError: the model's numbers are in other units than those that this problem's models store.
        """

    def improve(self, theta: np.ndarray, steps: int, check: Callable[[], None]) -> np.ndarray:
        """θ after some EM steps, where they are closed; `check` may raise to end them."""
        return theta

    def settled(self, theta: np.ndarray) -> np.ndarray:
        """An equivalent θ whose numbers have not drifted along a symmetry; θ itself where there is none to prefer."""
        return theta

    @abstractmethod
    def canonical_order(self, theta: np.ndarray, key: np.ndarray | None = None) -> np.ndarray:
        """θ with experts by mean responsibility, or by a key (k,), largest first, as far as the gate allows."""

    @abstractmethod
    def build_model(self, theta: np.ndarray) -> MixtureOfExperts:
        """A copy of the prototype, in float64 on the CPU, with the user-unit parameters of θ."""

    @abstractmethod
    def relative_scales(self, theta: np.ndarray) -> np.ndarray | None:
        """σ (k,) over the one-expert residual scale, or None if the family has no scale."""

    @abstractmethod
    def relative_spreads(self, theta: np.ndarray) -> tuple[RelativeSpread, ...]:
        """What of each expert could shrink without end, over that of the one-expert fit; empty where nothing can."""

    @abstractmethod
    def with_floor(self, scale_floor: float) -> Self:
        """The same problem with another floor under the spreads."""

    def floored(self, theta: np.ndarray) -> tuple[int, ...]:
        """Experts with a spread on the floor."""
        return tuple(sorted({i for known in self.entries_on_floor(theta).values() for i in known.experts}))

    def entries_on_floor(self, theta: np.ndarray) -> dict[int, FloorEntry]:
        """The entries of θ that the floor holds."""
        held = self.bounds.held(theta, _ON_FLOOR)
        return {entry: known for entry, known in self.floor_entries.items() if held[entry]}

    @cached_property
    def compared_rows(self) -> np.ndarray:
        """Numbers of up to 256 rows, spread over all of them as sorted by their contents."""
        order = self.start_rows.sorted_rows
        places = np.linspace(0, len(order) - 1, min(len(order), _COMPARED_ROWS)).round().astype(int)
        return np.sort(order[places])

    @abstractmethod
    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What the mixture says of some rows, in internal units: log-densities (rows,), or fitted means (rows, e)."""

    @abstractmethod
    def gate_direction(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        """A direction of θ, with entries for the gate only, in which the gate separates, or None."""

    def score_gram(self, theta: np.ndarray) -> np.ndarray | None:
        """Σ w s sᵀ of the rows' scores, (size, size), where it is wanted for standard errors."""
        return None

    def residual_variance(self, theta: np.ndarray) -> float | None:
        """The factor that makes the inverse information a covariance, for least squares."""
        return None

    @property
    @abstractmethod
    def names(self) -> Names:
        """What the columns are called."""

    def symmetry_tangents(self, theta: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """For each declared continuous symmetry what it does, and the directions (·, size) in which it moves θ."""
        return []
