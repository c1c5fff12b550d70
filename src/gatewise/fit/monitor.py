"""What watches a solver: counts, the best point so far, the clock, and why it stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gatewise.fit.interrupt import never
from gatewise.fit.status import FitStatus

__all__ = ["Monitor", "SolverStopped"]


class SolverStopped(Exception):
    """Raised by the monitor to end a solver; carries the status."""

    def __init__(self, status: FitStatus) -> None:
        super().__init__(status.sentence)
        self.status = status


@dataclass
class Monitor:
    """Owns the caps, the finiteness check and the best-so-far of one start; every solver reports each iterate to it.

    Attributes:
        max_iter: iterations allowed.
        deadline: `time.monotonic()` value at which to stop, or None.
        interrupted: whether the user asked to stop.
        n_iterations: iterations seen.
        trace: the mean objective at each of them.
        best: θ with the largest mean objective seen, or None before the first iterate.
        best_value: its objective.
    """

    max_iter: int
    deadline: float | None = None
    interrupted: Callable[[], bool] = never
    n_iterations: int = 0
    trace: list[float] = field(default_factory=list)
    best: np.ndarray | None = None
    best_value: float = -np.inf

    def begin(self, theta: np.ndarray, value: float) -> None:
        """Note the starting point; an EM start does not count as an iteration."""
        self._note(theta, value)
        self.check()

    def iterate(self, theta: np.ndarray, value: float) -> None:
        """Note one iterate.

        Raises:
            SolverStopped: with MAX_ITER, TIME_LIMIT or INTERRUPTED.
        """
        self.n_iterations += 1
        self._note(theta, value)
        self.check()
        if self.n_iterations >= self.max_iter:
            raise SolverStopped(FitStatus.MAX_ITER)

    def _note(self, theta: np.ndarray, value: float) -> None:
        self.trace.append(value)
        if np.isfinite(value) and value >= self.best_value:
            self.best, self.best_value = theta.copy(), value

    def check(self) -> None:
        """Look at the clock and at the user.

        Raises:
            SolverStopped: with TIME_LIMIT or INTERRUPTED.
        """
        if self.interrupted():
            raise SolverStopped(FitStatus.INTERRUPTED)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise SolverStopped(FitStatus.TIME_LIMIT)
