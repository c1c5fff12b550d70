"""A problem as a function of some entries of θ, in an order of its own."""

import numpy as np

from gatewise.fit.monitor import Monitor
from gatewise.fit.problem import Problem

__all__ = ["EntriesMonitor", "SomeEntries"]


class SomeEntries:
    """The objective as a function of some entries of θ, in any order, the others held."""

    def __init__(self, problem: Problem, theta: np.ndarray, entries: np.ndarray) -> None:
        self.problem = problem
        self.theta = theta
        self.entries = entries
        self.block = np.ix_(entries, entries)
        self.bounds = problem.bounds.some(entries)

    def whole(self, part: np.ndarray) -> np.ndarray:
        """θ with these entries."""
        theta = self.theta.copy()
        theta[self.entries] = part
        return theta

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean objective and its gradient by the entries."""
        value, gradient = self.problem.value_and_gradient(self.whole(theta))
        return value, gradient[self.entries]

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian by the entries, curved downward along symmetries."""
        return self.problem.hessian(self.whole(theta))[self.block]

    def exact_hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian by the entries."""
        return self.problem.exact_hessian(self.whole(theta))[self.block]

    def bend(self, theta: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """A Hessian by the entries, curved downward along symmetries."""
        full = np.zeros((self.problem.size, self.problem.size))
        full[self.block] = hessian
        return self.problem.bend(self.whole(theta), full)[self.block]

    def information_at_kink(self, theta: np.ndarray) -> np.ndarray:
        """The mean outer product of the scores by the entries."""
        return self.problem.information_at_kink(self.whole(theta))[self.block]


class EntriesMonitor(Monitor):
    """Tells another monitor of whole vectors θ."""

    def __init__(self, monitor: Monitor, some: SomeEntries) -> None:
        super().__init__(monitor.max_iter)
        self.monitor = monitor
        self.some = some

    def begin(self, theta: np.ndarray, value: float) -> None:
        """Nothing new: the other monitor knows the point."""

    def iterate(self, theta: np.ndarray, value: float) -> None:
        """Note one iterate."""
        self.monitor.iterate(self.some.whole(theta), value)

    def check(self) -> None:
        """Look at the clock and at the user."""
        self.monitor.check()
