"""What watches a solver: counts, the best point so far, the clock, and why it stopped."""

import time
from dataclasses import dataclass, field

import numpy as np

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
        n_iterations: iterations seen.
        trace: the mean objective at each of them.
        best: θ with the largest mean objective seen, or None before the first iterate.
        best_value: its objective.
    """

    max_iter: int
    deadline: float | None = None
    n_iterations: int = 0
    trace: list[float] = field(default_factory=list)
    best: np.ndarray | None = None
    best_value: float = -np.inf

    def begin(self, theta: np.ndarray, value: float) -> None:
        """Note the starting point; an EM start does not count as an iteration."""
        self._note(theta, value)
        self._check_clock()

    def iterate(self, theta: np.ndarray, value: float) -> None:
        """Note one iterate.

        Raises:
            SolverStopped: with MAX_ITER or TIME_LIMIT.
        """
        self.n_iterations += 1
        self._note(theta, value)
        self._check_clock()
        if self.n_iterations >= self.max_iter:
            raise SolverStopped(FitStatus.MAX_ITER)

    def _note(self, theta: np.ndarray, value: float) -> None:
        self.trace.append(value)
        if np.isfinite(value) and value >= self.best_value:
            self.best, self.best_value = theta.copy(), value

    def _check_clock(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise SolverStopped(FitStatus.TIME_LIMIT)
