"""The infimum of a loss over a translation of any number of coordinates, with the cells of every translation."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from gatewise.theory.voronoi.kernel import Problem, cells_at, line_minimum, parts, still_values, total
from gatewise.theory.voronoi.smooth import Halfspaces, fixed_cells_minimum

__all__ = ["Minimum", "minimum"]

_MOST_ASSIGNMENTS = 20_000
_STARTS = 4
_ROUNDS = 20
_INSIDE = 0.01


@dataclass(frozen=True)
class Minimum:
    """The least loss and where.

    Attributes:
        value: the loss.
        t: the translation (T,).
        labels: the cell of each atom (k,).
        exact: whether all cells that some translation makes were considered; otherwise only those that are reached from
            several starts.
    """

    value: float
    t: np.ndarray
    labels: np.ndarray
    exact: bool


def minimum(problem: Problem) -> Minimum:
    """The infimum over t ∈ R^T.

    With T = 0 there is nothing to search, and with T = 1 `line_minimum` is exact. Otherwise every assignment of atoms
    to cells has a convex loss, and the translations that make this assignment are a polyhedron. Starts at all
    differences of atoms, with cells computed anew until they stay, give an upper bound. Then all k*^k assignments are
    gone through that could be lower, if there are at most 20,000: first a bound without the terms that t moves, then
    the minimum over all t, which counts if t makes these cells, then the minimum over the polyhedron.
    """
    moves = problem.offset.shape[2]
    if moves == 0 or not problem.moved:
        labels = cells_at(problem, np.zeros(moves))
        if moves == 1:
            value, t, labels = line_minimum(problem)
            return Minimum(value, np.array([t]), labels, True)
        if moves == 0:
            return Minimum(total(problem, *parts(problem, labels, np.zeros(0)))[0], np.zeros(0), labels, True)
        value, t = fixed_cells_minimum(problem, labels)
        return Minimum(value, t, labels, True)
    if moves == 1:
        value, t, labels = line_minimum(problem)
        return Minimum(value, np.array([t]), labels, True)
    return _Search(problem).run()


class _Search:
    """The search for T > 1, which remembers the minimum over all t of every assignment that it has solved."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.k, self.true_k = problem.distance.shape
        self.solved: dict[bytes, tuple[float, np.ndarray]] = {}
        self.best = Minimum(np.inf, np.zeros(problem.offset.shape[2]), np.zeros(self.k, np.int64), False)

    def run(self) -> Minimum:
        self._from_starts()
        exact = self.true_k**self.k <= _MOST_ASSIGNMENTS
        if exact:
            self._through_all()
        return Minimum(self.best.value, self.best.t, self.best.labels, exact)

    def _unconstrained(self, labels: np.ndarray) -> tuple[float, np.ndarray]:
        key = labels.tobytes()
        if key not in self.solved:
            self.solved[key] = fixed_cells_minimum(self.problem, labels)
        return self.solved[key]

    def _consider(self, t: np.ndarray) -> np.ndarray:
        """The cells of t; their loss at t counts."""
        labels = cells_at(self.problem, t)
        value = total(self.problem, *parts(self.problem, labels, t))[0]
        if value < self.best.value:
            self.best = Minimum(value, t, labels, False)
        return labels

    def _from_starts(self) -> None:
        starts = [np.zeros(self.problem.offset.shape[2]), *self.problem.offset.reshape(self.k * self.true_k, -1)]
        rated: dict[bytes, tuple[float, np.ndarray]] = {}
        for t in starts:
            labels = self._consider(t)
            value = total(self.problem, *parts(self.problem, labels, t))[0]
            key = labels.tobytes()
            if key not in rated or value < rated[key][0]:
                rated[key] = (value, labels)
        for _, start in sorted(rated.values(), key=lambda pair: pair[0])[:_STARTS]:
            labels = start
            for _ in range(_ROUNDS):
                again = self._consider(self._unconstrained(labels)[1])
                if np.array_equal(again, labels):
                    break
                labels = again

    def _through_all(self) -> None:
        assignments = np.ascontiguousarray(np.indices((self.true_k,) * self.k).reshape(self.k, -1).T)
        bounds = still_values(self.problem, assignments)
        for place in np.argsort(bounds, kind="stable"):
            if bounds[place] >= self.best.value:
                break
            labels = assignments[place]
            value, t = self._unconstrained(labels)
            # Equal up to the solver's own error: nothing to be gained.
            if value >= self.best.value * (1.0 - 1e-12):
                continue
            if np.array_equal(cells_at(self.problem, t), labels):
                self.best = Minimum(value, t, labels, False)
                continue
            halfspaces = self._halfspaces(labels, t)
            if halfspaces is not None:
                value, t = fixed_cells_minimum(self.problem, labels, halfspaces)
                if value < self.best.value:
                    self.best = Minimum(value, t, labels, False)

    def _halfspaces(self, labels: np.ndarray, towards: np.ndarray) -> Halfspaces | None:
        """The translations that make these cells, with one near a given one outside; None if there are only ties."""
        problem = self.problem
        distance = problem.distance + (problem.offset**2).sum(2)
        tightest: dict[tuple[int, int], tuple[float, np.ndarray]] = {}
        for i, j in enumerate(labels):
            for m in range(self.true_k):
                if m == j:
                    continue
                level = distance[i, m] - distance[i, j]
                normal = -2.0 * (problem.offset[i, j] - problem.offset[i, m])
                if (int(j), m) not in tightest or level < tightest[int(j), m][0]:
                    tightest[int(j), m] = (level, normal)
        level = np.array([pair[0] for pair in tightest.values()])
        normal = np.array([pair[1] for pair in tightest.values()])
        length = np.linalg.norm(normal, axis=1)
        if (level[length == 0.0] < 0.0).any():
            return None
        level, normal = level[length > 0.0] / length[length > 0.0], normal[length > 0.0] / length[length > 0.0, None]
        # The variables are t, how far it is inside, and how far from the given one: as near as can be, but inside.
        n, size = normal.shape[1], 1.0 + float(np.abs(problem.offset).max())
        ones, near = np.ones((len(level), 1)), np.ones((n, 1))
        eye, zeros = np.eye(n), np.zeros((n, 1))
        found = linprog(
            np.r_[np.zeros(n), -1e3, 1.0],
            A_ub=np.block([[normal, ones, 0.0 * ones], [eye, zeros, -near], [-eye, zeros, -near]]),
            b_ub=np.r_[level, towards, -towards],
            bounds=[*[(None, None)] * n, (None, _INSIDE * size), (0.0, None)],
        )
        if found.status != 0 or found.x[n] <= 1e-11 * size:
            return None
        return Halfspaces(normal, level, found.x[:n])
